package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oneport/door"
	"oneport/internal/hosts"
)

// receiving makes a node take its connections by descriptor: without a TCP
// listener if it uses the carrier, beside it if it is a plain node that starts
// the application.
func receiving(d *daemon, args ...string) hosts.Option {
	return hosts.Args(append([]string{"-pa", beams, "-connect_all", "false", "-oneport", "node_socket=" + d.node}, args...)...)
}

func withoutListener(d *daemon) hosts.Option { return receiving(d, "-proto_dist", "oneport") }

func withApplication(d *daemon) hosts.Option {
	return receiving(d, "-eval", "{ok, _} = application:ensure_all_started(oneport)")
}

// handedOver waits until the daemon lists exactly one connection to a node,
// which was handed over, and returns its record.
func (d *daemon) handedOver(t *testing.T, node string) (one door.Info) {
	t.Helper()
	eventually(t, "the one connection handed over to "+node, func() bool {
		n := 0
		for _, c := range d.connections(t) {
			if c.Node != node {
				continue
			}
			if c.Path != "handover" {
				t.Fatalf("%s by %s: %s", c.Protocol, c.Path, c.Why)
			}
			one, n = c, n+1
		}
		return n == 1
	})
	return one
}

// ready waits until a node can be handed connections.
func (d *daemon) ready(t testing.TB, node *hosts.Node) {
	t.Helper()
	name, _, _ := strings.Cut(node.Name, "@")
	eventually(t, "the receiver of "+name, func() bool {
		return strings.Contains(d.Output(), `"msg":"receiver connected","node":"`+name+`"`)
	})
}

// By whatever protocol a client comes, and whatever kind of node it wants, the
// node gets the connection itself: it sees its real peer, and the daemon has no
// descriptor of it.
func TestNodesGetTheConnectionItself(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha, d := serve(t, alpha), serve(t, beta)
	var bare, plain *hosts.Node
	together(t,
		func() { bare = beta.Erl(t, "bare", withoutListener(d)) },
		func() { plain = beta.Erl(t, "plain", withApplication(d)) },
	)
	d.ready(t, bare)
	d.ready(t, plain)
	if port := d.nodes(t)["bare"].Port; port != 0 {
		t.Errorf("a node without a listener has registered port %d", port)
	}
	listeners, err := beta.Command(t.Context(), "ss", "-Hltnp").Output()
	if err != nil || !strings.Contains(string(listeners), fmt.Sprintf("pid=%d,", plain.Pid())) {
		t.Fatalf("the listeners of %s: %s, %v", beta.Name, listeners, err)
	}
	if strings.Contains(string(listeners), fmt.Sprintf("pid=%d,", bare.Pid())) {
		t.Errorf("a node without a listener has one:\n%s", listeners)
	}
	for _, client := range []struct {
		name     string
		protocol door.Protocol
		hosts.Option
	}{
		{"stock", door.Raw, alone()},
		{"upgrade", door.Upgrade, withoutListener(atAlpha)},
		{"method=handover", door.HandoverRequest, receiving(atAlpha, "-proto_dist", "oneport", "-oneport", "method=handover")},
	} {
		for _, b := range []*hosts.Node{bare, plain} {
			name, _, _ := strings.Cut(b.Name, "@")
			t.Run(client.name+" to "+name, func(t *testing.T) {
				a := alpha.Erl(t, "a", client.Option)
				before := descriptors(t, d)
				wantPong(t, a, b)
				one := d.handedOver(t, name)
				if one.Protocol != client.protocol || one.State != door.HandedOver || one.TCP == nil || one.TCP.State != "estab" {
					t.Errorf("%+v", one)
				}
				peer := b.Eval(t, `{ok, Info} = net_kernel:node_info('`+a.Name+`'), {net_address, {Ip, _}, _, _, _} = proplists:get_value(address, Info), inet:ntoa(Ip)`)
				if want := fmt.Sprintf("%q", alpha.IPv4); peer != want {
					t.Errorf("the node sees %s, not its real peer %s", peer, want)
				}
				eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= before })
				got := a.Eval(t, fmt.Sprintf(`
					There = list_to_binary([rand:bytes(1 bsl 20) || _ <- lists:seq(1, 50)]),
					Arrived = rpc:call('%[1]s', erlang, md5, [There]),
					{Back, Sent} = rpc:call('%[1]s', erlang, apply, [fun() -> D = list_to_binary([rand:bytes(1 bsl 20) || _ <- lists:seq(1, 50)]), {D, erlang:md5(D)} end, []]),
					{Arrived =:= erlang:md5(There), erlang:md5(Back) =:= Sent}`, b.Name))
				if got != "{true,true}" {
					t.Errorf("50 MB each way: %s", got)
				}
				if one := d.handedOver(t, name); one.BytesToNode < 50<<20 || one.BytesToClient < 50<<20 {
					t.Errorf("%+v", one)
				}
				gone := watch(t, b, a)
				a.Kill()
				gone(t)
				d.noConnections(t)
			})
		}
	}
}

