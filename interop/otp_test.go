package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"oneport/door"
	"oneport/internal/hosts"
)

// pair is what was found of two releases, the first of which connects.
type pair struct {
	from, to string
	direct   bool     // OTP's own nodes, without oneport
	ways     []string // the path that each of the ways took
	again    bool     // reconnects leave nothing behind
}

// A way is a client of one release, a node of another, and what leads from one
// to the other.
type way struct {
	title        string // of its column
	client, node string // the kinds of both, see client and node
	protocol     door.Protocol
	path         string
	reconnects   bool // this way is also gone a hundred times
}

// ways are the ways of every pair. The nodes that take descriptors take them
// from stock clients just as well.
var ways = []way{
	{"stock → stock", "stock", "stock", door.Raw, "splice", true},
	{"carrier → stock", "carrier", "stock", door.Upgrade, "splice", false},
	{"stock → application", "stock", "app", door.Raw, "handover", false},
	{"stock → no listener", "stock", "bare", door.Raw, "handover", false},
	{"carrier → application", "carrier", "app", door.Upgrade, "handover", false},
	{"carrier → carrier", "carrier", "bare", door.Upgrade, "handover", true},
	{"`h` → application", "request", "app", door.HandoverRequest, "handover", false},
	{"`h` → no listener", "request", "bare", door.HandoverRequest, "handover", false},
	{"IPv6, stock → stock", "stock6", "stock6", door.Raw, "splice", false},
	{"IPv6, carrier → carrier", "carrier6", "bare6", door.Upgrade, "handover", false},
}

// testReleases runs the ways between every two releases.
func testReleases(t *testing.T, program string, releases []release) (found []pair) {
	made := hosts.New(t, "alpha", "beta", "gamma")
	alpha, beta := made[0], made[1]
	atAlpha, atBeta := serve(t, program, alpha), serve(t, program, beta)
	direct := talkDirectly(t, made[2], releases)

	var clients, nodes []*place
	for _, r := range releases {
		clients = append(clients, r.lay(t, alpha))
		nodes = append(nodes, r.lay(t, beta))
	}
	var starts []func()
	for i := range releases {
		starts = append(starts, func() {
			clients[i].compile(t)
			nodes[i].copyBeams(t, clients[i])
		})
	}
	inParallel(t, starts)
	fromNodes := make([]map[string]*hosts.Node, len(releases))
	toNodes := make([]map[string]*hosts.Node, len(releases))
	starts = nil
	for i := range releases {
		starts = append(starts,
			func() { fromNodes[i] = startClients(t, clients[i], atAlpha) },
			func() { toNodes[i] = startNodes(t, nodes[i], atBeta) })
	}
	inParallel(t, starts)

	for i, from := range releases {
		for j, to := range releases {
			p := pair{from: from.number, to: to.number, direct: direct[from.number+to.number], again: true}
			t.Run(from.number+" to "+to.number, func(t *testing.T) {
				if !p.direct {
					t.Skip("OTP's own nodes do not connect")
				}
				for _, w := range ways {
					if !to.receives() {
						w.path = "splice"
					}
					t.Run(w.title, func(t *testing.T) {
						w.test(t, atBeta, fromNodes[i][w.client], toNodes[j][w.node])
					})
					p.ways = append(p.ways, w.path)
				}
			})
			found = append(found, p)
		}
	}
	for i, from := range releases {
		t.Run("the end of "+from.number, func(t *testing.T) {
			for _, client := range []string{"stock", "carrier"} {
				seeTheEnd(t, fromNodes[i][client], func(yield func(*hosts.Node)) {
					for j, to := range releases {
						if direct[from.number+to.number] {
							yield(toNodes[j]["stock"])
							yield(toNodes[j]["bare"])
						}
					}
				})
			}
		})
	}
	return found
}

