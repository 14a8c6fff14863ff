package door

import (
	"container/list"
	"net/netip"
	"sync"
)

// source is what counts on one address.
type source struct {
	key     netip.Addr
	count   int
	pending *list.List // of *Conn: not identified yet, oldest first
}

// admission counts connections and keeps them within the limits.
//
// Where a limit is reached and some connection within it has not said yet what
// it wants, the one that has been silent for the longest makes room: those who
// only hold connections open take nothing from those who use them.
// Connections from this host are not limited per source, and an eighth of the
// total is kept for them, so that nodes can always register.
type admission struct {
	maxTotal, maxPerSource int

	mu      sync.Mutex
	total   int
	sources map[netip.Addr]*source
	pending *list.List // of *Conn, all sources
	places  map[*Conn][2]*list.Element
}

func newAdmission(maxTotal, maxPerSource int) *admission {
	return &admission{
		maxTotal: maxTotal, maxPerSource: maxPerSource,
		sources: make(map[netip.Addr]*source), pending: list.New(), places: make(map[*Conn][2]*list.Element),
	}
}

// sourceKey is the address that a peer counts on: its own, or its /64 in IPv6,
// of which one host may use every address.
func sourceKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 is always valid for IPv6
		return p.Addr()
	}
	return a
}

// enter counts c. It returns the connection that has to go for it, if any, and
// an empty cause, or why there is no room.
func (m *admission) enter(c *Conn) (evict *Conn, full Cause) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := sourceKey(c.peer.Addr())
	s := m.sources[key]
	if s == nil {
		s = &source{key: key, pending: list.New()}
		m.sources[key] = s
	}
	limit := m.maxTotal
	if !c.thisHost {
		limit -= m.maxTotal / 8
	}
	switch {
	case !c.thisHost && s.count >= m.maxPerSource:
		evict, full = oldest(s.pending), CauseSource
	case m.total >= limit:
		evict, full = oldest(m.pending), CauseTotal
	}
	if evict != nil {
		m.settle(evict)
		full = ""
	}
	c.source = s
	s.count++
	m.total++
	if full == "" {
		m.places[c] = [2]*list.Element{m.pending.PushBack(c), s.pending.PushBack(c)}
	}
	return evict, full
}

func oldest(l *list.List) *Conn {
	if e := l.Front(); e != nil {
		return e.Value.(*Conn)
	}
	return nil
}

// identified takes c out of those that may have to make room.
func (m *admission) identified(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle(c)
}

func (m *admission) settle(c *Conn) {
	if p, ok := m.places[c]; ok {
		m.pending.Remove(p[0])
		c.source.pending.Remove(p[1])
		delete(m.places, c)
	}
}

// leave ends the counting of c.
func (m *admission) leave(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle(c)
	m.total--
	if c.source.count--; c.source.count == 0 {
		delete(m.sources, c.source.key)
	}
}
