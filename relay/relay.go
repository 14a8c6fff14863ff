// Package relay joins two TCP connections until both directions are done.
//
// What one end does, the other end sees: bytes in order, the end of a
// direction while the other goes on, a reset as a reset. The bytes move by
// splice(2), without entering this process. The package knows nothing of who
// the two ends are, of what they say, or of how they were found.
//
// An idle connection costs two sockets and what this package remembers of
// them: no pipe and no buffer is held while there is nothing to move, and after
// a short rest no goroutine. This is why the package has its own splice loop:
// io.Copy between two *net.TCPConn takes its pipe before it waits for data, so
// that 5,000 idle connections would hold 20,000 more descriptors; it also does
// not tell which end failed, nor whether it spliced at all.
package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Path is the way by which the bytes of a connection move.
type Path string

// The paths, better ones first.
const (
	// Shortcut is past the relay, from the sender's socket to the receiver's. The
	// relay goes on under it, and moves what does not go that way.
	Shortcut Path = "shortcut"
	Splice   Path = "splice" // from socket to socket in the kernel, through a pipe
	Copy     Path = "copy"   // by read(2) and write(2) through a buffer
)

// Reason is why a joined connection ended.
type Reason string

// The reasons. Of the two ends, it names the one where the end began.
const (
	Finished       Reason = "finished" // both directions came to their end
	Cancelled      Reason = "cancelled"
	ClientReset    Reason = "client reset"
	NodeReset      Reason = "node reset"
	ClientTimedOut Reason = "client timed out" // no answer to data or keep-alive
	NodeTimedOut   Reason = "node timed out"
	ClientFailed   Reason = "client failed" // any other error of its socket
	NodeFailed     Reason = "node failed"
	Impossible     Reason = "path not possible" // see Options.Only
)

// Counters counts the bytes written to each end. They are exact at any time
// while the relay runs, up to bytes that are just being moved.
type Counters struct {
	ToNode, ToClient atomic.Uint64
}

// Options are the details of one relay. The zero value is the usual case.
type Options struct {
	// Prefix holds bytes that were already taken from the client. They are
	// written to the node first, and counted. No copy is made: they must not
	// change before the end.
	Prefix []byte
	// Counters, if not nil, is counted in.
	Counters *Counters
	// Shortcut, if not nil, is called once before the first byte is moved, which
	// waits for it, and may make a way past the relay. taken is the length of
	// Prefix. When that way opens or shuts, and why it does not open or was shut,
	// is said by changed. stop, which must not be nil, is called at the end.
	Shortcut func(ctx context.Context, client, node *net.TCPConn, taken int, changed func(open bool, why string)) (stop func())
	// Only is the one path to take; empty means the best there is. Where it is
	// not possible, or not any more, both connections are reset.
	Only Path
	// OnPath, if not nil, is called with the path and with why it is not a
	// better one, when the relay starts and when the path changes. It must not
	// block.
	OnPath func(path Path, why string)
}

// Result says how a joined connection went.
type Result struct {
	Path   Path   // by which the bytes moved, at the end
	Why    string // why not by a better one; empty if there is none
	Reason Reason // why it ended
	Err    error  // nil if Finished, else the cause
}

// Keep-alive notices an end whose host has gone without a word, after
// 60 + 5 * 15 seconds. A node's own ticks normally notice it earlier; a
// connection is never closed for having nothing to say.
var keepAlive = net.KeepAliveConfig{
	Enable:   true,
	Idle:     60 * time.Second,
	Interval: 15 * time.Second,
	Count:    5,
}

// Try says why a path that Join is to take is not possible at this moment, or
// nil. It knows nothing of shortcuts, which others make.
func Try(path Path) error {
	if path != Splice {
		return nil
	}
	pipes.open()
	defer pipes.close()
	p, err := pipes.take()
	if err != nil {
		return &impossibleError{Splice, err.Error()}
	}
	p.release()
	return nil
}

// Join is Start, and returns at the end.
func Join(ctx context.Context, client, node *net.TCPConn, o Options) Result {
	ended := make(chan Result, 1)
	Start(ctx, client, node, o, func(result Result) { ended <- result })
	return <-ended
}

// Start moves bytes between client and node, both ways, until both have ended
// their direction, one of them fails, or ctx is done. It owns both connections
// from the call on. It returns when bytes are moving; ended is called once, when
// both connections are closed, which may be before Start returns.
//
// The end of one direction (FIN) is passed on behind the last byte, and the
// other direction goes on. If one end fails, the other one is reset: it must
// not take the rest for an orderly end. If ctx is done both are closed, and
// what was not yet moved is lost.
//
// Other holders of a descriptor of the client's connection, a process that was
// offered it for example, do not keep its end from being seen.
//
// Both connections get TCP_NODELAY, since a small message must not wait for
// the next, and keep-alive.
func Start(ctx context.Context, client, node *net.TCPConn, o Options, ended func(Result)) {
	counters := o.Counters
	if counters == nil {
		counters = new(Counters)
	}
	r := &relay{
		client:  side{conn: client, reset: ClientReset, timedOut: ClientTimedOut, failed: ClientFailed},
		node:    side{conn: node, reset: NodeReset, timedOut: NodeTimedOut, failed: NodeFailed},
		onPath:  o.OnPath,
		only:    o.Only,
		onEnd:   ended,
		running: 2,
	}
	pipes.open()
	parked.open()
	for _, s := range r.sides() {
		if err := s.prepare(); err != nil {
			r.end(s.failed, err)
			r.leave(2)
			return
		}
	}
	if err := r.choosePath(); err != nil {
		r.end(Impossible, err)
		r.leave(2)
		return
	}

	r.forget = context.AfterFunc(ctx, func() { r.end(Cancelled, context.Cause(ctx)) })
	switch {
	case o.Only != "" && o.Only != Shortcut:
	case o.Shortcut != nil:
		r.lengthen = o.Shortcut(ctx, client, node, len(o.Prefix), r.shorten)
	case o.Only == Shortcut:
		r.shorten(false, "none here")
	}
	r.toNode.init(r, &r.client, &r.node, &counters.ToNode)
	r.toClient.init(r, &r.node, &r.client, &counters.ToClient)
	r.toNode.prefix = o.Prefix
	go r.toNode.run()
	go r.toClient.run()
}

