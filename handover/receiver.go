package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxOpen is how many offers of one receiver may wait for an answer.
	maxOpen = 256
	// restTime is how long a receiver that let an offer time out is left
	// alone, unless it answers something. Without it each of its clients would
	// lose AcceptTimeout.
	restTime = 10 * time.Second
)

// receiver is a node's side of the protocol, welcomed by the daemon. The
// goroutine that reads from the connection also closes it; all others only
// end it.
type receiver struct {
	name string
	host string // what stands behind the @ of the node's name; empty if it did not say
	uid  uint32 // of who connected
	pid  int32  // of who connected; 0 if the daemon's PID namespace does not have it
	conn *packets

	// registration is that of the name when the receiver came.
	registration any

	gone chan struct{} // closed by end
	once sync.Once

	mu      sync.Mutex
	last    uint64                // the highest id
	answers map[uint64]chan error // by id: of the open offers
	resting time.Time             // until then; zero if it is not resting
}

func newReceiver(said hello, peer *unix.Ucred, registration any, conn *packets) *receiver {
	return &receiver{
		name: said.name, host: said.host, uid: peer.Uid, pid: peer.Pid, conn: conn, registration: registration,
		gone: make(chan struct{}), answers: make(map[uint64]chan error),
	}
}

// yields tells whether a receiver makes way for another one of its name. It
// does not for another process of the user, which may be there by mistake, as
// long as it is at work for the node that is registered. But a node must get its
// name back at once when it, or its receiver, was restarted, perhaps before
// the end of the old connection was read.
func (r *receiver) yields(to *receiver) bool {
	switch {
	case r.registration != to.registration: // the node is another one
		return true
	case r.pid == to.pid && r.pid != 0: // the process does not want the old one any more
		return true
	}
	return r.isResting() || r.conn.ended()
}

// end ends the connection, and with it all offers that are not committed. The
// node can still read what was sent to it.
func (r *receiver) end() {
	r.once.Do(func() {
		close(r.gone)
		r.conn.shutdown()
	})
}

// open makes an offer that can be answered, until forget: by nil, a
// *RefusedError, or never.
func (r *receiver) open() (id uint64, answer <-chan error, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case time.Now().Before(r.resting):
		return 0, nil, ErrResting
	case len(r.answers) >= maxOpen:
		return 0, nil, ErrBusy
	}
	r.last++
	c := make(chan error, 1) // the reader never waits
	r.answers[r.last] = c
	return r.last, c, nil
}

// answer gives an offer its answer. It returns false if there is no such
// offer, or not any more.
func (r *receiver) answer(id uint64, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting = time.Time{}
	c, ok := r.answers[id]
	if ok {
		delete(r.answers, id)
		c <- err
	}
	return ok
}

func (r *receiver) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.answers, id)
}

// isResting tells whether the receiver is left alone, since it does not answer.
func (r *receiver) isResting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.resting)
}

// rest leaves the receiver alone for a while.
func (r *receiver) rest() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting = time.Now().Add(restTime)
}

// cancel takes an offer back. A receiver that cannot even be told is ended,
// which cancels it too.
func (r *receiver) cancel(id uint64) {
	r.forget(id)
	ctx, done := context.WithTimeout(context.Background(), cancelTimeout)
	defer done()
	if r.conn.send(ctx, cancel{id}, nil) != nil {
		r.end()
	}
}

// sendError says why an offer could not be sent.
func (r *receiver) sendError(ctx context.Context, err error) error {
	select {
	case <-r.gone:
		return ErrGone
	default:
	}
	switch {
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return ErrGone
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ctx.Err()):
		if cause := context.Cause(ctx); cause != nil && cause != ErrTimeout {
			return cause
		}
		r.rest()
		return ErrTimeout
	case errors.Is(err, unix.ETOOMANYREFS):
		return fmt.Errorf("too many descriptors are on their way (is the daemon's limit of open files too low?): %w", err)
	}
	return fmt.Errorf("sending the descriptor: %w", err)
}

// read takes the node's answers until the connection ends, and returns why it
// does. stray is called for each answer to an offer that is not open.
func (r *receiver) read(stray func()) error {
	for {
		f, err := r.conn.receive()
		if err != nil {
			return err
		}
		known := true
		switch f := f.(type) {
		case accept:
			known = r.answer(f.id, nil)
		case refuse:
			known = r.answer(f.id, &RefusedError{f.reason})
		default:
			return fmt.Errorf("%w: a receiver does not say %T", errMalformed, f)
		}
		if !known {
			stray()
		}
	}
}
