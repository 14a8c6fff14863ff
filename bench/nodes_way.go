package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"oneport/door"
	"oneport/loader"
	"oneport/relay"
)

// nodeDoor is a way between two Erlang nodes: through a daemon of ours if it has
// flags, else with nothing between or with a peer.
type nodeDoor struct {
	name     string
	flags    []string
	takes    bool // the node has the OTP application, and takes descriptors
	disguise bool // the daemon cannot find the client
	path     string
	kind     string // of the short way
}

// nodeDoors are the ways of the group Nodes, the baseline first. What they are is
// said where the ways of the group Sockets are.
var nodeDoors = []nodeDoor{
	{name: "direct"},
	{name: control},
	{name: "handover", flags: []string{"--shortcut=off", "--path=" + string(door.Handover)}, takes: true, path: string(door.Handover)},
	{name: "shortcut-direct", flags: []string{"--shortcut=all"}, takes: true, path: string(relay.Shortcut), kind: loader.Direct.String()},
	{name: "shortcut-through", flags: []string{"--path=" + string(relay.Shortcut)}, path: string(relay.Shortcut), kind: loader.Through.String()},
	{name: "shortcut-outward", flags: []string{"--path=" + string(relay.Shortcut)}, disguise: true, path: string(relay.Shortcut), kind: loader.Outward.String()},
	{name: "splice", flags: []string{"--shortcut=off", "--path=" + string(relay.Splice)}, path: string(relay.Splice)},
	{name: "haproxy"},
}

// nodePair is two connected nodes.
type nodePair struct {
	client, node *erlNode
	pids         func() []int // of what is between
	door         *expected    // nil: none of ours

	port        uint16         // of a node without a door of ours
	near        uint16         // the port that the client's node is connected to, if it is asked for
	here, there netip.AddrPort // the ends of the client's connection
}

// tries is how many calls prove a way.
const tries = 200

// startPair starts the two nodes of a way and what is between them, connects them,
// and proves the way.
func startPair(ctx context.Context, w *world, e *erlang, d nodeDoor, app string) (*nodePair, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("not there within %v", startTime))
	defer cancel()
	p := new(nodePair)
	var client, node nodeOptions
	var err error
	if d.flags == nil {
		client, node, err = p.besides(ctx, w, d)
	} else {
		client, node, err = p.behind(ctx, w, d, app)
	}
	if err != nil {
		return nil, err
	}
	client.disguise = d.disguise
	client.args = append(client.args, "-epmd_module", "bench_epmd", "-kernel", "inet_dist_use_interface", erlangAddress(netip.AddrFrom4([4]byte{127, 0, 0, 1})))
	name := strings.ReplaceAll(d.name, "-", "_")
	if p.node, err = e.start(w, hostSide, "node_"+name, node); err != nil {
		return nil, err
	}
	if p.client, err = e.start(w, clientSide, "client_"+name, client); err != nil {
		return nil, err
	}
	if err := errors.Join(p.node.ready(ctx), p.client.ready(ctx)); err != nil {
		return nil, err
	}
	if d.name == "haproxy" {
		// It is started last, since it looks for nothing, and a node is its target.
		if err := p.startHAProxy(ctx, w); err != nil {
			return nil, err
		}
	}
	return p, p.prove(ctx, d)
}

// besides is for the ways without a door: the node is registered nowhere, and the
// client is told the port.
func (p *nodePair) besides(_ context.Context, w *world, d nodeDoor) (client, node nodeOptions, err error) {
	if p.port, err = w.freePort(hostSide); err != nil {
		return client, node, err
	}
	p.near = p.port
	if d.name == "haproxy" {
		if p.near, err = w.freePort(hostSide); err != nil {
			return client, node, err
		}
	}
	port := strconv.Itoa(int(p.port))
	node.args = []string{"-epmd_module", "bench_epmd", "-kernel",
		"inet_dist_use_interface", erlangAddress(w.address(hostSide)),
		"inet_dist_listen_min", port, "inet_dist_listen_max", port}
	client.env = []string{"BENCH_PORT=" + strconv.Itoa(int(p.near))}
	return client, node, nil
}

// startHAProxy starts HAProxy between the nodes.
func (p *nodePair) startHAProxy(ctx context.Context, w *world) error {
	at := place{Address: w.address(hostSide), Port: p.near, Target: netip.AddrPortFrom(w.address(hostSide), p.port).String()}
	c, err := startHAProxy(ctx, w, at)
	if err != nil {
		return err
	}
	p.pids = func() []int { return family(c.pid()) }
	return w.listening(ctx, c, hostSide, p.near)
}