// talkDirectly finds out which releases can talk to each other at all: nodes of
// one host, OTP's epmd, no oneport.
func talkDirectly(t *testing.T, h *hosts.Host, releases []release) map[string]bool {
	t.Helper()
	h.Start(t, h.Command(context.Background(), "epmd"))
	eventually(t, "OTP's epmd", func() bool {
		conn, err := h.Dial(t.Context(), "tcp4", fmt.Sprint("127.0.0.1:", hosts.Port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	// Two of each, so that a release can talk to itself.
	nodes, others := make([]*hosts.Node, len(releases)), make([]*hosts.Node, len(releases))
	var starts []func()
	for i, r := range releases {
		p := r.lay(t, h)
		starts = append(starts,
			func() { nodes[i] = p.erl(t, "direct"+r.number) },
			func() { others[i] = p.erl(t, "other"+r.number) })
	}
	inParallel(t, starts)
	talk := make(map[string]bool)
	for i, from := range releases {
		for j, to := range releases {
			talks := nodes[i].Eval(t, "net_adm:ping('"+others[j].Name+"')") == "pong"
			if !talks && from.near(t, to) {
				t.Errorf("OTP %s does not reach OTP %s directly", from.number, to.number)
			}
			talk[from.number+to.number] = talks
		}
	}
	return talk
}

// startClients starts the clients of a release by their kinds.
func startClients(t *testing.T, p *place, d *daemon) map[string]*hosts.Node {
	t.Helper()
	carrier := func(name string, more ...string) hosts.Option {
		return hosts.Args(append([]string{"-pa", p.beams, "-proto_dist", name, "-oneport", "node_socket=" + d.node}, more...)...)
	}
	return map[string]*hosts.Node{
		"stock":    p.erl(t, "stock"+p.number),
		"carrier":  p.erl(t, "carrier"+p.number, carrier("oneport")),
		"request":  p.erl(t, "request"+p.number, carrier("oneport", "-oneport", "method=handover")),
		"stock6":   p.erl6(t, "stock6"+p.number, hosts.ProtoDist("inet6_tcp")),
		"carrier6": p.erl6(t, "carrier6"+p.number, carrier("oneport6")),
	}
}

// startNodes starts the nodes of a release that are connected to, by their
// kinds: stock, with the application started, with the carrier and no listener.
func startNodes(t *testing.T, p *place, d *daemon) map[string]*hosts.Node {
	t.Helper()
	receiver := func(more ...string) hosts.Option {
		return hosts.Args(append([]string{"-pa", p.beams, "-oneport", "node_socket=" + d.node}, more...)...)
	}
	nodes := map[string]*hosts.Node{
		"stock":  p.erl(t, "stock"+p.number),
		"app":    p.erl(t, "app"+p.number, receiver("-eval", "{ok, _} = application:ensure_all_started(oneport)")),
		"bare":   p.erl(t, "bare"+p.number, receiver("-proto_dist", "oneport")),
		"stock6": p.erl6(t, "stock6"+p.number, hosts.ProtoDist("inet6_tcp")),
		"bare6":  p.erl6(t, "bare6"+p.number, receiver("-proto_dist", "oneport6")),
	}
	if p.receives() {
		for _, kind := range []string{"app", "bare", "bare6"} {
			d.receives(t, nodes[kind])
		}
	}
	return nodes
}

// test goes the way once, or a hundred times more.
func (w way) test(t *testing.T, d *daemon, client, node *hosts.Node) {
	if got := client.Eval(t, "net_adm:ping('"+node.Name+"')"); got != "pong" {
		t.Fatalf("%s pings %s: %s", client.Name, node.Name, got)
	}
	var open []door.Info
	defer func() {
		if t.Failed() {
			t.Logf("connections to %s: %+v", node.Name, open)
		}
	}()
	eventually(t, "the record of the connection", func() bool {
		open = d.to(t, alive(node))
		if len(open) != 1 || open[0].Path == "" {
			return false
		}
		if c := open[0]; c.Protocol != w.protocol || c.Path != w.path {
			t.Fatalf("it has come by %s and goes by %s (%s), not by %s and %s", c.Protocol, c.Path, c.Why, w.protocol, w.path)
		}
		return true
	})
	// What goes to and fro is data only: a fun belongs to its release.
	if got := client.Eval(t, fmt.Sprintf(`B = '%s',
		Data = crypto:strong_rand_bytes(10 bsl 20), Sum = erlang:md5(Data),
		{rpc:call(B, erlang, md5, [Data]) =:= Sum,
		 erlang:md5(rpc:call(B, erlang, list_to_binary, [[Data]])) =:= Sum}`, node.Name)); got != "{true,true}" {
		t.Errorf("10 MiB each way: %s", got)
	}
	gone := watch(t, node, client)
	client.Eval(t, "erlang:disconnect_node('"+node.Name+"')")
	gone()
	eventually(t, "the end of the connection", func() bool { return len(d.to(t, alive(node))) == 0 })
	if w.reconnects {
		reconnect(t, d, client, node)
	}
}

// reconnect connects and disconnects a hundred times: nobody keeps a socket.
func reconnect(t *testing.T, d *daemon, client, node *hosts.Node) {
	t.Helper()
	processes := []*hosts.Process{client.Process, node.Process, d.Process}
	before := make([]int, len(processes))
	for i, p := range processes {
		before[i] = sockets(t, p)
	}
	got := client.Eval(t, fmt.Sprintf(`B = '%s', net_kernel:monitor_nodes(true),
		%% The other side may not have seen the last end yet.
		Up = fun Up(0) -> pang; Up(N) -> case net_adm:ping(B) of pong -> pong; pang -> timer:sleep(20), Up(N - 1) end end,
		lists:usort([begin
			Pong = Up(50), true = erlang:disconnect_node(B),
			receive {nodedown, B} -> Pong after 5000 -> no_nodedown end
		end || _ <- lists:seq(1, 100)])`, node.Name))
	if got != "[pong]" {
		t.Errorf("a hundred connects: %s", got)
	}
	quiet(t, d, node)
	for i, p := range processes {
		eventually(t, "the sockets to be as before", func() bool { return sockets(t, p) <= before[i] })
	}
}

// quiet ends what connections a node has, and waits until none comes any more.
// OTP's rex (rpc) of either node may connect again by itself, without oneport too:
// it answers the other one's question, which every connection begins with, and does
// not see that the connection has ended. So a connection is given time for that.
func quiet(t *testing.T, d *daemon, node *hosts.Node) {
	t.Helper()
	quietLooks := 0
	eventually(t, "no connection to "+node.Name, func() bool {
		time.Sleep(50 * time.Millisecond)
		if node.Eval(t, "[erlang:disconnect_node(N) || N <- nodes(connected)]") != "[]" || len(d.to(t, alive(node))) > 0 {
			quietLooks = 0
			return false
		}
		quietLooks++
		return quietLooks == 3
	})
}

// seeTheEnd kills a client that is connected to nodes: all of them see it.
func seeTheEnd(t *testing.T, client *hosts.Node, nodes func(yield func(*hosts.Node))) {
	t.Helper()
	var gone []func()
	nodes(func(node *hosts.Node) {
		if got := client.Eval(t, "net_adm:ping('"+node.Name+"')"); got != "pong" {
			t.Fatalf("%s pings %s: %s", client.Name, node.Name, got)
		}
		gone = append(gone, watch(t, node, client))
	})
	client.Kill()
	for _, wait := range gone {
		wait()
	}
}

// watch makes a node wait for the news that another one, to which it is
// connected, is gone. The function that it returns waits for that.
func watch(t *testing.T, node, other *hosts.Node) (gone func()) {
	t.Helper()
	eventually(t, "the connection to be known on both sides", func() bool {
		return strings.Contains(node.Eval(t, "nodes(connected)"), "'"+other.Name+"'")
	})
	watcher := "'watcher of " + other.Name + "'"
	node.Eval(t, `Asker = self(), spawn(fun() ->
		true = register(`+watcher+`, self()),
		true = erlang:monitor_node('`+other.Name+`', true),
		Asker ! watching,
		receive {nodedown, _} = Down -> receive {tell, Whom} -> Whom ! Down end end
	end), receive watching -> ok end`)
	return func() {
		t.Helper()
		got := node.Eval(t, watcher+" ! {tell, self()}, receive {nodedown, Node} -> Node after 30000 -> silence end")
		if want := "'" + other.Name + "'"; got != want {
			t.Fatalf("%s saw %s go down, want %s", node.Name, got, want)
		}
	}
}
