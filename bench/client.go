package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oneport/upgrade"
)

// dialling is how many connections are opened at a time.
const dialling = 16

// maxOpen is how many connections an end opens.
const maxOpen = 100_000

// dialled is a connection that the client has opened.
type dialled struct {
	net.Conn
	header header
}

// dial connects by a route.
func dial(ctx context.Context, r route) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	d.SetMultipathTCP(false)
	if r.Upgrade == "" {
		return d.DialContext(ctx, r.Network, r.Address)
	}
	host, _, err := net.SplitHostPort(r.Address)
	if err != nil {
		return nil, err
	}
	c, _, err := (&upgrade.Client{Dialer: d}).Dial(ctx, r.Address, r.Upgrade, host)
	if err != nil {
		return nil, err // and not a nil connection in an interface
	}
	return c, nil
}

// greetNode connects, and has the node's first byte.
func greetNode(ctx context.Context, r route, h header) (*dialled, error) {
	h.Seed = rand.Uint64()
	c, err := dial(ctx, r)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	_, err = c.Write(h.bytes())
	first := make([]byte, 1)
	if err == nil {
		_, err = io.ReadFull(c, first)
	}
	if err == nil && first[0] != ready {
		err = fmt.Errorf("the node's first byte is %q", first)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		abandon(c)
		return nil, fmt.Errorf("waiting for the node's first byte: %w", err)
	}
	if h.Poll {
		if c, err = asPolled(c); err != nil {
			return nil, err
		}
	}
	return &dialled{c, h}, nil
}

