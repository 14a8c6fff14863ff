package epmd

import (
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drainLimit and drainTime bound what is read, and for how long, of a
	// client that goes on sending after it was answered.
	drainLimit = 64 << 10
	drainTime  = time.Second
)

// past is a deadline that makes every wait end at once.
func past() time.Time { return time.Unix(1, 0) }

// endpoints returns both addresses of c, as IPv4 addresses where that is what
// they are. One that is not known is not valid.
func endpoints(c *net.TCPConn) (peer, local netip.AddrPort) {
	return addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return unmap(tcp.AddrPort())
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// descriptor returns the number of c's descriptor, or -1 if c is closed. It is
// good for showing only.
func descriptor(c *net.TCPConn) int {
	number := -1
	if raw, err := c.SyscallConn(); err == nil {
		// An error leaves the -1.
		_ = raw.Control(func(fd uintptr) { number = int(fd) })
	}
	return number
}

// closedByPeer tells, without waiting and without reading anything, whether c
// cannot be the connection of a live node: it is closed, broken, or has bytes
// that no node sends.
func closedByPeer(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	closed := true
	if err := raw.Control(func(fd uintptr) { closed = !quiet(int(fd)) }); err != nil {
		return true
	}
	return closed
}

// awaitClose waits until closedByPeer, or until the read deadline of c. It
// holds no buffer meanwhile, of which a daemon with thousands of nodes would
// have thousands.
func awaitClose(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return !quiet(int(fd)) })
}

// quiet tells whether the socket is open and has nothing to read.
func quiet(fd int) bool {
	var b [1]byte
	for {
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return err == unix.EAGAIN
		}
	}
}

// sendLast sends an answer that a close is to follow. The kernel holds it back
// until then, so that the answer and the end of the stream reach the client in
// one segment, and wake it once.
func sendLast(c *net.TCPConn, answer []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		var n int
		n, sendErr = send(int(fd), answer, unix.MSG_MORE)
		answer = answer[n:]
		return sendErr != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return sendErr
}

// send is write(2) with flags. After a part was sent it tries again, so that
// an error tells why the rest, of which n bytes were sent, was not.
func send(fd int, b []byte, flags int) (n int, err error) {
	for n < len(b) {
		m, err := unix.SendmsgN(fd, b[n:], nil, nil, flags)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// closeAnswered closes c after an answer. A close with unread bytes would
// reset the connection, and the answer could be lost on the way; so a client
// that sent more than its request is read for a while.
func closeAnswered(c *net.TCPConn) error {
	if !closedByPeer(c) {
		return c.Close()
	}
	if c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(drainTime)) == nil {
		// How it ends does not matter: the answer is out.
		_, _ = io.CopyN(io.Discard, c, drainLimit)
	}
	return c.Close()
}
