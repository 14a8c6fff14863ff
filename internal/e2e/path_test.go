package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oneport/door"
	"oneport/epmd"
	"oneport/internal/hosts"
)

// Each path can be demanded, and then real nodes take it, whatever they could do
// better, also from the door's own host.
func TestDemandedPaths(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha := serve(t, alpha)
	flags := short(t, beta, "auto")
	for _, path := range []string{"handover", "shortcut", "splice", "copy"} {
		t.Run(path, func(t *testing.T) {
			d := serve(t, beta, append([]string{"--path", path}, flags...)...)
			option := withApplication(d) // it takes descriptors, and has a listener
			if path == "shortcut" {
				option = alone()
			}
			var near, far, upgraded, b *hosts.Node
			together(t,
				func() { near = beta.Erl(t, "near", alone()) },
				func() { far = alpha.Erl(t, "far", alone()) },
				func() { upgraded = alpha.Erl(t, "upgraded", carrierAt(atAlpha), alone()) },
				func() { b = beta.Erl(t, "b", option) },
			)
			if path != "shortcut" {
				d.ready(t, b)
			}
			for _, a := range []*hosts.Node{near, far, upgraded} {
				wantPong(t, a, b)
				c := d.connection(t, "b", path)
				if want := "--path " + path; path != "handover" && !strings.Contains(c.Why, want) {
					t.Errorf("%+v, want it because of %q", c, want)
				}
				transfer(t, a, b, 5)
				d.connection(t, "b", path)
				if path == "shortcut" {
					// The first bytes of a new pair take the long way.
					eventually(t, "bytes to go short", func() bool {
						transfer(t, a, b, 1)
						c := d.connection(t, "b", path)
						return c.Shortcut != nil && c.Shortcut.ToNode.ShortBytes > 0
					})
				}
				disconnect(t, a, b)
				d.noConnections(t)
			}
			for used, n := range d.status(t).Paths {
				if used != path {
					t.Errorf("%d connections by %s", n, used)
				}
			}
		})
	}
}

// carrierAt makes a node use the carrier, with a listener, and take descriptors
// from a daemon.
func carrierAt(d *daemon) hosts.Option {
	return hosts.Args("-proto_dist", "oneport", "-pa", beams, "-oneport", "listen=true", "node_socket="+d.node)
}

// A demanded shortcut that is not possible is an error: of the daemon's start if
// it never is, else of the connection, which is refused and logged.
func TestDemandedShortcutOrNone(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	flags := append([]string{"--path", "shortcut"}, short(t, beta, "auto")...)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	control, node := filepath.Join(beta.Dir, "control.sock"), filepath.Join(beta.Dir, "node.sock")
	output, err := run(ctx, beta, append([]string{"setpriv", "--bounding-set=-sys_ptrace", "--", program,
		"serve", "--control", control, "--node-socket", node}, flags...)).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(output), "--path shortcut is not possible: CAP_SYS_PTRACE") {
		t.Errorf("without CAP_SYS_PTRACE: %v\n%s", err, output)
	}

	d := serve(t, beta, flags...)
	// A node that is no BEAM: this process.
	listener, err := beta.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	alive, err := beta.Dial(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", hosts.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	registration, err := epmd.AppendRequest(nil, epmd.AliveRequest{Node: epmd.Node{Name: "none", Port: uint16(listener.Addr().(*net.TCPAddr).Port), Type: epmd.Normal, Highest: 6, Lowest: 5}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alive.Write(registration); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the registration", func() bool { return len(d.nodes(t)) == 1 })

	const why = "--path shortcut is not possible: no Erlang VM has this socket"
	if _, status, reason := upgradeTo(t, alpha, beta.IPv4, "none", beta.IPv4.String()); status != http.StatusServiceUnavailable || !strings.Contains(reason, why) {
		t.Errorf("%d: %s", status, reason)
	}
	d.WaitOutput(t, why)
	if n := d.status(t).Refused[door.CausePath]; n != 1 {
		t.Errorf("%d connections are counted as refused", n)
	}
}
