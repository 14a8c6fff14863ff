package epmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"
)

// patience bounds every wait of the tests.
const patience = 30 * time.Second

// serve starts a server on an ephemeral port of a loopback address, and
// returns a client of it. The server ends with the test.
func serve(t testing.TB, s *Server, address ...string) *Client {
	t.Helper()
	if s.Registry == nil {
		s.Registry = new(Registry)
	}
	l := listen(t, append(address, "127.0.0.1:0")[0])
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serving: %v", err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
	})
	return &Client{Addr: l.Addr().String(), Timeout: patience}
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveDoor is serve by the way that a door takes: it accepts, and gives each
// connection to ServeConn.
func serveDoor(t testing.TB, s *Server) *Client {
	t.Helper()
	if s.Registry == nil {
		s.Registry = new(Registry)
	}
	l := listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { s.ServeConn(ctx, c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		served.Wait()
	})
	return &Client{Addr: l.Addr().String(), Timeout: patience}
}

func dial(t testing.TB, c *Client) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", c.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

func write(t testing.TB, conn net.Conn, b string) {
	t.Helper()
	if _, err := io.WriteString(conn, b); err != nil {
		t.Fatal(err)
	}
}

// frame puts the length before a payload.
func frame(payload string) string {
	return string([]byte{byte(len(payload) >> 8), byte(len(payload))}) + payload
}

// wantAnswer reads until the server closes, and compares what came before.
func wantAnswer(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(conn); err != nil || string(got) != want {
		t.Errorf("answer %q, error %v; want %q and a close", got, err, want)
	}
}

func wantNames(t testing.TB, c *Client, want ...string) {
	t.Helper()
	response, err := c.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range response.Names {
		names = append(names, n.Name)
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("names %q, want %q", names, want)
	}
}

