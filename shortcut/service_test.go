package shortcut

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"oneport/internal/hosts"
	"oneport/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// deadline bounds every wait of the tests.
const deadline = 30 * time.Second

// event is one call of Changed.
type event struct {
	open bool
	why  string
}

// next waits for the next event.
func next(t *testing.T, events <-chan event) event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(deadline):
		t.Fatal("nothing has changed")
		return event{}
	}
}

func open(t *testing.T, o Options) *Service {
	t.Helper()
	s := Open(o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// usage waits until what is known of connection 1 meets a condition.
func usage(t *testing.T, s *Service, what string, condition func(Usage) bool) {
	t.Helper()
	var u Usage
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		of, _, err := s.Report(func(netip.AddrPort) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		if u = of[1]; condition(u) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: %+v", what, u)
		}
	}
}

// Two nodes, each in a network namespace, get a pair. When their messages keep
// going the long way it is taken out, and is back after a rest.
func TestAPairThatGainsNothingRests(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	// Without an EPMD: each listens on the port that the other expects, and finds
	// nobody to register with.
	options := []hosts.Option{hosts.EPMDPort(1), hosts.Args("-erl_epmd_port", fmt.Sprint(hosts.Port)), hosts.Args("-connect_all", "false")}
	a, b := made[0].Erl(t, "a", options...), made[1].Erl(t, "b", options...)
	if got := a.Eval(t, "net_adm:ping('"+b.Name+"')"); got != "pong" {
		t.Fatal(got)
	}
	got := a.Eval(t, "{ok, {_, Number}} = inet:sockname("+distPort+"('"+b.Name+"')), Number")
	var number uint16
	if _, err := fmt.Sscan(got, &number); err != nil {
		t.Fatalf("%s: %v", got, err)
	}

	log := logrus.New()
	var logged bytes.Buffer
	log.SetOutput(&logged)
	events := make(chan event, 16)
	s := Open(Options{Mode: Auto, Log: log, Look: 200 * time.Millisecond, Rest: 100 * time.Millisecond})
	if state := s.State(); state != "on: auto" {
		t.Fatal(state)
	}
	s.Handed(Connection{
		ID: 1, Peer: netip.AddrPortFrom(made[0].IPv4, number), Local: netip.AddrPortFrom(made[1].IPv4, hosts.Port),
	}, func(open bool, why string) { events <- event{open, why} })
	if e := next(t, events); e != (event{true, ""}) {
		t.Fatalf("%+v", e)
	}
	loud(t, a, b)
	usage(t, s, "short messages", func(u Usage) bool {
		return u.Open && u.Kind == "direct" && u.ToNode.ShortMessages > 0
	})

	setLow(t, b, a, 2)
	if e := next(t, events); e.open || !strings.Contains(e.why, "the long way") || !strings.Contains(e.why, "blocks") {
		t.Fatalf("%+v", e)
	}
	usage(t, s, "the pair to be out", func(u Usage) bool { return !u.Open })
	setLow(t, b, a, 1)
	if e := next(t, events); e != (event{true, ""}) {
		t.Fatalf("%+v", e)
	}
	var before uint64
	usage(t, s, "the pair to be back", func(u Usage) bool { before = u.ToNode.ShortMessages; return u.Open })
	usage(t, s, "short messages again", func(u Usage) bool { return u.ToNode.ShortMessages > before })

	a.Kill()
	usage(t, s, "the end", func(u Usage) bool { return u == Usage{} })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(logged.String(), "shortcut taken out"); n < 1 {
		t.Errorf("logged %d times that the pair was taken out:\n%s", n, &logged)
	}
}

// distPort is what finds the port of a node's connection to another.
const distPort = "(fun(Node) -> {Node, Port} = lists:keyfind(Node, 1, erlang:system_info(dist_ctrl)), Port end)"

// loud makes a node send messages to another, which throws them away, as long as
// they are connected.
func loud(t *testing.T, a, b *hosts.Node) {
	t.Helper()
	a.Eval(t, `spawn(fun() ->
		true = erlang:monitor_node('`+b.Name+`', true),
		(fun Loop() -> [{nobody, '`+b.Name+`'} ! N || N <- lists:seq(1, 1000)], receive {nodedown, _} -> ok after 20 -> Loop() end end)()
	end)`)
}

// setLow makes a node's socket towards another one wait for n bytes
// (SO_RCVLOWAT). A reader that waits for more than one is avoided by the short
// way.
func setLow(t *testing.T, b, a *hosts.Node, n int) {
	t.Helper()
	if got := b.Eval(t, fmt.Sprintf("inet:setopts(%s('%s'), [{raw, 1, 18, <<%d:32/native>>}])", distPort, a.Name, n)); got != "ok" {
		t.Fatal(got)
	}
}

// Where there is no shortcut, connections are told why, and the log once.
func TestNoShortcut(t *testing.T) {
	client, node := tcpPair(t)
	for _, tt := range []struct {
		name string
		o    Options
		says string
	}{
		{"off", Options{}, ""},
		{"no bpffs", Options{Mode: All, Pins: filepath.Join(t.TempDir(), "oneport")}, "mount -t bpf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logged bytes.Buffer
			tt.o.Log = logrus.New()
			tt.o.Log.SetOutput(&logged)
			s := open(t, tt.o)
			if state := s.State(); !strings.HasPrefix(state, "off: ") || !strings.Contains(state, tt.says) {
				t.Errorf("state %q", state)
			}
			var told []event
			changed := func(open bool, why string) { told = append(told, event{open, why}) }
			for range 2 {
				s.Relayed(t.Context(), Connection{ID: 1}, client, node, 0, changed)()
				s.Handed(Connection{ID: 2}, changed)
				s.Expect(1, false)
			}
			want := 0
			if tt.says != "" {
				want = 1
			}
			if len(told) != 2*want || want > 0 && (told[0].open || !strings.Contains(told[0].why, tt.says)) {
				t.Errorf("told %+v", told)
			}
			if n := strings.Count(logged.String(), "no shortcut in the kernel"); n != want {
				t.Errorf("logged %d times:\n%s", n, &logged)
			}
			if of, others, err := s.Report(nil); len(of) != 0 || len(others) != 0 || err != nil {
				t.Errorf("reports %v, %v, %v", of, others, err)
			}
		})
	}
}

// A node that is no Erlang VM gets no short way, and its relay does not wait for
// long.
func TestOnlyBEAMs(t *testing.T) {
	s := open(t, Options{Mode: All})
	client, node := tcpPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		var told event
		s.Relayed(ctx, Connection{ID: 1, Peer: addrPort(client.RemoteAddr()), Local: addrPort(client.LocalAddr()), ThisHost: true}, client, node, 0,
			func(open bool, why string) { told = event{open, why} })()
		// On a busy machine the time for it may be over before it is known.
		if strings.Contains(told.why, context.DeadlineExceeded.Error()) && ctx.Err() == nil {
			continue
		}
		if told != (event{false, "no Erlang VM has this socket"}) {
			t.Errorf("%+v", told)
		}
		return
	}
}

// tcpPair returns a relay's two connections, whose other ends are in this
// process.
func tcpPair(t *testing.T) (client, node *net.TCPConn) {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() (dialled, accepted *net.TCPConn) {
		d, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		a, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		return d.(*net.TCPConn), a.(*net.TCPConn)
	}
	_, client = dial()
	node, _ = dial()
	return client, node
}
