package door

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"oneport/epmd"
	"oneport/internal/peek"
	"oneport/upgrade"
)

// overflowTimeout is how long a connection over a limit has to say in which
// protocol it wants to be told so.
const overflowTimeout = time.Second

// serve finds out what a connection wants, and does it.
func (d *Door) serve(ctx context.Context, c *Conn) {
	protocol, head, err := d.identify(ctx, c, c.accepted.Add(d.o.HeaderTimeout))
	if err != nil {
		d.unidentified(c, protocol, err)
		return
	}
	d.admission.identified(c)
	c.identified(protocol)
	switch protocol {
	case EPMD:
		d.epmd.ServeConn(ctx, c.tcp)
		c.ends("served")
	case HandoverRequest:
		d.serveHandover(ctx, c, head)
	case Raw:
		d.serveRaw(ctx, c)
	case HTTP:
		d.serveHTTP(ctx, c, head)
	}
}

// identify waits for the first message of a connection and returns a copy of
// it. Nothing is consumed. With an error, the protocol is as far as it could
// be told.
func (d *Door) identify(ctx context.Context, c *Conn, deadline time.Time) (protocol Protocol, head []byte, err error) {
	protocol = Unknown
	c.tcp.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { c.tcp.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = peek.Head(c.tcp, d.o.MaxHeader, func(b []byte) (n int, err error) {
		protocol, n, err = cutFirst(b)
		return n, err
	}, func(b []byte) { head = bytes.Clone(b) })
	if ctx.Err() != nil {
		return protocol, nil, ctx.Err()
	}
	c.tcp.SetReadDeadline(time.Time{})
	return protocol, head, err
}

// unidentified answers a connection that did not say what it wants.
func (d *Door) unidentified(c *Conn, protocol Protocol, err error) {
	var a asker = mute{}
	if protocol == HTTP {
		a = upgradeAsker{}
	}
	switch {
	case errors.Is(err, context.Canceled):
		c.ends("shutting down")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET):
		c.ends("closed by the client before it asked for anything")
	case errors.Is(err, os.ErrDeadlineExceeded):
		d.refuse(c, a, CauseSlow, &upgrade.Refusal{Status: http.StatusRequestTimeout, Reason: "the request did not come in time"})
	case errors.Is(err, peek.ErrTooLong):
		d.refuse(c, a, CauseTooLong, &upgrade.Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: "the header is too long"})
	default:
		d.refuse(c, a, CauseProtocol, &upgrade.Refusal{Status: http.StatusBadRequest, Reason: err.Error()})
	}
}

// serveOverflow tells a connection that it cannot be served, in its own
// protocol. Only so many at a time are worth that; the others are reset.
func (d *Door) serveOverflow(ctx context.Context, c *Conn, cause Cause, r *upgrade.Refusal) {
	select {
	case d.overflow <- struct{}{}:
		defer func() { <-d.overflow }()
	default:
		c.refused(cause, r.Reason)
		c.tcp.SetLinger(0)
		return
	}
	protocol, head, err := d.identify(ctx, c, time.Now().Add(overflowTimeout))
	if err != nil {
		c.refused(cause, r.Reason)
		return
	}
	c.identified(protocol)
	d.refuse(c, askerOf(protocol, head), cause, r)
}

// serveRaw routes a handshake that came with nothing before it: by the address
// that it came to, if that is one node's own, else by its sender's lease.
func (d *Door) serveRaw(ctx context.Context, c *Conn) {
	node, ok := d.o.Addresses[c.local.Addr()]
	if !ok {
		node, ok = d.leases.take(c.peer.Addr())
	}
	if !ok {
		d.refuse(c, rawAsker{}, CauseNoLease, &upgrade.Refusal{Reason: "no question to EPMD from this address came before the handshake: it is unknown which node is meant"})
		return
	}
	d.deliver(ctx, c, node, rawAsker{}, nil)
}

