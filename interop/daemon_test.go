package interop

import (
	"context"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"oneport/door"
	"oneport/internal/hosts"
)

// daemon is `oneport serve` on a host, at the open port of all its addresses.
type daemon struct {
	*hosts.Process
	host    *hosts.Host
	program string
	control string // the path of its control socket
	node    string // the path of the socket by which nodes take descriptors
}

// serve starts the daemon. It must end in order, with the test.
func serve(t *testing.T, program string, h *hosts.Host) *daemon {
	t.Helper()
	d := &daemon{host: h, program: program, control: filepath.Join(h.Dir, "control.sock"), node: filepath.Join(h.Dir, "node.sock")}
	args := []string{"serve", "--control", d.control, "--node-socket", d.node, "--log-format", "json", "--log-level", "debug", "--drain", "0s", "--shortcut", "off"}
	var last netip.AddrPort
	for _, address := range []netip.Addr{h.IPv4, h.IPv6, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		last = netip.AddrPortFrom(address, hosts.Port)
		args = append(args, "--listen", last.String())
	}
	d.Process = h.Start(t, h.Command(context.Background(), program, args...))
	t.Cleanup(func() { end(t, d.Process) })
	d.WaitOutput(t, `"address":"`+last.String()+`"`)
	return d
}

// ask runs a command of oneport that talks to the daemon, and decodes what it
// prints.
func (d *daemon) ask(t *testing.T, command string, v any) {
	t.Helper()
	output, err := d.host.Command(t.Context(), d.program, command, "--json", "--control", d.control).Output()
	if err != nil {
		t.Fatalf("oneport %s: %v", command, err)
	}
	if err := json.Unmarshal(output, v); err != nil {
		t.Fatalf("oneport %s: %v in\n%s", command, err, output)
	}
}

// registered waits until nodes are registered.
func (d *daemon) registered(t *testing.T, names ...string) {
	t.Helper()
	eventually(t, "the registration of "+strings.Join(names, " and "), func() bool {
		var nodes []door.NodeInfo
		d.ask(t, "nodes", &nodes)
		known := make(map[string]bool, len(nodes))
		for _, node := range nodes {
			known[node.Name] = true
		}
		for _, name := range names {
			if !known[name] {
				return false
			}
		}
		return true
	})
}

// receives waits until a node can be handed connections.
func (d *daemon) receives(t *testing.T, node *hosts.Node) {
	t.Helper()
	d.WaitOutput(t, `"msg":"receiver connected","node":"`+alive(node)+`"`)
}

// to are the open connections to a node.
func (d *daemon) to(t *testing.T, node string) (open []door.Info) {
	t.Helper()
	var all []door.Info
	d.ask(t, "connections", &all)
	for _, c := range all {
		if c.Node == node {
			open = append(open, c)
		}
	}
	return open
}

// alive is the part of a node's name before the @.
func alive(node *hosts.Node) string {
	name, _, _ := strings.Cut(node.Name, "@")
	return name
}
