package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"oneport/epmd"
	"oneport/relay"
	"oneport/upgrade"
)

const (
	// dialTimeout bounds the connecting to a node of this host.
	dialTimeout = 3 * time.Second
	// forwardTimeout bounds the connecting to a node elsewhere: less than the
	// 7 s after which OTP gives up (kernel's net_setuptime).
	forwardTimeout = 6 * time.Second
)

// errNoPort says that a node that takes connections by descriptor only could
// not be given one.
var errNoPort = errors.New("the node has no port of its own")

// deliver gives a connection to a node of this host, by the best way there is:
// the descriptor itself, or else the relay, which looks for its own best path.
// taken holds bytes of the client that were read beyond its request.
func (d *Door) deliver(ctx context.Context, c *Conn, name string, a asker, taken []byte) {
	c.routed(name)
	reg, ok := d.registry.Lookup(name)
	switch {
	case d.draining.Load():
		d.refuse(c, a, CauseShuttingDown, unavailable("this door is shutting down"))
		return
	case !ok:
		d.refuse(c, a, CauseNoNode, &upgrade.Refusal{Status: http.StatusNotFound, Reason: fmt.Sprintf("no node %q is registered here", name)})
		return
	}
	granted, why := false, d.demanded()
	if d.handsOver() {
		var done bool
		if done, granted, why = d.hand(ctx, c, reg, a, taken); done {
			return
		}
	}
	if d.o.Path == Handover {
		d.giveUp(c, a, granted, CausePath, d.impossible(why))
		return
	}
	node, err := d.dial(ctx, c.local.Addr(), reg)
	if err != nil {
		d.log.WithField("id", c.id).WithField("node", name).WithError(err).Debug("connecting to the node")
		d.unreachable(c, a, reg, granted, why, err)
		return
	}
	if err := d.possible(ctx, c, node); err != nil {
		node.Close()
		d.giveUp(c, a, granted, CausePath, d.impossible(err.Error()))
		return
	}
	if granted {
		a = grantedAsker{a}
	}
	d.join(ctx, c, node, a, reg.Highest, taken, why, d.shortcut(c))
}

// unreachable refuses a client whose node neither took nor accepted its
// connection.
func (d *Door) unreachable(c *Conn, a asker, reg *epmd.Registration, granted bool, why string, err error) {
	switch noPort := errors.Is(err, errNoPort); {
	case noPort && d.o.Path != "":
		d.giveUp(c, a, granted, CausePath, d.impossible(fmt.Sprintf("node %q takes connections by descriptor only", reg.Name)))
	case noPort:
		d.giveUp(c, a, granted, CauseUnreachable, fmt.Sprintf("node %q takes connections by descriptor only, and %s", reg.Name, why))
	default:
		d.giveUp(c, a, granted, CauseUnreachable, fmt.Sprintf("node %q is registered and does not answer on its port %d", reg.Name, reg.Port))
	}
}

// giveUp refuses a client that may have been told yes already.
func (d *Door) giveUp(c *Conn, a asker, granted bool, cause Cause, reason string) {
	if granted {
		// What is left is to end its connection, also for a receiver that still
		// holds a copy.
		c.refused(cause, reason)
		c.tcp.CloseWrite()
		return
	}
	d.refuse(c, a, cause, unavailable(reason))
}

// grantedAsker is one whose client was told yes already.
type grantedAsker struct{ asker }

func (grantedAsker) grant(*net.TCPConn, uint16) error { return nil }

