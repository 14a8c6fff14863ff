package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"oneport/epmd"
	"oneport/internal/hosts"
)

// Forty stock nodes of one host connect to two nodes of another host, all at the
// same time: all that tells these handshakes apart is the order in which the
// questions were answered.
func TestEightyPingsAtOnceReachTheRightNodes(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	serve(t, made[0])
	atBeta := serve(t, made[1])
	pingAllAtOnce(t, startClients(t, made[0]), made[1].Erl(t, "b", alone()), made[1].Erl(t, "c", alone()))
	if refused := atBeta.status(t).Refused; len(refused) != 0 {
		t.Errorf("the door has refused some: %v", refused)
	}
}

// A node with an address of its own is meant by everything that comes to that
// address. No handshake waits for another, and none needs a question first.
func TestAnAddressOfItsOwnRoutesExactly(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	own := map[string]netip.Addr{"b": netip.MustParseAddr("10.9.0.101"), "c": netip.MustParseAddr("10.9.0.102")}
	var flags []string
	for name, address := range own {
		beta.AddAddress(t, address)
		flags = append(flags, "--address", name+"="+address.String(), "--listen", netip.AddrPortFrom(address, hosts.Port).String())
	}
	serve(t, alpha)
	atBeta := serve(t, beta, flags...)
	var b, c *hosts.Node
	together(t,
		func() { b = beta.Erl(t, "b", hosts.LongName(own["b"].String()), alone()) },
		func() { c = beta.Erl(t, "c", hosts.LongName(own["c"].String()), alone()) },
	)
	pingAllAtOnce(t, startClients(t, alpha), b, c)
	if refused := atBeta.status(t).Refused; len(refused) != 0 {
		t.Errorf("the door has refused some: %v", refused)
	}

	t.Run("questions do not wait for each other", func(t *testing.T) {
		// Each of these would hold up the next one for at least 300 ms.
		start := time.Now()
		const rounds = 10
		for range rounds {
			for _, node := range []string{"b", "c"} {
				at := netip.AddrPortFrom(own[node], hosts.Port)
				client := epmd.Client{Addr: at.String(), DialContext: alpha.Dial}
				if told, err := client.Lookup(t.Context(), node); err != nil || told.Port != hosts.Port {
					t.Fatalf("asking %v for %s: %+v, %v", at, node, told, err)
				}
			}
		}
		if took := time.Since(start); took > (2*rounds-1)*300*time.Millisecond/2 {
			t.Errorf("%d questions took %v", 2*rounds, took)
		}
	})
	t.Run("a client that asks no EPMD", func(t *testing.T) {
		for _, node := range []*hosts.Node{b, c} {
			name, host, _ := strings.Cut(node.Name, "@")
			at := net.JoinHostPort(host, fmt.Sprint(hosts.Port))
			if got := erlCall(t, alpha, b.Eval(t, "erlang:get_cookie()"), "-address", at); got != "'"+node.Name+"'" {
				t.Errorf("at the address of %s: %s", name, got)
			}
		}
	})
}

// clients is how many nodes ping two others at once.
const clients = 40

func startClients(t *testing.T, h *hosts.Host) []*hosts.Node {
	t.Helper()
	nodes := make([]*hosts.Node, clients)
	starts := make([]func(), clients)
	for i := range nodes {
		starts[i] = func() { nodes[i] = h.Erl(t, fmt.Sprintf("a%d", i), alone(), hosts.Args("+S", "1:1")) }
	}
	together(t, starts...)
	return nodes
}

// pingAllAtOnce has every one of from call every one of to.
func pingAllAtOnce(t *testing.T, from []*hosts.Node, to ...*hosts.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var calls sync.WaitGroup
	for _, node := range from {
		for _, other := range to {
			calls.Go(func() {
				got, err := node.Call(ctx, fmt.Sprintf("{net_adm:ping('%[1]s'), rpc:call('%[1]s', erlang, node, [])}", other.Name))
				if want := "{pong,'" + other.Name + "'}"; err != nil || got != want {
					t.Errorf("%s calls %s: %s, %v; want %s", node.Name, other.Name, got, err, want)
				}
			})
		}
	}
	calls.Wait()
	for _, other := range to {
		if got := other.Eval(t, "length(nodes())"); got != fmt.Sprint(len(from)) {
			t.Errorf("%s is connected to %s nodes, want %d", other.Name, got, len(from))
		}
	}
}
