package loader

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"oneport/bpf"
)

// Kind is between whom a pair's messages go.
type Kind uint32

const (
	// Direct pairs the two ends of one connection.
	Direct = Kind(bpf.ShortcutKindDIRECT)
	// Through pairs a client's and a node's socket, with a relay between them.
	Through = Kind(bpf.ShortcutKindTHROUGH)
	// Outward joins a node's socket to that of the daemon towards a client
	// elsewhere.
	Outward = Kind(bpf.ShortcutKindOUTWARD)
)

func (k Kind) String() string {
	switch k {
	case Direct:
		return "direct"
	case Through:
		return "through"
	case Outward:
		return "outward"
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

// Relay is the long way between two connections: whoever moves bytes between
// Client and Node. It must add none and drop none, ever.
type Relay struct {
	// Client and Node are the relay's own two sockets, towards the client and
	// towards the node.
	Client, Node syscall.Conn
	// ToNode and ToClient are the numbers of bytes that the relay has taken
	// from one side (or from somebody, for it) and not yet written to the
	// other. They must not change during the call: the usual way is to call
	// before the relay starts, with ToNode the length of what was read too
	// much.
	ToNode, ToClient uint32
}

// Pair is two sockets, or in the kind Outward three, that are joined. It holds
// no descriptor of theirs: the sockets close when their owners close them, and
// the pair is gone then, with no need to call anything.
type Pair struct {
	loader  *Loader
	kind    Kind
	senders []uint64 // cookies of the sockets whose messages are seen
	targets []uint64 // cookies of those that may be given messages
	keepers []uint64 // targets that are no senders
}

// Pair joins the two ends of one connection of this host. The messages of each
// go straight to the other's receive side, past TCP.
//
// Both must be established TCP sockets, not MPTCP, with no TLS in the kernel,
// non-blocking, and each written by one thread at a time. The descriptors are not
// needed afterwards. TCP_NOTSENT_LOWAT is set on both where it is not yet. What has been paired already, by whom ever, is returned as
// it is. The errors are UnsuitableError, ErrNotPeers, ErrBusy, or the kernel's.
func (l *Loader) Pair(a, b syscall.Conn) (*Pair, error) {
	return l.join(Direct, func(j *joining) error {
		a, b := j.end(a, reads|writes), j.end(b, reads|writes)
		if err := j.look(); err != nil {
			return err
		}
		if !peers(a, b) {
			return ErrNotPeers
		}
		a.send(b, ingress, 0)
		b.send(a, ingress, 0)
		return nil
	})
}

// PairThrough joins a client's own socket and a node's own socket, both on this
// host, between whose connections a relay moves the bytes. Each one's messages
// go straight to the other's receive side, past two connections and the relay,
// which goes on to move what takes the long way.
//
// The same is asked of a and b, and the same errors are given, as with Pair. A
// pair that was taken out may be made again while the relay runs: the relation
// of its two connections is known then, and the numbers in r do not matter.
func (l *Loader) PairThrough(client, node syscall.Conn, r Relay) (*Pair, error) {
	return l.join(Through, func(j *joining) error {
		a, b := j.end(client, reads|writes), j.end(node, reads|writes)
		c, n := j.end(r.Client, 0), j.end(r.Node, 0)
		if err := j.look(); err != nil {
			return err
		}
		if !peers(a, c) || !peers(b, n) {
			return ErrNotPeers
		}
		a.send(b, ingress, n.seen.WriteSeq-(c.seen.CopiedSeq-r.ToNode))
		b.send(a, ingress, c.seen.WriteSeq-(n.seen.CopiedSeq-r.ToClient))
		return nil
	})
}

// PairOutward joins a node's own socket, on this host, to the relay's two sockets
// for a client elsewhere: the node's messages go straight to the send side of
// r.Client, and what the relay writes to r.Node goes straight to the node's
// receive side. The relay goes on to move everything from the client, and what
// takes the long way.
//
// Nobody but the relay and the shortcut may write to r.Client while the pair
// lives. Else as PairThrough.
func (l *Loader) PairOutward(node syscall.Conn, r Relay) (*Pair, error) {
	return l.join(Outward, func(j *joining) error {
		b, c, n := j.end(node, reads|writes), j.end(r.Client, 0), j.end(r.Node, writes)
		if err := j.look(); err != nil {
			return err
		}
		if !peers(b, n) {
			return ErrNotPeers
		}
		// The client's number counts short bytes too, also those of a pair
		// that these sockets were before.
		b.send(c, egress, c.seen.WriteSeq-(n.seen.CopiedSeq-r.ToClient)-uint32(b.seen.Counts.ShortBytes))
		n.send(b, ingress, 0)
		return nil
	})
}

// join makes a pair of what plan says, all of it or nothing.
func (l *Loader) join(kind Kind, plan func(*joining) error) (*Pair, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := &joining{loader: l, kind: kind}
	if err := plan(j); err != nil {
		return nil, fmt.Errorf("pairing: %w", err)
	}
	if err := j.install(); err != nil {
		return nil, fmt.Errorf("pairing: %w", err)
	}
	return j.pair(), nil
}

// Kind returns between whom the pair's messages go.
func (p *Pair) Kind() Kind { return p.kind }

// Cookies returns the SO_COOKIEs of the sockets whose messages may go the short
// way, by which List tells pairs apart.
func (p *Pair) Cookies() []uint64 { return append([]uint64(nil), p.senders...) }

// Disable shuts the short way: from now on every message goes the long way. What
// has gone the short way stays where it is, to be read. A pair that has gone with
// its sockets is no error.
func (p *Pair) Disable() error { return p.loader.shut(p.targets) }

// shut takes sockets out of targets.
func (l *Loader) shut(cookies []uint64) error {
	return discardKeys(l.objects.Targets, cookies)
}

func discardKeys(m *ebpf.Map, cookies []uint64) error {
	var errs []error
	for _, cookie := range cookies {
		if err := m.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("deleting from map of sockets: %w", err))
		}
	}
	return errors.Join(errs...)
}

