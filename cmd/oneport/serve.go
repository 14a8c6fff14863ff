package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"oneport/door"
	"oneport/loader"
	"oneport/relay"
	"oneport/shortcut"
	"oneport/upgrade"
)

// spareFiles are the descriptors that are kept for everything but connections.
const spareFiles = 256

const defaultNodeSocket = "/run/oneport/node.sock"

// serveFlags are the command line of serve, as typed.
type serveFlags struct {
	listen, hosts, addresses, own, aliases, allow, discoverFrom, forward []string
	advertise, web, control, nodeSocket, logLevel, logFormat             string
	path, shortcut, pins                                                 string
	drain, headerTimeout                                                 time.Duration
	maxHeader, maxConns, maxPerSource                                    int
}

func newServe(e *env) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground, until SIGTERM or SIGINT.

It takes the place of OTP's epmd, which must not run on the same port. Without
--listen only this host reaches it; --listen 0.0.0.0:4369 opens it to others.`,
		Example: `  oneport serve --listen 0.0.0.0:4369 --listen '[::]:4369'
  oneport serve --listen :4369 --web http://127.0.0.1:8080 --allow 10.0.0.0/8`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), e, &f) },
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringArrayVar(&f.listen, "listen", []string{"127.0.0.1:4369", "[::1]:4369"}, "address to listen on, `ADDR:PORT`; :PORT is every address (repeatable)")
	fl.StringArrayVar(&f.hosts, "host", nil, "further `NAME` of this host, beside its hostname and addresses (repeatable)")
	fl.StringArrayVar(&f.addresses, "address", nil, "`NAME=IP`: stock clients that connect to this address of this host mean this node (repeatable)")
	fl.StringArrayVar(&f.allow, "allow", nil, "network that may connect, `CIDR`, beside this host; default all (repeatable)")
	fl.StringArrayVar(&f.discoverFrom, "discover-from", nil, "network that may list the nodes by GET /erl, `CIDR`, beside this host (repeatable)")
	fl.StringVar(&f.advertise, "advertise", string(door.AdvertiseDoor), "port that EPMD clients on other hosts are told: `door|direct` (direct: the node's own)")
	fl.StringVar(&f.web, "web", "", "web server that other HTTP requests go to, `URL`; default none (404)")
	fl.StringArrayVar(&f.forward, "forward", nil, "other hosts that upgrades are forwarded to, `PATTERN` HOST[:PORT] with * and ? (repeatable)")
	fl.StringVar(&f.nodeSocket, "node-socket", defaultNodeSocket, "`PATH` of the socket by which nodes take descriptors; empty: none can")
	fl.StringArrayVar(&f.own, "own", nil, "`NAME=UID`: user who may take descriptors for a node, in place of the one who registered it (repeatable)")
	fl.StringArrayVar(&f.aliases, "alias", nil, "`ALIAS=TARGET`: further name of a node; TARGET is its name, or its full name NAME@HOST (repeatable)")
	fl.StringVar(&f.path, "path", autoPath, "way of all connections to nodes: `auto|handover|shortcut|splice|copy`; but for auto, those that cannot take it are refused")
	fl.StringVar(&f.shortcut, "shortcut", string(shortcut.Auto), "connections that go past TCP in the kernel: `auto|off|all` (auto: those that gain)")
	fl.StringVar(&f.pins, "pins", loader.Pins, "`DIR` on a bpffs where what the kernel does for them is pinned, to outlive the daemon")
	fl.StringVar(&f.control, "control", defaultControl, "`PATH` of the control socket")
	fl.DurationVar(&f.drain, "drain", 5*time.Second, "how long open connections are waited for at the end, `DURATION`")
	fl.IntVar(&f.maxHeader, "max-header", door.DefaultMaxHeader, "longest request header, in `BYTES`")
	fl.DurationVar(&f.headerTimeout, "header-timeout", door.DefaultHeaderTimeout, "time that a client has to send it, `DURATION`")
	fl.IntVar(&f.maxConns, "max-connections", door.DefaultMaxConns, "connections at once, registrations included, `N`")
	fl.IntVar(&f.maxPerSource, "max-per-source", door.DefaultMaxPerSource, "connections at once from one IPv4 address or IPv6 /64 elsewhere, `N`")
	fl.StringVar(&f.logLevel, "log-level", "info", "`LEVEL`: error, warn, info or debug")
	fl.StringVar(&f.logFormat, "log-format", "auto", "`FORMAT`: auto (text on a terminal, else json), text or json")
	return c
}

