package relay

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// side is one of the two ends.
type side struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	// shut is set before our FIN is sent to this end. From then on a socket
	// that is closed both ways came to an orderly end.
	shut atomic.Bool
	// What an end of the relay is called that begins here.
	reset, timedOut, failed Reason
}

// prepare makes a connection ready for the relay, whatever its owner before
// had set.
func (s *side) prepare() (err error) {
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return err
	}
	if err := s.armPatience(); err != nil {
		return err
	}
	if err := s.conn.SetNoDelay(true); err != nil {
		return err
	}
	return s.conn.SetKeepAliveConfig(keepAlive)
}

// patience is how long a direction waits for one end to take bytes before it
// looks whether the other end is still there. Nothing is given up then.
const patience = time.Second

// armPatience makes a wait for this end to take bytes return after patience
// with os.ErrDeadlineExceeded. A deadline that passed while nobody waited does
// so at once; it is simply armed again.
func (s *side) armPatience() error {
	return s.conn.SetWriteDeadline(time.Now().Add(patience))
}

// armRest makes a wait for bytes of this end return after rest, with
// os.ErrDeadlineExceeded.
func (s *side) armRest() error {
	return s.conn.SetReadDeadline(time.Now().Add(rest))
}

// finish sends our FIN to this end, behind what was written to it.
func (s *side) finish() error {
	s.shut.Store(true)
	err := s.conn.CloseWrite()
	if err == nil {
		return nil
	}
	// Refused because the connection is gone. What took it says more.
	s.shut.Store(false)
	if cause := s.broken(); cause != nil {
		return cause
	}
	return err
}

// shutdown ends both directions in order. Like abort it acts on the connection
// itself, where a close waits for the last holder of a descriptor. An error is
// that of a connection which is gone already.
func (s *side) shutdown() {
	_ = s.conn.CloseRead()
	_ = s.conn.CloseWrite()
}

// abort resets the connection (RFC 9293, ABORT), which connect(2) does with an
// address of the family AF_UNSPEC. From 6.4 on the kernel refuses that while
// some process waits inside a call on the socket; ours do not, but another
// holder may, and then its peer is to see an end at least.
func (s *side) abort() {
	refused := true
	err := control(s.conn, func(fd int) {
		nowhere := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nowhere)), unsafe.Sizeof(nowhere))
		refused = errno != 0
	})
	if err == nil && refused {
		s.shutdown()
	}
}

func control(c *net.TCPConn, f func(fd int)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// broken returns the error of a connection that ended otherwise than by FIN,
// or nil. It does not wait and takes no bytes.
func (s *side) broken() error {
	var cause error
	err := s.raw.Control(func(fd uintptr) { cause = s.look(int(fd)) })
	if err != nil {
		return err
	}
	return cause
}

// watch waits until this end is broken or closed, and returns the error. It is
// for an end that has said all it had to say, and is read by nobody.
func (s *side) watch() error {
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	var cause error
	err := s.raw.Read(func(fd uintptr) bool {
		cause = s.look(int(fd))
		return cause != nil
	})
	if err != nil {
		return err
	}
	return cause
}

// look is broken on a descriptor. The pending error is not all there is to
// see: if a write met it first, it is gone, and the end of a reset connection
// reads like an orderly one. What stays is that it is closed both ways, though
// we did not close our way.
func (s *side) look(fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd)}}
	if _, err := unix.Poll(poll, 0); err != nil && err != unix.EINTR {
		return err
	}
	seen := poll[0].Revents
	if seen&unix.POLLERR == 0 && (seen&unix.POLLHUP == 0 || s.shut.Load()) {
		return nil
	}
	if pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && pending != 0 {
		return unix.Errno(pending)
	}
	return unix.ECONNRESET
}

// reasonFor names the end of a relay by an error of this end.
func (s *side) reasonFor(err error) Reason {
	switch {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return s.reset
	case errors.Is(err, unix.ETIMEDOUT):
		return s.timedOut
	default:
		return s.failed
	}
}
