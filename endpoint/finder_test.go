package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/hosts"
)

// A node's end is found by the addresses that the other end knows, whatever the
// family of its socket.
func TestTheEndOfAConnectionToANode(t *testing.T) {
	h, f := world(t), finder(t)
	for _, c := range []struct{ name, network, options string }{
		{"IPv4", "tcp4", ""},
		{"IPv6", "tcp6", "inet6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t, c.network)
			node := start(t, h, erl(connects(l, c.options)))
			_, local, remote := accept(t, l)
			s, err := f.End(t.Context(), local, remote)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.PID != node.Pid() || s.UID != uint32(os.Getuid()) || s.Local != local || s.Remote != remote {
				t.Errorf("found %+v, want process %d with %s to %s", s.Owner, node.Pid(), local, remote)
			}
			if got := cookieOf(t, s); got != s.Cookie {
				t.Errorf("a socket with cookie %d, not %d", got, s.Cookie)
			}
			if s.Namespace != f.machines.own.inode {
				t.Errorf("in namespace %d, want %d", s.Namespace, f.machines.own.inode)
			}
		})
	}
}

// An IPv4 connection to an IPv6 socket is found by its addresses, mapped or not.
func TestAMappedConnection(t *testing.T) {
	h, f := world(t), finder(t)
	mapped := netip.MustParseAddr("::ffff:127.0.0.1")
	a, b, local, remote := pair(t, unix.AF_INET6, unix.IPPROTO_TCP, &unix.SockaddrInet6{Addr: mapped.As16()})
	defer unix.Close(b)
	unix.SetNonblock(a, true)
	want := cookie(t, a)
	p := hold(t, h, exec.Command(program(t, "beam.smp")), a)
	for _, ends := range [][2]netip.AddrPort{
		{local, remote},
		{netip.AddrPortFrom(mapped, local.Port()), netip.AddrPortFrom(mapped, remote.Port())},
	} {
		s, err := f.End(t.Context(), ends[0], ends[1])
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if s.PID != p.Pid() || s.Cookie != want || s.Local != local || s.Remote != remote {
			t.Errorf("found %+v from %s to %s, want process %d and cookie %d", s.Owner, s.Local, s.Remote, p.Pid(), want)
		}
	}
}

// Two nodes in two network namespaces, as containers of one host are, and their
// distribution between them.
func TestNodesInTwoNamespaces(t *testing.T) {
	all := hosts.New(t, "a", "b")
	for _, h := range all {
		if output, err := h.Command(t.Context(), "nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		h.Start(t, h.Command(context.Background(), "epmd"))
	}
	a, b := erlSoon(t, all[0]), erlSoon(t, all[1])
	if got := a.Eval(t, fmt.Sprintf("net_kernel:connect_node('%s')", b.Name)); got != "true" {
		t.Fatalf("connecting: %s", got)
	}
	addresses, _ := strconv.Unquote(a.Eval(t, fmt.Sprintf(`
		{ok, Info} = net_kernel:node_info('%s'),
		{net_address, Peer, _, _, _} = proplists:get_value(address, Info),
		[Own] = [O || P <- erlang:ports(), {name, "tcp_inet"} =:= erlang:port_info(P, name),
			{ok, Peer} =:= inet:peername(P), {ok, O} <- [inet:sockname(P)]],
		lists:flatten([io_lib:format("~s:~b ", [inet:ntoa(A), N]) || {A, N} <- [Own, Peer]])`, b.Name)))
	fields := strings.Fields(addresses)
	if len(fields) != 2 {
		t.Fatalf("addresses %q", addresses)
	}
	local, remote := netip.MustParseAddrPort(fields[0]), netip.MustParseAddrPort(fields[1])

	f := finder(t)
	var there uint64
	for range 2 { // for the second time, all are known
		near, far, err := f.Ends(t.Context(), local, remote)
		if err != nil {
			t.Fatal(err)
		}
		near.Close()
		far.Close()
		there = far.Namespace
		if near.PID != a.Pid() || far.PID != b.Pid() || near.Namespace == far.Namespace || near.Local != far.Remote || near.Remote != far.Local {
			t.Errorf("found %+v and %+v, want processes %d and %d", near.Owner, far.Owner, a.Pid(), b.Pid())
		}
	}
	owner, err := f.Owner(t.Context(), remote, netip.AddrPort{})
	if err != nil || owner.PID != b.Pid() {
		t.Errorf("who listens on %s: %+v, error %v, want process %d", remote, owner, err, b.Pid())
	}

	// What is kept of a namespace goes with its last process, with no search.
	b.Kill()
	until(t, "the namespace is let go of", func() bool {
		f.machines.mu.Lock()
		defer f.machines.mu.Unlock()
		return f.machines.namespaces[there] == nil
	})
	if _, err := f.End(t.Context(), remote, local); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the end of a node: %v, want %v", err, ErrNotFound)
	}
}