// options checks the flags and turns them into a door's settings.
func (f *serveFlags) options() (door.Options, error) {
	o := door.Options{
		Listen: f.listen, Hosts: f.hosts, Advertise: door.Advertise(f.advertise), Addresses: map[netip.Addr]string{},
		NodeSocket: f.nodeSocket, Own: map[string]uint32{},
		MaxHeader: f.maxHeader, HeaderTimeout: f.headerTimeout, MaxConns: f.maxConns, MaxPerSource: f.maxPerSource,
	}
	var err error
	for _, l := range f.listen {
		host, port, err := net.SplitHostPort(l)
		_, portErr := strconv.ParseUint(port, 10, 16)
		if _, ipErr := netip.ParseAddr(host); err != nil || portErr != nil || host != "" && ipErr != nil {
			return o, fmt.Errorf("--listen %q: expected ADDR:PORT with an IP address, as in 0.0.0.0:4369 or [::]:4369, or :PORT", l)
		}
	}
	for _, h := range f.hosts {
		if h == "" || strings.ContainsAny(h, "/@ ") {
			return o, fmt.Errorf("--host %q: expected the name or address of a host, as in db1.example.com", h)
		}
	}
	for _, a := range f.addresses {
		name, ip, _ := strings.Cut(a, "=")
		addr, err := netip.ParseAddr(ip)
		if err != nil || name == "" || strings.Contains(name, "@") {
			return o, fmt.Errorf("--address %q: expected NAME=IP, the name without @ and an address of this host", a)
		}
		if other, taken := o.Addresses[addr.Unmap()]; taken {
			return o, fmt.Errorf("--address %q: %s is the address of %s already; each node needs its own", a, addr, other)
		}
		o.Addresses[addr.Unmap()] = name
	}
	for _, s := range f.own {
		name, number, _ := strings.Cut(s, "=")
		uid, err := strconv.ParseUint(number, 10, 32)
		if err != nil || name == "" || strings.Contains(name, "@") {
			return o, fmt.Errorf("--own %q: expected NAME=UID, the name without @ and the number of a user", s)
		}
		o.Own[name] = uint32(uid)
	}
	for _, s := range f.aliases {
		name, target, _ := strings.Cut(s, "=")
		a := door.Alias{Name: name, Target: target}
		if err := a.Validate(); err != nil {
			return o, fmt.Errorf("--alias %q: expected ALIAS=TARGET: %w", s, err)
		}
		o.Aliases = append(o.Aliases, a)
	}
	if o.Allow, err = parseNetworks("--allow", f.allow); err != nil {
		return o, err
	}
	if o.DiscoverFrom, err = parseNetworks("--discover-from", f.discoverFrom); err != nil {
		return o, err
	}
	if o.Advertise != door.AdvertiseDoor && o.Advertise != door.AdvertiseDirect {
		return o, fmt.Errorf("--advertise %q: expected door or direct", f.advertise)
	}
	if f.web != "" {
		o.Web, err = url.Parse(f.web)
		if err != nil || o.Web.Scheme != "http" && o.Web.Scheme != "https" || o.Web.Host == "" {
			return o, fmt.Errorf("--web %q: expected a URL, as in http://127.0.0.1:8080", f.web)
		}
	}
	for _, s := range f.forward {
		p, err := upgrade.ParsePattern(s)
		if err != nil {
			return o, fmt.Errorf("--forward: %w", err)
		}
		o.Forward = append(o.Forward, p)
	}
	if f.path != autoPath {
		o.Path = relay.Path(f.path)
	}
	switch {
	case o.Path != "" && !slices.Contains(door.Paths[:], o.Path):
		return o, fmt.Errorf("--path %q: expected auto, handover, shortcut, splice or copy", f.path)
	case o.Path == door.Handover && f.nodeSocket == "":
		return o, errors.New("--path handover: no node can be handed anything without --node-socket")
	case o.Path == relay.Shortcut && f.shortcut == string(shortcut.Off):
		return o, errors.New("--path shortcut: it is switched off by --shortcut off")
	case o.Path != "" && o.Path != relay.Shortcut && f.shortcut == string(shortcut.All):
		return o, fmt.Errorf("--path %s: no connection can take the shortcut of --shortcut all", f.path)
	case o.Path != "" && o.Advertise == door.AdvertiseDirect:
		return o, fmt.Errorf("--path %s: clients would connect past the door by --advertise direct", f.path)
	case !slices.Contains(shortcut.Modes[:], shortcut.Mode(f.shortcut)):
		return o, fmt.Errorf("--shortcut %q: expected auto, off or all", f.shortcut)
	case f.shortcut != string(shortcut.Off) && !filepath.IsAbs(f.pins):
		return o, fmt.Errorf("--pins %q: expected an absolute path on a bpffs, as in %s", f.pins, loader.Pins)
	case f.control == "" || f.control[0] == '@' || len(f.control) > maxControlPath:
		return o, fmt.Errorf("--control %q: expected a path of up to %d bytes, as in %s", f.control, maxControlPath, defaultControl)
	case f.drain < 0:
		return o, fmt.Errorf("--drain %v: expected a time of 0 or more", f.drain)
	case f.headerTimeout <= 0:
		return o, fmt.Errorf("--header-timeout %v: expected more than 0", f.headerTimeout)
	case f.maxHeader < minHeader || f.maxHeader > maxHeader:
		return o, fmt.Errorf("--max-header %d: expected %d to %d bytes", f.maxHeader, minHeader, maxHeader)
	case f.maxConns < 16:
		return o, fmt.Errorf("--max-connections %d: expected 16 or more", f.maxConns)
	case f.maxPerSource < 1:
		return o, fmt.Errorf("--max-per-source %d: expected 1 or more", f.maxPerSource)
	}
	return o, nil
}

