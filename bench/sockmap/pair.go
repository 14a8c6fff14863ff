package sockmap

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	standstill = time.Minute // after which what is queued is not waited for any more
	glance     = time.Millisecond
)

// pair is two sockets, each of which sends what the other one receives.
type pair struct {
	ends [2]end

	mu     sync.Mutex
	ended  int // directions that have ended
	closed bool
}

// end is one socket of a pair. The pair owns its descriptor.
type end struct {
	pair   *pair
	fd     int
	cookie uint64
	number uint64 // among all ends of a relay
	byHand bool   // its end came before it was a source, so that finish does all
	rest   []byte // read by hand, and not yet written to the other one
}

// newPair takes the sockets of two connections, which it closes, out of the hands
// of the runtime: its poller would be woken by every packet.
func newPair(client, node *net.TCPConn) (*pair, error) {
	p := new(pair)
	p.ends[0] = end{pair: p, fd: -1}
	p.ends[1] = end{pair: p, fd: -1}
	errs := []error{p.ends[0].take(client), p.ends[1].take(node)}
	if err := errors.Join(errs...); err != nil {
		p.abort()
		return nil, err
	}
	return p, nil
}

// take closes conn and keeps a duplicate of its socket.
func (e *end) take(conn *net.TCPConn) error {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var dupErr error
	if err := raw.Control(func(fd uintptr) {
		e.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return err
	}
	if dupErr != nil {
		return dupErr
	}
	e.cookie, err = unix.GetsockoptUint64(e.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return err
}

func (e *end) other() *end {
	if e == &e.pair.ends[0] {
		return &e.pair.ends[1]
	}
	return &e.pair.ends[0]
}

// flushed waits until all that an end has received stands in the send queue of the
// other one: a FIN that overtook the kernel's worker would cut the rest off. It is
// false if the pair was closed, the connections have broken, or nothing moves.
func (e *end) flushed(ctx context.Context) bool {
	var before uint64
	moved := time.Now()
	for wait := glance; ; wait = min(2*wait, 50*glance) {
		received, sent, ok := e.moved()
		switch {
		case !ok:
			return false
		case sent >= received:
			return true
		case !e.finish(received, sent):
			return false
		case sent != before:
			before, moved = sent, time.Now()
		case time.Since(moved) > standstill:
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// moved returns how many bytes an end has received, and how many the other one has
// been given to send. It is false if the pair is closed or broken.
func (e *end) moved() (received, sent uint64, ok bool) {
	e.pair.mu.Lock()
	defer e.pair.mu.Unlock()
	if e.pair.closed {
		return 0, 0, false
	}
	in, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, false
	}
	out, err := unix.GetsockoptTCPInfo(e.other().fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || out.State == unix.BPF_TCP_CLOSE {
		return 0, 0, false
	}
	received = in.Bytes_received
	if received > 0 {
		received-- // the FIN, which is counted
	}
	return received, out.Bytes_sent - out.Bytes_retrans + uint64(out.Notsent_bytes), true
}

// finish leads the last bytes on by hand, as many as there is room for: when we
// have sent a FIN already, the one that arrives takes the socket out of the maps
// before the program has seen what came with it; or one came too early. It is false
// if the connections have broken.
func (e *end) finish(received, sent uint64) bool {
	e.pair.mu.Lock()
	defer e.pair.mu.Unlock()
	if e.pair.closed {
		return false
	}
	if !e.byHand {
		if in, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil {
			return false
		} else if in.State != unix.BPF_TCP_CLOSE {
			return true // the kernel will do it
		}
		unread, err := unix.IoctlGetInt(e.fd, unix.SIOCINQ)
		if err != nil {
			return false
		}
		if sent+uint64(unread+len(e.rest)) != received {
			return true // what is older is still on its way
		}
	}
	if len(e.rest) == 0 {
		block := make([]byte, 64<<10)
		n, err := unix.Read(e.fd, block)
		if err != nil {
			return err == unix.EAGAIN
		}
		e.rest = block[:n]
	}
	n, err := unix.Write(e.other().fd, e.rest)
	if err != nil {
		return err == unix.EAGAIN
	}
	e.rest = e.rest[n:]
	return true
}

// copy leads everything on by hand, for sockets that are in no map, and closes them.
func (p *pair) copy(ctx context.Context) {
	p.mu.Lock()
	p.closed = true // the pair's descriptors are those of the files
	p.mu.Unlock()
	var conns [2]*net.TCPConn
	for i := range p.ends {
		file := os.NewFile(uintptr(p.ends[i].fd), "")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			continue
		}
		defer conn.Close()
		conns[i], _ = conn.(*net.TCPConn)
	}
	if conns[0] == nil || conns[1] == nil {
		return
	}
	defer context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.SetDeadline(time.Unix(1, 0))
		}
	})()
	var both sync.WaitGroup
	for i := range conns {
		both.Go(func() {
			from, to := conns[i], conns[1-i]
			if _, err := io.Copy(to, from); err != nil {
				from.SetDeadline(time.Unix(1, 0)) // and so ends the other direction
				to.SetDeadline(time.Unix(1, 0))
				return
			}
			to.CloseWrite()
		})
	}
	both.Wait()
}

// shut ends the direction away from an end, and closes the pair after the second.
// It returns whether it did.
func (p *pair) shut(e *end) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return true
	}
	unix.Shutdown(e.other().fd, unix.SHUT_WR)
	p.ended++
	if p.ended == len(p.ends) {
		p.close()
	}
	return p.closed
}

// abort resets both connections.
func (p *pair) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for i := range p.ends {
		if fd := p.ends[i].fd; fd >= 0 {
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
	}
	p.close()
}

// close is for those who hold mu.
func (p *pair) close() {
	p.closed = true
	for i := range p.ends {
		if fd := p.ends[i].fd; fd >= 0 {
			unix.Close(fd)
		}
	}
}
