package door

import (
	"time"

	"github.com/sirupsen/logrus"

	"oneport/shortcut"
)

// Stats is what the door has done since it was opened.
type Stats struct {
	Listen        []string            `json:"listen"` // address:port
	UptimeS       float64             `json:"uptime_s"`
	Draining      bool                `json:"draining"` // stopping: nothing is accepted any more
	Nodes         int                 `json:"nodes"`
	Accepted      uint64              `json:"accepted"`
	Open          map[State]int       `json:"open"`      // connections now, by state
	Protocols     map[Protocol]uint64 `json:"protocols"` // ended connections, by protocol
	Paths         map[string]uint64   `json:"paths"`     // ended connections that had one, by path
	Refused       map[Cause]uint64    `json:"refused"`   // connections, by cause
	Handovers     map[string]uint64   `json:"handovers"` // offers to nodes, by protocol and result
	BytesToNode   uint64              `json:"bytes_to_node"`
	BytesToClient uint64              `json:"bytes_to_client"`
	Shortcut      string              `json:"shortcut"` // on and its mode, or off and why

	// Shortened is what the sockets with a short way have sent, by kind, since the
	// pins were made.
	Shortened map[string]shortcut.Traffic `json:"shortened,omitempty"`
}

// Cause is why a connection was refused, in a few words that can be counted.
type Cause string

// The causes.
const (
	CauseNotAllowed   Cause = "source not allowed"
	CauseTotal        Cause = "too many connections"
	CauseSource       Cause = "too many connections of one source"
	CauseMadeRoom     Cause = "made room"
	CauseSlow         Cause = "header too slow"
	CauseTooLong      Cause = "header too long"
	CauseProtocol     Cause = "unknown protocol"
	CauseBadRequest   Cause = "bad request"
	CauseNoNode       Cause = "unknown node"
	CauseNoLease      Cause = "handshake without a question"
	CauseHost         Cause = "not our host"
	CauseUnreachable  Cause = "node does not answer"
	CausePath         Cause = "path not possible" // the one that was demanded
	CauseShuttingDown Cause = "shutting down"
)

// stats are the counters behind Stats, under Door.mu.
type stats struct {
	accepted              uint64
	protocols             map[Protocol]uint64
	paths                 map[string]uint64
	refused               map[Cause]uint64
	handovers             map[string]uint64
	bytesToNode, toClient uint64
}

// ended adds a connection that is over.
func (s *stats) ended(c *Conn) {
	if s.protocols == nil {
		s.protocols, s.paths, s.refused = map[Protocol]uint64{}, map[string]uint64{}, map[Cause]uint64{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.protocols[c.protocol]++
	if c.path != "" {
		s.paths[string(c.path)]++
	}
	if c.cause != "" {
		s.refused[c.cause]++
	}
	s.bytesToNode += c.bytes.ToNode.Load() + c.pastToNode
	s.toClient += c.bytes.ToClient.Load() + c.pastToClient
}

// Stats returns the counters as they stand, those of open connections included.
func (d *Door) Stats() Stats {
	st := Stats{
		UptimeS: age(d.started), Draining: d.draining.Load(), Nodes: d.registry.Len(),
		Open: map[State]int{}, Protocols: map[Protocol]uint64{}, Paths: map[string]uint64{}, Refused: map[Cause]uint64{}, Handovers: map[string]uint64{},
	}
	st.Shortcut = "off"
	if d.o.Shortcut != nil {
		st.Shortcut = d.o.Shortcut.State()
		var err error
		if st.Shortened, err = d.o.Shortcut.Totals(); err != nil {
			d.log.WithError(err).Warn("asking what went the short way")
		}
	}
	for _, a := range d.Addrs() {
		st.Listen = append(st.Listen, a.String())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	st.Accepted = d.stats.accepted
	for k, n := range d.stats.protocols {
		st.Protocols[k] = n
	}
	for k, n := range d.stats.paths {
		st.Paths[k] = n
	}
	for k, n := range d.stats.refused {
		st.Refused[k] = n
	}
	for k, n := range d.stats.handovers {
		st.Handovers[k] = n
	}
	st.BytesToNode, st.BytesToClient = d.stats.bytesToNode, d.stats.toClient
	for _, c := range d.conns {
		st.BytesToNode += c.bytes.ToNode.Load()
		st.BytesToClient += c.bytes.ToClient.Load()
		c.mu.Lock()
		st.Open[c.state]++
		c.mu.Unlock()
	}
	return st
}

func age(t time.Time) float64 { return time.Since(t).Seconds() }

// logEnd writes the one line of a connection. Requests of EPMD, of which a
// node may send many, and connections that said nothing are for debugging.
func (d *Door) logEnd(c *Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	level := logrus.InfoLevel
	switch {
	case c.cause != "":
		level = logrus.WarnLevel
	case c.protocol == EPMD || c.protocol == Unknown:
		level = logrus.DebugLevel
	}
	if !d.log.IsLevelEnabled(level) {
		return
	}
	f := logrus.Fields{"id": c.id, "peer": c.peer.String(), "protocol": string(c.protocol), "age_s": age(c.accepted), "reason": c.reason}
	if c.node != "" {
		f["node"] = c.node
	}
	if c.path != "" {
		f["path"], f["bytes_to_node"], f["bytes_to_client"] = string(c.path), c.bytes.ToNode.Load()+c.pastToNode, c.bytes.ToClient.Load()+c.pastToClient
	}
	if c.why != "" {
		f["why"] = c.why
	}
	message := "connection closed"
	switch {
	case c.cause != "":
		f["cause"] = string(c.cause)
		message = "connection refused"
	case c.state == HandedOver:
		message = "connection handed over"
	}
	d.log.WithFields(f).Log(level, message)
}

// logWriter takes the lines of net/http's own logger: what a client did wrong
// on a connection, mostly.
type logWriter struct{ log *logrus.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Debug(string(b))
	return len(b), nil
}
