package shortcut

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"oneport/endpoint"
	"oneport/loader"
)

// Connection is what is known of a client's connection.
type Connection struct {
	ID          uint64         // by which Report tells it
	Peer, Local netip.AddrPort // as the daemon's end sees them, or saw them
	ThisHost    bool           // the peer has an address of this host
}

// Changed is told when a connection has a short way, and when it has none, or
// none any more, and why. why is empty where none could be.
type Changed func(open bool, why string)

const (
	// relayPatience is how long a relay waits for its short way.
	relayPatience = 250 * time.Millisecond
	// besidePatience is how long an attempt takes that nobody waits for.
	besidePatience = 5 * time.Second
)

// link is a connection that has a short way, or had one and may have it again.
type link struct {
	Connection
	// join makes the pair, again if there was one before.
	join    func(ctx context.Context, before made) (made, error)
	changed Changed
	relayed bool // somebody says when it ends

	// Under Service.mu.
	state state
	made
	cookies []uint64 // of the sockets whose messages may go the short way
	record
}

// made is the pair of a link.
type made struct {
	pair   *loader.Pair // nil if another process made it
	kind   loader.Kind  // 0: there is none
	node   uint64       // cookie of the node's own socket; 0 if not known
	client uint64       // of the client's own, unless it is outward; 0 if not known
}

// state is where a link stands.
type state int

const (
	opened  state = iota // has a short way
	leaving              // it is being taken out
	resting              // it is out
	coming               // it is being made again
	over                 // the connection has ended
)

// Relayed gives a connection that is about to be relayed a short way, if there
// is one that gains. client and node are the relay's own sockets, and taken is how
// many of the client's bytes have been read and not been written to the node. The
// relay must not run yet. stop has to be called when it has ended, and says what
// had gone the short way at the last look, a second ago or so: the sockets are gone
// by then, and with them what they counted.
func (s *Service) Relayed(ctx context.Context, c Connection, client, node *net.TCPConn, taken int, changed Changed) (stop func() Usage) {
	if s.off != "" {
		if s.o.Mode != Off {
			changed(false, s.off)
		}
		return func() Usage { return Usage{} }
	}
	ctx, cancel := context.WithTimeout(ctx, relayPatience)
	defer cancel()
	r := loader.Relay{Client: client, Node: node, ToNode: uint32(taken)}
	l := &link{Connection: c, changed: changed, relayed: true}
	b, n := addrPort(node.RemoteAddr()), addrPort(node.LocalAddr())
	l.join = func(ctx context.Context, before made) (made, error) {
		return s.joinRelayed(ctx, l, r, b, n, before)
	}
	s.open(ctx, l)
	return func() Usage {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.state = over
		delete(s.links, l)
		u := Usage{Kind: l.kind.String()}
		for cookie, c := range l.last {
			u.add(c, cookie == l.made.node)
		}
		return u
	}
}

// Handed gives a connection that its node has been handed a short way, if its
// client is on this host, too. It returns at once.
func (s *Service) Handed(c Connection, changed Changed) {
	if s.off != "" {
		return
	}
	l := &link{Connection: c, changed: changed}
	l.join = func(ctx context.Context, _ made) (made, error) { return s.joinDirect(ctx, l) }
	if !s.beside(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, besidePatience)
		defer cancel()
		s.open(ctx, l)
	}) {
		changed(false, "too many connections are waiting for a shortcut")
	}
}

// open makes a link's first pair.
func (s *Service) open(ctx context.Context, l *link) {
	pair, err := l.join(ctx, made{})
	if err != nil {
		s.log.WithField("id", l.ID).WithError(err).Debug("no shortcut")
		l.changed(false, reason(err))
		return
	}
	s.enter(l, pair)
	s.log.WithFields(logrus.Fields{"id": l.ID, "kind": pair.kind.String()}).Debug("shortcut")
}

// enter records that a link has a pair.
func (s *Service) enter(l *link, m made) {
	s.mu.Lock()
	ended := l.state == over
	if !ended {
		l.state, l.made, l.cookies = opened, m, m.pair.Cookies()
		l.record.begin(time.Now())
		s.links[l] = struct{}{}
	}
	s.mu.Unlock()
	if !ended {
		l.changed(true, "")
	}
}

// joinRelayed pairs a client and a node with a relay between them: with each
// other if both are here, else the node with the relay's end towards the client.
// The node's end of its connection to the relay is at b, towards n.
//
// Once the relay runs, only the pair that was before can be made: how far the two
// connections are apart is not known of any other.
func (s *Service) joinRelayed(ctx context.Context, l *link, r loader.Relay, b, n netip.AddrPort, before made) (made, error) {
	if l.ThisHost && s.o.Mode == Auto {
		return made{}, errOneNamespace
	}
	m := made{kind: loader.Outward}
	var client *endpoint.Socket
	if before.kind != loader.Outward {
		// Whatever is wrong with the client, it can be sent to like one elsewhere.
		if c, err := s.findClient(ctx, l, r.Client); err == nil {
			defer c.Close()
			m.kind, m.client, client = loader.Through, c.Cookie, c
		}
		if err := ctx.Err(); err != nil {
			return made{}, err
		}
	}
	node, err := s.findNode(ctx, b, n)
	if err != nil {
		return made{}, err
	}
	defer node.Close()
	m.node = node.Cookie
	if before.kind != 0 && (m.kind != before.kind || m.node != before.node || m.client != before.client) {
		return made{}, errOtherEnds
	}
	if m.kind == loader.Outward {
		m.pair, err = s.loader.PairOutward(node, r)
		return m, err
	}
	if err := s.gains(client, node); err != nil {
		return made{}, err
	}
	m.pair, err = s.loader.PairThrough(client, node, r)
	return m, err
}

// joinDirect pairs the two ends of one connection that both are here.
func (s *Service) joinDirect(ctx context.Context, l *link) (made, error) {
	if l.ThisHost && s.o.Mode == Auto {
		return made{}, errOneNamespace
	}
	client, err := s.find(ctx, l.Peer, l.Local)
	if err != nil {
		return made{}, err
	}
	defer client.Close()
	node, err := s.findNode(ctx, l.Local, l.Peer)
	if err != nil {
		return made{}, err
	}
	defer node.Close()
	if err := s.gains(client, node); err != nil {
		return made{}, err
	}
	pair, err := s.loader.Pair(client, node)
	return made{pair, loader.Direct, node.Cookie, client.Cookie}, err
}

// errOneNamespace says that a pair would be possible, and is not worth it: a
// flood of small messages is slower by it.
var errOneNamespace = errors.New("both ends are in one network namespace, where it gains nothing")

// errOtherEnds says that a pair cannot be made again while the relay runs.
var errOtherEnds = errors.New("other ends than before are found")

// gains tells whether a pair is worth it.
func (s *Service) gains(a, b *endpoint.Socket) error {
	if s.o.Mode == Auto && a.Namespace == b.Namespace {
		return errOneNamespace
	}
	return nil
}

// reason says in a line why there is no pair. It is empty if there could be
// none, which is nothing to be told.
func reason(err error) string {
	var missing *endpoint.MissingError
	var taken *endpoint.UnsuitableError
	var unsuitable *loader.UnsuitableError
	switch {
	case errors.Is(err, errElsewhere):
		return ""
	case errors.As(err, &missing):
		return missing.Error()
	case errors.As(err, &taken):
		return taken.Error()
	case errors.As(err, &unsuitable):
		return unsuitable.Error()
	}
	for _, known := range []error{endpoint.ErrNotFound, endpoint.ErrNotBEAM, loader.ErrBusy, loader.ErrNotPeers} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
