package door_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"oneport/door"
	"oneport/epmd"
	"oneport/internal/leak"
	"oneport/upgrade"
)

func TestMain(m *testing.M) { leak.Main(m) }

// open opens a door on loopback and serves it until the test ends.
func open(t *testing.T, o door.Options) (d *door.Door, addr string) {
	t.Helper()
	if o.Listen == nil {
		o.Listen = []string{"127.0.0.1:0"}
	}
	d, err := door.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Serve(ctx, 0, nil) }()
	t.Cleanup(func() { cancel(); <-done })
	return d, d.Addrs()[0].String()
}

// echo is a node's stand-in: it registers, accepts, and sends back what comes.
// Real nodes are in the end-to-end tests.
func echo(t *testing.T, addr, name string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	register(t, addr, name, uint16(l.Addr().(*net.TCPAddr).Port))
}

func register(t *testing.T, addr, name string, port uint16) {
	t.Helper()
	alive, err := (&epmd.Client{Addr: addr}).Register(t.Context(), epmd.Node{Name: name, Port: port, Type: epmd.Normal, Highest: 6, Lowest: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c.(*net.TCPConn)
}

const request = "CONNECT /erl/b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n"

// ask upgrades to the node b and returns the connection.
func ask(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, version, err := (&upgrade.Client{}).Dial(ctx, addr, "b", "localhost")
	if err != nil || version != 6 {
		t.Fatal(version, err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

// Whatever follows the header, in the same packet or split at any byte, is the
// node's.
func TestNoByteBehindTheHeaderIsLost(t *testing.T) {
	_, addr := open(t, door.Options{})
	echo(t, addr, "b")
	const all = request + "first bytes"
	for split := 1; split <= len(all); split += 1 {
		c := dial(t, addr)
		io.WriteString(c, all[:split])
		io.WriteString(c, all[split:])
		c.CloseWrite()
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 101 ") || !strings.HasSuffix(string(b), "\r\n\r\nfirst bytes") {
			t.Fatalf("split at %d: %q, %v", split, b, err)
		}
		c.Close()
	}
}

func TestConnectionsAreListedCountedAndDropped(t *testing.T) {
	d, addr := open(t, door.Options{})
	echo(t, addr, "b")
	c := ask(t, addr)
	io.WriteString(c, "hello")
	io.ReadFull(c, make([]byte, 5))
	var info door.Info
	eventually(t, "the counters", func() bool {
		all := d.Connections()
		if len(all) != 1 {
			t.Fatalf("%+v", all)
		}
		info = all[0]
		return info.BytesToNode == 5 && info.BytesToClient == 5
	})
	if info.Node != "b" || info.Protocol != door.Upgrade || info.Path != "splice" || info.Why == "" || info.State != door.Relayed || info.Peer != c.LocalAddr().String() {
		t.Fatalf("%+v", info)
	}
	// 1 is the node's registration, which is not dropped.
	for _, none := range []uint64{99, 1} {
		if found, err := d.DropID(none); found || err != nil {
			t.Fatal("dropped", none, err)
		}
	}
	if n, err := d.DropNode("a"); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if found, err := d.DropID(info.ID); !found || err != nil {
		t.Fatal(found, err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("still open")
	}
	eventually(t, "the end of the record", func() bool { return len(d.Connections()) == 0 })
	if st := d.Stats(); st.BytesToNode != 5 || st.Paths["splice"] != 1 || st.Protocols[door.Upgrade] != 1 || st.Nodes != 1 {
		t.Fatalf("%+v", st)
	}
	ask(t, addr)
	if n, err := d.DropNode("b"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if nodes := d.Nodes(); len(nodes) != 1 || nodes[0].Name != "b" || nodes[0].UID != 0 || nodes[0].PID == 0 {
		t.Fatalf("%+v", nodes)
	}
}

func TestRefusalsComeInTheClientsProtocol(t *testing.T) {
	d, addr := open(t, door.Options{HeaderTimeout: 500 * time.Millisecond})
	register(t, addr, "b", 1) // nobody listens there
	name := append([]byte("N"), make([]byte, 8+4)...)
	name = append(name, 0, 3, 'a', '@', 'b')
	for _, tt := range []struct {
		name, send, want string
		cause            door.Cause
	}{
		{"unknown node", strings.Replace(request, "/b", "/x", 1), "HTTP/1.1 404 ", door.CauseNoNode},
		{"node that does not answer", request, "HTTP/1.1 503 ", door.CauseUnreachable},
		{"another host", strings.Replace(request, "localhost", "x.test", 1), "HTTP/1.1 421 ", door.CauseHost},
		{"another method", strings.Replace(request, "CONNECT", "PUT", 1), "HTTP/1.1 405 ", door.CauseBadRequest},
		{"no upgrade", "GET /erl/b HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 426 ", door.CauseBadRequest},
		{"no HTTP after all", "GET\r\n\r\n", "HTTP/1.1 400 ", door.CauseBadRequest},
		{"endless header", "GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 2000), "HTTP/1.1 431 ", door.CauseTooLong},
		{"slow header", "GET / HTTP/1.1\r\nX:", "HTTP/1.1 408 ", door.CauseSlow},
		{"handshake that nothing announced", "\x00\x12" + string(name), "\x00\x0csnot_allowed", door.CauseNoLease},
		{"TLS", "\x16\x03\x01\x02\x00", "", door.CauseProtocol},
		{"silence", "", "", door.CauseSlow},
		{"EPMD, unknown node", "\x00\x02zx", "w\x01", ""},
		{"web without a backend", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 ", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := d.Stats().Refused[tt.cause]
			c := dial(t, addr)
			io.WriteString(c, tt.send)
			b, err := io.ReadAll(c)
			if err != nil || !strings.HasPrefix(string(b), tt.want) || tt.want == "" && len(b) > 0 {
				t.Fatalf("%q, %v", b, err)
			}
			c.Close()
			if tt.cause != "" {
				eventually(t, "the count", func() bool { return d.Stats().Refused[tt.cause] == before+1 })
			}
		})
	}
}

func TestWebTrafficOnTheSamePort(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			c, rw, _ := http.NewResponseController(w).Hijack()
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(c, rw)
			return
		}
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	d, addr := open(t, door.Options{Web: target})
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	echo(t, addr, "b")

	body := make([]byte, 5<<20)
	rand.Read(body)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for range 3 {
		resp, err := client.Post("http://"+addr+"/upload", "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if st := d.Stats(); st.Accepted != 2 || st.BytesToClient < 15<<20 { // the node's registration, and one connection kept alive
		t.Fatalf("%+v", st)
	}

	c := dial(t, addr)
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	io.WriteString(c, "frame")
	if b := make([]byte, 5); true {
		if _, err := io.ReadFull(in, b); err != nil || string(b) != "frame" {
			t.Fatal(string(b), err)
		}
	}

	// An intermediary may use one connection for the web first, then for a node.
	c = dial(t, addr)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	in = bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	io.WriteString(c, request+"hello")
	c.CloseWrite()
	if b, err := io.ReadAll(in); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 101 ") || !strings.HasSuffix(string(b), "hello") {
		t.Fatalf("%q, %v", b, err)
	}
}

// A local user must not open a port that is not theirs by registering a name
// for it.
func TestAPortOfAnotherUserIsNotOpened(t *testing.T) {
	_, addr := open(t, door.Options{})
	l, err := net.Listen("tcp4", "127.0.0.1:0") // root's
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	// ALIVE2_REQ by a process of nobody, which then waits for the end of its
	// standard input.
	frame := fmt.Sprintf(`\x00\x0e\x78\x%02x\x%02x\x4d\x00\x00\x06\x00\x05\x00\x01b\x00\x00`, port>>8, port&255)
	host, p, _ := net.SplitHostPort(addr)
	cmd := exec.Command("bash", "-c", fmt.Sprintf(`exec 3<>/dev/tcp/%s/%s; printf '%s' >&3; head -c 1 <&3 >/dev/null; echo registered; read -r`, host, p, frame))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	c := dial(t, addr)
	io.WriteString(c, request)
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 503 ") {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestListeningSaysWhatIsWrong(t *testing.T) {
	_, addr := open(t, door.Options{})
	_, err := door.Open(t.Context(), door.Options{Listen: []string{addr}})
	if err == nil || !strings.Contains(err.Error(), "epmd -kill") {
		t.Error(err)
	}
	_, err = door.Open(t.Context(), door.Options{Listen: []string{"127.0.0.1:0", "myhost:4369"}})
	if err == nil || !strings.Contains(err.Error(), "[::]:4369") {
		t.Error(err)
	}
	_, err = door.Open(t.Context(), door.Options{Listen: []string{"127.0.0.1:0"}, Addresses: map[netip.Addr]string{netip.MustParseAddr("127.0.0.9"): "b"}})
	if err == nil || !strings.Contains(err.Error(), "--listen 127.0.0.9") {
		t.Error(err)
	}
}

// Hostile clients of every kind are at the door; the honest one beside them,
// from the same address, is served within a second.
func TestAbuseCostsNobodyElseAnything(t *testing.T) {
	for _, limited := range []bool{false, true} {
		t.Run(fmt.Sprintf("limited=%v", limited), func(t *testing.T) {
			log := logrus.New()
			log.SetOutput(io.Discard)
			o := door.Options{Log: log}
			if limited {
				o.MaxConns = 500 // far fewer than the attackers
			}
			_, addr := open(t, o)
			echo(t, addr, "b")
			stop := make(chan struct{})
			var attackers sync.WaitGroup
			defer attackers.Wait()
			defer close(stop)
			attack := func(n int, f func(c net.Conn) error) {
				for range n {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					attackers.Go(func() {
						defer c.Close()
						for f(c) == nil {
							select {
							case <-stop:
								return
							case <-time.After(time.Second):
							}
						}
						<-stop
					})
				}
			}
			attack(2000, func(net.Conn) error { return nil })                                                              // silence
			attack(50, func(c net.Conn) error { _, err := c.Write([]byte("G")); return err })                              // one byte a second
			attack(50, func(c net.Conn) error { b := make([]byte, 1000); rand.Read(b); _, err := c.Write(b); return err }) // noise
			attack(20, func(c net.Conn) error { _, err := c.Write(bytes.Repeat([]byte("X: y\r\n"), 10000)); return err })
			attack(20, func(c net.Conn) error { _, err := c.Write([]byte("\x0b\xf0z")); return err }) // a length that lies
			attack(20, func(c net.Conn) error { _, err := io.WriteString(c, strings.Repeat(request, 50)); return err })
			for range 10 {
				start := time.Now()
				c := ask(t, addr)
				io.WriteString(c, "hello")
				if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				limit := time.Second
				if testing.Short() {
					limit *= 10 // the processor may be an emulated one
				}
				if took := time.Since(start); took > limit {
					t.Fatalf("served after %v", took)
				}
				c.Close()
			}
		})
	}
}

func TestOverTheLimit(t *testing.T) {
	d, addr := open(t, door.Options{MaxConns: 4})
	echo(t, addr, "b") // 1: its registration
	for range 3 {
		ask(t, addr)
	}
	c := dial(t, addr)
	io.WriteString(c, request)
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 503 ") || !strings.Contains(string(b), "too many connections") {
		t.Fatalf("%q, %v", b, err)
	}
	c = dial(t, addr)
	io.WriteString(c, "\x00\x02zb")
	if b, err := io.ReadAll(c); err != nil || string(b) != "w\x01" {
		t.Fatalf("%q, %v", b, err)
	}
	eventually(t, "the count", func() bool { return d.Stats().Refused[door.CauseTotal] == 2 })
	d.DropNode("b")
	eventually(t, "room", func() bool { return len(d.Connections()) == 0 })
	ask(t, addr)
}

func TestShutdownDrains(t *testing.T) {
	d, err := door.Open(t.Context(), door.Options{Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Serve(ctx, time.Minute, nil) }()
	addr := d.Addrs()[0].String()
	echo(t, addr, "b")
	c := ask(t, addr)
	stop()
	eventually(t, "a closed port", func() bool {
		n, err := net.Dial("tcp", addr)
		if err == nil {
			n.Close()
		}
		return err != nil
	})
	io.WriteString(c, "still")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil || !d.Stats().Draining {
		t.Fatal("an open connection was not let be:", err)
	}
	c.Close()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("waits although nothing is open")
	}
}