func register(t testing.TB, c *Client, node Node) *Alive {
	t.Helper()
	alive, err := c.Register(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
	return alive
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

var (
	newNode = Node{Name: "new", Port: 4711, Type: Normal, Highest: 6, Lowest: 5}
	oldNode = Node{Name: "old", Port: 4712, Type: Hidden, Highest: 5, Lowest: 5}
)

func TestNodesRegisterAndAreFound(t *testing.T) {
	for name, start := range map[string]func(testing.TB, *Server) *Client{
		"accepting itself": func(t testing.TB, s *Server) *Client { return serve(t, s) },
		"behind a door":    serveDoor,
		"on IPv6":          func(t testing.TB, s *Server) *Client { return serve(t, s, "[::1]:0") },
	} {
		t.Run(name, func(t *testing.T) {
			server := new(Server)
			c := start(t, server)
			wantNames(t, c)
			first := register(t, c, newNode)
			second := register(t, c, oldNode)
			if first.Creation < 4 || second.Creation < 1 || second.Creation > 3 {
				t.Errorf("creations %d for a new node and %d for an old one", first.Creation, second.Creation)
			}
			wantNames(t, c, "old", "new")
			response, err := c.Names(t.Context())
			if want := netip.MustParseAddrPort(c.Addr).Port(); err != nil || response.Port != uint32(want) {
				t.Errorf("the daemon says that it listens on port %d, error %v; it does on %d", response.Port, err, want)
			}
			for _, want := range []Node{newNode, oldNode} {
				if got, err := c.Lookup(t.Context(), want.Name); err != nil || got.Port != want.Port || got.Type != want.Type || got.Highest != want.Highest {
					t.Errorf("found %+v, %v; want %+v", got, err, want)
				}
			}
			if _, err := c.Lookup(t.Context(), "nobody"); !errors.Is(err, ErrNoSuchNode) {
				t.Errorf("error %v for an unknown name, want ErrNoSuchNode", err)
			}
			if r, ok := server.Registry.Lookup("new"); !ok || !r.Peer.Addr().IsLoopback() || r.Local.String() != c.Addr {
				t.Errorf("the registration %+v has not the endpoints of its connection", r)
			}
			first.Close()
			until(t, "the name is free", func() bool { return server.Registry.Len() == 1 })
			wantNames(t, c, "old")
		})
	}
}

func TestDuplicateIsRefused(t *testing.T) {
	c := serve(t, new(Server))
	holder := register(t, c, newNode)
	for _, highest := range []uint16{5, 6} {
		conn := dial(t, c)
		request, err := AppendRequest(nil, AliveRequest{Node{Name: "new", Port: 1, Type: Normal, Highest: highest, Lowest: 5}})
		if err != nil {
			t.Fatal(err)
		}
		write(t, conn, string(request))
		want := AliveResponse{ResultFailed, 99, highest >= 6}
		wantAnswer(t, conn, string(want.Append(nil)))
	}
	if _, err := c.Register(t.Context(), newNode); !errors.Is(err, ErrNameInUse) {
		t.Errorf("error %v, want ErrNameInUse", err)
	}
	if got, err := c.Lookup(t.Context(), "new"); err != nil || got.Port != newNode.Port {
		t.Errorf("the holder is found as %+v, %v", got, err)
	}
	holder.Close()
}

// A node that is killed and started again at once gets its name, whether or
// not the daemon has noticed the end of the old one.
func TestRestartedNodeGetsItsName(t *testing.T) {
	c := serve(t, new(Server))
	var last uint32
	for i := range 200 {
		alive, err := c.Register(t.Context(), newNode)
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		if alive.Creation == last {
			t.Errorf("start %d: creation %d once more", i, last)
		}
		last = alive.Creation
		if i%2 == 1 {
			// As the kernel closes it for a process with unread bytes.
			if err := alive.conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
		}
		alive.Close()
	}
}

// The reader of the old connection need not even have run: the registry looks
// at the connection itself.
func TestRegistryTakesANameFromADeadConnection(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	pair := func() (ours *net.TCPConn, theirs *net.TCPConn) {
		theirs = dial(t, &Client{Addr: l.Addr().String()})
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.TCPConn), theirs
	}
	deaths := map[string]func(ours, theirs *net.TCPConn){
		"closed":         func(_, theirs *net.TCPConn) { theirs.Close() },
		"half closed":    func(_, theirs *net.TCPConn) { theirs.CloseWrite() },
		"reset":          func(_, theirs *net.TCPConn) { theirs.SetLinger(0); theirs.Close() },
		"sends bytes":    func(_, theirs *net.TCPConn) { theirs.Write([]byte{0}) },
		"closed by us":   func(ours, _ *net.TCPConn) { ours.Close() },
		"reset, noticed": func(ours, theirs *net.TCPConn) { theirs.SetLinger(0); theirs.Close(); ours.Read(make([]byte, 1)) },
	}
	for death, die := range deaths {
		t.Run(death, func(t *testing.T) {
			var r Registry
			ours, theirs := pair()
			first, err := r.Register(newNode, ours)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Register(newNode, nil); !errors.Is(err, ErrNameInUse) {
				t.Fatalf("while it lives: error %v, want ErrNameInUse", err)
			}
			die(ours, theirs)
			var second *Registration
			until(t, "its name is given away", func() bool {
				second, err = r.Register(newNode, nil)
				return err == nil
			})
			if r.Unregister(first) {
				t.Error("the dead one unregistered its successor")
			}
			if got, _ := r.Lookup("new"); got != second || second.Creation == first.Creation {
				t.Errorf("found %+v", got)
			}
		})
	}
}

func TestMoreBytesUnregister(t *testing.T) {
	server := new(Server)
	c := serve(t, server)
	alive := register(t, c, newNode)
	write(t, alive.conn, "x")
	if err := alive.Wait(); err != nil {
		t.Errorf("the registration ended with %v, want a close", err)
	}
	until(t, "the name is free", func() bool { return server.Registry.Len() == 0 })
}

func TestRefusedRegistrations(t *testing.T) {
	tests := map[string]struct{ payload, answer string }{
		"name too long":       {"x\x00\x01M\x00\x00\x05\x00\x05\x02\x58" + strings.Repeat("a", 600) + "\x00\x00", "y\x01\x00\x63"},
		"name not UTF-8":      {"x\x00\x01M\x00\x00\x06\x00\x05\x00\x01\xff\x00\x00", "v\x01\x00\x00\x00\x63"},
		"extra data too long": {"x\x00\x01M\x00\x00\x06\x00\x05\x00\x01a\x04\x00" + strings.Repeat("a", 1024), "v\x01\x00\x00\x00\x63"},
		// These OTP's daemon does not answer.
		"NUL inside the name": {"x\x00\x01M\x00\x00\x05\x00\x05\x00\x07foo\x00bar\x00\x00", ""},
		"NUL after the name":  {"x\x00\x01M\x00\x00\x05\x00\x05\x00\x07foobar\x00\x00\x00", ""},
		"too small":           {"x\x03\xe8M\x00\x00\x05\x00\x05\x00\x00", ""},
		"smaller still":       {"x\x03\xe8M\x00\x00\x05\x00\x05", ""},
		"extra length lies":   {"x\x12\x8bM\x00\x00\x05\x00\x05\x00\x05gurka\x27\x10", ""},
	}
	server := new(Server)
	c := serve(t, server)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, c)
			write(t, conn, frame(test.payload))
			wantAnswer(t, conn, test.answer)
		})
	}
	if n := server.Registry.Len(); n != 0 {
		t.Errorf("%d nodes are registered", n)
	}
}

