package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/hosts"
)

// sockets counts a process's open sockets. A node opens pipes, for its
// resolver for example, when it likes.
func sockets(t *testing.T, pid int) (n int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// quiet keeps a node from connecting by itself, as its rpc server does to a
// node that has just gone, to tell it what it can do.
func quiet() hosts.Option {
	return hosts.Args("-connect_all", "false", "-kernel", "dist_auto_connect", "never")
}

// churn is how many connects and disconnects there are by each of the three
// ways to a node.
const churn = 334

// Each of a thousand connections that are handed over is seen to end by both
// nodes within a second, and they leave no descriptor behind in either node or
// in the daemon.
func TestAThousandConnectsAndDisconnectsLeaveNothing(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	atAlpha, d := serve(t, alpha), serve(t, beta)
	bare := beta.Erl(t, "bare", withoutListener(d), quiet())
	d.ready(t, bare)
	// What bare sees: when each connection ended, by the clock that all
	// processes of this machine share.
	bare.Eval(t, `register(log, spawn(fun() -> ok = net_kernel:monitor_nodes(true),
		(fun Loop(Ends) -> receive
			{nodedown, _} -> Loop([os:perf_counter(microsecond) | Ends]);
			{tell, Whom} -> Whom ! lists:reverse(Ends), Loop([]);
			_ -> Loop(Ends)
		end end)([]) end))`)
	for _, client := range []struct {
		name string
		hosts.Option
	}{
		{"stock", quiet()},
		{"upgrade", hosts.Args("-proto_dist", "oneport", "-pa", beams, "-oneport", "node_socket="+atAlpha.node)},
		{"handover", hosts.Args("-proto_dist", "oneport", "-pa", beams, "-oneport", "node_socket="+atAlpha.node, "method=handover")},
	} {
		t.Run(client.name, func(t *testing.T) {
			a := alpha.Erl(t, client.name, client.Option, quiet())
			// What exists once only, such as a node's table of names, exists
			// after the first.
			cycle := func(times int) string {
				return a.Eval(t, fmt.Sprintf(`B = '%s', net_kernel:monitor_nodes(true),
					Up = fun Up(0) -> false; Up(N) -> case net_kernel:connect_node(B) of true -> true; false -> timer:sleep(5), Up(N - 1) end end,
					Times = [begin
						true = Up(400),
						pong = net_adm:ping(B), %% the node knows of the connection
						Begin = os:perf_counter(microsecond),
						true = erlang:disconnect_node(B),
						receive {nodedown, B} -> {Begin, os:perf_counter(microsecond) - Begin} end
					end || _ <- lists:seq(1, %d)],
					net_kernel:monitor_nodes(false),
					{Begins, Own} = lists:unzip(Times),
					lists:flatten(lists:join($,, [integer_to_list(N) || N <- [lists:max(Own) | Begins]]))`, bare.Name, times))
			}
			ends := func(times int) (seen []int) {
				eventually(t, "the node to see all ends", func() bool {
					got := bare.Eval(t, `log ! {tell, self()}, receive Ends when is_list(Ends) -> lists:flatten(lists:join($,, [integer_to_list(N) || N <- Ends])) end`)
					seen = append(seen, numbers(t, got)...)
					return len(seen) >= times
				})
				return seen
			}
			cycle(1)
			ends(1)
			d.noConnections(t)
			processes := map[string]int{"client": a.Pid(), "node": bare.Pid()}
			before := map[string]int{}
			for name, pid := range processes {
				before[name] = sockets(t, pid)
			}
			daemonBefore := descriptors(t, d)

			begins := numbers(t, cycle(churn))
			worst, begins := begins[0], begins[1:]
			if worst > 1_000_000 {
				t.Errorf("the client saw an end after %d µs", worst)
			}
			seen := ends(churn)
			if len(seen) != churn {
				t.Fatalf("the node has seen %d ends of %d", len(seen), churn)
			}
			worst = 0
			for i := range seen {
				worst = max(worst, seen[i]-begins[i])
			}
			if worst > 1_000_000 {
				t.Errorf("the node saw an end after %d µs", worst)
			}
			t.Logf("the node saw every end within %d µs", worst)
			for name, pid := range processes {
				eventually(t, "the sockets of the "+name+" to be as before", func() bool { return sockets(t, pid) <= before[name] })
			}
			d.noConnections(t)
			eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= daemonBefore })
			a.Kill()
		})
	}
	if handed := d.status(t).Handovers["v1 accepted"]; handed < 3*churn {
		t.Errorf("%d connections were handed over, want all %d", handed, 3*churn)
	}
}

