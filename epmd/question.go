package epmd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoAnswer says that a node does not answer what it is asked.
var ErrNoAnswer = errors.New("the node answers no questions")

// errGone is the error of asking a node that goes meanwhile.
var errGone = errors.New("the node is no longer registered")

// Ask sends a request to a node on the connection that registered it, and
// returns the answer: as HANDOVER_REQ of the fork of 2016 does, which is the
// only protocol that knows this. Both are preceded by their 16-bit length on
// the wire and come without it here; neither may be longer than MaxRequest.
//
// Only a node that announced Highest below 6 is asked, the fork being of that
// time. One that does not answer before the deadline of ctx stays registered,
// and is not asked again unless it answers after all. In all of these cases
// the error is ErrNoAnswer.
//
// A node is asked one question at a time; a second one fails.
func (r *Registration) Ask(ctx context.Context, request []byte) (answer []byte, err error) {
	if r.question == nil {
		return nil, ErrNoAnswer
	}
	if len(request) > MaxRequest {
		return nil, tooLong(len(request))
	}
	select {
	case <-r.question.told:
	case <-r.Gone():
		return nil, errGone
	case <-ctx.Done():
		return nil, fmt.Errorf("the node has not been told yet that it is registered: %w", ctx.Err())
	}
	mine, err := r.question.open()
	if err != nil {
		return nil, err
	}
	packet := binary.BigEndian.AppendUint16(nil, uint16(len(request)))
	if err := sendNow(r.alive, append(packet, request...)); err != nil {
		r.question.giveUp(mine)
		return nil, fmt.Errorf("asking the node: %w", err)
	}
	select {
	case answer := <-mine:
		return answer, nil
	case <-r.Gone():
		return nil, errGone
	case <-ctx.Done():
	}
	if answer, ok := r.question.giveUp(mine); ok {
		return answer, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, ErrNoAnswer
	}
	return nil, ctx.Err()
}

// sendNow sends bytes on the connection of a node, or fails if the kernel does
// not take them at once. The connection's deadlines, which are its owner's,
// are left alone.
func sendNow(c *net.TCPConn, b []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) { _, sendErr = send(int(fd), b, unix.MSG_DONTWAIT) }); err != nil {
		return err
	}
	return sendErr
}

// questionState says what may come on the connection of a registered node.
type questionState int

const (
	silent  questionState = iota // nothing
	asked                        // the answer
	overdue                      // an answer that nobody waits for any more
)

// question is what a node has been asked.
type question struct {
	// told is closed when the answer to its ALIVE2_REQ is out, before which
	// nothing else may be said on its connection.
	told chan struct{}

	mu     sync.Mutex
	state  questionState
	answer chan []byte // of the question asked

	// The beginning of an answer, with its length. Only the goroutine that
	// awaits the node's end uses it.
	partial []byte
}

// open makes the node one that is asked. The answer goes to the channel.
func (q *question) open() (<-chan []byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch q.state {
	case asked:
		return nil, errors.New("the node is being asked already")
	case overdue:
		return nil, ErrNoAnswer
	}
	q.state = asked
	q.answer = make(chan []byte, 1) // the reader never waits
	return q.answer, nil
}

// giveUp ends the wait for an answer, or returns it if it has come just now.
func (q *question) giveUp(mine <-chan []byte) (answer []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.answer == mine {
		q.state, q.answer = overdue, nil
		return nil, false
	}
	return <-mine, true
}

// expected tells whether the node may send an answer.
func (q *question) expected() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state == asked || q.state == overdue
}

// answered passes a whole answer on.
func (q *question) answered(answer []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == asked {
		q.answer <- answer
	}
	q.state, q.answer = silent, nil
}

// take reads what there is of an answer, and nothing after it. It returns
// false if that is the end of the node: the connection has ended, or nobody
// asked, or the answer is too long.
func (q *question) take(c *net.TCPConn) bool {
	if q == nil || !q.expected() {
		return false
	}
	missing := lengthSize - len(q.partial)
	if missing <= 0 {
		missing = lengthSize + int(binary.BigEndian.Uint16(q.partial)) - len(q.partial)
	}
	raw, err := c.SyscallConn()
	if err != nil || !q.read(raw, missing) {
		return false
	}
	if len(q.partial) < lengthSize {
		return true
	}
	size := int(binary.BigEndian.Uint16(q.partial))
	if size > MaxRequest {
		return false
	}
	if answer := q.partial[lengthSize:]; len(answer) == size {
		q.partial = nil
		q.answered(answer)
	}
	return true
}

// read appends up to n bytes to partial, without waiting. It returns false if
// the connection has ended.
func (q *question) read(raw syscall.RawConn, n int) bool {
	b := make([]byte, n)
	var recvErr error
	err := raw.Control(func(fd uintptr) { n, _, recvErr = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT) })
	switch {
	case err != nil:
		return false
	case recvErr == unix.EAGAIN, recvErr == unix.EINTR:
		return true
	case recvErr != nil || n == 0:
		return false
	}
	q.partial = append(q.partial, b[:n]...)
	return true
}

// dead tells whether a node's connection has ended, also if nobody who reads
// from it has noticed.
func (r *Registration) dead() bool {
	switch {
	case r.held != nil:
		return r.held.over()
	case r.alive == nil:
		return false
	case r.question != nil && r.question.expected():
		return hungUp(r.alive) // bytes may be its answer
	}
	return closedByPeer(r.alive)
}

// hungUp tells, without waiting, whether the peer has closed c, also if there
// are bytes to be read before.
func hungUp(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	up := true
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		up = err == nil && n == 0
	})
	return err != nil || !up
}
