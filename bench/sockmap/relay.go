package sockmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	patience   = 10 * time.Second       // for the connection to the target
	attention  = 200 * time.Millisecond // within which the end of the context is seen
	beginnings = 1024                   // connections that are being set up at once
)

// Relay accepts TCP connections at an address and joins each with one to a target,
// until the context is done, which is no error. It needs CAP_BPF and
// CAP_NET_ADMIN. See the package for what is wrong with it.
func Relay(ctx context.Context, listen, target string) (err error) {
	r := &relay{target: target, watched: make(map[uint64]*end)}
	if err := LoadForwardObjects(&r.objects, nil); err != nil {
		return fmt.Errorf("loading the sockmap program (it needs root, or CAP_BPF and CAP_NET_ADMIN): %v", err)
	}
	defer func() { err = errors.Join(err, r.objects.Close()) }()
	// The attachment belongs to the map, and so ends with it.
	if err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target:  r.objects.Sources.FD(),
		Program: r.objects.ForwardPrograms.Forward,
		Attach:  ebpf.AttachSkSKBStreamVerdict,
	}); err != nil {
		return fmt.Errorf("attaching the sockmap program: %v", err)
	}
	r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("creating an epoll instance: %v", err)
	}
	defer unix.Close(r.epoll)

	var config net.ListenConfig
	config.SetMultipathTCP(false) // a sockmap takes plain TCP only
	config.KeepAlive = -1
	listener, err := config.Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listening for the sockmap relay: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer r.over.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	r.over.Go(func() { r.watch(ctx) })
	places := make(chan struct{}, beginnings)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			listener.Close()
			return fmt.Errorf("accepting for the sockmap relay: %v", err)
		}
		places <- struct{}{}
		r.over.Go(func() {
			defer func() { <-places }()
			r.join(ctx, conn.(*net.TCPConn))
		})
	}
}

// relay has the maps, and watches the ends of all pairs.
type relay struct {
	objects ForwardObjects
	target  string
	epoll   int
	over    sync.WaitGroup // of all goroutines

	mu      sync.Mutex
	last    uint64          // the number of the end that was watched last
	watched map[uint64]*end // by their numbers: a descriptor may be another socket's soon
	blind   bool            // nobody watches any more
}

// join connects to the target, and leaves the two to the kernel.
func (r *relay) join(ctx context.Context, client *net.TCPConn) {
	dialer := net.Dialer{Timeout: patience, KeepAlive: -1}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.DialContext(ctx, "tcp", r.target)
	if err != nil {
		client.SetLinger(0)
		client.Close()
		return
	}
	p, err := newPair(client, conn.(*net.TCPConn))
	if err != nil {
		return
	}
	if err := r.introduce(p); err != nil {
		// The map takes no socket of which one side has ended, as that of a client
		// that has asked its question already and sends no more.
		p.copy(ctx)
		return
	}
	if err := r.forward(p); err != nil {
		p.abort()
		return
	}
	if err := r.add(p); err != nil {
		p.abort()
	}
}

// introduce makes each socket the other one's peer. After an error neither is.
func (r *relay) introduce(p *pair) error {
	client, node := &p.ends[0], &p.ends[1]
	if err := r.objects.Peers.Put(node.cookie, uint64(client.fd)); err != nil {
		return err
	}
	if err := r.objects.Peers.Put(client.cookie, uint64(node.fd)); err != nil {
		return errors.Join(err, r.objects.Peers.Delete(node.cookie))
	}
	return nil
}

// forward lets the kernel send what arrives at each socket by its peer, which is
// there already: a source without one would drop what arrives.
func (r *relay) forward(p *pair) error {
	for i := range p.ends {
		e := &p.ends[i]
		if err := r.objects.Sources.Put(e.cookie, uint64(e.fd)); err != nil {
			// It has ended since, so that all it ever sends has arrived. Nothing
			// leaves the maps for that: bytes for it may be queued there.
			e.byHand = true
			continue
		}
		// What arrived before waits in the socket's queue for the next packet.
		// To set this asks for it to be looked at now, in its order.
		if err := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1); err != nil {
			return err
		}
	}
	return nil
}

// add begins to watch for the ends of both directions. Nothing else is watched
// for, so that no packet wakes this process.
func (r *relay) add(p *pair) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blind {
		return net.ErrClosed
	}
	for i := range p.ends {
		e := &p.ends[i]
		r.last++
		e.number = r.last
		r.watched[e.number] = e
		event := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(e.number), Pad: int32(e.number >> 32)}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, e.fd, &event); err != nil {
			for j := range p.ends {
				delete(r.watched, p.ends[j].number)
			}
			return err
		}
	}
	return nil
}

// watch passes the ends of directions on, until the context is done. Then it
// closes what is left.
func (r *relay) watch(ctx context.Context) {
	events := make([]unix.EpollEvent, 256)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(r.epoll, events, int(attention.Milliseconds()))
		if err != nil && err != unix.EINTR {
			break
		}
		for _, event := range events[:max(n, 0)] {
			number := uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
			r.mu.Lock()
			e := r.watched[number]
			delete(r.watched, number)
			r.mu.Unlock()
			if e != nil {
				r.over.Go(func() { r.ended(ctx, e, event.Events) })
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blind = true
	for _, e := range r.watched {
		e.pair.abort()
	}
	clear(r.watched)
}

// ended passes on that an end sends no more.
func (r *relay) ended(ctx context.Context, e *end, events uint32) {
	if events&unix.EPOLLERR != 0 || !e.flushed(ctx) {
		e.pair.abort()
	} else if !e.pair.shut(e) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range e.pair.ends {
		delete(r.watched, e.pair.ends[i].number)
	}
}
