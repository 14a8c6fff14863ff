package door

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"oneport/endpoint"
	"oneport/epmd"
)

// errNodeClosed says that a node is about to be unregistered.
var errNodeClosed = errors.New("the node has closed the connection that registered it")

// owner returns the node's end of the connection that registered it.
func owner(reg *epmd.Registration) (endpoint.Record, error) {
	s, err := endpoint.Look(reg.Peer, reg.Local)
	if err == nil && s.Inode == 0 {
		// Its last descriptor is closed, and with it went its user: the
		// kernel says 0, which is root.
		return endpoint.Record{}, errNodeClosed
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
	o.uids[reg] = s.UID
	return s.UID, nil
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
	listener, err := endpoint.Look(addr, netip.AddrPort{})
	if err == nil && listener.UID != uid {
		return fmt.Errorf("port %d belongs to uid %d, the node to uid %d", addr.Port(), listener.UID, uid)
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
			infos[i].UID = int64(s.UID)
			inodes[s.Inode] = &infos[i]
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
