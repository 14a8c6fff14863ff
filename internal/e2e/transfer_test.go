package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"oneport/epmd"
	"oneport/internal/hosts"
)

// Fifty megabytes go each way and arrive as they were.
func TestFiftyMegabytesEachWay(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	atBeta := serve(t, beta)
	b := beta.Erl(t, "b", alone())
	for _, client := range []struct {
		name string
		hosts.Option
	}{{"stock", alone()}, {"carrier", carrier()}} {
		t.Run(client.name, func(t *testing.T) {
			const megabytes = 50
			a := alpha.Erl(t, "a", client.Option)
			wantPong(t, a, b)
			// Both sums are made on the side that sends, and on the side that
			// receives.
			got := a.Eval(t, fmt.Sprintf(`
				Random = fun() -> list_to_binary([rand:bytes(1 bsl 20) || _ <- lists:seq(1, %d)]) end,
				There = Random(),
				ThereArrived = rpc:call('%[2]s', erlang, md5, [There]),
				{Back, BackSent} = rpc:call('%[2]s', erlang, apply, [fun() -> Data = Random(), {Data, erlang:md5(Data)} end, []]),
				{byte_size(There), ThereArrived =:= erlang:md5(There), byte_size(Back), BackSent =:= erlang:md5(Back)}`, megabytes, b.Name))
			const bytes = megabytes << 20
			if want := fmt.Sprintf("{%d,true,%[1]d,true}", bytes); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			eventually(t, "the counters", func() bool {
				c := atBeta.oneConnection(t, "b")
				if c.Path != "splice" {
					t.Fatalf("the path is %s (%s)", c.Path, c.Why)
				}
				return c.BytesToNode >= bytes && c.BytesToClient >= bytes
			})
			a.Kill()
			atBeta.noConnections(t)
		})
	}
}

// What one side does to its end of the connection is what the other side sees
// at its own.
func TestTheEndOfAConnectionIsCarriedOver(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta)
	accept := registerListener(t, beta, "raw")

	// join returns both ends of a connection that has been in use.
	join := func(t *testing.T) (client, node *net.TCPConn) {
		t.Helper()
		client, status, reason := upgradeTo(t, alpha, beta.IPv4, "raw", beta.IPv4.String())
		if status != http.StatusSwitchingProtocols {
			t.Fatalf("the door answers %d: %s", status, reason)
		}
		node = accept(t)
		for _, way := range [][2]*net.TCPConn{{client, node}, {node, client}} {
			io.WriteString(way[0], "hello")
			b := make([]byte, len("hello"))
			if _, err := io.ReadFull(way[1], b); err != nil || string(b) != "hello" {
				t.Fatalf("%q, %v", b, err)
			}
		}
		return client, node
	}
	sides := []struct {
		name string
		pick func(client, node *net.TCPConn) (ends, sees *net.TCPConn)
	}{
		{"client", func(client, node *net.TCPConn) (_, _ *net.TCPConn) { return client, node }},
		{"node", func(client, node *net.TCPConn) (_, _ *net.TCPConn) { return node, client }},
	}
	for _, side := range sides {
		t.Run("the "+side.name+" half-closes", func(t *testing.T) {
			ends, sees := side.pick(join(t))
			io.WriteString(ends, "the last")
			if err := ends.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(sees); err != nil || string(b) != "the last" {
				t.Fatalf("%q, %v; want the last bytes and then the end", b, err)
			}
			// The other direction has not ended with it.
			long := strings.Repeat("still open ", 100_000)
			go func() {
				io.WriteString(sees, long)
				sees.Close()
			}()
			if b, err := io.ReadAll(ends); err != nil || string(b) != long {
				t.Fatalf("%d bytes, %v; want %d and then the end", len(b), err, len(long))
			}
			d.noConnections(t)
		})
		t.Run("the "+side.name+" is reset", func(t *testing.T) {
			ends, sees := side.pick(join(t))
			ends.SetLinger(0)
			ends.Close()
			if n, err := sees.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("%d bytes, %v; want a reset", n, err)
			}
			d.noConnections(t)
		})
	}
}

// registerListener makes a node of a listener of this process on a host: its
// name is registered with the host's daemon. It returns what takes the next
// connection.
func registerListener(t *testing.T, h *hosts.Host, name string) (accept func(t *testing.T) *net.TCPConn) {
	t.Helper()
	listener, err := h.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	alive, err := (&epmd.Client{DialContext: h.Dial}).Register(t.Context(), epmd.Node{Name: name, Port: port, Type: epmd.Normal, Highest: 6, Lowest: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
	return func(t *testing.T) *net.TCPConn {
		t.Helper()
		listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		return conn.(*net.TCPConn)
	}
}
