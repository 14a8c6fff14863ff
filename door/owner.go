package door

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"oneport/epmd"
)

// socket is what the kernel tells of a TCP socket of this network namespace.
type socket struct {
	uid   uint32
	inode uint32
}

// findSocket asks the kernel by netlink (sock_diag(7)) for exactly the socket
// with these ends; with a zero remote, for the one that listens on local. It is
// one look-up in the kernel's hash table, not a walk over all sockets, which is
// why netlink.SocketGet, a dump, is not used.
//
// The netlink package receives into 64 KiB on the stack, which a goroutine keeps
// as long as it lives, and that of a relayed connection lives long: so it is
// asked from one of its own. The answer is the kernel's and comes at once.
func findSocket(local, remote netip.AddrPort) (s socket, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, err = diagnose(local, remote)
	}()
	<-done
	return s, err
}

func diagnose(local, remote netip.AddrPort) (socket, error) {
	// struct inet_diag_req_v2, linux/inet_diag.h
	req := make([]byte, 56)
	family := byte(unix.AF_INET)
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	req[0], req[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[4:], 0xffffffff) // any state
	binary.BigEndian.PutUint16(req[8:], local.Port())
	binary.BigEndian.PutUint16(req[10:], remote.Port())
	copy(req[12:28], local.Addr().AsSlice())
	if remote.IsValid() {
		copy(req[28:44], remote.Addr().AsSlice())
	}
	binary.NativeEndian.PutUint32(req[48:], nl.TCPDIAG_NOCOOKIE)
	binary.NativeEndian.PutUint32(req[52:], nl.TCPDIAG_NOCOOKIE)

	r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	r.AddRawData(req)
	msgs, err := r.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return socket{}, err
	}
	const size = 72 // struct inet_diag_msg
	if len(msgs) != 1 || len(msgs[0]) < size {
		return socket{}, errors.New("no answer of the kernel's socket diagnosis")
	}
	return socket{uid: binary.NativeEndian.Uint32(msgs[0][64:]), inode: binary.NativeEndian.Uint32(msgs[0][68:])}, nil
}

// owner returns the node's end of the connection that registered it.
func owner(reg *epmd.Registration) (socket, error) { return findSocket(reg.Peer, reg.Local) }

// checkPort makes sure that what listens on a node's port belongs to the user
// who registered the node. Otherwise anyone on this host could register a name
// for a port that is not theirs, and open a service that is meant for this
// host alone to everyone who reaches the door.
//
// A kernel without sock_diag cannot tell, and nothing is refused then.
func checkPort(reg *epmd.Registration, addr netip.AddrPort) error {
	node, err := owner(reg)
	if err != nil || node.uid == 0 {
		return nil
	}
	listener, err := findSocket(addr, netip.AddrPort{})
	if err == nil && listener.uid != node.uid {
		return fmt.Errorf("port %d belongs to uid %d, the node to uid %d", addr.Port(), listener.uid, node.uid)
	}
	return nil
}

// NodeInfo is a registered node as the control socket gives it out.
type NodeInfo struct {
	Name     string  `json:"name"`
	Port     uint16  `json:"port"`
	Hidden   bool    `json:"hidden"`
	Highest  uint16  `json:"highest"`
	Lowest   uint16  `json:"lowest"`
	Creation uint32  `json:"creation"`
	UID      int64   `json:"uid"` // -1 if unknown
	PID      int     `json:"pid"` // 0 if unknown
	AgeS     float64 `json:"age_s"`
}

// Nodes returns the registered nodes, newest first.
func (d *Door) Nodes() []NodeInfo {
	regs := d.registry.All()
	infos := make([]NodeInfo, len(regs))
	inodes := make(map[uint32]*NodeInfo, len(regs))
	for i, reg := range regs {
		infos[i] = NodeInfo{
			Name: reg.Name, Port: reg.Port, Hidden: reg.Type == epmd.Hidden, Highest: reg.Highest, Lowest: reg.Lowest,
			Creation: reg.Creation, UID: -1, AgeS: age(reg.Since),
		}
		if s, err := owner(reg); err == nil {
			infos[i].UID = int64(s.uid)
			inodes[s.inode] = &infos[i]
		}
	}
	findProcesses(inodes)
	return infos
}

// findProcesses walks /proc once and fills in who holds the sockets.
func findProcesses(inodes map[uint32]*NodeInfo) {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is valid
	for _, link := range links {
		if len(inodes) == 0 {
			return
		}
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, "socket:[") {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(target[len("socket:["):], "]"), 10, 32)
		if err != nil {
			continue
		}
		if info := inodes[uint32(n)]; info != nil {
			info.PID, _ = strconv.Atoi(strings.Split(link, "/")[2])
			delete(inodes, uint32(n))
		}
	}
}
