package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/door"
	"oneport/internal/hosts"
)

// short makes the daemon's flags those of the shortcut, with its pins on a bpffs
// of the host's own, which is gone with it.
func short(t testing.TB, h *hosts.Host, mode string) []string {
	t.Helper()
	fs := filepath.Join(h.Dir, "bpf")
	if out, err := h.Command(t.Context(), "sh", "-c", "mkdir -p "+fs+" && mount -t bpf bpf "+fs).CombinedOutput(); err != nil {
		t.Fatalf("mounting a bpffs: %v\n%s", err, out)
	}
	return []string{"--shortcut", mode, "--pins", filepath.Join(fs, "oneport")}
}

// connection waits until there is one connection to a node that takes a path.
func (d *daemon) connection(t testing.TB, node, path string) (one door.Info) {
	t.Helper()
	eventually(t, "one connection to "+node+" by "+path, func() bool {
		n := 0
		for _, c := range d.connections(t) {
			if c.Node == node && c.Path == path {
				n, one = n+1, c
			}
		}
		return n == 1
	})
	return one
}

// oneConnectionTo returns the only connection to a node.
func (d *daemon) oneConnectionTo(t testing.TB, node string) (one door.Info) {
	t.Helper()
	eventually(t, "the one connection to "+node, func() bool {
		n := 0
		for _, c := range d.connections(t) {
			if c.Node == node {
				n, one = n+1, c
			}
		}
		return n == 1
	})
	return one
}

// Two nodes in two network namespaces of one host get the short way by
// themselves, whether the node takes descriptors or not, and what they say to
// each other arrives as it was.
func TestShortcutBetweenNamespaces(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta, short(t, beta, "auto")...)
	var stock, taking *hosts.Node
	together(t,
		func() { stock = beta.Erl(t, "stock", alone()) },
		func() { taking = beta.Erl(t, "taking", withApplication(d)) },
	)
	d.ready(t, taking)
	for _, to := range []struct {
		*hosts.Node
		name, kind string
		state      door.State
	}{{stock, "stock", "through", door.Relayed}, {taking, "taking", "direct", door.HandedOver}} {
		t.Run(to.name, func(t *testing.T) {
			a := alpha.Erl(t, "a"+to.name, alone())
			wantPong(t, a, to.Node)
			c := d.connection(t, to.name, "shortcut")
			if c.State != to.state || c.Shortcut == nil || c.Shortcut.Kind != to.kind {
				t.Fatalf("%+v, want a pair %s that is %s", c, to.kind, to.state)
			}
			table, err := d.command(t, "connections")
			if err != nil || !strings.Contains(table, "shortcut") {
				t.Errorf("%v\n%s", err, table)
			}
			const megabytes = 50
			transfer(t, a, to.Node, megabytes)
			// That much at once fills its receiver. The pair may be out by now.
			c = d.oneConnectionTo(t, to.name)
			if c.BytesToNode < megabytes<<20 || c.BytesToClient < megabytes<<20 {
				t.Errorf("%d bytes to the node and %d to the client, want %d MB at least", c.BytesToNode, c.BytesToClient, megabytes)
			}
			if c.Shortcut == nil || c.Shortcut.ToNode.ShortBytes == 0 || c.Shortcut.ToClient.ShortBytes == 0 {
				t.Errorf("nothing went the short way: %+v", c.Shortcut)
			}
		})
	}
}

