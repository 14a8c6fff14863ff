package bench

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// abandon closes a connection so that nothing of it is left to wait for: over TCP
// with a reset. Thousands of connections in TIME_WAIT would keep later ones from
// having a port.
func abandon(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = c.Close()
}

// closer closes a connection by abandon.
type closer struct{ net.Conn }

func (c closer) Close() error { abandon(c.Conn); return nil }

// serve serves a connection as the node, and closes it.
func (p *process) serve(c net.Conn) {
	owned := &closer{c}
	if !p.own(owned) {
		return
	}
	p.running.Go(func() {
		defer p.disown(owned)
		h, err := p.greet(c)
		if err != nil {
			return // somebody who has looked whether the port is open, or has gone
		}
		if h.Poll {
			if c, err = asPolled(c); err != nil {
				return
			}
		}
		if err := c.SetDeadline(time.Now().Add(h.within())); err != nil {
			return
		}
		if h.Kind != setUp && h.Kind != hold {
			if _, err := c.Write(serveWork(c, h).bytes()); err != nil {
				return
			}
		}
		// The client is the first to close: what is left of the connection is then
		// on its side, and it is this end's reset that removes it.
		_, _ = io.Copy(io.Discard, c)
	})
}

// greet reads the header, and waits for the beginning.
func (p *process) greet(c net.Conn) (header, error) {
	const patience = 2 * time.Minute
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return header{}, err
	}
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(c, b); err != nil {
		return header{}, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return header{}, err
	}
	if _, err := c.Write([]byte{ready}); err != nil || h.Kind == setUp || h.Kind == hold {
		return h, err
	}
	_, err = io.ReadFull(c, b[:1])
	return h, err
}

// serveWork does the node's part, and says what came of it.
func serveWork(c net.Conn, h header) report {
	var r report
	var err error
	switch h.Kind {
	case trips:
		r.received, err = h.Count*uint64(h.Size), echo(c, h)
	case slow:
		r, err = serveSlow(c, h)
	default:
		var sent atomic.Uint64
		sending := make(chan error, 1)
		go func() {
			if h.Direction&toClient == 0 {
				sending <- nil
				return
			}
			sending <- send(c, ^h.Seed, h.Count, int(h.Size), &sent)
		}()
		if h.Direction&toNode != 0 {
			r.received, err = receive(c, h.Seed, h.Count, int(h.Size))
		}
		if err != nil {
			_ = c.SetDeadline(time.Now()) // the other direction is of no use now
		}
		if other := <-sending; err == nil {
			err = other
		}
		if err != nil {
			_ = c.SetDeadline(time.Now().Add(time.Second)) // to say so
		}
	}
	if r.ok = err == nil; !r.ok {
		r.why = err.Error()
	}
	return r
}

func serveSlow(c net.Conn, h header) (r report, err error) {
	if h.Direction == toNode {
		time.Sleep(h.Sleep)
		r.received, err = receive(c, h.Seed, h.Count, int(h.Size))
		return r, err
	}
	s, err := sendStrained(c, ^h.Seed, h)
	return report{accepted: s.accepted, fall: s.fall}, err
}