// behind is for the ways through a daemon of ours, which it starts: the node
// registers there, as with any EPMD, and the client asks there.
func (p *nodePair) behind(ctx context.Context, w *world, d nodeDoor, app string) (client, node nodeOptions, err error) {
	port, err := w.freePort(hostSide)
	if err != nil {
		return client, node, err
	}
	dir, err := os.MkdirTemp(w.dir, "nodes-"+d.name+"-")
	if err != nil {
		return client, node, fmt.Errorf("making a directory: %w", err)
	}
	control, socket, pins := filepath.Join(dir, "control"), filepath.Join(dir, "node"), filepath.Join(dir, "bpf")
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	line := []string{w.program, "serve", "--listen", netip.AddrPortFrom(local, port).String(), "--control", control, "--log-level", "error", "--drain", "0s"}
	if address := w.address(hostSide); address != local {
		line = append(line, "--listen", netip.AddrPortFrom(address, port).String())
	}
	if !d.takes {
		socket = ""
	}
	line = append(append(line, "--node-socket", socket), d.flags...)
	if d.kind != "" {
		if err := os.Mkdir(pins, 0o700); err != nil {
			return client, node, fmt.Errorf("making a directory: %w", err)
		}
		// As for the group Sockets: pins of its own, which end with the daemon.
		line = append([]string{"unshare", "--mount", "sh", "-c", `mount -t bpf bpf "$0" && exec "$@"`, pins}, append(line, "--pins", filepath.Join(pins, "oneport"))...)
	}
	daemon, err := w.start(w.command(hostSide, line[0], line[1:]...))
	if err != nil {
		return client, node, err
	}
	if err := w.listening(ctx, daemon, hostSide, port); err != nil {
		return client, node, err
	}
	p.pids = func() []int { return []int{daemon.pid()} }
	p.door = &expected{control: control, path: d.path, kind: d.kind, daemon: daemon}
	if err := p.door.possible(ctx); err != nil {
		return client, node, err
	}
	ask := []string{"ERL_EPMD_PORT=" + strconv.Itoa(int(port))}
	client.env, node.env = ask, ask
	node.args = []string{"-kernel", "inet_dist_use_interface", erlangAddress(local)}
	if d.takes {
		if app, err = filepath.Abs(app); err != nil {
			return client, node, err
		}
		if _, err := os.Stat(filepath.Join(app, "oneport.app")); err != nil {
			return client, node, fmt.Errorf("the OTP application is not in %s: make erlang, or name its folder by --erlang", app)
		}
		// With a port of its own it would be relayed to until it has told the daemon
		// that it takes descriptors. So the carrier has none.
		node.args = append(node.args, "-pa", app, "-proto_dist", "oneport", "-oneport", "node_socket="+socket)
	}
	return client, node, nil
}

// prove connects the nodes and makes sure of the way between them.
func (p *nodePair) prove(ctx context.Context, d nodeDoor) (err error) {
	if p.here, p.there, err = p.connect(ctx, d.takes); err != nil {
		return err
	}
	if p.door == nil {
		_, peer, err := p.node.ends(ctx, "ends", p.client.name)
		if err != nil {
			return err
		}
		if p.there.Port() != p.near || (peer == p.here) != (p.near == p.port) {
			return fmt.Errorf("the client is connected with %s as %s, and the node with %s: that is not the way %q", p.there, p.here, peer, d.name)
		}
	} else if err := p.door.settled(ctx, []netip.AddrPort{p.here}); err != nil {
		return err
	}
	// A new pair of sockets settles before it is used.
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if _, err := p.client.ask(ctx, fmt.Sprintf("{work, call, %d, '%s'}", tries, p.node.name)); err != nil || p.door == nil {
		return err
	}
	why, err := p.door.look(ctx, []netip.AddrPort{p.here}, p.door.went)
	if err == nil && why != "" {
		err = fmt.Errorf("the connection did not take the way that is meant: %s", why)
	}
	return err
}

// connect connects the client with the node. One that takes descriptors may not yet
// have told the daemon so when it runs; it is tried again for a while then.
func (p *nodePair) connect(ctx context.Context, again bool) (here, there netip.AddrPort, err error) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		here, there, err = p.client.ends(ctx, "connect", p.node.name)
		if err == nil || !again || time.Now().After(deadline) {
			return here, there, err
		}
		select {
		case <-time.After(20 * poll):
		case <-ctx.Done():
			return here, there, err
		}
	}
}

// standing makes sure that the nodes have the connection that was proved, and that
// the daemon has not moved it to another way.
func (p *nodePair) standing(ctx context.Context) error {
	here, there, err := p.client.ends(ctx, "ends", p.node.name)
	if err != nil {
		return err
	}
	if here != p.here || there != p.there {
		return fmt.Errorf("the nodes have another connection, from %s to %s, than was proved, from %s to %s", here, there, p.here, p.there)
	}
	if p.door == nil {
		return nil
	}
	why, err := p.door.look(ctx, []netip.AddrPort{p.here}, p.door.standing)
	if err == nil && why != "" {
		err = fmt.Errorf("the connection is not on its way any more: %s", why)
	}
	return err
}

// erlangAddress is an IPv4 address as an Erlang term.
func erlangAddress(a netip.Addr) string {
	return "{" + strings.ReplaceAll(a.String(), ".", ",") + "}"
}