// transfer sends megabytes each way and compares sums that are made on the side
// that sends.
func transfer(t testing.TB, a, b *hosts.Node, megabytes int) {
	t.Helper()
	got := a.Eval(t, fmt.Sprintf(`
		Random = fun() -> list_to_binary([rand:bytes(1 bsl 20) || _ <- lists:seq(1, %d)]) end,
		There = Random(),
		ThereArrived = rpc:call('%[2]s', erlang, md5, [There]),
		{Back, BackSent} = rpc:call('%[2]s', erlang, apply, [fun() -> Data = Random(), {Data, erlang:md5(Data)} end, []]),
		{byte_size(There), ThereArrived =:= erlang:md5(There), byte_size(Back), BackSent =:= erlang:md5(Back)}`, megabytes, b.Name))
	if want := fmt.Sprintf("{%d,true,%[1]d,true}", megabytes<<20); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// shortMessages returns how many messages of a connection went the short way.
func shortMessages(c door.Info) uint64 {
	return c.Shortcut.ToNode.ShortMessages + c.Shortcut.ToClient.ShortMessages
}

// chat makes a node call another one, often, one call after the other.
func chat(t testing.TB, a, b *hosts.Node, calls int) {
	t.Helper()
	got := a.Eval(t, fmt.Sprintf(`lists:usort([rpc:call('%s', erlang, abs, [-N]) =:= N || N <- lists:seq(1, %d)])`, b.Name, calls))
	if got != "[true]" {
		t.Fatalf("%d calls: %s", calls, got)
	}
}

// settle makes two nodes talk until what they say goes the short way, and returns
// the record of their connection then.
func (d *daemon) settle(t testing.TB, a, b *hosts.Node, node string) (c door.Info) {
	t.Helper()
	eventually(t, "the first short message", func() bool {
		chat(t, a, b, 10)
		c = d.connection(t, node, "shortcut")
		return c.Shortcut.ToNode.ShortMessages > 0 && c.Shortcut.ToClient.ShortMessages > 0
	})
	return c
}

// What nodes do to each other works over a pair as it does without: many callers
// at once, a process and a node that do not read, and every way to end a
// connection.
func TestShortcutCarriesWhatNodesDo(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta, short(t, beta, "auto")...)
	for _, kind := range []struct {
		name   string
		option hosts.Option
	}{{"through", alone()}, {"direct", withApplication(d)}} {
		t.Run(kind.name, func(t *testing.T) {
			name := kind.name
			var a, b *hosts.Node
			together(t,
				func() { a = alpha.Erl(t, "a"+name, alone()) },
				func() { b = beta.Erl(t, name, kind.option) },
			)
			if name == "direct" {
				d.ready(t, b)
			}
			wantPong(t, a, b)
			d.connection(t, name, "shortcut")

			// A hundred processes, each with calls of its own, answers of 1 to
			// some thousand bytes.
			got := a.Eval(t, fmt.Sprintf(`
				Me = self(),
				Call = fun(N) ->
					There = rand:bytes(N),
					There =:= rpc:call('%s', erlang, binary_part, [<<There/binary, 0>>, 0, N])
				end,
				Callers = [spawn(fun() -> Me ! {self(), lists:all(Call, [C + 37 * I || I <- lists:seq(1, 50)])} end) || C <- lists:seq(1, 100)],
				lists:usort([receive {C, Well} -> Well end || C <- Callers])`, b.Name))
			if got != "[true]" {
				t.Errorf("a hundred callers: %s", got)
			}

			// A process that is suspended while a hundred megabytes are sent to
			// it gets them all, and in order.
			got = a.Eval(t, fmt.Sprintf(`
				Me = self(),
				Reader = spawn('%s', erlang, apply, [fun() ->
					Sum = fun Sum(S) -> receive {N, Data} -> Sum(erlang:md5_update(S, [<<N:32>>, Data])); stop -> Me ! {sum, erlang:md5_final(S)} end end,
					receive begin_now -> Sum(erlang:md5_init()) end
				end, []]),
				true = rpc:call('%[1]s', erlang, apply, [fun() ->
					Keeper = self(),
					spawn(fun() -> erlang:suspend_process(Reader), Keeper ! kept, receive after 1000 -> erlang:resume_process(Reader) end end),
					receive kept -> true end
				end, []]),
				Reader ! begin_now,
				Data = rand:bytes(1 bsl 20),
				Sent = lists:foldl(fun(N, S) -> Reader ! {N, Data}, erlang:md5_update(S, [<<N:32>>, Data]) end, erlang:md5_init(), lists:seq(1, 100)),
				Reader ! stop,
				receive {sum, Got} -> Got =:= erlang:md5_final(Sent) end`, b.Name))
			if got != "true" {
				t.Errorf("a suspended process: %s", got)
			}

			// So does a node that stands still, and its peer waits for it.
			a.Eval(t, fmt.Sprintf(`register('sender to %[1]s', spawn(fun() ->
				Data = rand:bytes(1 bsl 16),
				Whole = lists:all(fun(_) -> erlang:md5(Data) =:= rpc:call('%[1]s', erlang, md5, [Data]) end, lists:seq(1, 500)),
				receive {tell, Whom} -> Whom ! {whole, Whole} end
			end))`, b.Name))
			b.Signal(unix.SIGSTOP)
			time.Sleep(2 * time.Second) // that it stands still is the load
			b.Signal(unix.SIGCONT)
			if got := a.Eval(t, fmt.Sprintf(`'sender to %s' ! {tell, self()}, receive {whole, Whole} -> Whole end`, b.Name)); got != "true" {
				t.Errorf("a node that stood still: %s", got)
			}

			disconnect(t, a, b)
			d.noConnections(t)
			wantPong(t, b, a) // the other way round, by alpha's door, which has no shortcut
			disconnect(t, b, a)
			wantPong(t, a, b)
			d.connection(t, name, "shortcut")
			chat(t, a, b, 200)

			gone := watch(t, b, a)
			a.Kill()
			gone(t)
			d.noConnections(t)

			a = alpha.Erl(t, "again"+name, alone())
			wantPong(t, a, b)
			d.connection(t, name, "shortcut")
			gone = watch(t, a, b)
			b.Eval(t, "spawn(fun() -> halt() end)")
			gone(t)
			d.noConnections(t)
		})
	}
}

