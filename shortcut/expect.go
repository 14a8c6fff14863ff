package shortcut

import (
	"context"
	"time"

	"oneport/endpoint"
)

// A client that asks for a node's port connects to it at once, and past the
// daemon. So the connections of that port are looked at for a while after each
// question, by the one ticker that there is: to look all the time would cost a
// walk over the host's sockets for each node and second.
const (
	// expectance is how long after a question a connection is looked for.
	expectance = 5 * time.Second
	// maxExpected is how many ports are looked at, and maxAccepted at how many
	// connections of each.
	maxExpected = 64
	maxAccepted = 1024
)

// expectation is a port to which clients are about to connect.
type expectation struct {
	until time.Time
	seen  map[endpoint.Ends]bool // that have been dealt with
}

// Expect says that a client was told a node's own port on this host. If it has an
// address of this host, that is thisHost. If both turn out to be here, their
// connection gets a short way.
func (s *Service) Expect(port uint16, thisHost bool) {
	if s.off != "" || thisHost && s.o.Mode == Auto {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.expected[port]
	if e == nil {
		if len(s.expected) >= maxExpected {
			return
		}
		e = &expectation{seen: make(map[endpoint.Ends]bool)}
		s.expected[port] = e
	}
	e.until = time.Now().Add(expectance)
}

// lookForExpected gives the connections that have come to the expected ports
// their short way.
func (s *Service) lookForExpected() {
	s.mu.Lock()
	var ports []uint16
	for port, e := range s.expected {
		if time.Now().After(e.until) {
			delete(s.expected, port)
			continue
		}
		ports = append(ports, port)
	}
	s.mu.Unlock()
	for _, port := range ports {
		found, err := endpoint.Accepted(port, maxAccepted)
		if err != nil {
			s.log.WithError(err).WithField("port", port).Debug("looking for connections to a node")
			continue
		}
		for _, ends := range s.unseen(port, found) {
			s.joinAccepted(ends)
		}
	}
}

// unseen returns those ends that have no link and were not looked at before.
func (s *Service) unseen(port uint16, found []endpoint.Ends) (fresh []endpoint.Ends) {
	s.mu.Lock()
	defer s.mu.Unlock()
	linked := make(map[endpoint.Ends]bool)
	for l := range s.links {
		// Of an adopted one it is not known which end is which.
		linked[endpoint.Ends{Local: l.Local, Remote: l.Peer}] = true
		linked[endpoint.Ends{Local: l.Peer, Remote: l.Local}] = true
	}
	e := s.expected[port]
	for _, ends := range found {
		if e != nil && !e.seen[ends] && !linked[ends] {
			e.seen[ends] = true
			fresh = append(fresh, ends)
		}
	}
	return fresh
}

func (s *Service) joinAccepted(ends endpoint.Ends) {
	l := &link{Connection: Connection{Peer: ends.Remote, Local: ends.Local}, changed: func(bool, string) {}}
	l.join = func(ctx context.Context, _ made) (made, error) { return s.joinDirect(ctx, l) }
	// If too many wait, it goes on as it is.
	_ = s.beside(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, besidePatience)
		defer cancel()
		s.open(ctx, l)
	})
}
