// Package door is the one port: it accepts connections, finds out by their
// first bytes what they want, keeps limits, finds the node that is meant, and
// keeps a record of every connection.
//
// Requests of EPMD go to package epmd, HTTP to package upgrade, and a
// distribution handshake that comes with nothing before it is routed by the
// lease that its sender's question to EPMD has left. Once a node is named, the
// connection leaves the daemon by the best way there is (deliver). The door
// does not know how bytes move; that is the relay's.
package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"oneport/epmd"
	"oneport/relay"
	"oneport/upgrade"
)

// The defaults of Options.
const (
	DefaultMaxHeader     = 8 << 10         // bytes
	DefaultHeaderTimeout = 5 * time.Second // from accept to the end of the header
	DefaultMaxConns      = 1 << 16
	DefaultMaxPerSource  = 1 << 14
)

// Advertise says which port clients on other hosts are told.
type Advertise string

// What PORT_PLEASE2 from another host is answered with.
const (
	AdvertiseDoor   Advertise = "door"   // the port that the question came in by
	AdvertiseDirect Advertise = "direct" // the node's own
)

// Options are a door's settings. The zero value of each is its default.
type Options struct {
	Listen        []string              // addresses "host:port"; default 127.0.0.1:4369 and [::1]:4369
	Allow         []netip.Prefix        // networks that may connect, beside this host; empty: all
	DiscoverFrom  []netip.Prefix        // networks that may list the nodes, beside this host
	Hosts         []string              // further names of this host
	Addresses     map[netip.Addr]string // node by local address, for stock clients
	Advertise     Advertise             // default AdvertiseDoor
	Path          relay.Path            // the one path of connections to nodes, of Paths; empty: the best there is
	NodeSocket    string                // path of the socket by which nodes take descriptors; empty: none can
	Own           map[string]uint32     // user by name of a node, where it is not the one who registered it
	Aliases       []Alias               // further names of nodes; their targets may be registered later
	Forward       []upgrade.Pattern     // other hosts that requests are forwarded to
	Web           *url.URL              // web server for other HTTP requests; nil: 404
	Shortcut      Shortcut              // gives connections a short way; nil: none
	MaxHeader     int                   // bytes
	HeaderTimeout time.Duration
	MaxConns      int
	MaxPerSource  int            // per IPv4 address or IPv6 /64
	Log           *logrus.Logger // nil: discard
}

// Door is the one port of a host. Make it with Open.
type Door struct {
	o         Options
	log       *logrus.Logger
	self      string // this door's name in Via headers
	registry  *epmd.Registry
	epmd      *epmd.Server
	upgrade   *upgrade.Server
	hosts     *hosts
	leases    leases
	admission *admission
	overflow  chan struct{} // places for connections over a limit that are told so
	listeners []*net.TCPListener
	web       *webServer
	receivers receivers
	owners    owners
	aliases   aliases
	names     fullNames
	started   time.Time

	nextID   atomic.Uint64
	draining atomic.Bool
	serving  sync.WaitGroup // accept loops and connections

	mu      sync.Mutex
	conns   map[uint64]*Conn
	handed  map[uint64]*handed
	pruneAt int // number of handed at which those that have ended are looked for
	stats   stats
}

// Open listens on every address of o. Nothing is accepted until Serve.
func Open(ctx context.Context, o Options) (*Door, error) {
	if len(o.Listen) == 0 {
		o.Listen = []string{"127.0.0.1:4369", "[::1]:4369"}
	}
	if o.Advertise == "" {
		o.Advertise = AdvertiseDoor
	}
	if o.MaxHeader == 0 {
		o.MaxHeader = DefaultMaxHeader
	}
	if o.HeaderTimeout == 0 {
		o.HeaderTimeout = DefaultHeaderTimeout
	}
	if o.MaxConns == 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.MaxPerSource == 0 {
		o.MaxPerSource = DefaultMaxPerSource
	}
	if o.Log == nil {
		o.Log = logrus.New()
		o.Log.SetOutput(io.Discard)
	}
	d := &Door{
		o: o, log: o.Log,
		self:      newSelf(),
		registry:  &epmd.Registry{},
		hosts:     newHosts(ctx, o.Hosts),
		admission: newAdmission(o.MaxConns, o.MaxPerSource),
		overflow:  make(chan struct{}, 256),
		conns:     make(map[uint64]*Conn),
		handed:    make(map[uint64]*handed),
		pruneAt:   minPrune,
		started:   time.Now(),
	}
	for _, a := range o.Aliases {
		if err := d.aliases.add(a); err != nil {
			return nil, err
		}
	}
	d.epmd = &epmd.Server{
		Registry:      d.registry,
		Log:           o.Log,
		PacketTimeout: o.HeaderTimeout,
		Answer:        d.answer,
		Alias: func(name string) (*epmd.Registration, bool) {
			reg, _, ok := d.resolve(name)
			return reg, ok
		},
	}
	d.upgrade = &upgrade.Server{
		Directory: directory{d},
		Ours:      d.hosts.ours,
		MayDiscover: func(peer, local netip.AddrPort) bool {
			return epmd.IsLocal(peer, local) || contains(o.DiscoverFrom, peer.Addr())
		},
		Who:     d.who,
		Forward: o.Forward,
	}
	var backend http.Handler
	if o.Web != nil {
		backend = upgrade.Web(o.Web, log.New(logWriter{o.Log}, "", 0))
	}
	d.web = newWebServer(d, d.upgrade.Handler(backend, d.takeUpgrade))
	if err := d.listen(ctx); err != nil {
		return nil, err
	}
	if err := d.openReceivers(); err != nil {
		d.closeListeners()
		return nil, err
	}
	return d, nil
}