// erlSoon starts a node as soon as epmd answers.
func erlSoon(t *testing.T, h *hosts.Host) *hosts.Node {
	t.Helper()
	until(t, "epmd answers", func() bool {
		conn, err := h.Dial(t.Context(), "tcp4", "127.0.0.1:4369")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return h.Erl(t, h.Name)
}

// A node in a container: its own processes, files and network.
func TestANodeInAPIDNamespace(t *testing.T) {
	h, f := world(t), finder(t)
	l, err := h.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	args := append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", "--"}, erl(connects(l, ""))...)
	h.Start(t, h.Command(context.Background(), "unshare", args...))
	_, local, remote := accept(t, l)
	s, err := f.End(t.Context(), local, remote)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	status, err := os.ReadFile(procPath(s.PID, "status"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nNSpid:\t%d\t1\n", s.PID); !strings.Contains(string(status), want) {
		t.Errorf("process %d is not the first of its namespace:\n%s", s.PID, status)
	}
	if s.Namespace == f.machines.own.inode {
		t.Error("it is said to be in this network namespace")
	}
}

// The same addresses are in use in two namespaces. Both ends of a connection are
// of one, and a likely process says of which.
func TestOneConnectionInEachOfTwoNamespaces(t *testing.T) {
	all, f := hosts.New(t, "a", "b"), finder(t)
	for i, h := range all {
		node := h.Start(t, h.Command(context.Background(), "erl", erl(`
			{ok, L} = gen_tcp:listen(40404, [{ip, {127,0,0,1}}]),
			{ok, A} = gen_tcp:connect({127,0,0,1}, 40404, [{port, 40405}]),
			{ok, B} = gen_tcp:accept(L),
			io:put_chars("connected"),
			receive after infinity -> {L, A, B} end.`)[1:]...))
		node.WaitOutput(t, "connected")
		near, far, err := f.Ends(t.Context(), netip.MustParseAddrPort("127.0.0.1:40405"), netip.MustParseAddrPort("127.0.0.1:40404"), node.Pid())
		if err != nil {
			t.Fatal(err)
		}
		near.Close()
		far.Close()
		if near.PID != node.Pid() || far.PID != node.Pid() || near.Namespace != far.Namespace || near.Cookie == far.Cookie {
			t.Errorf("connection %d: found %+v and %+v, want process %d", i, near.Owner, far.Owner, node.Pid())
		}
	}
}

// A socket that was handed over belongs to another network namespace than the
// process that has it.
func TestAConnectionThatWasHandedOver(t *testing.T) {
	h, f := world(t), finder(t)
	a, b, local, remote := pair(t, unix.AF_INET, unix.IPPROTO_TCP, ipv4())
	defer unix.Close(b)
	nonblocking(t, a)
	want := cookie(t, a)
	p := hold(t, h, h.Command(context.Background(), program(t, "beam.smp")), a)
	for range 2 { // for the second time, all are known
		s, err := f.End(t.Context(), local, remote)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if s.PID != p.Pid() || s.Cookie != want || s.Namespace != f.machines.own.inode {
			t.Errorf("found %+v, want process %d and cookie %d, in namespace %d", s.Owner, p.Pid(), want, f.machines.own.inode)
		}
	}
}

// Many nodes' connections are looked for at once, while nodes come and go.
func TestSearchesSideBySide(t *testing.T) {
	h, f := world(t), finder(t)
	l := listen(t, "tcp4")
	connections := 60
	if testing.Short() {
		connections = 15 // they wait for each other
	}
	a := addrPort(l.Addr())
	node := start(t, h, erl(fmt.Sprintf(
		`[{ok, _} = gen_tcp:connect({127,0,0,1}, %d, []) || _ <- lists:seq(1, %d)], receive after infinity -> ok end.`, a.Port(), connections)))
	var all sync.WaitGroup
	for range connections {
		_, local, remote := accept(t, l)
		all.Go(func() {
			s, err := f.End(t.Context(), local, remote)
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
			if s.PID != node.Pid() {
				t.Errorf("found process %d, want %d", s.PID, node.Pid())
			}
		})
		all.Go(func() {
			// This test's own end.
			if s, err := f.End(t.Context(), remote, local); !errors.Is(err, ErrNotBEAM) {
				t.Errorf("%v, error %v, want %v", s, err, ErrNotBEAM)
			}
		})
	}
	all.Wait()
}

// Connections that follow each other have the same ports, and the same number in
// the node's table.
func TestAConnectionIsNotTakenForTheOneBeforeIt(t *testing.T) {
	h, f := world(t), finder(t)
	l := listen(t, "tcp4")
	free := listen(t, "tcp4")
	free.Close()
	start(t, h, erl(reconnects(l, addrPort(free.Addr()).Port())))
	cookies := make(map[uint64]bool)
	rounds := 1_000
	if testing.Short() {
		rounds = 50
	}
	var before netip.AddrPort
	for i := range rounds {
		conn, local, remote := accept(t, l)
		s, err := f.End(t.Context(), local, remote)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if cookies[s.Cookie] || cookieOf(t, s) != s.Cookie {
			t.Fatalf("round %d: an old socket", i)
		}
		if before.IsValid() && local != before {
			t.Fatalf("round %d: from %s, not %s again", i, local, before)
		}
		before = local
		cookies[s.Cookie] = true
		s.Close()
		next(t, conn)
	}
}

// A new connection is found without a walk over the descriptors of its node, by
// which what is wrongly remembered would be forgotten.
func TestANewConnectionTakesNoWalk(t *testing.T) {
	h, f := world(t), finder(t)
	l := listen(t, "tcp4")
	start(t, h, erl(reconnects(l, 0)))
	const number = 1 << 20 // of no descriptor
	for i := range 3 {
		conn, local, remote := accept(t, l)
		s, err := f.End(t.Context(), local, remote)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		v, err := f.machines.view(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range v.processes {
			if p.pid != s.PID {
				continue
			}
			if i == 0 {
				p.note(number, 77)
			} else if at, ok := p.remembered(77); at != number || !ok {
				t.Errorf("connection %d: all descriptors were looked at", i)
			}
		}
		next(t, conn)
	}
}

// reconnects are the expressions that connect to l from a port, always the same
// one unless it is 0, each time the connection before has been told to end by
// next.
func reconnects(l net.Listener, port uint16) string {
	return fmt.Sprintf(`
		F = fun F() ->
			{ok, S} = gen_tcp:connect({127,0,0,1}, %d, [binary, {active, false}, {port, %d}, {reuseaddr, true}, {linger, {true, 0}}]),
			{ok, _} = gen_tcp:recv(S, 1),
			gen_tcp:close(S),
			F()
		end,
		F().`, addrPort(l.Addr()).Port(), port)
}

// next ends a connection of reconnecting.
func next(t testing.TB, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the node does not close its connection")
	}
	conn.Close()
}

func TestWhatIsNotThere(t *testing.T) {
	f := finder(t)
	l := listen(t, "tcp4")
	at := addrPort(l.Addr())
	// A connection that is not there is not taken for who listens there.
	if _, err := f.Owner(t.Context(), at, netip.MustParseAddrPort("127.0.0.1:1")); !errors.Is(err, ErrNotFound) {
		t.Errorf("a connection to a listener: %v, want %v", err, ErrNotFound)
	}
	if _, err := f.Owner(t.Context(), at, netip.AddrPort{}); !errors.Is(err, ErrNotBEAM) {
		t.Errorf("this test's listener: %v, want %v", err, ErrNotBEAM)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Owner(ctx, at, netip.AddrPort{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v, want %v", err, context.Canceled)
	}
	f.Close()
	if _, err := f.Owner(t.Context(), at, netip.AddrPort{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want %v", err, ErrClosed)
	}
}

// Searches leave processors to others, but not so long that they end in vain: with
// many processes a walk takes a tenth of a second, and twenty of them are the two
// seconds of a search.
func TestPausesBetweenWalks(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		time.Millisecond:       50 * time.Millisecond,
		10 * time.Millisecond:  200 * time.Millisecond,
		100 * time.Millisecond: DefaultTimeout / 2,
		time.Second:            DefaultTimeout / 2,
	} {
		if got := pause(took); got != want {
			t.Errorf("%v after a walk of %v, want %v", got, took, want)
		}
	}
}

// A search ends in time also while nobody may walk over the processes.
func TestASearchHasADeadline(t *testing.T) {
	f := finder(t)
	f.timeout = 10 * time.Millisecond
	f.machines.walking.Lock()
	defer f.machines.walking.Unlock()
	_, err := f.Owner(t.Context(), addrPort(listen(t, "tcp4").Addr()), netip.AddrPort{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
}
