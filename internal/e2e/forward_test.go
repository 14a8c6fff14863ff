package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oneport/internal/hosts"
)

// One door stands in front of several hosts: one that has a door as well, and
// one that has only OTP's epmd.
func TestOneDoorInFrontOfManyHosts(t *testing.T) {
	made := hosts.New(t, "alpha", "beta", "gamma", "delta")
	alpha, beta, gamma, delta := made[0], made[1], made[2], made[3]
	serve(t, alpha)
	front := serve(t, beta, "--forward", "gamma.*", "--forward", delta.IPv4.String())
	serve(t, gamma)
	const nodePort = "9100"
	delta.Start(t, delta.Command(context.Background(), "epmd"))
	open := delta.Command(t.Context(), "nft", "insert", "rule", "inet", "firewall", "input", "tcp", "dport", nodePort, "accept")
	if output, err := open.CombinedOutput(); err != nil {
		t.Fatalf("opening a node's port: %v\n%s", err, output)
	}
	via := hosts.Args("-oneport", "via="+beta.IPv4.String()+":"+fmt.Sprint(hosts.Port))
	var a, b, c, d *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone(), carrier(), via) },
		func() { b = beta.Erl(t, "b", alone()) },
		func() { c = gamma.Erl(t, "c", alone(), hosts.LongName(gamma.FQDN)) },
		func() {
			eventually(t, "OTP's epmd", func() bool {
				return delta.Command(t.Context(), "epmd", "-names").Run() == nil
			})
			d = delta.Erl(t, "d", alone(), hosts.Args("-kernel", "inet_dist_listen_min", nodePort, "inet_dist_listen_max", nodePort))
		},
	)
	for _, target := range []struct {
		what string
		node *hosts.Node
		in   string // its name in the record of the door in front
	}{
		{"a node of the door's own host", b, "b"},
		{"a host with a door", c, c.Name},
		{"a host with OTP's epmd", d, d.Name},
	} {
		t.Run(target.what, func(t *testing.T) {
			wantPong(t, a, target.node)
			front.oneConnection(t, target.in)
			disconnect(t, a, target.node)
		})
	}
	t.Run("an unknown node elsewhere", func(t *testing.T) {
		for _, host := range []string{gamma.FQDN, delta.IPv4.String()} {
			if _, status, reason := upgradeTo(t, alpha, beta.IPv4, "nobody", host); status != http.StatusNotFound || !strings.Contains(reason, "nobody") {
				t.Errorf("a node that %s does not have: %d: %s", host, status, reason)
			}
		}
	})
	t.Run("a host that no pattern allows", func(t *testing.T) {
		if got := ping(t, a, "x@"+gamma.IPv4.String()); got != "pang" {
			t.Errorf("ping says %s", got)
		}
		a.WaitOutput(t, "answered 421: ")
	})
}

// Two doors that forward a name to each other say so, instead of sending the
// request round.
func TestDoorsInACircle(t *testing.T) {
	made := hosts.New(t, "alpha", "beta", "gamma")
	alpha, beta, gamma := made[0], made[1], made[2]
	const ring = "ring.oneport.test"
	for _, pair := range [][2]*hosts.Host{{beta, gamma}, {gamma, beta}} {
		// Each takes the other one for the host of that name.
		table, err := os.OpenFile(filepath.Join(pair[0].Dir, "hosts"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintln(table, pair[1].IPv4, ring); err != nil {
			t.Fatal(err)
		}
		table.Close()
		serve(t, pair[0], "--forward", ring)
	}
	for _, first := range []*hosts.Host{beta, gamma} {
		if _, status, reason := upgradeTo(t, alpha, first.IPv4, "x", ring); status != http.StatusMisdirectedRequest || !strings.Contains(reason, "circle") {
			t.Errorf("the door of %s answers %d: %s", first.Name, status, reason)
		}
	}
}
