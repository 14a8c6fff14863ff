package epmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// acceptBackoff is the pause after an accept that failed for lack of
// descriptors or memory.
const acceptBackoff = 100 * time.Millisecond

// Serve accepts connections from l, which must be a *net.TCPListener, and
// serves them until ctx ends. Then it closes l, which nobody else may do, and
// all connections, and returns nil when the last of them is closed. An error
// ends it in the same way.
//
// A request for a port is answered where the connection was accepted, if it
// has arrived by then. To make that the rule Serve sets TCP_DEFER_ACCEPT on l,
// by which a silent client is accepted a second later than others.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	listener, ok := l.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("serving EPMD on %T: only a *net.TCPListener will do", l)
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		return fmt.Errorf("serving EPMD: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("serving EPMD: making an eventfd: %w", err)
	}
	defer unix.Close(wake)
	ctx, cancel := context.WithCancel(ctx)
	woken := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{7: 1}) // any number but 0, as eventfd(2) wants it
	})
	a := acceptor{
		Server:  s,
		wake:    wake,
		inline:  s.inline(),
		unknown: PortResponse{Result: ResultFailed}.Append(nil),
	}
	var acceptErr error
	err = raw.Control(func(fd uintptr) {
		deferAccept(int(fd))
		acceptErr = a.run(ctx, int(fd))
	})
	cancel()
	<-woken
	a.served.Wait()
	if err := errors.Join(err, acceptErr); err != nil {
		return fmt.Errorf("accepting: %w", err)
	}
	return nil
}

// deferAccept lets the kernel keep a connection to itself until its first
// bytes are there: one wake-up instead of two. Without it all is slower, and
// nothing else is different.
func deferAccept(listener int) {
	_ = unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1)
}

// inline tells whether requests may be answered by the accepting goroutine:
// not if somebody wants to watch, to decide, or to be slow.
func (s *Server) inline() bool {
	return s.Answer == nil && s.Alias == nil && s.DelayWrite <= 0 && !verbose(s.Log)
}

// acceptor is the accepting goroutine of one listener. It waits by itself, and
// not by the runtime's poller: with one client that asks again and again, a thread
// that is back from poll(2) answers a quarter more requests than a goroutine
// that has to be found a thread.
type acceptor struct {
	*Server
	wake    int // an eventfd that is readable when ctx has ended
	inline  bool
	served  sync.WaitGroup
	unknown []byte                                  // the answer for a name that is not registered
	buffer  [lengthSize + 1 + maxNameBytes + 1]byte // the longest PORT_PLEASE2_REQ
}

// run accepts and serves until ctx ends. An error is one of the listener.
func (a *acceptor) run(ctx context.Context, listener int) error {
	for ctx.Err() == nil {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			a.accepted(ctx, fd)
		case unix.EAGAIN:
			if err := a.wait(listener); err != nil {
				return err
			}
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			logger(a.Log).WithError(err).Error("accepting connections is suspended (is the limit of open files too low?)")
			_ = pause(ctx, acceptBackoff)
		case unix.EINTR, unix.ECONNABORTED, unix.EPERM, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT,
			unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH:
			// accept(2): errors of that one connection.
		default:
			return err
		}
	}
	return nil
}

// wait returns when there may be a connection, or ctx has ended.
func (a *acceptor) wait(listener int) error {
	events := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}, {Fd: int32(a.wake), Events: unix.POLLIN}}
	if _, err := unix.Poll(events, -1); err != nil && err != unix.EINTR {
		return err
	}
	return nil
}

// accepted serves a connection, here or in a goroutine.
func (a *acceptor) accepted(ctx context.Context, fd int) {
	_ = pause(ctx, a.DelayAccept)
	if a.inline && a.answerPort(fd) {
		return
	}
	c, err := tcpConn(fd)
	if err != nil {
		logger(a.Log).WithError(err).Warn("accepting connection")
		return
	}
	a.served.Go(func() { a.ServeConn(ctx, c) })
}

// answerPort answers a PORT_PLEASE2_REQ that has arrived whole and alone, and
// closes the connection. It does nothing and returns false if there is
// anything else.
func (a *acceptor) answerPort(fd int) bool {
	n, _, err := unix.Recvfrom(fd, a.buffer[:], unix.MSG_PEEK)
	if err != nil || n <= lengthSize {
		return false
	}
	frame := a.buffer[:n]
	payload, rest, err := cutField(frame)
	if err != nil || len(rest) > 0 || len(payload) == 0 || payload[0] != tagPort {
		return false
	}
	name, err := cutName(payload[1:])
	if err != nil {
		return false
	}
	answer := a.unknown
	if node, ok := a.Registry.lookup(name); ok {
		answer = node.answer
	}
	// An unread request would make the close a reset.
	if _, err := unix.Read(fd, frame); err == nil {
		// A client that is gone does not want an answer, and one that
		// cannot take it has not even read the first one.
		_, _ = send(fd, answer, unix.MSG_MORE)
	}
	unix.Close(fd)
	return true
}

// tcpConn makes an accepted descriptor a connection. The descriptor is not the
// caller's any more.
func tcpConn(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	// Package net sets both, which a node that is given the connection does
	// not expect. An error would mean that it is closed already.
	_ = tcp.SetKeepAlive(false)
	_ = tcp.SetNoDelay(false)
	return tcp, nil
}
