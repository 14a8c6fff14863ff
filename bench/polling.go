package bench

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollingMost is up to how many connections at once are waited for by poll(2), each
// by a thread.
const pollingMost = 4

// polling is a connection whose readers and writers wait by poll(2), as programs do
// that have a thread for it. Go's own way, by a thread that waits for all and a
// scheduler that finds the goroutine another one, would be a part of the figure: a
// receiver that is found late is full meanwhile.
//
// A reader and a writer may use it at once.
type polling struct {
	net.Conn
	raw      syscall.RawConn
	deadline atomic.Int64 // in nanoseconds of Unix's time; 0: none
}

// polled makes a connection one that is waited for so. It is non-blocking still.
func polled(c net.Conn) (*polling, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &polling{Conn: c, raw: raw}, nil
}

// asPolled is polled, and closes what it cannot have.
func asPolled(c net.Conn) (net.Conn, error) {
	p, err := polled(c)
	if err != nil {
		abandon(c)
		return nil, err
	}
	return p, nil
}

func (p *polling) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err = p.wait(unix.POLLIN, func(fd int) (int, error) { return unix.Read(fd, b) })
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

func (p *polling) Write(b []byte) (total int, err error) {
	for total < len(b) {
		n, err := p.wait(unix.POLLOUT, func(fd int) (int, error) { return unix.Write(fd, b[total:]) })
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// longestPoll is how long a deadline that is set meanwhile may be overlooked.
const longestPoll = 100 * time.Millisecond

// wait calls f until it need not wait.
func (p *polling) wait(events int16, f func(fd int) (int, error)) (n int, err error) {
	failed := p.raw.Control(func(descriptor uintptr) {
		fd := int(descriptor)
		for {
			if n, err = f(fd); err != unix.EAGAIN && err != unix.EINTR {
				break
			}
			left := longestPoll
			if at := p.deadline.Load(); at != 0 {
				if left = min(left, time.Until(time.Unix(0, at))); left <= 0 {
					err = os.ErrDeadlineExceeded
					break
				}
			}
			who := []unix.PollFd{{Fd: int32(fd), Events: events}}
			if _, err = unix.Poll(who, int(left/time.Millisecond)+1); err != nil && err != unix.EINTR {
				break
			}
		}
		n = max(n, 0)
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}

func (p *polling) SetDeadline(t time.Time) error {
	at := int64(0)
	if !t.IsZero() {
		at = max(t.UnixNano(), 1)
	}
	p.deadline.Store(at)
	return p.Conn.SetDeadline(t)
}

// SetLinger is that of a TCP connection; see abandon.
func (p *polling) SetLinger(seconds int) error {
	if l, ok := p.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return nil
}
