// Package peek looks at the first bytes of a TCP connection and leaves them in
// the kernel.
//
// A connection that is passed on, to a node or to another process, must still
// hold every byte that was not meant for the daemon. So a message is looked at
// with MSG_PEEK (recv(2)) until it is complete, and then consumed by exactly
// its length. bufio and net/http read ahead and cannot be used for this.
package peek

import (
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// MaxHead is the longest message that Head can look at, in bytes.
const MaxHead = 64 << 10

// ErrTooLong says that a message was not complete within the limit.
var ErrTooLong = errors.New("message longer than the limit")

// buffers holds the memory that messages are looked at in. A connection that
// waits for more holds none of it.
var buffers = sync.Pool{New: func() any { b := make([]byte, MaxHead); return &b }}

// Head waits until cut finds a complete message at the start of what c has
// received, and calls use with its bytes, which are valid only during the call.
// Nothing is consumed.
//
// cut is given what is there, at least one byte and at most limit bytes, and
// returns the length of the message, 0 if more is needed, or an error that ends
// the wait. limit is clipped to MaxHead.
//
// The errors are those of cut, ErrTooLong, io.EOF (the peer closed without a
// byte), io.ErrUnexpectedEOF (it closed in the middle), and those of the
// connection, such as os.ErrDeadlineExceeded when the read deadline that the
// caller has set on c passes.
func Head(c *net.TCPConn, limit int, cut func([]byte) (int, error), use func([]byte)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	limit = min(limit, MaxHead)
	var verdict error
	err = raw.Read(func(fd uintptr) bool {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		var done bool
		done, verdict = look(int(fd), (*buf)[:limit], cut, use)
		return done
	})
	if err != nil {
		return err
	}
	return verdict
}

// look peeks once and says whether the wait is over, and how.
func look(fd int, buf []byte, cut func([]byte) (int, error), use func([]byte)) (bool, error) {
	seen := -1
	for {
		n, err := recv(fd, buf)
		switch {
		case err == unix.EAGAIN:
			return false, nil
		case err != nil:
			return true, err
		case n == 0:
			return true, io.EOF
		case n == seen:
			// The peer has closed its side, and the bytes that were there
			// before are all that will ever come.
			return true, io.ErrUnexpectedEOF
		}
		length, err := cut(buf[:n])
		switch {
		case err != nil:
			return true, err
		case length > 0:
			use(buf[:length])
			return true, nil
		case n == len(buf):
			return true, ErrTooLong
		case !closing(fd):
			return false, nil
		}
		seen = n // look once more: bytes may have come just before the FIN
	}
}

func recv(fd int, buf []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// closing says whether the peer has closed its sending side. Peeking cannot
// tell while unread bytes are in front of the end.
func closing(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// Discard consumes exactly n bytes, which Head has found to be there.
func Discard(c *net.TCPConn, n int) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	_, err := io.ReadFull(c, (*buf)[:n])
	return err
}
