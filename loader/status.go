package loader

import (
	"fmt"
	"net/netip"

	"oneport/bpf"
)

// Counts is what became of the messages that one socket sent. All count messages
// but those that say bytes. A message is what one system call hands to the
// kernel, or a part of it of some hundred kilobytes.
type Counts struct {
	ShortMessages, ShortBytes uint64
	LongMessages, LongBytes   uint64
	// Long are the messages that went the long way by the reason.
	Long Reasons
}

// Reasons counts messages that went the long way.
type Reasons struct {
	Settling uint64 // the pair had just been made
	Closing  uint64 // one of the two no longer sends, or no longer receives
	Busy     uint64 // older bytes were still on the long way
	Full     uint64 // no room at the target
	Blocks   uint64 // the target's reader may block in the kernel
	Pressure uint64 // the kernel is short of memory for TCP
	Gone     uint64 // the target has closed, or the pair is disabled
}

// Way is one direction of a pair: from a socket to its target.
type Way struct {
	Cookie, Target uint64 // SO_COOKIE of the socket and of its target
	Local, Remote  netip.AddrPort
	Namespace      uint64 // inode of the socket's network namespace
	Egress         bool   // into the target's send side, not its receive side
	Open           bool   // false if disabled, or the target has closed
	Queued         bool   // bytes that came the short way to the socket are unread
	Counts         Counts
}

// Status is a pair as the kernel knows it.
type Status struct {
	Kind Kind
	Ways []Way // of one or both directions
}

// List returns the pairs whose sockets are held by anyone, also those made by another process
// that has pinned at the same place, and those that were taken out. It walks
// once over them, some microseconds each, and takes no lock.
func (l *Loader) List() ([]Status, error) {
	var ways []Way
	var kinds []Kind
	index := make(map[uint64]int)
	err := l.each(l.routed, func(e *bpf.ShortcutEndpoint) {
		index[e.Cookie] = len(ways)
		ways = append(ways, wayOf(e))
		kinds = append(kinds, Kind(e.Route.Kind))
	})
	if err != nil {
		return nil, err
	}
	var list []Status
	listed := make([]bool, len(ways))
	for i := range ways {
		if listed[i] {
			continue
		}
		s := Status{Kind: kinds[i]}
		// From i on to its target, and so on. Of an outward pair the way to
		// the node has to come first, since nobody's way leads to its socket.
		if kinds[i] == Outward && ways[i].Egress {
			continue
		}
		for at, ok := i, true; ok && !listed[at]; at, ok = index[ways[at].Target] {
			listed[at] = true
			ways[at].Open = l.has(l.objects.Targets, ways[at].Target)
			s.Ways = append(s.Ways, ways[at])
		}
		list = append(list, s)
	}
	// The ways of nodes whose relay has let go of its socket.
	for i := range ways {
		if !listed[i] {
			ways[i].Open = l.has(l.objects.Targets, ways[i].Target)
			list = append(list, Status{Kind: kinds[i], Ways: ways[i : i+1]})
		}
	}
	return list, nil
}

// Totals returns what became of all messages since the pins were made, or since
// Load if there are none: those of closed sockets as well, and of pairs that other
// processes have made. Messages of one CPU may be missing in it until the next call.
func (l *Loader) Totals() (map[Kind]Counts, error) {
	all := make(map[Kind]Counts)
	for _, kind := range []Kind{Direct, Through, Outward} {
		var each []bpf.ShortcutCounts // by CPU
		if err := l.objects.Totals.Lookup(kind, &each); err != nil {
			return nil, fmt.Errorf("reading the totals of the shortcut: %w", err)
		}
		var sum Counts
		for i := range each {
			sum = sum.Plus(countsOf(&each[i]))
		}
		all[kind] = sum
	}
	return all, nil
}

// Plus is the sum.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		ShortMessages: c.ShortMessages + d.ShortMessages, ShortBytes: c.ShortBytes + d.ShortBytes,
		LongMessages: c.LongMessages + d.LongMessages, LongBytes: c.LongBytes + d.LongBytes,
		Long: Reasons{
			Settling: c.Long.Settling + d.Long.Settling, Closing: c.Long.Closing + d.Long.Closing,
			Busy: c.Long.Busy + d.Long.Busy, Full: c.Long.Full + d.Long.Full, Blocks: c.Long.Blocks + d.Long.Blocks,
			Pressure: c.Long.Pressure + d.Long.Pressure, Gone: c.Long.Gone + d.Long.Gone,
		},
	}
}

// Status returns the state of one pair, or ErrGone. It costs as much as List.
func (p *Pair) Status() (Status, error) {
	list, err := p.loader.List()
	if err != nil {
		return Status{}, err
	}
	for _, s := range list {
		for _, w := range s.Ways {
			for _, cookie := range p.senders {
				if w.Cookie == cookie {
					return s, nil
				}
			}
		}
	}
	return Status{}, ErrGone
}

func wayOf(e *bpf.ShortcutEndpoint) Way {
	address := func(raw [16]byte, port uint16) netip.AddrPort {
		const afInet = 2 // of every architecture
		a := netip.AddrFrom16(raw).Unmap()
		if e.Family == afInet {
			a = netip.AddrFrom4([4]byte(raw[:4]))
		}
		return netip.AddrPortFrom(a, port)
	}
	return Way{
		Cookie:    e.Cookie,
		Target:    e.Route.TargetCookie,
		Local:     address(e.Local, e.LocalPort),
		Remote:    address(e.Remote, e.RemotePort),
		Namespace: e.Inode,
		Egress:    e.Route.Form == egress,
		Queued:    e.Queued != 0,
		Counts:    countsOf(&e.Counts),
	}
}

func countsOf(c *bpf.ShortcutCounts) Counts {
	return Counts{
		ShortMessages: c.ShortMessages, ShortBytes: c.ShortBytes,
		LongMessages: c.LongMessages, LongBytes: c.LongBytes,
		Long: Reasons{
			Settling: c.Settling, Closing: c.Closing, Busy: c.Busy, Full: c.Full,
			Blocks: c.Blocks, Pressure: c.Pressure, Gone: c.Gone,
		},
	}
}