// listen opens the listeners: IPv4 and IPv6 apart, since a node cannot take an
// IPv6 descriptor that carries IPv4, and without MPTCP, which the kernel's
// socket maps refuse. Keep-alive is the relay's to set: a descriptor that is
// handed over must be as a node would have accepted it.
func (d *Door) listen(ctx context.Context) error {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	for _, addr := range d.o.Listen {
		over, err := networks(addr)
		if err != nil {
			d.closeListeners()
			return err
		}
		for _, network := range over {
			l, err := lc.Listen(ctx, network, addr)
			if err != nil {
				d.closeListeners()
				if errors.Is(err, unix.EADDRINUSE) {
					return fmt.Errorf("listening on %s: the port is taken: end an epmd with `epmd -kill` and another oneport by its service manager, or choose another --listen", addr)
				}
				return fmt.Errorf("listening on %s: %w", addr, err)
			}
			d.listeners = append(d.listeners, l.(*net.TCPListener))
		}
	}
	for a, node := range d.o.Addresses {
		if !slices.ContainsFunc(d.Addrs(), func(l netip.AddrPort) bool {
			return l.Addr() == a || l.Addr().IsUnspecified() && l.Addr().Is4() == a.Is4()
		}) {
			d.closeListeners()
			return fmt.Errorf("address %s of node %s is not listened on; add --listen %s", a, node, netip.AddrPortFrom(a, 4369))
		}
	}
	return nil
}

// networks returns the networks to listen on for addr: both where no host is
// given.
func networks(addr string) ([]string, error) {
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "" && port != "" {
		return []string{"tcp4", "tcp6"}, nil
	}
	a, err := netip.ParseAddrPort(addr)
	switch {
	case err != nil:
		return nil, fmt.Errorf("listening on %q: expected ADDRESS:PORT or :PORT with an IP address, as in 0.0.0.0:4369 or [::]:4369", addr)
	case a.Addr().Unmap().Is4():
		return []string{"tcp4"}, nil
	}
	return []string{"tcp6"}, nil
}

func (d *Door) closeListeners() {
	for _, l := range d.listeners {
		l.Close()
	}
}

// Addrs returns the addresses that the door listens on.
func (d *Door) Addrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, l := range d.listeners {
		addrs = append(addrs, l.Addr().(*net.TCPAddr).AddrPort())
	}
	return addrs
}

// Registry returns the nodes of this host.
func (d *Door) Registry() *epmd.Registry { return d.registry }

// Serve accepts connections until ctx ends. Then it stops accepting, gives
// those that are open until drain has passed, closes what is left, and returns
// when every one of them is gone. force, which may be nil, ends the wait early.
func (d *Door) Serve(ctx context.Context, drain time.Duration, force <-chan struct{}) error {
	connCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for _, l := range d.listeners {
		d.serving.Go(func() { d.acceptLoop(connCtx, l) })
	}
	d.serving.Go(d.web.serve)
	if l := d.receivers.listener; l != nil {
		d.serving.Go(func() {
			if err := d.receivers.server.Serve(connCtx, l); err != nil {
				d.log.WithError(err).Error("serving the node socket; connections are relayed from now on")
			}
		})
	}
	<-ctx.Done()

	d.draining.Store(true)
	d.closeListeners()
	d.drain(drain, force)
	cancel()
	d.web.close()
	for _, c := range d.all() {
		c.cancel()
	}
	d.serving.Wait()
	return nil
}