// numbers parses what a node has printed as a string of integers.
func numbers(t *testing.T, printed string) (numbers []int) {
	t.Helper()
	printed = strings.Trim(printed, `"`)
	if printed == "" || printed == "[]" {
		return nil
	}
	for field := range strings.SplitSeq(printed, ",") {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("a node printed %q", printed)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// A connection ends at once, on either side's wish, also with 50 MB in the
// nodes that the other side does not read.
func TestDisconnectWithFiftyMegabytesQueued(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta)
	deep := hosts.Args("+zdbbl", "102400") // KB that a connection may have queued
	var a, bare *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", quiet(), deep) },
		func() { bare = beta.Erl(t, "bare", withoutListener(d), quiet(), deep) },
	)
	d.ready(t, bare)
	connect := func(t *testing.T) {
		t.Helper()
		eventually(t, "the connection", func() bool {
			return a.Eval(t, "net_kernel:connect_node('"+bare.Name+"')") == "true"
		})
	}
	connect(t)
	d.handedOver(t, "bare")
	disconnect(t, a, bare)
	d.noConnections(t)
	for _, c := range []struct {
		name             string
		sends, hangs     *hosts.Node
		daemonSideOfSent func(toNode, toClient uint64) uint64
	}{
		{"by the client", a, bare, func(toNode, _ uint64) uint64 { return toNode }},
		{"by the node", bare, a, func(_, toClient uint64) uint64 { return toClient }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, daemonBefore := sockets(t, bare.Pid()), descriptors(t, d)
			connect(t)
			d.handedOver(t, "bare")
			gone := watch(t, c.hangs, c.sends)
			c.hangs.Signal(unix.SIGSTOP)
			// 50 messages of 1 MB, for a process that there is not.
			if got := c.sends.Eval(t, `[{nobody, '`+c.hangs.Name+`'} ! rand:bytes(1 bsl 20) || _ <- lists:seq(1, 50)], sent`); got != "sent" {
				t.Fatal(got)
			}
			one := d.handedOver(t, "bare")
			if sent := c.daemonSideOfSent(uint64(one.BytesToNode), uint64(one.BytesToClient)); sent > 30<<20 {
				t.Errorf("%d bytes have arrived; most were to be queued", sent)
			}
			begin := time.Now()
			got := c.sends.Eval(t, `B = '`+c.hangs.Name+`', net_kernel:monitor_nodes(true), true = erlang:disconnect_node(B),
				receive {nodedown, B} -> net_kernel:monitor_nodes(false), down after 1000 -> still_up end`)
			if got != "down" {
				t.Errorf("the node that ended it: %s after %v", got, time.Since(begin))
			}
			c.hangs.Signal(unix.SIGCONT)
			resumed := time.Now()
			gone(t)
			if took := time.Since(resumed); took > time.Second {
				t.Errorf("the node that had been hanging saw the end after %v", took)
			}
			eventually(t, "the node's sockets to be as before", func() bool { return sockets(t, bare.Pid()) <= before })
			d.noConnections(t)
			eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= daemonBefore })
			connect(t)
			if got := a.Eval(t, "erpc:call('"+bare.Name+"', erlang, node, [])"); got != "'"+bare.Name+"'" {
				t.Errorf("afterwards the node answers %s", got)
			}
			disconnect(t, a, bare)
			d.noConnections(t)
		})
	}
}

// A receiver that dies takes no connection with it, leaves none behind, and its
// successor takes the next ones.
func TestAReceiverThatIsKilledHarmsNoConnection(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta)
	var clients [3]*hosts.Node // more deaths in so short a time stop the application, as any
	var bare, plain *hosts.Node
	starts := []func(){
		func() { bare = beta.Erl(t, "bare", withoutListener(d), quiet()) },
		func() { plain = beta.Erl(t, "plain", withApplication(d), quiet()) },
	}
	for i := range clients {
		starts = append(starts, func() { clients[i] = alpha.Erl(t, fmt.Sprintf("a%d", i), alone()) })
	}
	together(t, starts...)
	for _, b := range []*hosts.Node{bare, plain} {
		name, _, _ := strings.Cut(b.Name, "@")
		t.Run(name, func(t *testing.T) {
			d.ready(t, b)
			before := sockets(t, b.Pid())
			for i, a := range clients {
				wantPong(t, a, b)
				got := b.Eval(t, `Old = whereis(oneport_receiver), Gone = monitor(process, Old), exit(Old, kill), receive {'DOWN', Gone, _, _, Why} -> Why end`)
				if got != "killed" {
					t.Fatalf("killing the receiver: %s", got)
				}
				eventually(t, "the next receiver", func() bool {
					return strings.Count(d.Output(), `"msg":"receiver connected","node":"`+name+`"`) >= i+2
				})
			}
			if n := len(d.connections(t)); n != len(clients) {
				t.Errorf("%d connections, want %d", n, len(clients))
			}
			for _, c := range d.connections(t) {
				if c.Path != "handover" {
					t.Errorf("a connection goes by %s: %s", c.Path, c.Why)
				}
			}
			for _, a := range clients {
				if got := a.Eval(t, "{length(nodes()), erpc:call('"+b.Name+"', erlang, node, [])}"); got != "{1,'"+b.Name+"'}" {
					t.Errorf("%s: %s", a.Name, got)
				}
			}
			for _, a := range clients {
				disconnect(t, a, b)
			}
			d.noConnections(t)
			eventually(t, "the node's sockets to be as before", func() bool { return sockets(t, b.Pid()) <= before })
		})
	}
}

