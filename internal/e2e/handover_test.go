package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
func (d *daemon) ready(t *testing.T, node *hosts.Node) {
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
// killed, and not to live on when another one has come.
func TestHandedOverConnectionsOutliveTheDaemon(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta)
	whole := t
	var a, other, bare, plain *hosts.Node
	serve(t, alpha)
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { other = alpha.Erl(t, "other", alone()) },
		func() { bare = beta.Erl(t, "bare", withoutListener(d)) },
		func() { plain = beta.Erl(t, "plain", withApplication(d)) },
	)
	for _, b := range []*hosts.Node{bare, plain} {
		d.ready(t, b)
		wantPong(t, a, b)
		// Traffic that goes on all the time, until it is asked for its result.
		a.Eval(t, fmt.Sprintf(`register('to %[1]s', spawn(fun Loop() ->
			Data = rand:bytes(1 bsl 20),
			case rpc:call('%[1]s', erlang, md5, [Data]) =:= erlang:md5(Data) of
				true -> receive {stop, From} -> From ! unharmed after 0 -> Loop() end;
				false -> receive {stop, From} -> From ! harmed end
			end end))`, b.Name))
	}
	d.Kill()
	time.Sleep(500 * time.Millisecond) // of traffic without a daemon
	for _, b := range []*hosts.Node{bare, plain} {
		got := a.Eval(t, fmt.Sprintf(`'to %s' ! {stop, self()}, receive R -> R after 20000 -> timeout end`, b.Name))
		if got != "unharmed" {
			t.Errorf("the connection to %s: %s", b.Name, got)
		}
	}
	d.start(whole)
	eventually(t, "the nodes to register again", func() bool { return len(d.nodes(t)) == 2 })
	for _, b := range []*hosts.Node{bare, plain} {
		d.ready(t, b)
		wantPong(t, other, b)
		wantPong(t, a, b)
	}
	if names := a.Eval(t, "length(nodes())"); names != "2" {
		t.Errorf("a has lost a connection: %s", names)
	}
}
