package door

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// minHold is how long a second question from one source waits for the first
	// to be followed by its connection; longer where the round trip is long.
	minHold = 300 * time.Millisecond
	maxHold = 2 * time.Second
	// leaseTTL is how long an answer is remembered: OTP gives up setting a
	// connection up after 7 s (kernel's net_setuptime).
	leaseTTL = 10 * time.Second
	// maxWaiting bounds the questions of one source that wait, maxSources the
	// sources that are remembered.
	maxWaiting = 1024
	maxSources = 1 << 16
)

var errTooManyQuestions = errors.New("too many clients behind one address ask for nodes at once")

// leases tells which node a stock client means.
//
// A stock client asks EPMD for a node's port, gets the door's own, and
// connects to it; its handshake names only itself. So the answer is remembered
// as a lease: the next handshake from the same source is for that node. While a
// lease is open, a question for another node from that source waits, until the
// connection has come or its hold time has passed; then the older lease is
// dropped, since its client has most likely gone away. What this cannot tell
// apart ends as a failed handshake: the two ends of a handshake check each
// other's names.
type leases struct {
	mu      sync.Mutex
	sources map[netip.Addr]*asking
}

// asking is what is known of one source.
type asking struct {
	node    string          // the node of the open leases
	open    int             // leases given and not taken
	waiting []chan struct{} // questions for another node, in order of arrival; woken when they may look again
	expiry  *time.Timer
}

// give waits until src may be told of node, and opens a lease.
func (l *leases) give(ctx context.Context, src netip.Addr, node string, hold time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, err := l.of(src)
	if err != nil {
		return err
	}
	defer a.wake()
	if len(a.waiting) > 0 || !a.clear(node) {
		if err := l.wait(ctx, a, node, hold); err != nil {
			return err
		}
	}
	a.node = node
	a.open++
	a.expiry.Reset(leaseTTL)
	return nil
}

// of returns what is known of src, and remembers it for a while.
func (l *leases) of(src netip.Addr) (*asking, error) {
	if l.sources == nil {
		l.sources = make(map[netip.Addr]*asking)
	}
	a := l.sources[src]
	if a == nil {
		if len(l.sources) >= maxSources {
			return nil, errTooManyQuestions
		}
		a = &asking{}
		a.expiry = time.AfterFunc(leaseTTL, func() { l.expire(src, a) })
		l.sources[src] = a
	}
	return a, nil
}

func (l *leases) expire(src netip.Addr, a *asking) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.open = 0; len(a.waiting) == 0 {
		delete(l.sources, src)
		return
	}
	a.wake()
	a.expiry.Reset(leaseTTL)
}

// clear says whether a lease for node would leave no doubt.
func (a *asking) clear(node string) bool { return a.open == 0 || a.node == node }

// wake lets the first question that waits look again.
func (a *asking) wake() {
	if len(a.waiting) > 0 {
		select {
		case a.waiting[0] <- struct{}{}:
		default:
		}
	}
}

// wait queues a question until it is the first and a lease for its node would
// be clear, or until it has been the first for its hold time; then the open
// lease is dropped. l.mu is released meanwhile.
func (l *leases) wait(ctx context.Context, a *asking, node string, hold time.Duration) error {
	if len(a.waiting) >= maxWaiting {
		return errTooManyQuestions
	}
	turn := make(chan struct{}, 1)
	a.waiting = append(a.waiting, turn)
	defer func() { a.waiting = slices.DeleteFunc(a.waiting, func(w chan struct{}) bool { return w == turn }) }()
	held := time.NewTimer(maxHold) // set right when the question is the first
	held.Stop()
	defer held.Stop()
	for first := false; ; {
		if a.waiting[0] == turn {
			if a.clear(node) {
				return nil
			}
			if !first {
				first = true
				held.Reset(hold)
			}
		}
		l.mu.Unlock()
		var expired bool
		select {
		case <-turn:
		case <-held.C:
			expired = true
		case <-ctx.Done():
		}
		l.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
		if expired {
			a.open = 0
			return nil
		}
	}
}

// take returns the node that a handshake from src is for.
func (l *leases) take(src netip.Addr) (node string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.sources[src]
	if a == nil || a.open == 0 {
		return "", false
	}
	if a.open--; a.open == 0 {
		a.wake()
	}
	return a.node, true
}