// Pairs do not need the daemon: calls go the short way while there is none, and
// the next one knows them.
func TestShortcutOutlivesTheDaemon(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta, short(t, beta, "auto")...)
	whole := t
	var a, b *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", withApplication(d)) },
	)
	d.ready(t, b)
	wantPong(t, a, b)
	before := shortMessages(d.settle(t, a, b, "b"))
	totals := func() uint64 {
		t.Helper()
		direct := d.status(t).Shortened["direct"]
		return direct.ShortMessages
	}
	if n := totals(); n < before {
		t.Errorf("status counts %d messages in all, and the connection had %d", n, before)
	}
	d.Kill()
	const calls = 500
	chat(t, a, b, calls)
	d.start(whole)
	listed := func() door.Info {
		t.Helper()
		all := d.connections(t)
		if len(all) != 1 || all[0].ID != 0 || all[0].Path != "shortcut" || all[0].State != door.HandedOver || all[0].Peer == "" {
			t.Fatalf("the next daemon lists %+v, want the one pair", all)
		}
		return all[0]
	}
	after := shortMessages(listed())
	// Each call is a message there and one back.
	if after < before+2*calls*9/10 {
		t.Errorf("%d messages went the short way without a daemon, of %d", after-before, 2*calls)
	}
	chat(t, a, b, calls)
	if last := shortMessages(listed()); last < after+2*calls*9/10 {
		t.Errorf("%d messages went the short way with the next daemon, of %d", last-after, 2*calls)
	}
	// Whose counters the socket was does not matter to the totals, nor that it closes.
	if n := totals(); n < after {
		t.Errorf("status counts %d messages in all, and the connection had %d", n, after)
	}
	// What is new is paired as before.
	eventually(t, "the node to register again", func() bool { return len(d.nodes(t)) == 1 })
	disconnect(t, a, b)
	d.noConnections(t)
	if n := totals(); n < after {
		t.Errorf("status counts %d messages after the end of a connection that had %d", n, after)
	}
	dump, err := beta.Command(t.Context(), "bpftool", "-p", "map", "dump", "pinned", filepath.Join(beta.Dir, "bpf", "oneport", "totals")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, dump)
	}
	for _, want := range []string{`"short_messages": `, `"pressure": 0`} {
		if !strings.Contains(string(dump), want) {
			t.Errorf("bpftool does not print %s:\n%s", want, dump)
		}
	}
	d.ready(t, b)
	wantPong(t, a, b)
	d.connection(t, "b", "shortcut")
}

// After the start the daemon does not hold what only the start needs, and pairs
// without it. (A program that looks for data races is linked with C, and cannot
// give it up.)
func TestCapabilitiesOfTheStartAreDropped(t *testing.T) {
	if slices.Contains(buildEnv, "CGO_ENABLED=1") {
		t.Skip("a program with C cannot drop capabilities in all threads")
	}
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := serve(t, beta, short(t, beta, "auto")...)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.Pid()))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			var held uint64
			_, rest, _ := strings.Cut(string(status), set+":")
			if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%x", &held); err != nil {
				t.Fatal(err)
			}
			if held&(1<<unix.CAP_BPF|1<<unix.CAP_PERFMON) != 0 {
				t.Errorf("%s of %s: %x", set, task, held)
			}
		}
	}
	var a, b *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
	)
	wantPong(t, a, b)
	d.settle(t, a, b, "b")
}

// On plain loopback a pair gains nothing and auto leaves it; all takes it.
func TestShortcutModes(t *testing.T) {
	beta := hosts.New(t, "beta")[0]
	flags := short(t, beta, "")
	for _, mode := range []struct{ name, path, why string }{
		{"auto", "splice", "one network namespace"},
		{"all", "shortcut", ""},
		{"off", "splice", ""},
	} {
		t.Run(mode.name, func(t *testing.T) {
			d := serve(t, beta, "--shortcut", mode.name, flags[2], flags[3])
			var a, b *hosts.Node
			together(t,
				func() { a = beta.Erl(t, "a", carrier(), alone()) },
				func() { b = beta.Erl(t, "b", alone()) },
			)
			wantPong(t, a, b)
			c := d.connection(t, "b", mode.path)
			if !strings.Contains(c.Why, mode.why) || (mode.why == "") == strings.Contains(c.Why, "shortcut") {
				t.Errorf("%s by %s because %q", mode.name, c.Path, c.Why)
			}
			chat(t, a, b, 100)
			if state := d.status(t).Shortcut; strings.HasPrefix(state, "on") == (mode.name == "off") {
				t.Errorf("the daemon says %q", state)
			}
		})
	}
}