// dial connects to a node of this host. A node listens on every address unless
// told otherwise (kernel's inet_dist_use_interface); then it is most likely
// the one that the client came to, or that it registered from.
func (d *Door) dial(ctx context.Context, local netip.Addr, reg *epmd.Registration) (*net.TCPConn, error) {
	if reg.Port == 0 {
		return nil, errNoPort
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var errs []error
	tried := map[netip.Addr]bool{}
	for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback(), reg.Peer.Addr(), local} {
		if tried[addr] || !addr.IsValid() {
			continue
		}
		tried[addr] = true
		to := netip.AddrPortFrom(addr, reg.Port)
		if err := d.checkPort(reg, to); err != nil {
			return nil, err
		}
		node, err := dialTCP(ctx, to.String())
		if err == nil {
			return node, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func dialTCP(ctx context.Context, addr string) (*net.TCPConn, error) {
	d := net.Dialer{KeepAlive: -1} // the relay sets it
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// join says yes to the client and has the connection relayed. From then on the
// relay keeps its record, and no goroutine of the door's waits for the end, whose
// stack would be most of what an idle connection costs. why says why it is
// relayed at all; short, which may be nil, makes a way past that.
func (d *Door) join(ctx context.Context, c *Conn, node *net.TCPConn, a asker, version uint16, taken []byte, why string, short shortener) {
	if err := d.grant(c, a, version); err != nil {
		node.Close()
		c.ends("closed by the client")
		c.tcp.CloseWrite() // a node that was offered it may still hold a copy
		return
	}
	o := relay.Options{
		Prefix:   taken,
		Counters: &c.bytes,
		Shortcut: short,
		Only:     d.o.Path,
		OnPath: func(path relay.Path, worse string) {
			switch {
			case worse == "":
				worse = why
			case why != "":
				worse = why + "; " + worse
			}
			c.takes(Relayed, path, worse)
		},
	}
	if c.web {
		d.relayed(c, relay.Join(ctx, c.tcp, node, o))
		return
	}
	c.relaying = true
	d.serving.Add(1)
	relay.Start(ctx, c.tcp, node, o, func(result relay.Result) {
		d.relayed(c, result)
		d.leave(c)
		d.serving.Done()
	})
}

// relayed records how a relay has ended.
func (d *Door) relayed(c *Conn, result relay.Result) {
	if result.Reason == relay.Impossible {
		// After the client was told yes: it saw a reset.
		c.refused(CausePath, d.impossible(result.Err.Error()))
		return
	}
	c.ends(string(result.Reason))
}

// forward gives a connection to a node of another host: by that host's door if
// it has one, else by its EPMD.
func (d *Door) forward(ctx context.Context, c *Conn, want upgrade.Decision, taken []byte) {
	c.routed(want.Node + "@" + want.Host)
	const elsewhere = "the node is on another host"
	switch d.o.Path {
	case Handover, relay.Shortcut:
		d.refuse(c, upgradeAsker{}, CausePath, unavailable(d.impossible(elsewhere)))
		return
	}
	if err := relay.Try(d.o.Path); err != nil {
		d.refuse(c, upgradeAsker{}, CausePath, unavailable(d.impossible(err.Error())))
		return
	}
	node, version, err := d.reach(ctx, c.local, want)
	if err != nil {
		refusal := forwardRefusal(want, err)
		d.refuse(c, upgradeAsker{}, causeOf(refusal), refusal)
		return
	}
	d.join(ctx, c, node, upgradeAsker{}, version, taken, elsewhere, nil)
}

func (d *Door) reach(ctx context.Context, local netip.AddrPort, want upgrade.Decision) (*net.TCPConn, uint16, error) {
	if d.draining.Load() {
		return nil, 0, unavailable("this door is shutting down")
	}
	if err := upgrade.CheckHops(want.Hops, d.self); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", want.Host)
	if err != nil {
		return nil, 0, err
	}
	for _, addr := range addrs {
		// A name that leads back here must not open what this host keeps for
		// itself, or send the request round and round.
		if epmd.IsLocal(netip.AddrPortFrom(addr.Unmap(), 0), local) {
			return nil, 0, &upgrade.Refusal{Status: http.StatusMisdirectedRequest,
				Reason: fmt.Sprintf("%q is an address of this host; see --host of oneport serve", want.Host)}
		}
	}
	var last error
	for _, addr := range addrs {
		node, version, err := ask(ctx, netip.AddrPortFrom(addr.Unmap(), want.Via.Port), want, append(want.Hops, d.self))
		if err == nil {
			return node, version, nil
		}
		if refusal := (*upgrade.Refusal)(nil); errors.As(err, &refusal) || errors.Is(err, epmd.ErrNoSuchNode) {
			return nil, 0, err // that host has answered
		}
		last = err
	}
	return nil, 0, last
}

// ask asks one address of another host for a node.
func ask(ctx context.Context, at netip.AddrPort, want upgrade.Decision, via []string) (*net.TCPConn, uint16, error) {
	door := upgrade.Client{Via: via}
	conn, version, err := door.Dial(ctx, at.String(), want.Node, want.Host)
	if !errors.Is(err, upgrade.ErrNotHTTP) {
		return conn, version, err
	}
	node, err := (&epmd.Client{Addr: at.String()}).Lookup(ctx, want.Node)
	if err != nil {
		return nil, 0, err
	}
	conn, err = dialTCP(ctx, net.JoinHostPort(at.Addr().String(), strconv.Itoa(int(node.Port))))
	return conn, node.Highest, err
}

// forwardRefusal is what a client is told when a node elsewhere was not
// reached: the other door's own words if it said any.
func forwardRefusal(want upgrade.Decision, err error) *upgrade.Refusal {
	var refusal *upgrade.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.Is(err, epmd.ErrNoSuchNode):
		return &upgrade.Refusal{Status: http.StatusNotFound, Reason: fmt.Sprintf("no node %q is registered at %s", want.Node, want.Host)}
	}
	return unavailable(fmt.Sprintf("neither a door nor an EPMD at %s answers on port %d", want.Host, want.Via.Port))
}
