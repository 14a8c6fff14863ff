package shortcut

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"oneport/loader"
)

// Usage is what a connection's short way does.
type Usage struct {
	Kind string `json:"kind"` // of the pair: direct, through or outward
	// Open is false while it is taken out.
	Open bool `json:"open"`
	// ToNode and ToClient are the two directions, zero if it has not got one.
	ToNode   Traffic `json:"to_node"`
	ToClient Traffic `json:"to_client"`

	Client netip.AddrPort `json:"-"` // the ends of the connection; the daemon's, if it is relayed
	Node   netip.AddrPort `json:"-"`
}

// Traffic counts the messages of one direction, from when the pair was made. A
// message is what one system call hands to the kernel.
type Traffic struct {
	ShortMessages uint64  `json:"short_messages"`
	ShortBytes    uint64  `json:"short_bytes"`
	LongMessages  uint64  `json:"long_messages"`
	LongBytes     uint64  `json:"long_bytes"`
	Long          Reasons `json:"long"` // messages by the reason
}

// Reasons counts messages that went the long way, by the reason.
type Reasons struct {
	Settling uint64 `json:"settling"` // the pair had just been made
	Closing  uint64 `json:"closing"`  // one of the two no longer sends, or receives
	Busy     uint64 `json:"busy"`     // older bytes were still on the long way
	Full     uint64 `json:"full"`     // no room at the receiver
	Blocks   uint64 `json:"blocks"`   // the receiver may sleep in the kernel
	Pressure uint64 `json:"pressure"` // the kernel is short of memory for TCP
	Gone     uint64 `json:"gone"`     // the pair was being taken out
}

// String lists the reasons, the most frequent first.
func (r Reasons) String() string {
	list := []struct {
		name string
		n    uint64
	}{{"busy", r.Busy}, {"full", r.Full}, {"settling", r.Settling}, {"closing", r.Closing}, {"blocks", r.Blocks}, {"pressure", r.Pressure}, {"gone", r.Gone}}
	slices.SortStableFunc(list, func(a, b struct {
		name string
		n    uint64
	}) int {
		return cmp.Compare(b.n, a.n)
	})
	var parts []string
	for _, e := range list {
		if e.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", e.n, e.name))
		}
	}
	return strings.Join(parts, ", ")
}

// Share is the share of bytes that went the short way, of both directions, and
// false if there were none.
func (u Usage) Share() (share float64, ok bool) {
	short, long := u.ToNode.ShortBytes+u.ToClient.ShortBytes, u.ToNode.LongBytes+u.ToClient.LongBytes
	if short+long == 0 {
		return 0, false
	}
	return float64(short) / float64(short+long), true
}

// Long is why messages of both directions went the long way.
func (u Usage) Long() Reasons {
	a, b := u.ToNode.Long, u.ToClient.Long
	return Reasons{a.Settling + b.Settling, a.Closing + b.Closing, a.Busy + b.Busy, a.Full + b.Full, a.Blocks + b.Blocks, a.Pressure + b.Pressure, a.Gone + b.Gone}
}

// Totals returns what went short and long by kind, since the pins were made: of
// connections that have ended as well, and of earlier daemons'. It is nil if there
// is no short way at all.
func (s *Service) Totals() (map[string]Traffic, error) {
	if s.off != "" {
		return nil, nil
	}
	totals, err := s.loader.Totals()
	if err != nil {
		return nil, err
	}
	of := make(map[string]Traffic, len(totals))
	for kind, c := range totals {
		of[kind.String()] = traffic(c)
	}
	return of, nil
}

// Report returns what the short ways do: those of connections by their IDs, and
// the others, which an earlier daemon has made. Of these, isNode tells
// which end is the one that was connected to.
func (s *Service) Report(isNode func(netip.AddrPort) bool) (of map[uint64]Usage, others []Usage, err error) {
	of = make(map[uint64]Usage)
	if s.off != "" {
		return of, nil, nil
	}
	pairs, err := s.pairs()
	if err != nil {
		return of, nil, err
	}
	for l, ways := range pairs {
		if ways == nil {
			continue
		}
		s.mu.Lock()
		m := l.made
		s.mu.Unlock()
		u := Usage{Kind: m.kind.String(), Client: l.Peer, Node: l.Local}
		if l.ID == 0 && isNode(l.Peer) && !isNode(l.Local) {
			u.Client, u.Node = u.Node, u.Client
		}
		for _, w := range ways {
			u.Open = u.Open || w.Open
			u.add(w.Counts, m.node == w.Cookie || m.node == 0 && w.Local == u.Node)
		}
		if l.ID == 0 {
			others = append(others, u)
		} else {
			of[l.ID] = u
		}
	}
	return of, others, nil
}

// add enters what one of the two sockets has sent.
func (u *Usage) add(c loader.Counts, fromNode bool) {
	if fromNode {
		u.ToClient = traffic(c)
	} else {
		u.ToNode = traffic(c)
	}
}

func traffic(c loader.Counts) Traffic {
	return Traffic{c.ShortMessages, c.ShortBytes, c.LongMessages, c.LongBytes, Reasons(c.Long)}
}
