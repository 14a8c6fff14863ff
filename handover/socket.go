package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// packets is a SOCK_SEQPACKET connection on which one packet is one frame, and
// a frame arrives whole or not at all.
type packets struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	// turn is held, by an element in it, by the one who writes: package net
	// has one write deadline per connection.
	turn chan struct{}
}

func newPackets(c *net.UnixConn) (*packets, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &packets{conn: c, raw: raw, turn: make(chan struct{}, 1)}, nil
}

// peer returns who made the connection, as he was at that time.
func (p *packets) peer() (*unix.Ucred, error) {
	var cred *unix.Ucred
	var credErr error
	err := p.raw.Control(func(fd uintptr) { cred, credErr = peerOf(int(fd)) })
	return cred, errors.Join(err, credErr)
}

// ended tells whether the connection is closed at either end, although it may
// still hold what the reader has not read.
func (p *packets) ended() bool {
	ended := true
	_ = p.raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(poll, 0)
		ended = err == nil && poll[0].Revents != 0
	})
	return ended
}

// take waits for the turn to write, until ctx ends.
func (p *packets) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *packets) release() { <-p.turn }

// send takes the turn and writes. After an error nothing was sent.
func (p *packets) send(ctx context.Context, f frame, descriptor syscall.RawConn) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.release()
	return p.write(ctx, f, descriptor)
}

// write sends a frame, and with it a descriptor unless that is nil. The caller
// has the turn. It waits until the deadline of ctx for a peer that does not
// read.
func (p *packets) write(ctx context.Context, f frame, descriptor syscall.RawConn) error {
	deadline, _ := ctx.Deadline()
	if err := p.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	b := f.append(nil)
	var sendErr error
	err := p.raw.Write(func(fd uintptr) bool {
		// The connection that is given away is held in the moment of sending
		// only: its owner may close it while this waits.
		sendErr = sendDescriptor(int(fd), b, descriptor)
		return sendErr != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return sendErr
}

// sendDescriptor sends b, and with it a descriptor unless that is nil, without
// waiting.
func sendDescriptor(fd int, b []byte, descriptor syscall.RawConn) error {
	if descriptor == nil {
		return sendmsg(fd, b, nil)
	}
	var sendErr error
	if err := descriptor.Control(func(given uintptr) { sendErr = sendmsg(fd, b, unix.UnixRights(int(given))) }); err != nil {
		return err
	}
	return sendErr
}

func sendmsg(fd int, b, oob []byte) error {
	for {
		n, err := unix.SendmsgN(fd, b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err == nil && n < len(b): // not in these protocols
			return io.ErrShortWrite
		default:
			return err
		}
	}
}

// buffers holds the memory that packets are received in. A receiver that is
// waited for holds none of it.
var buffers = sync.Pool{New: func() any { b := make([]byte, maxFrame); return &b }}

// receive waits for the next frame, until the read deadline. The error is
// io.EOF when the peer has closed the connection, and wraps errMalformed if
// what came is no frame.
func (p *packets) receive() (frame, error) {
	var f frame
	var recvErr error
	err := p.raw.Read(func(fd uintptr) bool {
		f, recvErr = receive(int(fd))
		return recvErr != unix.EAGAIN
	})
	if err != nil {
		return nil, err
	}
	return f, recvErr
}

func receive(fd int) (frame, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, flags, err := recvmsg(fd, *buf)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	case flags&unix.MSG_TRUNC != 0:
		return nil, fmt.Errorf("%w: longer than %d bytes", errMalformed, maxFrame)
	case flags&unix.MSG_CTRUNC != 0:
		// The kernel has closed it: there was no room for it.
		return nil, fmt.Errorf("%w: a descriptor came with it", errMalformed)
	}
	return parse((*buf)[:n])
}

func recvmsg(fd int, b []byte) (n, flags int, err error) {
	for {
		n, _, flags, _, err = unix.Recvmsg(fd, b, nil, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return n, flags, err
		}
	}
}

// shutdown ends both directions: who waits to read or to write fails. What was
// sent can still be read by the peer, before he sees the end.
func (p *packets) shutdown() {
	// An error means that it is closed, or was never connected.
	_ = p.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}

// close ends and closes the connection. A socket that is closed with unread
// packets makes the peer's next read an ECONNRESET, before he has read what
// was sent to him; a commit for example. So what came is read first, and
// after the shutdown no more can come.
func (p *packets) close() {
	p.shutdown()
	_ = p.raw.Control(func(fd uintptr) {
		var b [1]byte
		for n := 1; n > 0; {
			n, _, _ = recvmsg(int(fd), b[:])
		}
	})
	p.conn.Close()
}

// peerOf returns who made the other end of a unix connection (unix(7),
// SO_PEERCRED), or who listened on it if this end connected.
func peerOf(fd int) (*unix.Ucred, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return cred, os.NewSyscallError("getsockopt", err)
}

// prepare gives c the options of a socket that was just accepted, which is what
// a node expects: package net sets some, and they travel with the descriptor.
// O_NONBLOCK is left alone: it is shared by all who hold the connection.
func prepare(c *net.TCPConn) (syscall.RawConn, error) {
	if err := errors.Join(c.SetKeepAlive(false), c.SetNoDelay(false)); err != nil {
		return nil, err
	}
	return c.SyscallConn()
}

// past is a deadline that makes every wait end at once.
func past() time.Time { return time.Unix(1, 0) }
