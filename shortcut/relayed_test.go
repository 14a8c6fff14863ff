package shortcut

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"oneport/internal/hosts"
	"oneport/relay"
)

// A relayed pair that has rested is the same again: also if it was outward, and
// its client can be found by now. What the nodes say arrives as it was.
func TestARelayedPairComesBackAsItWas(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	options := []hosts.Option{hosts.EPMDPort(1), hosts.Args("-erl_epmd_port", fmt.Sprint(hosts.Port)), hosts.Args("-connect_all", "false")}
	a := alpha.Erl(t, "a", options...)
	// The relay takes the address of beta, the node itself is behind it.
	b := beta.Erl(t, "b", append(options, hosts.Args("-kernel", "inet_dist_use_interface", "{127,0,0,1}"))...)
	l, err := beta.Listen(t.Context(), "tcp4", netip.AddrPortFrom(beta.IPv4, hosts.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	for _, kind := range []string{"through", "outward"} {
		t.Run(kind, func(t *testing.T) {
			s := open(t, Options{Mode: Auto, Look: 200 * time.Millisecond, Rest: 100 * time.Millisecond})
			if kind == "outward" {
				s.absent.add(alpha.IPv4, time.Now())
			}
			events := make(chan event, 16)
			last := make(chan Usage, 1)
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			go func() {
				defer close(over)
				client, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				node, err := beta.Dial(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", hosts.Port))
				if err != nil {
					t.Error(err)
					client.Close()
					return
				}
				c := Connection{ID: 1, Peer: addrPort(client.RemoteAddr()), Local: addrPort(client.LocalAddr())}
				relay.Join(ctx, client.(*net.TCPConn), node.(*net.TCPConn), relay.Options{
					Shortcut: func(ctx context.Context, client, node *net.TCPConn, taken int, changed func(bool, string)) func() {
						stop := s.Relayed(ctx, c, client, node, taken, func(open bool, why string) {
							changed(open, why)
							events <- event{open, why}
						})
						return func() { last <- stop() }
					},
				})
			}()
			defer func() { cancel(); <-over }()
			if got := a.Eval(t, "net_adm:ping('"+b.Name+"')"); got != "pong" {
				t.Fatal(got)
			}
			if e := next(t, events); e != (event{true, ""}) {
				t.Fatalf("%+v", e)
			}
			loud(t, a, b)
			usage(t, s, "short messages", func(u Usage) bool { return u.Kind == kind && u.ToNode.ShortMessages > 0 })
			setLow(t, b, a, 2)
			if e := next(t, events); e.open || !strings.Contains(e.why, "blocks") {
				t.Fatalf("%+v", e)
			}
			s.absent = absent{} // of no use to the one that is relayed already
			setLow(t, b, a, 1)
			if e := next(t, events); e != (event{true, ""}) {
				t.Fatalf("%+v", e)
			}
			var before uint64
			usage(t, s, "the pair to be back", func(u Usage) bool { before = u.ToNode.ShortMessages; return u.Open })
			usage(t, s, "short messages again", func(u Usage) bool { return u.Kind == kind && u.ToNode.ShortMessages > before })
			rounds := 20
			if testing.Short() {
				rounds = 2 // each behind what the loud one has queued
			}
			got := a.Eval(t, fmt.Sprintf(`lists:usort([begin Data = rand:bytes(N), rpc:call('%s', erlang, list_to_tuple, [[Data]]) =:= {Data} end ||
				_ <- lists:seq(1, %d), N <- [1, 100, 10000, 1000000]])`, b.Name, rounds))
			if got != "[true]" {
				t.Errorf("what came back was %s", got)
			}
			time.Sleep(2 * s.o.Look) // for one look at least
			a.Eval(t, "erlang:disconnect_node('"+b.Name+"')")
			<-over
			if u := <-last; u.Kind != kind || u.ToNode.ShortMessages <= before || u.ToClient.ShortMessages == 0 {
				t.Errorf("at the end of the relay it is told %+v", u)
			}
		})
	}
}
