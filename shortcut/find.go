package shortcut

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"oneport/endpoint"
)

// errElsewhere says that an end belongs to no Erlang VM of this host.
var errElsewhere = errors.New("the client is not on this host")

// find returns the end with these addresses.
func (s *Service) find(ctx context.Context, local, remote netip.AddrPort) (*endpoint.Socket, error) {
	socket, err := s.finder.End(ctx, local, remote)
	if errors.Is(err, endpoint.ErrNotFound) || errors.Is(err, endpoint.ErrNotBEAM) {
		return nil, errElsewhere
	}
	return socket, err
}

// findClient is find for the client of conn, which waits for it. That there was
// none is remembered of its address: to find nothing takes a walk over the
// processes of this host.
func (s *Service) findClient(ctx context.Context, l *link, conn syscall.Conn) (*endpoint.Socket, error) {
	if s.absent.has(l.Peer.Addr(), time.Now()) {
		return nil, errElsewhere
	}
	socket, err := s.find(ctx, l.Peer, l.Local)
	// A client that has gone says nothing about the next.
	if errors.Is(err, errElsewhere) && !l.ThisHost && established(conn) {
		s.absent.add(l.Peer.Addr(), time.Now())
	}
	return socket, err
}

// findNode is find for a node's end of a connection that it may be about to
// accept.
func (s *Service) findNode(ctx context.Context, local, remote netip.AddrPort) (*endpoint.Socket, error) {
	const longest = 64 * time.Millisecond
	for wait := time.Millisecond; ; wait *= 2 {
		socket, err := s.find(ctx, local, remote)
		if errors.Is(err, errElsewhere) {
			return nil, endpoint.ErrNotBEAM
		}
		var unsuitable *endpoint.UnsuitableError
		if !errors.As(err, &unsuitable) || wait > longest {
			return socket, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// established tells whether a connection is open both ways.
func established(conn syscall.Conn) (yes bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	// An error is that it is closed.
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		yes = err == nil && info.State == unix.BPF_TCP_ESTABLISHED
	})
	return yes
}

// absent remembers at which addresses no Erlang VM of this host was found. The zero value is
// empty.
type absent struct {
	mu    sync.Mutex
	until map[netip.Addr]time.Time
}

const (
	// absence is how long that is believed.
	absence = 10 * time.Second
	// maxAbsent is how much is remembered.
	maxAbsent = 4096
)

func (a *absent) has(key netip.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.until[key])
}

func (a *absent) add(key netip.Addr, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil || len(a.until) >= maxAbsent {
		a.until = make(map[netip.Addr]time.Time)
	}
	a.until[key] = now.Add(absence)
}
