package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"oneport/door"
	"oneport/internal/hosts"
)

// serveShort is serve with the shortcut, and its pins on a bpffs of the host's
// own, which is gone with it.
func serveShort(t *testing.T, h *hosts.Host, mode string, flags ...string) *daemon {
	t.Helper()
	fs := filepath.Join(h.Dir, "bpf")
	command := "mkdir -p " + fs + " && mount -t bpf bpf " + fs
	if out, err := h.Command(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("mounting a bpffs: %v\n%s", err, out)
	}
	return serve(t, h, append([]string{"--shortcut", mode, "--pins", filepath.Join(fs, "oneport")}, flags...)...)
}

// connection waits until there is one connection to a node that takes a path.
func (d *daemon) connection(t *testing.T, node, path string) (one door.Info) {
	t.Helper()
	eventually(t, "one connection to "+node+" by "+path, func() bool {
		n := 0
		for _, c := range d.connections(t) {
			if c.Node == node && c.Path == path {
				n, one = n+1, c
			}
		}
		return n == 1
	})
	return one
}

// oneConnectionTo returns the only connection to a node.
func (d *daemon) oneConnectionTo(t *testing.T, node string) (one door.Info) {
	t.Helper()
	eventually(t, "the one connection to "+node, func() bool {
		n := 0
		for _, c := range d.connections(t) {
			if c.Node == node {
				n, one = n+1, c
			}
		}
		return n == 1
	})
	return one
}

// Two nodes in two network namespaces of one host get the short way by
// themselves, whether the node takes descriptors or not, and what they say to
// each other arrives as it was.
func TestShortcutBetweenNamespaces(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serveShort(t, beta, "auto")
	var stock, taking *hosts.Node
	together(t,
		func() { stock = beta.Erl(t, "stock", alone()) },
		func() { taking = beta.Erl(t, "taking", withApplication(d)) },
	)
	d.ready(t, taking)
	for _, to := range []struct {
		*hosts.Node
		name, kind string
		state      door.State
	}{{stock, "stock", "through", door.Relayed}, {taking, "taking", "direct", door.HandedOver}} {
		t.Run(to.name, func(t *testing.T) {
			a := alpha.Erl(t, "a"+to.name, alone())
			wantPong(t, a, to.Node)
			c := d.connection(t, to.name, "shortcut")
			if c.State != to.state || c.Shortcut == nil || c.Shortcut.Kind != to.kind {
				t.Fatalf("%+v, want a pair %s that is %s", c, to.kind, to.state)
			}
			table, err := d.command(t, "connections")
			if err != nil || !strings.Contains(table, "shortcut") {
				t.Errorf("%v\n%s", err, table)
			}
			const megabytes = 50
			transfer(t, a, to.Node, megabytes)
			// That much at once fills its receiver. The pair may be out by now.
			c = d.oneConnectionTo(t, to.name)
			if c.BytesToNode < megabytes<<20 || c.BytesToClient < megabytes<<20 {
				t.Errorf("%d bytes to the node and %d to the client, want %d MB at least", c.BytesToNode, c.BytesToClient, megabytes)
			}
			if c.Shortcut == nil || c.Shortcut.ToNode.ShortBytes == 0 || c.Shortcut.ToClient.ShortBytes == 0 {
				t.Errorf("nothing went the short way: %+v", c.Shortcut)
			}
		})
	}
}

// transfer sends megabytes each way and compares sums that are made on the side
// that sends.
func transfer(t *testing.T, a, b *hosts.Node, megabytes int) {
	t.Helper()
	got := a.Eval(t, fmt.Sprintf(`
		Random = fun() -> list_to_binary([rand:bytes(1 bsl 20) || _ <- lists:seq(1, %d)]) end,
		There = Random(),
		ThereArrived = rpc:call('%[2]s', erlang, md5, [There]),
		{Back, BackSent} = rpc:call('%[2]s', erlang, apply, [fun() -> Data = Random(), {Data, erlang:md5(Data)} end, []]),
		{byte_size(There), ThereArrived =:= erlang:md5(There), byte_size(Back), BackSent =:= erlang:md5(Back)}`, megabytes, b.Name))
	if want := fmt.Sprintf("{%d,true,%[1]d,true}", megabytes<<20); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
