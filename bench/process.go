package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"oneport/epmd"
)

// maxRequests is how many requests may wait in an end.
const maxRequests = 16

// process is what an end's process does.
type process struct {
	ctx context.Context // ends with it

	mu      sync.Mutex
	owned   map[io.Closer]struct{} // listeners, registrations and connections that are served
	opened  []*dialled             // by doOpen
	aborted chan struct{}          // closed to break off what is being done
	failed  error                  // why descriptors are not taken any more
	closed  bool
	running sync.WaitGroup
}

// End is the process that is one end of connections: it reads requests from in,
// line by line, and writes their answers to out, until the end of in or of ctx. All
// connections are closed then. When it is ctx that ends, in may still be being
// read: the process is to end.
func End(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{ctx: ctx, owned: make(map[io.Closer]struct{}), aborted: make(chan struct{})}
	defer p.close()
	defer cancel()

	requests := make(chan request, maxRequests)
	ended := make(chan error, 1)
	go func() {
		defer close(requests)
		defer p.abort() // there is nobody to do it for
		ended <- readLines(in, func(r request) error {
			if r.Operation == doAbort {
				p.abort() // is not to wait for what it breaks off
			}
			select {
			case requests <- r:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			default:
				return errors.New("too many requests at once")
			}
		})
	}()
	encoder := json.NewEncoder(out)
	for {
		select {
		case r, ok := <-requests:
			if !ok {
				return <-ended
			}
			a, err := p.do(r)
			if err != nil {
				a.Error = err.Error()
			}
			a.ID = r.ID
			if err := encoder.Encode(a); err != nil {
				return fmt.Errorf("writing an answer: %w", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// do does what a request says.
func (p *process) do(r request) (answer, error) {
	p.mu.Lock()
	err := p.failed
	p.mu.Unlock()
	if err != nil {
		return answer{}, err
	}
	switch r.Operation {
	case doListen:
		return answer{}, p.listen(r)
	case doRegister:
		return answer{}, p.register(r)
	case doTake:
		return answer{}, p.take(r)
	case doOpen:
		return p.open(r)
	case doRun:
		return p.run()
	case doSetUp:
		return p.setUp(r)
	case doClose:
		p.closeOpened()
		return answer{}, nil
	case doAbort:
		p.closeOpened()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.aborted = make(chan struct{})
		return answer{}, nil
	}
	return answer{}, fmt.Errorf("unknown operation %q", r.Operation)
}

// own makes something the process's until it is closed by close or let go by
// disown. It says no, and closes it, when the process ends.
func (p *process) own(c io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.owned[c] = struct{}{}
	return true
}

// disown closes something that was owned.
func (p *process) disown(c io.Closer) {
	p.mu.Lock()
	delete(p.owned, c)
	p.mu.Unlock()
	_ = c.Close()
}

// working returns a context for a request, which doAbort ends.
func (p *process) working(within time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(p.ctx, within)
	p.mu.Lock()
	aborted := p.aborted
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-aborted:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// abort breaks off what is being done.
func (p *process) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.aborted:
	default:
		close(p.aborted)
	}
}

// close closes everything and waits for all that was served.
func (p *process) close() {
	p.closeOpened()
	p.mu.Lock()
	p.closed = true
	for c := range p.owned {
		_ = c.Close()
	}
	p.owned = nil
	p.mu.Unlock()
	p.running.Wait()
}

// register registers a node with a door. A port of 0 is one that takes
// descriptors only.
func (p *process) register(r request) error {
	ctx, cancel := p.working(10 * time.Second)
	defer cancel()
	client := &epmd.Client{Addr: r.Address.String()}
	alive, err := client.Register(ctx, epmd.Node{Name: r.Name, Port: r.Port, Type: epmd.Normal, Highest: 6, Lowest: 5})
	if err != nil {
		return fmt.Errorf("registering %s at %s: %w", r.Name, r.Address, err)
	}
	p.own(alive)
	return nil
}

// listen accepts connections and serves them: over TCP, and over a unix socket if
// there is a path.
func (p *process) listen(r request) error {
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	tcp, err := config.Listen(p.ctx, "tcp4", r.Address.String())
	if err != nil {
		return err
	}
	p.accept(tcp)
	if r.Path == "" {
		return nil
	}
	unix, err := config.Listen(p.ctx, "unix", r.Path)
	if err != nil {
		return err
	}
	p.accept(unix)
	return nil
}

// accept serves the connections of a listener until it is closed.
func (p *process) accept(l net.Listener) {
	if !p.own(l) {
		return
	}
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			switch {
			case err == nil:
				p.serve(c)
			case errors.Is(err, net.ErrClosed):
				return
			default:
				// Out of descriptors, or a connection that is over already.
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
}