func TestExtraDataAndLongNamesComeBack(t *testing.T) {
	c := serve(t, new(Server))
	nodes := []Node{
		{Name: "without", Port: 4711, Type: Hidden, Highest: 5, Lowest: 5},
		{Name: "filled", Port: 4711, Type: Hidden, Highest: 5, Lowest: 5, Extra: []byte("ABC\x00\x00")},
		{Name: "\U0001f608", Port: 4711, Type: Hidden, Highest: 5, Lowest: 5},
		{Name: longName, Port: 65535, Type: Normal, Highest: 6, Lowest: 5, Extra: bytes.Repeat([]byte{0}, MaxExtra)},
		{Name: "a name at port 7", Port: 0, Type: 'x', Protocol: 9, Highest: 65535, Lowest: 0},
	}
	for _, node := range nodes {
		register(t, c, node)
		got, err := c.Lookup(t.Context(), node.Name)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(node) {
			t.Errorf("registered %+v, found %+v, %v", node, got, err)
		}
	}
	names, err := c.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range names.Names {
		if want := nodes[len(nodes)-1-i]; n != (Name{want.Name, want.Port}) {
			t.Errorf("line %d lists %v", i, n)
		}
	}
}

// What is no request ends in a close, and costs nobody else anything.
func TestSenselessPackets(t *testing.T) {
	server := &Server{PacketTimeout: 100 * time.Millisecond}
	c := serve(t, server)
	register(t, c, newNode)
	for name, packet := range map[string]string{
		"no data":        "",
		"one byte":       "\x00",
		"two bytes":      "\x00\x03",
		"partial packet": "\x00\x64only a few bytes",
		"zero length":    strings.Repeat("\x00", 10),
		"too large":      "\xf6\x18" + strings.Repeat("z", 63000),
		"unknown":        frame("?"),
		"stupid port":    frame("z"),
		"stupid names":   "\x00\x00n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, c)
			// The server may close before it has everything.
			_, _ = io.WriteString(conn, packet)
			if got, err := io.ReadAll(conn); len(got) > 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("answer %q, error %v; want none", got, err)
			}
		})
	}
}

