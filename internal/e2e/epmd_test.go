package e2e

import (
	"errors"
	"net/netip"
	"testing"

	"oneport/epmd"
	"oneport/internal/hosts"
)

// From another host, EPMD tells where nodes are, and does nothing else.
func TestEPMDFromAnotherHost(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta)
	beta.Erl(t, "b")
	for _, address := range []netip.Addr{beta.IPv4, beta.IPv6} {
		client := epmd.Client{Addr: netip.AddrPortFrom(address, hosts.Port).String(), DialContext: alpha.Dial}
		if names, err := client.Names(t.Context()); err != nil || len(names.Names) != 1 || names.Names[0].Name != "b" {
			t.Errorf("NAMES: %+v, %v", names, err)
		}
		if told, err := client.Lookup(t.Context(), "b"); err != nil || told.Port != hosts.Port {
			t.Errorf("PORT_PLEASE2: %+v, %v; want the door's port", told, err)
		}
		if _, err := client.Lookup(t.Context(), "nobody"); !errors.Is(err, epmd.ErrNoSuchNode) {
			t.Errorf("PORT_PLEASE2 for an unknown node: %v", err)
		}
		if alive, err := client.Register(t.Context(), epmd.Node{Name: "intruder", Port: 1, Type: epmd.Normal, Highest: 6, Lowest: 5}); err == nil {
			alive.Close()
			t.Error("ALIVE2 is not refused")
		}
		if dump, err := client.Dump(t.Context()); err == nil {
			t.Errorf("DUMP is not refused: %+v", dump)
		}
		if err := client.Stop(t.Context(), "b"); err == nil {
			t.Error("STOP is not refused")
		}
		if err := client.Kill(t.Context()); err == nil {
			t.Error("KILL is not refused")
		}
	}
	if nodes := d.nodes(t); len(nodes) != 1 || nodes["b"].Port == 0 {
		t.Errorf("the nodes are %+v afterwards", nodes)
	}
}

// With --advertise direct, clients on other hosts are told the node's own port,
// which is theirs to reach.
func TestAdvertiseDirectTellsTheNodesPort(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta, "--advertise", "direct")
	beta.Erl(t, "b")
	client := epmd.Client{Addr: netip.AddrPortFrom(beta.IPv4, hosts.Port).String(), DialContext: alpha.Dial}
	if told, err := client.Lookup(t.Context(), "b"); err != nil || told.Port != d.nodes(t)["b"].Port || told.Port == hosts.Port {
		t.Errorf("PORT_PLEASE2: %+v, %v; the node's port is %d", told, err, d.nodes(t)["b"].Port)
	}
}
