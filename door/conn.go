package door

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"oneport/relay"
	"oneport/shortcut"
)

// State is where a connection stands:
//
//	accepted -> identified -> routed -> (handed over | relayed | refused) -> closed
//
// EPMD requests and web traffic end from identified.
type State string

// The states of a connection.
const (
	Accepted   State = "accepted"   // nothing is known but the peer
	Identified State = "identified" // the protocol is known
	Routed     State = "routed"     // a node is named
	HandedOver State = "handed over"
	Relayed    State = "relayed"
	Refused    State = "refused"
	Closed     State = "closed"
	// Direct is that of a connection to a node's own port, which the door has
	// told the client and has not seen itself.
	Direct State = "direct"
)

// Protocol is what a client speaks on the one port.
type Protocol string

// The protocols.
const (
	Unknown Protocol = "unknown"
	EPMD    Protocol = "epmd"
	HTTP    Protocol = "http"
	Upgrade Protocol = "upgrade"   // HTTP that asks for a node
	Raw     Protocol = "handshake" // a distribution handshake with nothing before it
	// HandoverRequest is the request of the 2016 fork's clients (EPMD's 'h').
	HandoverRequest Protocol = "handover"
)

// Web is the path of a connection that is served by HTTP, not joined to a node.
// The other paths are the relay's.
const Web relay.Path = "web"

// DirectPath is the path of a connection in the state Direct.
const DirectPath relay.Path = "direct"

// Conn is one accepted connection and its record.
type Conn struct {
	tcp      *net.TCPConn
	id       uint64
	peer     netip.AddrPort
	local    netip.AddrPort
	thisHost bool // the peer is on this host
	accepted time.Time
	bytes    relay.Counters
	ctx      context.Context    // of the connection
	cancel   context.CancelFunc // ends it, whatever it is doing
	source   *source            // what its peer's address counts on; owned by admission
	web      bool               // net/http has it, and waits for whoever serves it
	relaying bool               // its relay ends its record; owned by who serves it

	mu       sync.Mutex
	state    State
	protocol Protocol
	node     string
	path     relay.Path
	why      string // why no better path was taken
	reason   string // why it was refused or has ended
	cause    Cause  // why it was refused, for counting
	// Bytes that went past the relay, known at its end.
	pastToNode, pastToClient uint64
}

// Info is a connection's record as it stands, in the form that the control
// socket gives out.
type Info struct {
	ID            uint64   `json:"id"`   // 0 if this daemon never had it
	Peer          string   `json:"peer"` // address:port
	Node          string   `json:"node"`
	Protocol      Protocol `json:"protocol"`
	Path          string   `json:"path"`
	Why           string   `json:"why"`
	BytesToNode   uint64   `json:"bytes_to_node"`
	BytesToClient uint64   `json:"bytes_to_client"`
	State         State    `json:"state"`
	AgeS          float64  `json:"age_s"`         // seconds since it was accepted
	TCP           *TCPInfo `json:"tcp,omitempty"` // of a connection that was handed over

	Shortcut *shortcut.Usage `json:"shortcut,omitempty"` // of one that has, or had, a short way
}

// TCPInfo is what the kernel tells of a connection that the daemon does not
// have any more.
type TCPInfo struct {
	State       string `json:"state"`       // as ss(8) calls it
	Retransmits uint32 `json:"retransmits"` // segments, from the beginning
	RoundTripUs uint32 `json:"rtt_us"`      // smoothed, in microseconds
}

func (c *Conn) info() Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Info{
		ID: c.id, Peer: c.peer.String(), Node: c.node, Protocol: c.protocol, Path: string(c.path), Why: c.why,
		BytesToNode: c.bytes.ToNode.Load(), BytesToClient: c.bytes.ToClient.Load(),
		State: c.state, AgeS: time.Since(c.accepted).Seconds(),
	}
}

func (c *Conn) identified(p Protocol) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.protocol = Identified, p
}

func (c *Conn) routed(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.node = Routed, node
}

// takes records the way that the connection's bytes go from now on.
func (c *Conn) takes(s State, path relay.Path, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.path, c.why = s, path, why
}

// ends records why the connection is over. The first reason stands; it says
// whether this is the first.
func (c *Conn) ends(reason string) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first = c.reason == ""; first {
		c.state, c.reason = Closed, reason
	}
	return first
}

// refused records that and why the connection is not served.
func (c *Conn) refused(cause Cause, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == "" {
		c.state, c.cause, c.reason = Refused, cause, reason
	}
}

func (c *Conn) isNode(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node == name && c.node != ""
}