func TestSlowRequestIsAnswered(t *testing.T) {
	// Each part comes in time, all of them together do not.
	c := serve(t, &Server{PacketTimeout: 2 * time.Second})
	register(t, c, Node{Name: "foo", Port: 1042, Type: Normal, Highest: 5, Lowest: 5})
	for _, part := range []int{1, 2, 3, 4} {
		conn := dial(t, c)
		request := frame("zfoo")
		// Each part is sent when the one before has arrived.
		for sent := 0; sent < len(request); sent += part {
			write(t, conn, request[sent:min(sent+part, len(request))])
			until(t, "the part has arrived", func() bool { return underway(t, conn) == 0 })
		}
		response, err := ReadPortResponse(conn)
		if err != nil || response.Node.Port != 1042 {
			t.Errorf("in parts of %d: answer %+v, %v", part, response, err)
		}
	}
}

// underway returns how many bytes the other side has not acknowledged.
func underway(t *testing.T, conn *net.TCPConn) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var unsent int
	if err := raw.Control(func(fd uintptr) { unsent, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return unsent
}

// A client that sent more than its request gets the whole answer, and not a
// reset that overtakes it.
func TestAnswerSurvivesUnreadBytes(t *testing.T) {
	for name, start := range map[string]func(testing.TB, *Server) *Client{
		"accepting itself": func(t testing.TB, s *Server) *Client { return serve(t, s) },
		"behind a door":    serveDoor,
	} {
		t.Run(name, func(t *testing.T) {
			server := new(Server)
			c := start(t, server)
			register(t, c, newNode)
			node, _ := server.Registry.Lookup("new")
			for range 50 {
				conn := dial(t, c)
				write(t, conn, frame("znew")+strings.Repeat("more", 1000))
				wantAnswer(t, conn, string(node.answer))
			}
		})
	}
}

func TestSlowReaderGetsAllNamesAndDelaysNobody(t *testing.T) {
	server := &Server{Registry: new(Registry)}
	const names = 12000
	name := func(i int) string { return strings.Repeat("n", 250) + fmt.Sprint(i) }
	for i := range names {
		mustRegister(t, server.Registry, name(i), 6)
	}
	c := serve(t, server)
	slow := dial(t, c)
	if err := slow.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	write(t, slow, frame("n"))
	// It does not read before others were answered.
	for range 20 {
		if _, err := c.Lookup(t.Context(), name(0)); err != nil {
			t.Fatal(err)
		}
	}
	response, err := ReadNamesResponse(slow)
	if err != nil || len(response.Names) != names {
		t.Errorf("%d names were read, error %v; want %d", len(response.Names), err, names)
	}
}

// A client that does not read its list is given up.
func TestReaderThatStopsIsGivenUp(t *testing.T) {
	server := &Server{Registry: new(Registry), PacketTimeout: 100 * time.Millisecond}
	for i := range 20000 { // more than the buffers of both kernels hold
		mustRegister(t, server.Registry, longName[:1000]+fmt.Sprint(i), 6)
	}
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	conn := dial(t, &Client{Addr: l.Addr().String()})
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, frame("n"))
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.ServeConn(t.Context(), accepted.(*net.TCPConn))
	}()
	select {
	case <-served:
	case <-time.After(patience):
		t.Error("the server still waits for the client")
	}
}

func TestKillOnlyWithoutNodes(t *testing.T) {
	killed := make(chan struct{}, 1)
	server := &Server{Kill: func() { killed <- struct{}{} }}
	c := serve(t, server)
	alive := register(t, c, newNode)
	if err := c.Kill(t.Context()); !errors.Is(err, ErrRefused) {
		t.Errorf("with a node: error %v, want ErrRefused", err)
	}
	if err := c.Stop(t.Context(), "new"); !errors.Is(err, ErrRefused) {
		t.Errorf("stopping a node: error %v, want ErrRefused", err)
	}
	wantNames(t, c, "new")
	alive.Close()
	until(t, "the name is free", func() bool { return server.Registry.Len() == 0 })
	select {
	case <-killed:
		t.Error("a refused request killed the server")
	default:
	}
	if err := c.Kill(t.Context()); err != nil {
		t.Errorf("without nodes: %v", err)
	}
	select {
	case <-killed:
	case <-time.After(patience):
		t.Error("the server was not killed")
	}
}