// serveHandover serves the request of the 2016 fork's clients, which is good
// for every node.
func (d *Door) serveHandover(ctx context.Context, c *Conn, head []byte) {
	request, err := epmd.ParseRequest(head[2:])
	if err != nil {
		d.refuse(c, handoverAsker{}, CauseBadRequest, &upgrade.Refusal{Status: http.StatusBadRequest, Reason: err.Error()})
		return
	}
	if peek.Discard(c.tcp, len(head)) != nil {
		c.ends("closed by the client")
		return
	}
	name := request.(epmd.HandoverRequest).Name
	if reg, _, ok := d.resolve(name); ok {
		name = reg.Name
		c.routed(name)
		if d.handsOver() && d.handToFork(ctx, c, reg) {
			return
		}
	}
	d.deliver(ctx, c, name, handoverAsker{}, nil)
}

// serveHTTP serves a connection that starts with an HTTP request.
func (d *Door) serveHTTP(ctx context.Context, c *Conn, head []byte) {
	r, err := upgrade.ParseHead(head)
	if err == nil && !upgrade.IsUpgrade(r) {
		d.web.take(ctx, c)
		return
	}
	if peek.Discard(c.tcp, len(head)) != nil {
		c.ends("closed by the client")
		return
	}
	c.identified(Upgrade)
	var decision upgrade.Decision
	if err == nil {
		decision, err = d.upgrade.Decide(r, c.local)
	}
	if err != nil {
		refusal := upgrade.AsRefusal(err)
		d.refuse(c, upgradeAsker{}, causeOf(refusal), refusal)
		return
	}
	d.upgraded(ctx, c, decision, nil)
}

// upgraded serves an upgrade that was decided on. taken holds bytes that were
// read beyond the request.
func (d *Door) upgraded(ctx context.Context, c *Conn, decision upgrade.Decision, taken []byte) {
	if decision.Host != "" {
		d.forward(ctx, c, decision, taken)
		return
	}
	d.deliver(ctx, c, decision.Node, upgradeAsker{}, taken)
}

// causeOf names the cause of a refusal that package upgrade has found.
func causeOf(r *upgrade.Refusal) Cause {
	switch r.Status {
	case http.StatusNotFound:
		return CauseNoNode
	case http.StatusMisdirectedRequest:
		return CauseHost
	case http.StatusForbidden:
		return CauseNotAllowed
	case http.StatusServiceUnavailable:
		return CauseUnreachable
	}
	return CauseBadRequest
}

// answer decides what a PORT_PLEASE2 is told: a client on this host gets the
// node's own port and never comes back to the door; one from elsewhere gets
// the door's, and the node is remembered for it. So does every client of a
// node that has no port, since it takes connections by descriptor only, and
// every client where a path is demanded.
func (d *Door) answer(ctx context.Context, tcp *net.TCPConn, reg *epmd.Registration) (port uint16, ok bool) {
	peer, local := addrPort(tcp.RemoteAddr()), addrPort(tcp.LocalAddr())
	switch here := epmd.IsLocal(peer, local); {
	case reg.Port != 0 && d.o.Path == "" && (here || d.o.Advertise == AdvertiseDirect):
		if d.o.Shortcut != nil {
			d.o.Shortcut.Expect(reg.Port, here)
		}
		return reg.Port, true
	case d.draining.Load():
		return 0, false // the handshake that follows would find nobody
	}
	if node, exact := d.o.Addresses[local.Addr()]; exact {
		return local.Port(), node == reg.Name
	}
	if err := d.leases.give(ctx, peer.Addr(), reg.Name, hold(tcp)); err != nil {
		d.log.WithFields(logrus.Fields{"peer": peer.String(), "node": reg.Name}).WithError(err).Warn("answering PORT_PLEASE2")
		return 0, false
	}
	return local.Port(), true
}

// hold is how long the next question from a client's address has to wait for
// this client's connection: its next packets need two round trips.
func hold(tcp *net.TCPConn) time.Duration {
	rtt := time.Duration(0)
	if raw, err := tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				rtt = time.Duration(info.Rtt) * time.Microsecond
			}
		})
	}
	return min(max(minHold, 4*rtt), maxHold)
}

// allowed says whether a connection's source may use the door.
func (d *Door) allowed(c *Conn) bool {
	return c.thisHost || len(d.o.Allow) == 0 || contains(d.o.Allow, c.peer.Addr())
}
