package door

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"oneport/relay"
	"oneport/shortcut"
)

// Shortcut gives connections a short way in the kernel, as *shortcut.Service
// does. Whatever fails there harms no connection.
type Shortcut interface {
	// Check says why a connection that is about to be relayed can have none.
	Check(ctx context.Context, c shortcut.Connection, client, node *net.TCPConn) error
	// Relayed is asked for the short way of a connection that is about to be
	// relayed.
	Relayed(ctx context.Context, c shortcut.Connection, client, node *net.TCPConn, taken int, changed shortcut.Changed) (stop func() shortcut.Usage)
	// Handed is asked for that of a connection whose node has it.
	Handed(c shortcut.Connection, changed shortcut.Changed)
	// Expect says that a client was told a node's own port. It is not known by
	// which connection it will come.
	Expect(port uint16, thisHost bool)
	// Report says what goes the short way.
	Report(isNode func(netip.AddrPort) bool) (of map[uint64]shortcut.Usage, others []shortcut.Usage, err error)
	// Totals says what went so and what did not, by kind; nil if there is no short way.
	Totals() (map[string]shortcut.Traffic, error)
	// State says whether there is any, or why not.
	State() string
}

// shortener is what a relay calls for its short way.
type shortener = func(ctx context.Context, client, node *net.TCPConn, taken int, changed func(open bool, why string)) (stop func())

// shortcut returns what makes a short way for a connection, or nil.
func (d *Door) shortcut(c *Conn) shortener {
	if d.o.Shortcut == nil {
		return nil
	}
	return func(ctx context.Context, client, node *net.TCPConn, taken int, changed func(bool, string)) func() {
		stop := d.o.Shortcut.Relayed(ctx, c.known(), client, node, taken, changed)
		return func() { c.shortened(stop()) }
	}
}

// shorten asks for the short way of a connection that was handed over.
func (d *Door) shorten(h *handed) {
	if d.o.Shortcut == nil || d.o.Path == Handover {
		return
	}
	d.o.Shortcut.Handed(h.known(), func(open bool, why string) {
		if open {
			h.takes(HandedOver, relay.Shortcut, "")
			return
		}
		if why != "" {
			why = "shortcut: " + why
		}
		h.takes(HandedOver, Handover, why)
	})
}

func (c *Conn) known() shortcut.Connection {
	return shortcut.Connection{ID: c.id, Peer: c.peer, Local: c.local, ThisHost: c.thisHost}
}

// addUsage adds to the records what went the short way, and the connections that
// have a short way and no record: those that clients have made to a node's own
// port, and what goes on from an earlier daemon.
func (d *Door) addUsage(infos []Info) []Info {
	if d.o.Shortcut == nil {
		return infos
	}
	of, others, err := d.o.Shortcut.Report(d.isNode)
	if err != nil {
		d.log.WithError(err).Warn("asking what goes the short way")
	}
	for i := range infos {
		if u, ok := of[infos[i].ID]; ok {
			infos[i].use(u)
		}
	}
	for _, u := range others {
		i := Info{Peer: u.Client.String(), Node: d.nodeAt(u.Node), Protocol: Unknown, Path: string(Handover), State: HandedOver}
		if i.Node != "" {
			i.State, i.Path = Direct, string(DirectPath)
		}
		if u.Open {
			i.Path = string(relay.Shortcut)
		}
		i.use(u)
		infos = append(infos, i)
	}
	return infos
}

// use adds what went the short way to what went the long one.
func (i *Info) use(u shortcut.Usage) {
	i.Shortcut = &u
	toNode, toClient := past(u)
	i.BytesToNode += toNode
	i.BytesToClient += toClient
}

// past is how many bytes went past the relay, which has not counted them.
func past(u shortcut.Usage) (toNode, toClient uint64) {
	toNode, toClient = u.ToNode.ShortBytes, u.ToClient.ShortBytes
	if u.Kind == "outward" {
		toNode = 0 // the relay itself writes to the node
	}
	return toNode, toClient
}

// shortened records what went past the relay, whose end this is.
func (c *Conn) shortened(u shortcut.Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pastToNode, c.pastToClient = past(u)
}

// isNode tells whether clients connect to this address: it is the door's, or a
// node's of this host.
func (d *Door) isNode(a netip.AddrPort) bool {
	return d.nodeAt(a) != "" || slices.ContainsFunc(d.Addrs(), func(l netip.AddrPort) bool { return l.Port() == a.Port() })
}

// nodeAt returns the name of the node that listens on a port, or nothing.
func (d *Door) nodeAt(a netip.AddrPort) string {
	for _, reg := range d.registry.All() {
		if reg.Port == a.Port() {
			return reg.Name
		}
	}
	return ""
}