func TestKillIsRefusedWithoutAFunction(t *testing.T) {
	c := serve(t, &Server{RelaxedCommandCheck: true})
	if err := c.Kill(t.Context()); !errors.Is(err, ErrRefused) {
		t.Errorf("error %v, want ErrRefused", err)
	}
}

func TestRelaxedCommandCheck(t *testing.T) {
	killed := make(chan struct{}, 1)
	server := &Server{RelaxedCommandCheck: true, Kill: func() { killed <- struct{}{} }}
	c := serve(t, server)
	alive := register(t, c, newNode)
	register(t, c, oldNode)
	if err := c.Stop(t.Context(), "xxx42"); !errors.Is(err, ErrNoSuchNode) {
		t.Errorf("stopping an unknown node: error %v, want ErrNoSuchNode", err)
	}
	if err := c.Stop(t.Context(), "new"); err != nil {
		t.Errorf("stopping a node: %v", err)
	}
	if err := alive.Wait(); err != nil {
		t.Errorf("the registration ended with %v, want a close", err)
	}
	wantNames(t, c, "old")
	dump, err := c.Dump(t.Context())
	if err != nil || len(dump.Entries) != 2 || dump.Entries[0].Name != "old" || dump.Entries[0].Old ||
		dump.Entries[1].Name != "new" || !dump.Entries[1].Old || dump.Entries[0].FD < 3 {
		t.Errorf("dump %+v, %v", dump, err)
	}
	if err := c.Kill(t.Context()); err != nil {
		t.Errorf("killing: %v", err)
	}
	<-killed
}

// Who is not on this host gets no answer to what is only for it.
func TestOnlyLocalClientsMayRegisterAndKill(t *testing.T) {
	server := &Server{
		RelaxedCommandCheck: true,
		Kill:                func() { t.Error("killed") },
		Local:               func(peer, local netip.AddrPort) bool { return peer.Addr() == local.Addr() },
	}
	near := serve(t, server)
	far := &Client{Addr: near.Addr, Timeout: patience, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}
	register(t, near, newNode)
	refused := map[string]error{}
	_, refused["ALIVE2"] = far.Register(t.Context(), oldNode)
	_, refused["DUMP"] = far.Dump(t.Context())
	for request, err := range refused {
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s from afar: error %v, want a close", request, err)
		}
	}
	for request, err := range map[string]error{"KILL": far.Kill(t.Context()), "STOP": far.Stop(t.Context(), "new")} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s from afar: error %v, want ErrRefused", request, err)
		}
	}
	wantNames(t, far, "new")
	if _, err := far.Lookup(t.Context(), "new"); err != nil {
		t.Errorf("looking up from afar: %v", err)
	}
}

func TestAnswerDecides(t *testing.T) {
	server := &Server{Answer: func(_ context.Context, c *net.TCPConn, node *Registration) (uint16, bool) {
		return uint16(c.LocalAddr().(*net.TCPAddr).Port), node.Name != "old"
	}}
	for name, start := range map[string]func(testing.TB, *Server) *Client{
		"accepting itself": func(t testing.TB, s *Server) *Client { return serve(t, s) },
		"behind a door":    serveDoor,
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, server)
			a, b := register(t, c, newNode), register(t, c, oldNode)
			got, err := c.Lookup(t.Context(), "new")
			want := newNode
			want.Port = netip.MustParseAddrPort(c.Addr).Port()
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("found %+v, %v; want %+v", got, err, want)
			}
			if _, err := c.Lookup(t.Context(), "old"); !errors.Is(err, ErrNoSuchNode) {
				t.Errorf("error %v, want ErrNoSuchNode", err)
			}
			a.Close()
			b.Close()
			until(t, "the names are free", func() bool { return server.Registry.Len() == 0 })
		})
	}
}