// The bounds of --max-header, in bytes: the longest EPMD request must fit.
const (
	minHeader = 4 << 10
	maxHeader = 64 << 10
)

// autoPath is the value of --path that leaves the choice to the daemon.
const autoPath = "auto"

// shortcutMode is which connections get a short way, where --path has not
// settled it: then it is all or none.
func (f *serveFlags) shortcutMode() shortcut.Mode {
	switch f.path {
	case autoPath:
		return shortcut.Mode(f.shortcut)
	case string(relay.Shortcut):
		return shortcut.All
	}
	return shortcut.Off
}

// parseNetworks reads networks; an address alone is a network of one.
func parseNetworks(flag string, list []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, addrErr := netip.ParseAddr(s); addrErr == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%s %q: expected a network, as in 10.0.0.0/8 or 2001:db8::/32", flag, s)
		}
		networks = append(networks, p.Masked())
	}
	return networks, nil
}

// newLog makes the daemon's log.
func newLog(e *env, level, format string) (*logrus.Logger, error) {
	log := logrus.New()
	log.SetOutput(e.stderr)
	l, err := logrus.ParseLevel(level)
	if err != nil || l < logrus.ErrorLevel || l > logrus.DebugLevel {
		return nil, fmt.Errorf("--log-level %q: expected error, warn, info or debug", level)
	}
	log.SetLevel(l)
	if format == "auto" {
		format = "json"
		if f, ok := e.stderr.(*os.File); ok && isTerminal(f) {
			format = "text"
		}
	}
	switch format {
	case "text":
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true})
	case "json":
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	default:
		return nil, fmt.Errorf("--log-format %q: expected auto, text or json", format)
	}
	return log, nil
}