// grace is how long a message may be on its way after the short way was shut:
// the kernel decides about it first and moves it afterwards, with no lock held
// between the two that could be waited for.
const grace = time.Second

// Remove disables the pair, waits until everything that has gone the short way
// has been read, and takes the sockets out of the maps, after which they cost
// nothing. It takes a second at least. If ctx is done first, the pair remains,
// disabled, and its sockets remain in the maps: safe, and slower than plain TCP.
func (p *Pair) Remove(ctx context.Context) error {
	if err := p.Disable(); err != nil {
		return err
	}
	for wait := grace; ; wait = grace / 5 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for a pair's reader: %w", context.Cause(ctx))
		case <-time.After(wait):
		}
		queued, err := p.queued()
		if err != nil {
			return err
		}
		if !queued {
			break
		}
	}
	return errors.Join(
		discardKeys(p.loader.objects.Senders, p.senders),
		discardKeys(p.loader.objects.Keepers, p.keepers),
	)
}

// queued tells whether bytes that came the short way wait for a reader.
func (p *Pair) queued() (queued bool, err error) {
	err = p.loader.each(p.loader.routed, func(e *bpf.ShortcutEndpoint) {
		for _, cookie := range p.senders {
			queued = queued || e.Cookie == cookie && e.Queued != 0
		}
	})
	return queued, err
}

// peers tells whether two sockets are the ends of one connection, by the
// numbers of the bytes that each has sent and the other has received. Addresses
// would not tell: between namespaces they may be translated.
//
// What has arrived is never less than what was known as acknowledged a look
// earlier, and never more than what has been written a look later. In between the
// connection may have moved on.
func peers(a, b *end) bool {
	within := func(from, to *end) bool {
		moved := to.seen.RcvNxt - to.before.RcvNxt
		return from.seen.WriteSeq-to.before.RcvNxt <= from.seen.WriteSeq-from.before.SndUna+moved
	}
	return a.cookie != b.cookie && within(a, b) && within(b, a)
}

// now is the time by the clock that the programs use.
func now() uint64 {
	var t unix.Timespec
	// It cannot fail for this clock.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return uint64(t.Nano())
}
