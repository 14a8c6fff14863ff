package epmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
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
// A request for a port is answered, and a node registered, where the connection
// was accepted, if it has arrived by then. To make that the rule Serve sets
// TCP_DEFER_ACCEPT on l, by which a silent client is accepted a second later than
// others.
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
	acceptors := make([]*acceptor, acceptorsOf(runtime.GOMAXPROCS(0)))
	for i := range acceptors {
		acceptors[i] = &acceptor{
			Server:  s,
			wake:    wake,
			inline:  s.inline(),
			held:    make(map[int32]*Registration),
			unknown: PortResponse{Result: ResultFailed}.Append(nil),
		}
	}
	errs := make([]error, len(acceptors))
	err = raw.Control(func(fd uintptr) {
		deferAccept(int(fd))
		var running sync.WaitGroup
		for i, a := range acceptors {
			running.Go(func() {
				defer cancel()
				errs[i] = a.run(ctx, int(fd))
			})
		}
		running.Wait()
	})
	cancel()
	<-woken
	for _, a := range acceptors {
		a.served.Wait()
	}
	if err := errors.Join(append(errs, err)...); err != nil {
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

// maxAcceptors is how many goroutines accept at most: what they do is the kernel's
// work, mostly, and there are other things to do on a host.
const maxAcceptors = 4

// acceptorsOf is how many accept on so many processors: those who ask are on half
// of them.
func acceptorsOf(processors int) int { return min(max(processors/2, 1), maxAcceptors) }

// inline tells whether requests may be answered by the accepting goroutine:
// not if somebody wants to watch, to decide, or to be slow.
func (s *Server) inline() bool {
	return s.Answer == nil && s.Alias == nil && s.DelayWrite <= 0 && !verbose(s.Log)
}

// acceptor is an accepting goroutine of a listener. It waits by itself, and
// not by the runtime's poller: with one client that asks again and again, a thread
// that is back from epoll_wait(2) answers a quarter more requests than a goroutine
// that has to be found a thread.
type acceptor struct {
	*Server
	wake    int // an eventfd that is readable when ctx has ended
	epoll   int // of the listener, wake, and the nodes that are held
	inline  bool
	held    map[int32]*Registration // by descriptor
	served  sync.WaitGroup
	unknown []byte          // the answer for a name that is not registered
	buffer  [maxInline]byte // for a request that is answered here
}

// maxInline is more than a PORT_PLEASE2_REQ has, and an ALIVE2_REQ of a usual node.
const maxInline = 2 << 10

// acceptBatch is how many connections are accepted before nodes are looked after
// that have gone.
const acceptBatch = 64

// run accepts and serves until ctx ends. An error is one of the listener.
func (a *acceptor) run(ctx context.Context, listener int) (err error) {
	if a.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("making an epoll instance: %w", err)
	}
	defer unix.Close(a.epoll)
	defer a.releaseAll()
	// Of several who wait for the listener one is woken.
	for fd, events := range map[int]uint32{listener: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, a.wake: unix.EPOLLIN} {
		if err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
			return fmt.Errorf("waiting for connections: %w", err)
		}
	}
	events := make([]unix.EpollEvent, acceptBatch)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(a.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("waiting for connections: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			switch int(e.Fd) {
			case listener:
				if err := a.accept(ctx, listener); err != nil {
					return err
				}
			case a.wake:
			default:
				a.ended(e.Fd)
			}
		}
	}
	return nil
}

// accept accepts connections until there is none, or others have waited for long
// enough. An error is one of the listener.
func (a *acceptor) accept(ctx context.Context, listener int) error {
	for range acceptBatch {
		fd, peer, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			a.accepted(ctx, fd, peer)
		case unix.EAGAIN:
			return nil
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			if a.releaseEnded() {
				continue // there is room again
			}
			logger(a.Log).WithError(err).Error("accepting connections is suspended (is the limit of open files too low?)")
			_ = pause(ctx, acceptBackoff)
			return nil
		case unix.EINTR, unix.ECONNABORTED, unix.EPERM, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT,
			unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH:
			// accept(2): errors of that one connection.
		default:
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// accepted serves a connection, here or in a goroutine.
func (a *acceptor) accepted(ctx context.Context, fd int, peer unix.Sockaddr) {
	_ = pause(ctx, a.DelayAccept)
	if a.inline && a.answer(fd, peer) {
		return
	}
	c, err := tcpConn(fd)
	if err != nil {
		logger(a.Log).WithError(err).Warn("accepting connection")
		return
	}
	a.served.Go(func() { a.ServeConn(ctx, c) })
}

// answer serves a request that has arrived whole and alone, and is one of the two
// that there are many of. It does nothing and returns false if there is anything
// else.
func (a *acceptor) answer(fd int, peer unix.Sockaddr) bool {
	n, _, err := unix.Recvfrom(fd, a.buffer[:], unix.MSG_PEEK)
	if err != nil || n <= lengthSize {
		return false
	}
	frame := a.buffer[:n]
	payload, rest, err := cutField(frame)
	if err != nil || len(rest) > 0 || len(payload) == 0 {
		return false
	}
	switch payload[0] {
	case tagPort:
		return a.answerPort(fd, frame)
	case tagAlive:
		return a.answerAlive(fd, peer, frame)
	}
	return false
}

// answerPort answers a PORT_PLEASE2_REQ, and closes the connection.
func (a *acceptor) answerPort(fd int, frame []byte) bool {
	name, err := cutName(frame[lengthSize+1:])
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