// descriptors counts the daemon's open files.
func descriptors(t *testing.T, d *daemon) int {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(d.Pid()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// A connection that was handed over does not need the daemon: not when that is
// killed in the middle of a transfer, by whatever protocol the client has come,
// and not to live on when another one has come.
func TestHandedOverConnectionsOutliveTheDaemon(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha, d := serve(t, alpha), serve(t, beta)
	whole := t
	protocols := []door.Protocol{door.Raw, door.Upgrade, door.HandoverRequest}
	clients := make([]*hosts.Node, len(protocols))
	var other, bare, plain *hosts.Node
	together(t,
		func() { clients[0] = alpha.Erl(t, "stock", alone()) },
		func() { clients[1] = alpha.Erl(t, "upgrade", withoutListener(atAlpha)) },
		func() {
			clients[2] = alpha.Erl(t, "request", receiving(atAlpha, "-proto_dist", "oneport", "-oneport", "method=handover"))
		},
		func() { other = alpha.Erl(t, "other", alone()) },
		func() { bare = beta.Erl(t, "bare", withoutListener(d)) },
		func() { plain = beta.Erl(t, "plain", withApplication(d)) },
	)
	targets := []*hosts.Node{bare, plain}
	each := func(do func(a, b *hosts.Node)) {
		for _, b := range targets {
			for _, a := range clients {
				do(a, b)
			}
		}
	}
	for _, b := range targets {
		d.ready(t, b)
	}
	each(func(a, b *hosts.Node) { wantPong(t, a, b) })
	came := map[door.Protocol]int{}
	for _, c := range d.connections(t) {
		if c.Path != "handover" {
			t.Fatalf("%s to %s goes by %s: %s", c.Protocol, c.Node, c.Path, c.Why)
		}
		came[c.Protocol]++
	}
	for _, protocol := range protocols {
		if came[protocol] != len(targets) {
			t.Fatalf("the connections came by %v, want %d by each of %v", came, len(targets), protocols)
		}
	}

	// A megabyte there and one back, again and again, each with its sum from
	// the side that sends it.
	const megabytes, underWay = 50, 10
	each(func(a, b *hosts.Node) {
		a.Eval(t, fmt.Sprintf(`register('to %[1]s', spawn(fun() ->
			Random = rand:bytes(1 bsl 20 - 4),
			Answer = fun(<<N:32, Rest/binary>> = There) -> Back = <<(N + 1):32, Rest/binary>>, {erlang:md5(There), Back, erlang:md5(Back)} end,
			(fun Loop(N, Unharmed) ->
				receive
					{tell, Whom} -> Whom ! {rounds, N, Unharmed}, Loop(N, Unharmed);
					stop -> ok
				after 0 ->
					There = <<(2 * N):32, Random/binary>>,
					Whole = try erpc:call('%[1]s', erlang, apply, [Answer, [There]], 20000) of
						{Arrived, Back, Sent} -> Arrived =:= erlang:md5(There) andalso Sent =:= erlang:md5(Back)
					catch _:Why -> Why
					end,
					Loop(N + 1, case Unharmed of true -> Whole; _ -> Unharmed end)
				end
			end)(0, true)
		end))`, b.Name))
	})
	rounds := func(a, b *hosts.Node) (n int) {
		t.Helper()
		got := a.Eval(t, fmt.Sprintf(`'to %s' ! {tell, self()}, receive {rounds, _, _} = Rounds -> Rounds end`, b.Name))
		if _, err := fmt.Sscanf(got, "{rounds,%d,true}", &n); err != nil {
			t.Fatalf("the transfer from %s to %s: %s", a.Name, b.Name, got)
		}
		return n
	}
	each(func(a, b *hosts.Node) {
		eventually(t, "the transfers to be under way", func() bool { return rounds(a, b) >= underWay })
	})
	d.Kill()
	each(func(a, b *hosts.Node) {
		enough := max(megabytes, rounds(a, b)+underWay)
		eventually(t, "the transfers to go on without a daemon", func() bool { return rounds(a, b) >= enough })
		a.Eval(t, fmt.Sprintf(`'to %s' ! stop`, b.Name))
	})

	d.start(whole)
	eventually(t, "the nodes to register again", func() bool { return len(d.nodes(t)) == len(targets) })
	for _, b := range targets {
		d.ready(t, b)
		wantPong(t, other, b)
	}
	each(func(a, b *hosts.Node) { wantPong(t, a, b) })
	// Those from before are no connections of this daemon's, so nobody has
	// connected anew.
	for _, c := range d.connections(t) {
		if c.Protocol != door.Raw || c.Path != "handover" {
			t.Errorf("the next daemon has %+v", c)
		}
	}
	for _, a := range clients {
		if names := a.Eval(t, "length(nodes())"); names != fmt.Sprint(len(targets)) {
			t.Errorf("%s has lost a connection: %s left", a.Name, names)
		}
	}
}