// relay is one joined connection.
type relay struct {
	client, node     side
	toNode, toClient direction
	copying          atomic.Bool  // path is Copy
	eofs             atomic.Int32 // directions that came to their end
	onPath           func(Path, string)
	only             Path // or empty
	onEnd            func(Result)
	forget           func() bool // stops waiting for the context's end
	lengthen         func()      // ends the way past the relay

	mu      sync.Mutex
	running int    // directions that are not over, parked ones among them
	path    Path   // Splice or Copy
	why     string // not a better one than that
	short   bool   // there is a way past it
	long    string // why not
	ended   bool
	reason  Reason
	err     error
}

func (r *relay) sides() [2]*side { return [2]*side{&r.client, &r.node} }

// leave counts directions that are over. The last one ends the relay's life.
func (r *relay) leave(n int) {
	r.mu.Lock()
	r.running -= n
	last := n > 0 && r.running == 0
	r.mu.Unlock()
	if !last {
		return
	}
	result := r.result()
	if r.lengthen != nil {
		r.lengthen()
	}
	if r.forget != nil {
		r.forget()
	}
	parked.close()
	pipes.close()
	r.onEnd(result)
}

// park lets a direction wait without a goroutine, and says whether it does.
func (r *relay) park(d *direction) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	failed := d.from.raw.Control(func(fd uintptr) { d.parked = parked.add(int32(fd), d) == nil })
	return failed == nil && d.parked
}

// unpark takes a direction back, and says whether it was parked. r.mu is held.
func (r *relay) unpark(d *direction) bool {
	if !d.parked {
		return false
	}
	d.parked = false
	_ = d.from.raw.Control(func(fd uintptr) { parked.remove(int32(fd)) })
	return true
}

// wake lets a parked direction go on.
func (r *relay) wake(d *direction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unpark(d) {
		go d.run()
	}
}

// fail ends the relay because of one end.
func (r *relay) fail(s *side, err error) {
	reason := s.reasonFor(err)
	if impossible := (*impossibleError)(nil); errors.As(err, &impossible) {
		reason = Impossible
	}
	r.end(reason, err)
}

// end closes both connections. Only the first call counts: what the two
// directions see afterwards are its effects.
func (r *relay) end(reason Reason, err error) {
	r.leave(r.close(reason, err))
}

// close does what end says, and returns the number of directions that are over
// by it: those that are parked.
func (r *relay) close(reason Reason, err error) (over int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return 0
	}
	r.ended, r.reason, r.err = true, reason, err
	for _, d := range []*direction{&r.toNode, &r.toClient} {
		if r.unpark(d) {
			over++
		}
	}
	for _, s := range r.sides() {
		switch reason {
		case Finished: // both have been told by a FIN
		case Cancelled:
			s.shutdown()
		default:
			s.abort()
		}
		_ = s.conn.Close()
	}
	return over
}

func (r *relay) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, why := r.shown()
	return Result{Path: path, Why: why, Reason: r.reason, Err: r.err}
}

// choosePath finds the best path that works here, before the first byte.
func (r *relay) choosePath() error {
	if r.only == Copy {
		r.setPath(Copy, "")
		return nil
	}
	p, err := pipes.take()
	if err != nil {
		return r.fallBack(err)
	}
	p.release()
	r.setPath(Splice, "")
	return nil
}

// impossibleError says why the one path to take is not possible.
type impossibleError struct {
	path Path
	why  string
}

func (e *impossibleError) Error() string { return string(e.path) + ": " + e.why }

// fallBack goes on by copying, because splice is impossible, unless nothing else
// will do. The pipe of the direction that found out is empty; the other direction
// follows when its is.
func (r *relay) fallBack(cause error) error {
	if r.only == Splice {
		return &impossibleError{Splice, cause.Error()}
	}
	r.setPath(Copy, "splice: "+cause.Error())
	return nil
}

func (r *relay) setPath(path Path, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path == path {
		return
	}
	r.path, r.why = path, why
	r.copying.Store(path == Copy)
	r.tell()
}

// shorten records that there is a way past the relay, or why there is none.
func (r *relay) shorten(open bool, why string) {
	r.mu.Lock()
	r.short, r.long = open, why
	r.tell()
	r.mu.Unlock()
	if !open && r.only == Shortcut {
		r.end(Impossible, &impossibleError{Shortcut, why})
	}
}

// tell reports the path. r.mu is held.
func (r *relay) tell() {
	if r.onPath != nil && !r.ended {
		r.onPath(r.shown())
	}
}

// shown returns the path that most of the bytes take, and why not a better one.
// r.mu is held.
func (r *relay) shown() (Path, string) {
	switch {
	case r.short:
		return Shortcut, ""
	case r.long == "":
		return r.path, r.why
	case r.why == "":
		return r.path, "shortcut: " + r.long
	}
	return r.path, r.why + "; shortcut: " + r.long
}

// take returns an empty vessel of the relay's path.
func (r *relay) take() (vessel, error) {
	if r.copying.Load() {
		return takeBuffer(), nil
	}
	p, err := pipes.take()
	if err == nil {
		return p, nil
	}
	if err := r.fallBack(err); err != nil {
		return nil, err
	}
	return takeBuffer(), nil
}
