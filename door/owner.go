package door

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"oneport/epmd"
)

// socket is what the kernel tells of a TCP socket of this network namespace.
type socket struct {
	uid   uint32
	inode uint32
	state uint8 // TCP_ESTABLISHED and so on, linux/tcp_states.h
	info  unix.TCPInfo
}

// tcpListen is TCP_LISTEN of linux/tcp_states.h.
const tcpListen = 10

// findSocket asks the kernel by netlink (sock_diag(7)) for exactly the socket
// with these ends; with a zero remote, for the one that listens on local. It is
// one look-up in the kernel's hash table, not a walk over all sockets, which is
// why netlink.SocketGet, a dump, is not used. The error is unix.ENOENT if there is
// none.
func findSocket(local, remote netip.AddrPort) (socket, error) {
	msgs, err := diagnose(nl.SOCK_DIAG_BY_FAMILY, 0, local, remote)
	if err != nil {
		return socket{}, err
	}
	const size = 72 // struct inet_diag_msg
	if len(msgs) != 1 || len(msgs[0]) < size {
		return socket{}, errors.New("no answer of the kernel's socket diagnosis")
	}
	m := msgs[0]
	if m[1] == tcpListen && remote.IsValid() {
		return socket{}, unix.ENOENT // the kernel found no connection, and took who listens there
	}
	s := socket{state: m[1], uid: binary.NativeEndian.Uint32(m[64:]), inode: binary.NativeEndian.Uint32(m[68:])}
	attrs, err := nl.ParseRouteAttr(m[size:])
	if err != nil {
		return socket{}, fmt.Errorf("reading the kernel's socket diagnosis: %w", err)
	}
	for _, a := range attrs {
		if a.Attr.Type == netlink.INET_DIAG_INFO {
			// As much of struct tcp_info as both the kernel and we know.
			copy((*[unsafe.Sizeof(s.info)]byte)(unsafe.Pointer(&s.info))[:], a.Value)
		}
	}
	return s, nil
}

// destroySocket resets a connection, whoever has it. The kernel needs
// CONFIG_INET_DIAG_DESTROY, and the caller CAP_NET_ADMIN.
func destroySocket(local, remote netip.AddrPort) error {
	_, err := diagnose(nl.SOCK_DESTROY, unix.NLM_F_ACK, local, remote)
	return err
}

// diagnose makes one request for the socket with these ends.
//
// The netlink package receives into 64 KiB on the stack, which a goroutine keeps
// as long as it lives, and that of a relayed connection lives long: so it is
// asked from one of its own. The answer is the kernel's and comes at once.
func diagnose(request, flags int, local, remote netip.AddrPort) (msgs [][]byte, err error) {
	// struct inet_diag_req_v2, linux/inet_diag.h
	b := make([]byte, 56)
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	if local.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	b[2] = 1 << (netlink.INET_DIAG_INFO - 1)
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff) // any state
	binary.BigEndian.PutUint16(b[8:], local.Port())
	binary.BigEndian.PutUint16(b[10:], remote.Port())
	copy(b[12:28], local.Addr().AsSlice())
	if remote.IsValid() {
		copy(b[28:44], remote.Addr().AsSlice())
	}
	binary.NativeEndian.PutUint32(b[48:], nl.TCPDIAG_NOCOOKIE)
	binary.NativeEndian.PutUint32(b[52:], nl.TCPDIAG_NOCOOKIE)

	r := nl.NewNetlinkRequest(request, flags)
	r.AddRawData(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		msgs, err = r.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	}()
	<-done
	return msgs, err
}

// errNodeClosed says that a node is about to be unregistered.
var errNodeClosed = errors.New("the node has closed the connection that registered it")

// owner returns the node's end of the connection that registered it.
func owner(reg *epmd.Registration) (socket, error) {
	s, err := findSocket(reg.Peer, reg.Local)
	if err == nil && s.inode == 0 {
		// Its last descriptor is closed, and with it went its user: the
		// kernel says 0, which is root.
		return socket{}, errNodeClosed
	}
	return s, err
}

// owners are the users who registered the nodes. The kernel is asked once for
// each registration: the user of a socket is the one who made it, and the
// socket is the registration's as long as that lasts. The zero value is empty.
type owners struct {
	mu       sync.Mutex
	uids     map[*epmd.Registration]uint32
	forgetAt int // number of users at which those of gone nodes are looked for
}

// of returns the user who registered a node.
func (o *owners) of(reg *epmd.Registration) (uint32, error) {
	o.mu.Lock()
	uid, ok := o.uids[reg]
	o.mu.Unlock()
	if ok {
		return uid, nil
	}
	s, err := owner(reg)
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.uids == nil {
		o.uids, o.forgetAt = make(map[*epmd.Registration]uint32), minForget
	}
	if len(o.uids) >= o.forgetAt {
		maps.DeleteFunc(o.uids, func(reg *epmd.Registration, _ uint32) bool { return isGone(reg) })
		o.forgetAt = max(minForget, 2*len(o.uids))
	}
	o.uids[reg] = s.uid
	return s.uid, nil
}

func isGone(reg *epmd.Registration) bool {
	select {
	case <-reg.Gone():
		return true
	default:
		return false
	}
}

// checkPort makes sure that what listens on a node's port belongs to the user
// who registered the node. Otherwise anyone on this host could register a name
// for a port that is not theirs, and open a service that is meant for this
// host alone to everyone who reaches the door.
//
// A kernel without sock_diag cannot tell, and nothing is refused then.
func (d *Door) checkPort(reg *epmd.Registration, addr netip.AddrPort) error {
	uid, err := d.owners.of(reg)
	switch {
	case errors.Is(err, errNodeClosed):
		return err
	case err != nil || uid == 0:
		return nil
	}
	listener, err := findSocket(addr, netip.AddrPort{})
	if err == nil && listener.uid != uid {
		return fmt.Errorf("port %d belongs to uid %d, the node to uid %d", addr.Port(), listener.uid, uid)
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
