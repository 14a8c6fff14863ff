package epmd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	// DefaultPacketTimeout is how long a client may take between two parts of
	// its request, and between two parts of the answer that it reads.
	DefaultPacketTimeout = 60 * time.Second

	// duplicateGrace is how long a node waits whose name is in use, for the
	// holder to be seen closing: the end of a killed node's connection may
	// be on its way still.
	duplicateGrace = 50 * time.Millisecond

	// listChunk is how much of a list of names is written at once.
	listChunk = 32 << 10
)

// Server answers the requests of nodes and of those who look for them. Its
// fields must not change while it serves. All its methods may be called at the
// same time.
type Server struct {
	// Registry holds the nodes. It is required.
	Registry *Registry

	// Log takes what happens: refusals as warnings, registrations at level
	// info, every request at level debug. Nil discards it.
	Log logrus.FieldLogger

	// Port is told in the answers to NAMES_REQ and DUMP_REQ. 0 means the local
	// port of the connection.
	Port uint16

	// PacketTimeout bounds a client's silence. 0 means DefaultPacketTimeout.
	PacketTimeout time.Duration

	// RelaxedCommandCheck allows KILL_REQ while nodes are registered, and
	// STOP_REQ.
	RelaxedCommandCheck bool

	// DelayAccept and DelayWrite make a slow daemon, to test clients with: a
	// pause before each connection is accepted by Serve, and one before each
	// answer.
	DelayAccept, DelayWrite time.Duration

	// Local says whether a connection comes from this host, which ALIVE2_REQ,
	// DUMP_REQ, KILL_REQ and STOP_REQ must. Nil means IsLocal.
	Local func(peer, local netip.AddrPort) bool

	// Answer decides what a PORT_PLEASE2_REQ for a registered node is told:
	// the port, and whether the node is admitted to exist. It may wait as long
	// as ctx lasts, which ends with the server. Nil means the node's own port.
	Answer func(ctx context.Context, c *net.TCPConn, node *Registration) (port uint16, ok bool)

	// Alias finds the node that a PORT_PLEASE2_REQ means whose name is not
	// registered. Nil means that there are no such names.
	Alias func(name string) (node *Registration, ok bool)

	// Handover takes over the connection of a HandoverRequest, of which
	// exactly the request was read and nothing was answered. The connection
	// belongs to Handover from then on, which may outlast the call. Nil means
	// that every such request fails.
	Handover func(ctx context.Context, c *net.TCPConn, name string)

	// Kill is called after an allowed KILL_REQ was answered. Nil means that
	// every KILL_REQ is refused.
	Kill func()
}

// ServeConn serves a connection, owns it, and returns when it is closed or
// handed over. That takes as long as the node lives if it registers one. When
// ctx ends the connection is closed.
func (s *Server) ServeConn(ctx context.Context, c *net.TCPConn) {
	// The deadline of a connection is its owner's, who may be waiting just
	// now; closing it is left to him as well.
	release := context.AfterFunc(ctx, func() { _ = c.SetDeadline(past()) })
	x := exchange{Server: s, ctx: ctx, conn: c, release: release}
	if x.serve() {
		return
	}
	release()
	if err := closeAnswered(c); err != nil && !errors.Is(err, net.ErrClosed) {
		x.log().WithError(err).Debug("closing connection")
	}
	if x.killed {
		s.Kill()
	}
}

// exchange is one connection on its way through the server.
type exchange struct {
	*Server
	ctx     context.Context
	conn    *net.TCPConn
	release func() bool // takes the connection away from ctx
	killed  bool        // by an allowed KILL_REQ
}

// serve reads the request and answers it. It returns whether the connection
// belongs to somebody else now.
func (x *exchange) serve() (handedOver bool) {
	request, err := ReadRequest(x)
	if err != nil {
		// Those who only look whether somebody listens send nothing.
		if err != io.EOF && x.ctx.Err() == nil {
			x.log().WithError(err).Warn("reading request")
		}
		return false
	}
	if verbose(x.Log) {
		x.log().WithField("request", requestName(request)).Debug("got request")
	}
	switch request := request.(type) {
	case PortRequest:
		x.port(request.Name)
	case NamesRequest:
		x.names()
	case HandoverRequest:
		return x.handover(request.Name)
	case AliveRequest:
		if x.local("ALIVE2_REQ") {
			x.alive(request.Node)
		}
	case DumpRequest:
		if x.local("DUMP_REQ") {
			x.dump()
		}
	case KillRequest:
		if x.local("KILL_REQ") {
			x.kill()
		}
	case StopRequest:
		if x.local("STOP_REQ") {
			x.stop(request.Name)
		}
	}
	return false
}

// Read reads from the connection, and fails if nothing comes for the packet
// time-out.
func (x *exchange) Read(b []byte) (int, error) {
	if err := x.allow(x.conn.SetReadDeadline); err != nil {
		return 0, err
	}
	return x.conn.Read(b)
}

// Write writes to the connection, and fails if the client does not take it
// within the packet time-out.
func (x *exchange) Write(b []byte) (int, error) {
	if err := x.allow(x.conn.SetWriteDeadline); err != nil {
		return 0, err
	}
	return x.conn.Write(b)
}

// allow sets a deadline that is the packet time-out away. The end of ctx,
// which sets one too, wins whichever comes first.
func (x *exchange) allow(setDeadline func(time.Time) error) error {
	if err := setDeadline(time.Now().Add(x.packetTimeout())); err != nil {
		return err
	}
	return x.ctx.Err()
}

// answer sends a whole answer, after which the connection is closed.
func (x *exchange) answer(b []byte) {
	if err := x.delay(); err != nil {
		return
	}
	err := x.allow(x.conn.SetWriteDeadline)
	if err == nil {
		err = sendLast(x.conn, b)
	}
	if err != nil {
		x.log().WithError(err).Debug("sending answer")
	}
}

// local tells whether the client is on this host, and reports a client that is
// not and should be.
func (x *exchange) local(request string) bool {
	if x.isLocal(endpoints(x.conn)) {
		return true
	}
	x.log().WithField("request", request).Warn("refusing request from another host")
	return false
}

// isLocal tells whether a peer is on this host.
func (s *Server) isLocal(peer, local netip.AddrPort) bool {
	if s.Local != nil {
		return s.Local(peer, local)
	}
	return IsLocal(peer, local)
}

// log returns the log with the connection's peer in it.
func (x *exchange) log() logrus.FieldLogger {
	// A connection that was reset before it was accepted has no remote address.
	peer, _ := endpoints(x.conn)
	return logger(x.Log).WithField("peer", peer.String())
}

func (s *Server) packetTimeout() time.Duration {
	if s.PacketTimeout > 0 {
		return s.PacketTimeout
	}
	return DefaultPacketTimeout
}

// delay is the pause before an answer. It ends early, with an error, if the
// server ends.
func (x *exchange) delay() error {
	return pause(x.ctx, x.DelayWrite)
}

// pause waits, and fails if ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// told is the daemon's own port, as clients are told.
func (x *exchange) told() uint32 {
	if x.Port != 0 {
		return uint32(x.Port)
	}
	_, local := endpoints(x.conn)
	return uint32(local.Port())
}
