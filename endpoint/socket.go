package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is a duplicate of a socket of a BEAM: another descriptor of the same
// socket, with the same flags and options. Whatever is changed is changed for its
// owner, and the connection does not end before both have closed it. So it is to
// be closed soon.
//
// It is not registered with the runtime's poller, and cannot be waited for.
type Socket struct {
	Owner
	Local, Remote netip.AddrPort // as this end sees them; IPv4 addresses are never mapped into IPv6

	mu     sync.RWMutex
	fd     int
	closed bool
}

// take takes a duplicate of a descriptor of p and makes sure that it is e, and
// suitable.
func take(p *process, number int, e end) (*Socket, error) {
	fd, err := p.duplicate(number)
	if err != nil {
		return nil, fmt.Errorf("pidfd_getfd of process %d: %w", p.pid, err)
	}
	err = verify(fd, e)
	if err == nil {
		// It may have executed another program since it was met.
		err = p.check()
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Socket{Owner: e.owner(p), Local: e.local, Remote: e.remote, fd: fd}, nil
}

// verify makes sure that a descriptor is the socket that the kernel told of, and
// that nothing forbids to treat it as a plain connection. The error is errStale
// if it is another one.
func verify(fd int, e end) error {
	var status unix.Stat_t
	if err := unix.Fstat(fd, &status); err != nil {
		return err
	}
	if status.Mode&unix.S_IFMT != unix.S_IFSOCK || uint32(status.Ino) != e.Inode {
		return errStale
	}
	// Before the cookie: what sock_diag tells of is a subflow of MPTCP's.
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	if protocol != unix.IPPROTO_TCP {
		return unsuitable("its protocol is %d, not TCP; MPTCP is 262", protocol)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return err
	}
	if cookie != e.Cookie {
		return errStale
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return err
	}
	if info.State != unix.BPF_TCP_ESTABLISHED {
		return unsuitable("its state is %d, not established", info.State)
	}
	if own, err := unix.Getsockname(fd); err != nil || address(own) != e.local {
		return errStale // it has been connected anew
	}
	if peer, err := unix.Getpeername(fd); err != nil || address(peer) != e.remote {
		return errStale
	}
	protocolAbove, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP)
	if err == nil && protocolAbove != "" {
		return unsuitable("the kernel runs %q on it", protocolAbove)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if flags&unix.O_NONBLOCK == 0 {
		return unsuitable("it is blocking")
	}
	return nil
}

// address returns an IP address with its port, not mapped.
func address(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func unsuitable(format string, args ...any) error {
	return &UnsuitableError{fmt.Sprintf(format, args...)}
}

// SyscallConn gives access to the descriptor, by Control alone. It implements
// syscall.Conn.
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

// Close closes the duplicate. It waits for the Controls that run.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return syscall.EBADF
	}
	s.closed = true
	return unix.Close(s.fd)
}

// rawSocket is the syscall.RawConn of a Socket.
type rawSocket struct{ s *Socket }

// Control runs f with the descriptor, which is open until f returns.
func (r rawSocket) Control(f func(fd uintptr)) error {
	r.s.mu.RLock()
	defer r.s.mu.RUnlock()
	if r.s.closed {
		return syscall.EBADF
	}
	f(uintptr(r.s.fd))
	return nil
}

// Read is not for a socket that another process reads.
func (r rawSocket) Read(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Write is not for a socket that another process writes.
func (r rawSocket) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }
