package e2e

import (
	"bytes"
	"crypto/rand"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"oneport/internal/hosts"
)

// Hostile clients of every kind are at the door. Stock nodes and nodes with the
// carrier, from the very same address, are served within a second.
func TestPingsBesideAbuse(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta)
	var stock, withCarrier, b *hosts.Node
	together(t,
		func() { stock = alpha.Erl(t, "stock", alone()) },
		func() { withCarrier = alpha.Erl(t, "carrier", alone(), carrier()) },
		func() { b = beta.Erl(t, "b", alone()) },
	)
	before := d.status(t).Accepted

	stopped := make(chan struct{})
	var attackers sync.WaitGroup
	defer attackers.Wait()
	defer close(stopped)
	// Each attacker goes on until it is thrown out, and then stays until the end.
	attackAt := func(door netip.Addr, n int, strike func(net.Conn) error) {
		for range n {
			conn := dial(t, alpha, door)
			attackers.Go(func() {
				for strike(conn) == nil {
					select {
					case <-stopped:
						return
					case <-time.After(time.Second):
					}
				}
				<-stopped
			})
		}
	}
	attack := func(n int, strike func(net.Conn) error) { attackAt(beta.IPv4, n, strike) }
	write := func(text []byte) func(net.Conn) error {
		return func(c net.Conn) error { _, err := c.Write(text); return err }
	}
	noise := make([]byte, 1000)
	rand.Read(noise)
	upgrade := "CONNECT /erl/b HTTP/1.1\r\nHost: " + beta.IPv4.String() + "\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n"
	attack(300, func(net.Conn) error { return nil })            // silence
	attack(20, write([]byte("G")))                              // one byte a second
	attack(20, write(noise))                                    // nonsense
	attack(10, write(bytes.Repeat([]byte("X: y\r\n"), 10_000))) // an endless header
	attack(10, write([]byte("\x0b\xf0z")))                      // EPMD with a length that lies
	attack(10, write([]byte(strings.Repeat(upgrade, 50))))      // upgrades, pipelined
	// Handshakes that nobody announced. From the address of the stock node one of
	// them could take the place of its own.
	attackAt(beta.IPv6, 10, write(sendName("nobody@nowhere")))

	for range 3 {
		for _, node := range []*hosts.Node{stock, withCarrier} {
			start := time.Now()
			wantPong(t, node, b)
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s was served after %v", node.Name, took)
			}
			disconnect(t, node, b)
		}
	}
	if accepted := d.status(t).Accepted - before; accepted < 300 {
		t.Errorf("the door has seen %d connections only: this test tests nothing", accepted)
	}
}