// The holder of a connection owns its descriptor: by its death that connection
// ends, at once for both sides, and no other.
func TestAHolderThatIsKilledEndsItsConnectionOnly(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta)
	var first, second, bare, plain *hosts.Node
	together(t,
		func() { first = alpha.Erl(t, "first", quiet()) },
		func() { second = alpha.Erl(t, "second", quiet()) },
		func() { bare = beta.Erl(t, "bare", withoutListener(d), quiet()) },
		func() { plain = beta.Erl(t, "plain", withApplication(d), quiet()) },
	)
	connect := func(t *testing.T, a, b *hosts.Node) {
		t.Helper()
		eventually(t, "a connection to "+b.Name, func() bool { return a.Eval(t, "net_kernel:connect_node('"+b.Name+"')") == "true" })
		wantPong(t, a, b) // b knows of it
	}
	const holders = `[P || P <- processes(), process_info(P, initial_call) =:= {initial_call, {oneport_holder, init, 4}}]`
	for _, b := range []*hosts.Node{bare, plain} {
		name, _, _ := strings.Cut(b.Name, "@")
		t.Run(name, func(t *testing.T) {
			d.ready(t, b)
			before := sockets(t, b.Pid())
			connect(t, first, b)
			b.Eval(t, "[Holder] = "+holders+", register(holder, Holder)")
			connect(t, second, b)
			gone := []func(*testing.T){watch(t, first, b), watch(t, b, first)}
			begin := time.Now()
			b.Eval(t, "exit(whereis(holder), kill)")
			for _, gone := range gone {
				gone(t)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("the end was seen after %v", took)
			}
			if one := d.handedOver(t, name); one.TCP == nil || one.TCP.State != "estab" {
				t.Errorf("the other connection: %+v", one)
			}
			if got := second.Eval(t, "erpc:call('"+b.Name+"', erlang, node, [])"); got != "'"+b.Name+"'" {
				t.Errorf("by the other connection: %s", got)
			}
			connect(t, first, b)
			disconnect(t, first, b)
			disconnect(t, second, b)
			d.noConnections(t)
			eventually(t, "the node's sockets to be as before", func() bool { return sockets(t, b.Pid()) <= before })
		})
	}
}

// Holders that die in the middle of their offers leave no client waiting and no
// descriptor open, and later offers are taken.
func TestHoldersThatAreKilledInTheMiddleLeaveNothing(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta)
	var a, plain *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", quiet()) },
		func() { plain = beta.Erl(t, "plain", withApplication(d), quiet()) },
	)
	d.ready(t, plain)
	connect := func() string { return a.Eval(t, "net_kernel:connect_node('"+plain.Name+"')") }
	wantHandedOver := func() {
		t.Helper()
		eventually(t, "a connection", func() bool { return connect() == "true" })
		d.handedOver(t, "plain")
	}
	wantHandedOver()
	disconnect(t, a, plain)
	d.noConnections(t)
	before, daemonBefore := sockets(t, plain.Pid()), descriptors(t, d)
	// The first thing that can be seen of a holder is that it links itself to a
	// port; by then it owns the descriptor. Each one gets a little further.
	plain.Eval(t, `Asker = self(), register(killer, spawn(fun() ->
		1 = erlang:trace(whereis(oneport_receiver), true, [procs, set_on_spawn]),
		Asker ! ready,
		(fun Loop(Killed, Left) -> receive
			{trace, _, spawned, _, _} -> Loop(Killed, Killed rem 8);
			{trace, Holder, _, Port} when is_port(Port), Left =:= 0 -> exit(Holder, kill), Loop(Killed, -1);
			{trace, _, _, Port} when is_port(Port) -> Loop(Killed, Left - 1);
			{trace, _, exit, killed} -> Loop(Killed + 1, -1);
			{tell, Whom} -> Whom ! {killed, Killed}, Loop(Killed, Left);
			_ -> Loop(Killed, Left)
		end end)(0, -1)
	end)), receive ready -> ok end`)
	const times = 20
	for range times {
		// Before the holder's answer its death is a refusal, and the client is
		// relayed. Behind it, it is the end of a connection.
		begin := time.Now()
		got := connect()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the client is told %s after %v", got, took)
		}
		if got == "true" {
			disconnect(t, a, plain)
		}
	}
	eventually(t, "the death of all holders", func() bool {
		return plain.Eval(t, "killer ! {tell, self()}, receive {killed, N} -> N end") == fmt.Sprint(times)
	})
	plain.Eval(t, "exit(whereis(killer), kill)")
	d.noConnections(t)
	eventually(t, "the node's sockets to be as before", func() bool { return sockets(t, plain.Pid()) <= before })
	eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= daemonBefore })
	wantHandedOver()
}
