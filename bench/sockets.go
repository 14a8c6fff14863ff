package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"
)

const (
	// startTime is how long a way may take to come up.
	startTime = 30 * time.Second
	// pause is what every way has before the clock starts, pairs or not: longer
	// than new pairs settle, and than what was started needs to be at rest.
	pause = 150 * time.Millisecond
)

// sockets is what the ends of connections do in one world.
type sockets struct {
	short    bool
	target   target
	clients  map[string]*end // by the program that they run as
	ways     map[string]*running
	expected map[string]*expected // of the ways that a daemon can be asked about
}

// socketContest starts the ways, and makes sure of each that bytes go over it,
// unchanged, and that it is the way it is called. Ways that cannot be had, or turn
// out not to be, are returned beside it. ways replace those of ours if the baseline is among
// them; else they come in addition.
func socketContest(ctx context.Context, w *world, extra []way, short bool) (*contest, []Absent, error) {
	baseline := Sockets.Baseline()
	all := extra
	if !slices.ContainsFunc(extra, func(x way) bool { return x.name == baseline }) {
		all = append(ways(), extra...)
	}
	s, err := newSockets(ctx, w, short)
	if err != nil {
		return nil, nil, err
	}
	c := &contest{group: Sockets, layout: w.layout}
	var absent []Absent
	for _, x := range all {
		err := s.enter(ctx, w, x)
		switch {
		case ctx.Err() != nil:
			return nil, absent, context.Cause(ctx)
		case err == nil:
			c.entrants = append(c.entrants, entrant{x.name, s.ways[x.name].pids})
		case x.name == baseline:
			return nil, absent, fmt.Errorf("the way %q, with which the others are compared: %w", x.name, err)
		default:
			absent = append(absent, Absent{w.layout, Sockets, x.name, err.Error()})
		}
	}
	c.works = s.works(c)
	return c, absent, nil
}

// newSockets starts the two ends: one node, and a client by each name.
func newSockets(ctx context.Context, w *world, short bool) (*sockets, error) {
	s := &sockets{short: short, clients: make(map[string]*end), ways: make(map[string]*running), expected: make(map[string]*expected)}
	w.sockets = s
	node, err := w.end(hostSide, beam)
	if err != nil {
		return nil, err
	}
	port, err := w.freePort(hostSide)
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(w.address(hostSide), port)
	listen := at
	if w.layout == Veth {
		// The daemon may take another address of the host than clients do.
		listen = netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	}
	s.target = target{tcp: at, unix: filepath.Join(w.dir, fmt.Sprintf("node-%d", port)), end: node}
	startCtx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if _, err := node.ask(startCtx, request{Operation: doListen, Address: listen, Path: s.target.unix}); err != nil {
		return nil, fmt.Errorf("starting the node: %w", err)
	}
	for _, program := range []string{"", beam} {
		if s.clients[program], err = w.end(clientSide, program); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// expect notes which way the connections of a way of ours have to take.
func (w *world) expect(name string, x *expected) { w.sockets.expected[name] = x }

// enter starts a way and proves it. Of one that takes no part nothing goes on.
func (s *sockets) enter(ctx context.Context, w *world, x way) (err error) {
	mark := w.mark()
	defer func() {
		if err != nil {
			delete(s.ways, x.name)
			delete(s.expected, x.name)
			w.stopSince(mark)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("not there within %v", startTime))
	defer cancel()
	up, err := x.start(ctx, w, s.target)
	if err != nil {
		return err
	}
	s.ways[x.name] = up
	return s.prove(ctx, x.name)
}

// prove makes sure that a way is the one that it is called, and is fit to be
// measured.
func (s *sockets) prove(ctx context.Context, name string) error {
	if _, err := s.turn(ctx, name, 1, header{Kind: bulk, Direction: bothWays, Size: chunk, Count: 1<<20 + 1}, false); err != nil {
		return fmt.Errorf("trying it: %w", err)
	}
	// One message at a time, so that each fits behind the one before.
	if _, err := s.turn(ctx, name, 1, header{Kind: trips, Size: 64, Count: 200}, true); err != nil {
		return fmt.Errorf("trying it: %w", err)
	}
	return nil
}

// turn does something over fresh connections of a way. Where a daemon can be asked,
// it has to say that they take the way that is meant; with proof also that what was
// said went that way.
func (s *sockets) turn(ctx context.Context, name string, connections int, h header, proof bool) (_ answer, err error) {
	h.Poll = connections <= pollingMost
	x, client := s.expected[name], s.clients[s.ways[name].client]
	clients, err := s.open(ctx, name, connections, h)
	if err != nil {
		return answer{}, err
	}
	defer func() {
		_, closeErr := client.ask(ctx, request{Operation: doClose})
		err = errors.Join(err, closeErr)
	}()
	if err := sleep(ctx, pause); err != nil {
		return answer{}, err
	}
	begins(ctx)
	done, err := client.ask(ctx, request{Operation: doRun})
	if err != nil || x == nil || !proof {
		return done, err
	}
	why, err := x.look(ctx, clients, x.went)
	if err == nil && why != "" {
		err = fmt.Errorf("a connection did not take the way that is meant: %s", why)
	}
	return done, err
}

// open opens connections, and returns the clients' addresses. On a machine that has
// too much to do, the daemon may not find the ends of a connection in the time that
// it has. This says nothing about the way, so there are some tries.
func (s *sockets) open(ctx context.Context, name string, connections int, h header) ([]netip.AddrPort, error) {
	const tries = 4
	up := s.ways[name]
	ask := request{Operation: doOpen, Route: up.route, Connections: connections, Header: h}
	for try := 1; ; try++ {
		opened, err := s.clients[up.client].ask(ctx, ask)
		if err != nil {
			err = fmt.Errorf("connecting: %w", err)
		} else if x := s.expected[name]; x != nil {
			err = x.settled(ctx, opened.Addresses)
		}
		if err == nil || try == tries || ctx.Err() != nil {
			return opened.Addresses, err
		}
		if err := sleep(ctx, time.Duration(try)*pause); err != nil {
			return nil, err
		}
	}
}

// sleep sleeps, unless the context ends before.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
