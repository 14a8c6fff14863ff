package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"oneport/door"
	"oneport/internal/hosts"
)

func TestStockNodesPingThroughOnePort(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	atBeta := serve(t, beta)
	var a, b, c *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
		func() { c = beta.Erl(t, "c", alone()) },
	)

	t.Run("nodes of one host meet without the door", func(t *testing.T) {
		wantPong(t, c, b)
		disconnect(t, b, c)
		wantPong(t, b, c)
		if stats := atBeta.status(t); stats.Protocols[door.Raw] != 0 || stats.Open[door.Relayed] != 0 {
			t.Errorf("the door has seen a handshake of theirs: %+v", stats)
		}
	})
	t.Run("the node's own port is closed", func(t *testing.T) {
		port := netip.AddrPortFrom(beta.IPv4, atBeta.nodes(t)["b"].Port)
		if err := knock(t, beta, port); err != nil {
			t.Errorf("from its own host: %v", err)
		}
		var timeout net.Error
		if err := knock(t, alpha, port); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("from another host: %v, want a time-out", err)
		}
	})
	t.Run("there", func(t *testing.T) {
		wantPong(t, a, b)
		if c := atBeta.oneConnection(t, "b"); c.Protocol != door.Raw || c.Path != "splice" || c.Why == "" {
			t.Errorf("the door's record: %+v", c)
		}
	})
	t.Run("and back", func(t *testing.T) {
		disconnect(t, a, b)
		atBeta.noConnections(t)
		wantPong(t, b, a)
		if got := b.Eval(t, "rpc:call('"+a.Name+"', erlang, node, [])"); got != "'"+a.Name+"'" {
			t.Errorf("a call to %s is answered by %s", a.Name, got)
		}
		if open := atBeta.connections(t); len(open) != 0 {
			t.Errorf("a connection out of the host is at its door: %+v", open)
		}
	})
}

// knock connects to a port, and says whether that worked.
func knock(t *testing.T, from *hosts.Host, port netip.AddrPort) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", port.String())
	if err == nil {
		conn.Close()
	}
	return err
}

// Nodes of all kinds of names, and over both families, reach each other in both
// directions, whichever of them has the carrier.
func TestStockAndCarrierNodesPingInAllPairs(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha, atBeta := serve(t, alpha), serve(t, beta)
	for _, names := range []struct {
		kind           string
		of             func(*hosts.Host) hosts.Option
		stock, carrier string
	}{
		{"addresses", func(h *hosts.Host) hosts.Option { return hosts.LongName(h.IPv4.String()) }, "inet_tcp", "oneport"},
		{"long names", func(h *hosts.Host) hosts.Option { return hosts.LongName(h.FQDN) }, "inet_tcp", "oneport"},
		{"short names", func(*hosts.Host) hosts.Option { return hosts.ShortName() }, "inet_tcp", "oneport"},
		{"IPv6 addresses", func(h *hosts.Host) hosts.Option { return hosts.LongName(h.IPv6.String()) }, "inet6_tcp", "oneport6"},
		{"IPv6 long names", func(h *hosts.Host) hosts.Option { return hosts.LongName(h.FQDN) }, "inet6_tcp", "oneport6"},
	} {
		for _, pair := range [][2]string{{names.stock, names.stock}, {names.carrier, names.stock}, {names.carrier, names.carrier}} {
			t.Run(fmt.Sprintf("%s/%s and %s", names.kind, pair[0], pair[1]), func(t *testing.T) {
				var a, b *hosts.Node
				together(t,
					func() { a = alpha.Erl(t, "a", names.of(alpha), carrierNamed(pair[0])) },
					func() { b = beta.Erl(t, "b", names.of(beta), carrierNamed(pair[1])) },
				)
				protocol := map[string]door.Protocol{names.stock: door.Raw, names.carrier: door.Upgrade}
				wantPong(t, a, b)
				if c := atBeta.oneConnection(t, "b"); c.Protocol != protocol[pair[0]] {
					t.Errorf("%s has come by %s, want %s", a.Name, c.Protocol, protocol[pair[0]])
				}
				disconnect(t, a, b)
				wantPong(t, b, a)
				if c := atAlpha.oneConnection(t, "a"); c.Protocol != protocol[pair[1]] {
					t.Errorf("%s has come by %s, want %s", b.Name, c.Protocol, protocol[pair[1]])
				}
			})
			atAlpha.noConnections(t)
			atBeta.noConnections(t)
		}
	}
}

func TestHiddenNodesAreReached(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	for _, h := range made {
		serve(t, h)
	}
	var stock, withCarrier, hidden, hiddenToo *hosts.Node
	together(t,
		func() { stock = alpha.Erl(t, "stock") },
		func() { withCarrier = alpha.Erl(t, "carrier", carrier()) },
		func() { hidden = beta.Erl(t, "hidden", hosts.Hidden()) },
		func() { hiddenToo = beta.Erl(t, "hidden_too", hosts.Hidden(), carrier()) },
	)
	for _, node := range []*hosts.Node{hidden, hiddenToo} {
		for _, from := range []*hosts.Node{stock, withCarrier} {
			wantPong(t, from, node)
			if got := from.Eval(t, "lists:member('"+node.Name+"', nodes(hidden))"); got != "true" {
				t.Errorf("%s is not hidden from %s", node.Name, from.Name)
			}
			disconnect(t, from, node)
			wantPong(t, node, from)
		}
	}
}

func TestUnknownNodeGivesPangAtOnce(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	for _, h := range made {
		serve(t, h)
	}
	var stock, withCarrier *hosts.Node
	together(t,
		func() { stock = alpha.Erl(t, "stock") },
		func() { withCarrier = alpha.Erl(t, "carrier", carrier()) },
		func() { beta.Erl(t, "b") },
	)
	took := regexp.MustCompile(`^\{(\d+),pang\}$`)
	for _, from := range []*hosts.Node{stock, withCarrier} {
		got := from.Eval(t, "timer:tc(fun() -> net_adm:ping('nobody@"+beta.IPv4.String()+"') end)")
		match := took.FindStringSubmatch(got)
		if match == nil {
			t.Errorf("%s: %s, want a time and pang", from.Name, got)
		} else if us, _ := strconv.Atoi(match[1]); us >= int(time.Second/time.Microsecond) {
			t.Errorf("%s waited %d us for pang", from.Name, us)
		}
	}
	withCarrier.WaitOutput(t, `answered 404: no node "nobody" is registered here`)
	if strings.Contains(stock.Output(), "nobody") {
		t.Errorf("a stock node complains of a node that is not there:\n%s", stock.Output())
	}
}