// drain waits until no connection is left but those that registrations are.
func (d *Door) drain(limit time.Duration, force <-chan struct{}) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(d.all())-d.registry.Len() > 0 {
		select {
		case <-deadline.C:
			return
		case <-force:
			return
		case <-tick.C:
		}
	}
}

func (d *Door) acceptLoop(ctx context.Context, l *net.TCPListener) {
	var backoff time.Duration
	for {
		tcp, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors or memory, or a connection that was gone
			// already. The listener itself is in order.
			backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
			d.log.WithError(err).WithField("retry_in", backoff).Warn("accepting a connection")
			select {
			case <-time.After(backoff):
				continue
			case <-ctx.Done():
				return
			}
		}
		backoff = 0
		d.enter(ctx, tcp)
	}
}

// enter starts the record of a connection, and serves it.
func (d *Door) enter(ctx context.Context, tcp *net.TCPConn) {
	c := &Conn{
		tcp: tcp, id: d.nextID.Add(1), accepted: time.Now(), state: Accepted, protocol: Unknown,
		peer: addrPort(tcp.RemoteAddr()), local: addrPort(tcp.LocalAddr()),
	}
	c.thisHost = epmd.IsLocal(c.peer, c.local)
	c.ctx, c.cancel = context.WithCancel(ctx)
	evicted, full := d.admission.enter(c)
	if evicted != nil {
		evicted.refused(CauseMadeRoom, "silent for longest while a limit was reached")
		evicted.cancel()
	}
	d.mu.Lock()
	d.conns[c.id] = c
	d.stats.accepted++
	d.mu.Unlock()
	d.serving.Go(func() {
		defer func() {
			if !c.relaying {
				d.leave(c)
			}
		}()
		switch {
		case full != "":
			d.serveOverflow(c.ctx, c, full, unavailable(string(full)+"; try again later"))
		case !d.allowed(c):
			d.serveOverflow(c.ctx, c, CauseNotAllowed, &upgrade.Refusal{Status: http.StatusForbidden, Reason: "this address may not connect; see --allow of oneport serve"})
		default:
			d.serve(c.ctx, c)
		}
	})
}

// leave ends the record of a connection. Whoever served it has closed it, or
// given it away; closing it here once more costs nothing and leaks nothing.
func (d *Door) leave(c *Conn) {
	c.cancel()
	c.tcp.Close()
	d.admission.leave(c)
	d.mu.Lock()
	delete(d.conns, c.id)
	d.stats.ended(c)
	d.mu.Unlock()
	d.logEnd(c)
}

func (d *Door) all() []*Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	conns := make([]*Conn, 0, len(d.conns))
	for _, c := range d.conns {
		conns = append(conns, c)
	}
	return conns
}

// Connections returns the records of the open connections, oldest first.
// Registrations, which Registry has, are left out.
func (d *Door) Connections() []Info {
	infos := d.followHanded()
	for _, c := range d.all() {
		if i := c.info(); i.Protocol != EPMD {
			infos = append(infos, i)
		}
	}
	infos = d.addUsage(infos)
	sortInfos(infos)
	return infos
}

// DropID ends one connection of those that Connections lists, and says whether
// there was one.
func (d *Door) DropID(id uint64) (bool, error) {
	d.mu.Lock()
	c, h := d.conns[id], d.handed[id]
	d.mu.Unlock()
	switch {
	case h != nil:
		return true, d.dropHanded(h)
	case c == nil || c.info().Protocol == EPMD:
		return false, nil
	}
	if !c.ends("dropped") {
		return false, nil // it is over already
	}
	c.cancel()
	return true, nil
}

// DropNode ends every connection to a node and returns how many there were.
// The node is given by its name, which may have this host or, where the
// connection was forwarded, the other one behind an @.
func (d *Door) DropNode(node string) (int, error) {
	if name, host, ok := strings.Cut(node, "@"); ok && d.hosts.ours(strings.ToLower(host), netip.AddrPort{}) {
		node = name
	}
	n := 0
	for _, c := range d.all() {
		if c.isNode(node) && c.ends("dropped") {
			c.cancel()
			n++
		}
	}
	var errs []error
	for _, h := range d.handedWhere(func(h *handed) bool { return h.isNode(node) }) {
		if err := d.dropHanded(h); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}