func isTerminal(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	terminal := false
	raw.Control(func(fd uintptr) {
		_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		terminal = err == nil
	})
	return terminal
}

// serve runs the daemon.
func serve(ctx context.Context, e *env, f *serveFlags) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	if o.Log, err = newLog(e, f.logLevel, f.logFormat); err != nil {
		return err
	}
	raiseFileLimit()
	clipToFileLimit(&o)

	// The signals are taken from before the first listener to the very end, so
	// that none of them ends the daemon half way.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	if f.nodeSocket == defaultNodeSocket {
		if err := os.MkdirAll(filepath.Dir(defaultNodeSocket), 0o755); err != nil {
			return failed(fmt.Errorf("making the node socket's directory: %w; choose another path with --node-socket", err))
		}
	}
	// Before the first listener: who is served from the start gets the same as
	// those later.
	short := shortcut.Open(shortcut.Options{Mode: f.shortcutMode(), Pins: f.pins, Log: o.Log})
	defer func() {
		if err := short.Close(); err != nil {
			o.Log.WithError(err).Warn("letting go of the shortcut")
		}
	}()
	if err := dropStartCapabilities(); err != nil {
		return failed(err)
	}
	o.Shortcut = short
	if o.Path != "" {
		if why, off := strings.CutPrefix(short.State(), "off: "); off && o.Path == relay.Shortcut {
			return failed(fmt.Errorf("--path shortcut is not possible: %s; see `oneport doctor`", why))
		}
		o.Log.WithField("path", f.path).Warn("connections to nodes take this path only, or are refused")
	}
	d, err := door.Open(ctx, o)
	if err != nil {
		return failed(err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	control, err := openControl(f.control, d)
	if err != nil {
		stop() // lets Serve close the listeners
		_ = d.Serve(ctx, 0, nil)
		return failed(err)
	}
	defer control.close()

	for _, a := range d.Addrs() {
		reach := "reachable from other hosts"
		if a.Addr().IsLoopback() {
			reach = "reachable from this host only; see --listen"
		}
		o.Log.WithField("address", a.String()).Info("listening, " + reach)
	}
	notify(e, "READY=1")
	force, served, watched := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case s := <-signals:
			o.Log.WithFields(logrus.Fields{"signal": s.String(), "drain": f.drain.String()}).Info("stopping; a second signal stops at once")
		case <-served:
			return
		}
		notify(e, "STOPPING=1")
		stop()
		select {
		case <-signals:
			close(force)
		case <-served:
		}
	}()
	err = d.Serve(ctx, f.drain, force)
	close(served)
	<-watched
	o.Log.Info("stopped")
	return failed(err)
}

// clipToFileLimit keeps the number of connections within the limit of open
// files, where every one of them is relayed and so has two.
func clipToFileLimit(o *door.Options) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	if most := maxConnections(limit.Cur); most < o.MaxConns {
		o.Log.WithFields(logrus.Fields{"limit": limit.Cur, "max_connections": most}).
			Warn("max-connections is lowered to the limit of open files; raise it with ulimit -n or LimitNOFILE=")
		o.MaxConns = most
	}
}

// maxConnections is how many relayed connections a limit of open files is good
// for.
func maxConnections(files uint64) int {
	spare := min(spareFiles, files/2)
	return int(min(files-spare, 1<<30) / 2)
}

// notify tells systemd (sd_notify(3)) how the daemon stands, if systemd asks.
func notify(e *env, state string) {
	path := e.getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return // nobody to tell
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