// open opens connections by a route. Of those that are only held, fewer than were
// asked for are no error.
func (p *process) open(r request) (answer, error) {
	if r.Connections < 1 || r.Connections > maxOpen {
		return answer{}, fmt.Errorf("%d connections; expected 1 to %d", r.Connections, maxOpen)
	}
	p.closeOpened()
	ctx, cancel := p.working(openWithin(r.Connections))
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	var opened []*dialled
	var failed error
	left := r.Connections
	for range min(dialling, r.Connections) {
		all.Go(func() {
			for {
				mu.Lock()
				enough := left <= 0 || failed != nil
				left--
				mu.Unlock()
				if enough {
					return
				}
				c, err := greetNode(ctx, r.Route, r.Header)
				mu.Lock()
				switch {
				case err == nil:
					opened = append(opened, c)
				case failed == nil:
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	p.mu.Lock()
	p.opened = opened
	p.mu.Unlock()
	var a answer
	if failed != nil {
		if r.Header.Kind != hold || len(opened) == 0 {
			p.closeOpened()
			return answer{}, failed
		}
		a.Note = failed.Error()
	}
	a.Count = len(opened)
	if r.Header.Kind == hold {
		return a, nil
	}
	for _, c := range opened {
		if tcp, ok := c.LocalAddr().(*net.TCPAddr); ok {
			ap := tcp.AddrPort()
			a.Addresses = append(a.Addresses, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
		}
	}
	return a, nil
}

// openWithin is how long it may take to open connections.
func openWithin(n int) time.Duration { return 30*time.Second + time.Duration(n)*20*time.Millisecond }

func (p *process) closeOpened() {
	p.mu.Lock()
	opened := p.opened
	p.opened = nil
	p.mu.Unlock()
	for _, c := range opened {
		abandon(c)
	}
}

// run does what the connections were opened for, on all of them at once. They stay
// open.
func (p *process) run() (answer, error) {
	p.mu.Lock()
	opened := p.opened
	p.mu.Unlock()
	if len(opened) == 0 {
		return answer{}, errors.New("no connection is open")
	}
	within := opened[0].header.within()
	ctx, cancel := p.working(within)
	defer cancel()
	for _, c := range opened {
		_ = c.SetDeadline(time.Now().Add(within))
	}
	defer context.AfterFunc(ctx, func() {
		for _, c := range opened {
			_ = c.SetDeadline(time.Unix(1, 0))
		}
	})()
	results := make([]result, len(opened))
	start := make(chan struct{})
	var all sync.WaitGroup
	for i, c := range opened {
		all.Go(func() {
			<-start
			results[i] = c.work()
			results[i].end = time.Now()
		})
	}
	begun := time.Now()
	close(start)
	all.Wait()
	var a answer
	for _, r := range results {
		if r.err != nil {
			return answer{}, r.err
		}
		a.Elapsed = max(a.Elapsed, r.end.Sub(begun))
		a.Latencies = append(a.Latencies, r.latencies...)
		a.Accepted += r.accepted
		a.Fall = max(a.Fall, r.fall)
	}
	slices.Sort(a.Latencies)
	return a, nil
}

// result is what came of the work on one connection.
type result struct {
	strain
	latencies []time.Duration
	end       time.Time
	err       error
}

// work does the client's part, until the node says that all was right.
func (c *dialled) work() (r result) {
	h := c.header
	if _, err := c.Write([]byte{goAhead}); err != nil {
		return result{err: err}
	}
	sending := make(chan error, 1)
	switch {
	case h.Kind == trips:
		r.latencies, r.err = shout(c, h)
		sending <- nil
	case h.Kind == slow && h.Direction == toNode:
		r.strain, r.err = sendStrained(c, h.Seed, h)
		sending <- nil
	case h.Kind == slow:
		time.Sleep(h.Sleep)
		_, r.err = receive(c, ^h.Seed, h.Count, int(h.Size))
		sending <- nil
	case h.Kind == bulk:
		go func() {
			if h.Direction&toNode == 0 {
				sending <- nil
				return
			}
			var sent atomic.Uint64
			sending <- send(c, h.Seed, h.Count, int(h.Size), &sent)
		}()
		if h.Direction&toClient != 0 {
			_, r.err = receive(c, ^h.Seed, h.Count, int(h.Size))
		}
	default:
		sending <- fmt.Errorf("nothing to do on a connection of kind %d", h.Kind)
	}
	if r.err != nil {
		_ = c.SetDeadline(time.Now()) // the other direction is of no use now
	}
	if err := <-sending; r.err == nil {
		r.err = err
	}
	b := make([]byte, reportSize)
	if r.err != nil {
		// What the node says is nearer to the cause, if it says anything.
		_ = c.SetDeadline(time.Now().Add(time.Second))
	}
	if _, err := io.ReadFull(c, b); err != nil {
		if r.err == nil {
			r.err = fmt.Errorf("waiting for the node's report: %w", err)
		}
		return r
	}
	said := parseReport(b)
	switch {
	case r.err != nil && said.why == "":
	case !said.ok:
		r.err = errors.Join(r.err, fmt.Errorf("at the node: %s", said.why))
	case h.Kind == slow && h.Direction == toClient:
		r.accepted, r.fall = said.accepted, said.fall
	}
	return r
}

// setUp opens connections and closes them: Connections one after the other, or as
// many as can be in Time by Connections at once.
func (p *process) setUp(r request) (answer, error) {
	ctx, cancel := p.working(30*time.Second + r.Time + time.Duration(r.Connections)*20*time.Millisecond)
	defer cancel()
	one := func() (time.Duration, error) {
		begun := time.Now()
		c, err := greetNode(ctx, r.Route, header{Kind: setUp})
		took := time.Since(begun)
		if err == nil {
			abandon(c)
		}
		return took, err
	}
	var a answer
	begun := time.Now()
	if r.Time == 0 {
		// A way that takes very long is known well enough by fewer.
		const long, few = 2 * time.Second, 20
		for n := range r.Connections {
			if n >= few && time.Since(begun) > long {
				break
			}
			took, err := one()
			if err != nil {
				return answer{}, fmt.Errorf("connection %d: %w", len(a.Latencies), err)
			}
			a.Latencies = append(a.Latencies, took)
		}
		slices.Sort(a.Latencies)
		a.Count, a.Elapsed = len(a.Latencies), time.Since(begun)
		return a, nil
	}
	var count atomic.Int64
	errs := make([]error, r.Connections)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for errs[i] == nil && time.Since(begun) < r.Time {
				if _, errs[i] = one(); errs[i] == nil {
					count.Add(1)
				}
			}
		})
	}
	all.Wait()
	a.Count, a.Elapsed = int(count.Load()), time.Since(begun)
	return a, errors.Join(errs...)
}