// An Answer that waits ends with the server, and delays nobody.
func TestAnswerThatWaits(t *testing.T) {
	waiting := make(chan struct{})
	server := &Server{Answer: func(ctx context.Context, _ *net.TCPConn, _ *Registration) (uint16, bool) {
		close(waiting)
		<-ctx.Done()
		return 0, false
	}}
	c := serve(t, server)
	register(t, c, newNode)
	write(t, dial(t, c), frame("znew"))
	<-waiting
	wantNames(t, c, "new")
}

// A connection that is handed over has nothing read but the request, and no
// trace of the server.
func TestHandover(t *testing.T) {
	server := &Server{Handover: func(_ context.Context, c *net.TCPConn, name string) {
		go func() {
			defer c.Close()
			c.Write(HandoverResponse{ResultOK, 6}.Append(nil))
			rest := make([]byte, len("handshake of "))
			io.ReadFull(c, rest)
			c.Write(append(rest, name...))
		}()
	}, PacketTimeout: 50 * time.Millisecond}
	c := serve(t, server)
	for _, request := range []string{frame("hb"), frame("hb\x00")} {
		conn := dial(t, c)
		write(t, conn, request+"handshake")
		response, err := ReadHandoverResponse(conn)
		if err != nil || response != (HandoverResponse{ResultOK, 6}) {
			t.Fatalf("answer %+v, %v", response, err)
		}
		// Longer than the packet time-out, which must not apply any more.
		timer := time.NewTimer(100 * time.Millisecond)
		<-timer.C
		write(t, conn, " of ")
		wantAnswer(t, conn, "handshake of b")
	}
	conn, version, err := c.Handover(t.Context(), "b")
	if err != nil || version != 6 {
		t.Fatalf("version %d, %v", version, err)
	}
	conn.Close()
}

func TestHandoverFailsWithoutAFunction(t *testing.T) {
	c := serve(t, new(Server))
	conn := dial(t, c)
	write(t, conn, frame("hb"))
	wantAnswer(t, conn, "i\x01")
	if _, _, err := c.Handover(t.Context(), "b"); !errors.Is(err, ErrNoSuchNode) {
		t.Errorf("error %v, want ErrNoSuchNode", err)
	}
}

// A node that is gone before its answer is written leaves no name behind.
func TestResetBeforeTheAnswer(t *testing.T) {
	server := &Server{DelayWrite: 100 * time.Millisecond}
	c := serve(t, server)
	request, err := AppendRequest(nil, AliveRequest{newNode})
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, c)
	write(t, conn, string(request))
	until(t, "it is registered", func() bool { return server.Registry.Len() == 1 })
	if err := conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	until(t, "the name is free", func() bool { return server.Registry.Len() == 0 })
}

// A connection that is reset before it is served has not even an address.
func TestResetBeforeItIsAccepted(t *testing.T) {
	log, warnings := logtest.NewNullLogger()
	server := &Server{DelayAccept: 50 * time.Millisecond, Log: log}
	c := serve(t, server)
	for _, packet := range []string{"\x00", "\x00\x04znew", "\x00\x01n"} {
		conn := dial(t, c)
		write(t, conn, packet)
		if err := conn.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	wantNames(t, c)
	if len(warnings.AllEntries()) == 0 {
		t.Error("no connection was found reset")
	}
}

func TestDelaysAreNoLongerThanTheServer(t *testing.T) {
	server := &Server{DelayAccept: time.Millisecond, DelayWrite: time.Hour, Registry: new(Registry)}
	c := serve(t, server)
	conn := dial(t, c)
	request, err := AppendRequest(nil, AliveRequest{newNode})
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, string(request))
	until(t, "it is registered", func() bool { return server.Registry.Len() == 1 })
}

func TestServeWantsTCP(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Server).Serve(t.Context(), l); err == nil {
		t.Error("served on a unix socket")
	}
}

func TestClientWaitsNoLongerThanItsTimeout(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	c := &Client{Addr: l.Addr().String(), Timeout: 20 * time.Millisecond}
	if _, err := c.Names(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Names(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