// Stock nodes of one host connect past the door, by the port that it has told.
// With all, they are paired as well, and listed, also by the next daemon.
func TestShortcutPastTheDoor(t *testing.T) {
	beta := hosts.New(t, "beta")[0]
	d := serve(t, beta, short(t, beta, "all")...)
	whole := t
	var a, b *hosts.Node
	together(t,
		func() { a = beta.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
	)
	wantPong(t, a, b)
	c := d.settle(t, a, b, "b")
	if c.State != door.Direct || c.ID != 0 || c.Shortcut.Kind != "direct" {
		t.Errorf("%+v, want a direct one", c)
	}
	d.Kill()
	d.start(whole)
	eventually(t, "the node to register again", func() bool { return len(d.nodes(t)) == 2 })
	before := shortMessages(d.connection(t, "b", "shortcut"))
	chat(t, a, b, 100)
	if n := shortMessages(d.connection(t, "b", "shortcut")) - before; n < 180 {
		t.Errorf("%d messages of 200 went the short way", n)
	}
	disconnect(t, a, b)
	d.noConnections(t)
}

// Without the capability to take hold of a node's socket there is no shortcut.
// Everything else works, and says why.
func TestNoShortcutWithoutPtrace(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := &daemon{host: beta, control: filepath.Join(beta.Dir, "control.sock"), node: filepath.Join(beta.Dir, "node.sock"),
		flags: short(t, beta, "auto"), within: []string{"setpriv", "--bounding-set=-sys_ptrace", "--"}}
	d.start(t)
	var a, b *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
	)
	wantPong(t, a, b)
	if c := d.connection(t, "b", "splice"); !strings.Contains(c.Why, "CAP_SYS_PTRACE") {
		t.Errorf("the reason is %q", c.Why)
	}
	if state := d.status(t).Shortcut; !strings.HasPrefix(state, "off: CAP_SYS_PTRACE") {
		t.Errorf("the daemon says %q", state)
	}
	if n := strings.Count(d.Output(), "no shortcut in the kernel"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// Without the capability to look into other namespaces the clients there are as
// good as elsewhere.
func TestShortcutWithoutAdmin(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	d := &daemon{host: beta, control: filepath.Join(beta.Dir, "control.sock"), node: filepath.Join(beta.Dir, "node.sock"),
		flags: short(t, beta, "auto"), within: []string{"setpriv", "--bounding-set=-sys_admin", "--"}}
	d.start(t)
	var a, b *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
	)
	wantPong(t, a, b)
	if c := d.settle(t, a, b, "b"); c.Shortcut.Kind != "outward" {
		t.Errorf("%+v", c)
	}
	if n := strings.Count(d.Output(), "CAP_SYS_ADMIN missing"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// A client that is on no host of this kernel, as far as the daemon can tell: the
// node's messages go straight out by the client's socket.
func TestShortcutToAClientElsewhere(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	disguise(t, alpha)
	serve(t, alpha)
	d := serve(t, beta, short(t, beta, "auto")...)
	var a, b *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
	)
	wantPong(t, a, b)
	c := d.connection(t, "b", "shortcut")
	if c.Shortcut == nil || c.Shortcut.Kind != "outward" {
		t.Fatalf("%+v", c)
	}
	const calls = 500
	before := shortMessages(d.settle(t, a, b, "b"))
	chat(t, a, b, calls)
	if n := shortMessages(d.connection(t, "b", "shortcut")) - before; n < 2*calls*9/10 {
		t.Errorf("%d messages of %d went the short way", n, 2*calls)
	}
	transfer(t, a, b, 50)
	c = d.oneConnectionTo(t, "b")
	if c.BytesToNode < 50<<20 || c.BytesToClient < 50<<20 || c.BytesToNode > 60<<20 || c.BytesToClient > 60<<20 {
		t.Errorf("%d bytes to the node and %d to the client, want 50 MB and little more", c.BytesToNode, c.BytesToClient)
	}
	gone := watch(t, b, a)
	a.Kill()
	gone(t)
	d.noConnections(t)
}

// disguise makes a host's BEAMs unknown to a daemon. It tells one by its
// program's file, which has another name here.
func disguise(t testing.TB, h *hosts.Host) {
	t.Helper()
	const script = `
		set -e
		bin=$(echo "$(erl -noinput -eval 'io:put_chars(code:root_dir()), halt().')"/erts-*/bin)
		cp -a "$bin" own
		mv own/beam.smp own/emulator
		ln -s emulator own/beam.smp
		mount --bind own "$bin"`
	if out, err := h.Command(t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
