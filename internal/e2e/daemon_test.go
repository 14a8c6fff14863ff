package e2e

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oneport/door"
	"oneport/internal/hosts"
)

// daemon is `oneport serve` on a host.
type daemon struct {
	*hosts.Process
	host    *hosts.Host
	control string   // the path of its control socket
	node    string   // the path of the socket by which nodes take descriptors
	flags   []string // beside those that every daemon has
	within  []string // a command that runs the daemon's, if not empty
}

// serve runs the daemon on a host, at the open port of all its addresses, with
// more flags. It has no shortcut unless they say so: the hosts here are all on
// one kernel. It must end in order with the test, and without having found a
// data race in itself.
func serve(t testing.TB, h *hosts.Host, flags ...string) *daemon {
	t.Helper()
	d := &daemon{host: h, control: filepath.Join(h.Dir, "control.sock"), node: filepath.Join(h.Dir, "node.sock"), flags: flags}
	d.start(t)
	return d
}

// oneport is a command line of oneport on a host.
func oneport(ctx context.Context, h *hosts.Host, args ...string) *exec.Cmd {
	return run(ctx, h, append([]string{program}, args...))
}

// run is a command line on a host that leads to oneport.
func run(ctx context.Context, h *hosts.Host, line []string) *exec.Cmd {
	command := h.Command(ctx, line[0], line[1:]...)
	// Where the program looks for data races, it would wait a second at its end.
	command.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return command
}

// start starts the daemon, again if it is over.
func (d *daemon) start(t testing.TB) {
	t.Helper()
	loopback := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	args := []string{"serve", "--control", d.control, "--node-socket", d.node, "--log-format", "json", "--log-level", "debug", "--drain", "0s", "--shortcut", "off"}
	var last netip.AddrPort
	for _, address := range append([]netip.Addr{d.host.IPv4, d.host.IPv6}, loopback...) {
		last = netip.AddrPortFrom(address, hosts.Port)
		args = append(args, "--listen", last.String())
	}
	line := append(append([]string{program}, args...), d.flags...)
	process := d.host.Start(t, run(context.Background(), d.host, append(slices.Clone(d.within), line...)))
	d.Process = process
	t.Cleanup(func() {
		select {
		case <-process.Done(): // the test has ended it
		default:
			stop(t, process)
		}
		for _, bad := range []string{"DATA RACE", "panic:"} {
			if strings.Contains(process.Output(), bad) {
				t.Errorf("the daemon on %s: %s", d.host.Name, bad)
			}
		}
	})
	d.WaitOutput(t, `"address":"`+last.String()+`"`)
	// Its control socket is there by now, and its port since long.
}

// stop ends a daemon in order.
func stop(t testing.TB, daemon *hosts.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	daemon.Signal(unix.SIGTERM)
	if err := daemon.Wait(ctx); err != nil {
		t.Errorf("the daemon's end: %v", err)
	}
}

// command runs a command that talks to the daemon, and returns what it prints.
func (d *daemon) command(t testing.TB, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	printed, err := oneport(ctx, d.host, append(args, "--control", d.control)...).Output()
	return string(printed), err
}

// ask runs a command with --json and decodes what it prints into v.
func (d *daemon) ask(t testing.TB, command string, v any) {
	t.Helper()
	output, err := d.command(t, command, "--json")
	if err != nil {
		t.Fatalf("oneport %s: %v", command, err)
	}
	if err := json.Unmarshal([]byte(output), v); err != nil {
		t.Fatalf("oneport %s: %v in\n%s", command, err, output)
	}
}

// connections are the open connections that lead to nodes or to the web.
func (d *daemon) connections(t testing.TB) (open []door.Info) {
	t.Helper()
	d.ask(t, "connections", &open)
	return open
}

// nodes are the registered nodes by name.
func (d *daemon) nodes(t testing.TB) map[string]door.NodeInfo {
	t.Helper()
	var list []door.NodeInfo
	d.ask(t, "nodes", &list)
	nodes := make(map[string]door.NodeInfo, len(list))
	for _, node := range list {
		nodes[node.Name] = node
	}
	return nodes
}

// status is what the daemon has done so far.
func (d *daemon) status(t testing.TB) (stats door.Stats) {
	t.Helper()
	d.ask(t, "status", &stats)
	return stats
}

// oneConnection waits until there is exactly one connection to a node, and
// returns its record. (The two nodes know of their connection before the
// daemon's record tells everything.)
func (d *daemon) oneConnection(t testing.TB, node string) (one door.Info) {
	t.Helper()
	eventually(t, "the one connection to "+node, func() bool {
		n := 0
		for _, c := range d.connections(t) {
			if c.Node == node && c.State == door.Relayed {
				n, one = n+1, c
			}
		}
		return n == 1
	})
	return one
}

// noConnections waits until all connections are gone.
func (d *daemon) noConnections(t testing.TB) {
	t.Helper()
	eventually(t, "the end of all connections", func() bool { return len(d.connections(t)) == 0 })
}
