package e2e

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"oneport/door"
	"oneport/internal/hosts"
)

// The commands tell what is going on between real nodes, and end it.
func TestCommandsTellAndDrop(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta)
	var a, b, c *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
		func() { c = beta.Erl(t, "c", alone(), carrier()) },
	)
	wantPong(t, a, b)
	wantPong(t, a, c)

	t.Run("nodes", func(t *testing.T) {
		nodes := d.nodes(t)
		for _, node := range []*hosts.Node{b, c} {
			name, _, _ := strings.Cut(node.Name, "@")
			info := nodes[name]
			if info.PID != node.Pid() || info.UID != 0 || info.Port == 0 || info.Highest < 6 {
				t.Errorf("%s, process %d: %+v", node.Name, node.Pid(), info)
			}
			if got := node.Eval(t, "erlang:system_info(creation)"); got != strconv.Itoa(int(info.Creation)) {
				t.Errorf("%s has creation %s, and %d in the list", node.Name, got, info.Creation)
			}
		}
	})
	t.Run("status", func(t *testing.T) {
		if s := d.status(t); s.Nodes != 2 || s.Open[door.Relayed] != 2 || s.BytesToNode == 0 || s.BytesToClient == 0 || s.Draining {
			t.Errorf("%+v", s)
		}
	})
	t.Run("as text", func(t *testing.T) {
		for command, wants := range map[string][]string{
			"nodes":       {"b ", "c ", strconv.Itoa(b.Pid())},
			"connections": {"b ", "c ", "splice", alpha.IPv4.String()},
			"status":      {"listening on", beta.IPv4.String(), "2 relayed"},
		} {
			output, err := d.command(t, command)
			if err != nil {
				t.Errorf("oneport %s: %v", command, err)
			}
			for _, want := range wants {
				if !strings.Contains(output, want) {
					t.Errorf("oneport %s does not tell %q:\n%s", command, want, output)
				}
			}
		}
	})
	t.Run("drop a node", func(t *testing.T) {
		gone := []func(*testing.T){watch(t, a, b), watch(t, b, a)}
		if output, err := d.command(t, "drop", b.Name); err != nil || output != "dropped 1 connection\n" {
			t.Errorf("%q, %v", output, err)
		}
		for _, gone := range gone {
			gone(t)
		}
		d.oneConnection(t, "c")
		wantPong(t, a, b) // it is not for good
	})
	t.Run("drop a connection", func(t *testing.T) {
		gone := []func(*testing.T){watch(t, a, c), watch(t, c, a)}
		if _, err := d.command(t, "drop", strconv.FormatUint(d.oneConnection(t, "c").ID, 10)); err != nil {
			t.Error(err)
		}
		for _, gone := range gone {
			gone(t)
		}
		d.oneConnection(t, "b")
	})
	t.Run("drop nothing", func(t *testing.T) {
		var exit *exec.ExitError
		if _, err := d.command(t, "drop", "nobody"); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%v, want exit code 1", err)
		}
	})
}
