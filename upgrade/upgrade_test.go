package upgrade_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"oneport/internal/leak"
	"oneport/upgrade"
)

func TestMain(m *testing.M) { leak.Main(m) }

// nodes is a directory of fixed nodes.
type nodes []upgrade.Node

func (n nodes) Nodes() []upgrade.Node { return n }
func (n nodes) Lookup(name string) (upgrade.Node, bool) {
	for _, node := range n {
		if node.Name == name {
			return node, true
		}
	}
	return upgrade.Node{}, false
}

func server() *upgrade.Server {
	return &upgrade.Server{
		Directory:   nodes{{Name: "web", Highest: 6, Lowest: 5}, {Name: "älter", Highest: 5, Lowest: 5}, {Name: "c", Hidden: true, Highest: 6, Lowest: 6}},
		Ours:        func(host string, _ netip.AddrPort) bool { return host == "here" || host == "2001:db8::2" },
		MayDiscover: func(peer, _ netip.AddrPort) bool { return peer.Addr().IsLoopback() },
		Who: func(_ context.Context, d upgrade.Decision, _ netip.AddrPort) (string, error) {
			return d.Node + "@inner" + d.Host, nil
		},
		Forward: []upgrade.Pattern{{Host: "*.inside.example", Port: 4369}},
	}
}

const asked = "Connection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n"

func TestRequestsForNodes(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		node, host    string
		version       uint16
	}{
		{"the 2016 client's request", "CONNECT /erl/web HTTP/1.1\r\nHost: here\r\n" + asked, "web", "", 6},
		{"GET, for intermediaries", "GET /erl/web HTTP/1.1\r\nHost: here\r\n" + asked, "web", "", 6},
		{"lower case and lists", "GET /erl/web HTTP/1.1\r\nhost: HERE\r\nconnection: keep-alive, upgrade\r\nupgrade: foo, erlang-distribution\r\n\r\n", "web", "", 6},
		{"a port and a final dot", "CONNECT /erl/web HTTP/1.1\r\nHost: here.:4369\r\n" + asked, "web", "", 6},
		{"IPv6, not in its shortest form", "CONNECT /erl/web HTTP/1.1\r\nHost: [2001:db8:0::2]:80\r\n" + asked, "web", "", 6},
		{"percent-encoded UTF-8, an old node", "CONNECT /erl/%C3%A4lter HTTP/1.1\r\nHost: here\r\n" + asked, "älter", "", 5},
		{"bare line feeds", strings.ReplaceAll("CONNECT /erl/web HTTP/1.1\r\nHost: here\r\n"+asked, "\r", ""), "web", "", 6},
		{"another host that is allowed", "CONNECT /erl/x HTTP/1.1\r\nHost: b.Inside.example\r\n" + asked, "x", "b.inside.example", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if n := upgrade.HeadLength([]byte(tt.request + "more")); n != len(tt.request) {
				t.Fatalf("head of %d bytes, want %d", n, len(tt.request))
			}
			r, err := upgrade.ParseHead([]byte(tt.request))
			if err != nil {
				t.Fatal(err)
			}
			d, err := server().Decide(r, netip.AddrPort{})
			if err != nil || d.Node != tt.node || d.Host != tt.host || d.Version != tt.version {
				t.Fatalf("got %+v, %v", d, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		status        int
		says          string
	}{
		{"unknown node", "CONNECT /erl/nobody HTTP/1.1\r\nHost: here\r\n" + asked, 404, `no node "nobody"`},
		{"no name", "CONNECT /erl/ HTTP/1.1\r\nHost: here\r\n" + asked, 400, "missing"},
		{"full name", "CONNECT /erl/web@here HTTP/1.1\r\nHost: here\r\n" + asked, 400, "before the @"},
		{"long name", "CONNECT /erl/" + strings.Repeat("x", 256) + " HTTP/1.1\r\nHost: here\r\n" + asked, 400, "255"},
		{"not UTF-8", "CONNECT /erl/%ff HTTP/1.1\r\nHost: here\r\n" + asked, 400, "UTF-8"},
		{"NUL", "CONNECT /erl/a%00b HTTP/1.1\r\nHost: here\r\n" + asked, 400, "@"},
		{"no Host", "CONNECT /erl/web HTTP/1.1\r\n" + asked, 400, "Host header is missing"},
		{"two Hosts", "CONNECT /erl/web HTTP/1.1\r\nHost: here\r\nHost: there\r\n" + asked, 400, "malformed"},
		{"bad Host", "CONNECT /erl/web HTTP/1.1\r\nHost: here:99999999\r\n" + asked, 400, "malformed Host"},
		{"bad request", "CONNECT /erl/web\r\n\r\n", 400, "malformed"},
		{"a body", "GET /erl/web HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n" + asked, 400, "no body"},
		{"POST", "POST /erl/web HTTP/1.1\r\nHost: here\r\n" + asked, 405, "CONNECT, GET"},
		{"a browser", "GET /erl/web HTTP/1.1\r\nHost: here\r\n\r\n", 426, "erlang-distribution"},
		{"HTTP/1.0", "GET /erl/web HTTP/1.0\r\nHost: here\r\n" + asked, 426, "HTTP/1.1"},
		{"WebSocket", "GET /erl/web HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 426, "erlang-distribution"},
		{"another host", "CONNECT /erl/web HTTP/1.1\r\nHost: elsewhere.example\r\n" + asked, 421, "--forward"},
		{"a host that only ends like an allowed one", "CONNECT /erl/web HTTP/1.1\r\nHost: inside.example\r\n" + asked, 421, "--forward"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := upgrade.ParseHead([]byte(tt.request))
			if err == nil {
				_, err = server().Decide(r, netip.AddrPort{})
			}
			var refusal *upgrade.Refusal
			if !errors.As(err, &refusal) || refusal.Status != tt.status || !strings.Contains(refusal.Reason, tt.says) {
				t.Fatalf("got %v, want %d with %q", err, tt.status, tt.says)
			}
			resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(refusal.Append(nil)))), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.status || string(body) != refusal.Reason+"\n" || !resp.Close {
				t.Fatalf("answer %v, body %q, %v", resp, body, err)
			}
			if tt.status == 405 && resp.Header.Get("Allow") == "" || tt.status == 426 && resp.Header.Get("Upgrade") != upgrade.Protocol {
				t.Fatalf("header %v", resp.Header)
			}
		})
	}
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct{ pattern, host string }{
		{"b.example", "b.example"}, {"*.example", "x.y.example"}, {"10.0.0.?", "10.0.0.7"},
		{"[2001:db8::7]:80", "2001:db8::7"}, {"2001:DB8:0::7", "2001:db8::7"}, {"B.example:4370", "b.example"},
	} {
		p, err := upgrade.ParsePattern(tt.pattern)
		if err != nil || !p.Match(tt.host) || p.Match("other.test") {
			t.Errorf("%s: %+v, %v", tt.pattern, p, err)
		}
	}
	for _, bad := range []string{"", ":4369", "a:0", "a:70000", "a:b:c", "a/b", "[a", "x@y"} {
		if p, err := upgrade.ParsePattern(bad); err == nil {
			t.Errorf("%q was taken as %+v", bad, p)
		}
	}
}

func TestForwardingInACircleIsRefused(t *testing.T) {
	if err := upgrade.CheckHops([]string{"oneport-a", "squid"}, "oneport-b"); err != nil {
		t.Error(err)
	}
	for _, hops := range [][]string{{"oneport-b"}, {"oneport-1", "oneport-2", "oneport-3", "oneport-4"}} {
		if err := upgrade.CheckHops(hops, "oneport-b"); upgrade.AsRefusal(err).Status != 421 {
			t.Errorf("%v: %v", hops, err)
		}
	}
}

// serveHTTP serves s on loopback and returns its address.
func serveHTTP(t *testing.T, s *upgrade.Server, web http.Handler, take upgrade.Taker) string {
	srv := httptest.NewServer(s.Handler(web, take))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestDiscovery(t *testing.T) {
	s := server()
	addr := serveHTTP(t, s, nil, nil)
	get := func() (int, string) {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + addr + "/erl")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	status, body := get()
	var got []upgrade.Node
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || len(got) != 3 || got[0].Name != "c" || !got[0].Hidden {
		t.Fatalf("%d %s %v", status, body, err)
	}
	s.MayDiscover = func(_, _ netip.AddrPort) bool { return false }
	if status, body := get(); status != 403 || !strings.Contains(body, "--discover-from") {
		t.Fatalf("%d %s", status, body)
	}
}

// An intermediary may send the upgrade on a connection that it has used before,
// and the client's first bytes right behind it.
func TestUpgradeOnAKeptAliveConnection(t *testing.T) {
	taken := make(chan string, 1)
	addr := serveHTTP(t, server(), nil, func(c net.Conn, b []byte, d upgrade.Decision) {
		defer c.Close()
		rest := make([]byte, 9-len(b))
		io.ReadFull(c, rest)
		taken <- d.Node + " " + string(b) + string(rest)
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: here\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 404 {
		t.Fatal(resp, err)
	}
	io.Copy(io.Discard, resp.Body)
	io.WriteString(c, "CONNECT /erl/web HTTP/1.1\r\nHost: here\r\n"+asked+"handshake")
	if got := <-taken; got != "web handshake" {
		t.Fatal(got)
	}
}

func TestClient(t *testing.T) {
	const ok = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\nVersion: 6\r\n\r\n"
	for _, tt := range []struct {
		name, answer string
		wantErr      string
	}{
		{"accepted", ok + "first bytes", ""},
		{"refused", "HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno node\n", "404: no node"},
		{"refused without a word", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503: Service Unavailable"},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "another protocol"},
		{"no version", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: erlang-distribution\r\n\r\n", "Version"},
		{"an EPMD that closes", "", "no HTTP answer"},
		{"something else", "SSH-2.0-x\r\n", "no HTTP answer"},
		{"an endless header", "HTTP/1.1 101 x\r\n" + strings.Repeat("X: y\r\n", 2000), "longer than the limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			request := make(chan string, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				b := make([]byte, 4096)
				n, _ := c.Read(b)
				request <- string(b[:n])
				io.WriteString(c, tt.answer)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c, version, err := (&upgrade.Client{Via: []string{"oneport-x"}}).Dial(ctx, l.Addr().String(), "ä", "2001:db8::1")
			if got, want := <-request, "CONNECT /erl/%C3%A4 HTTP/1.1\r\nHost: [2001:db8::1]\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\nVia: 1.1 oneport-x\r\n\r\n"; got != want {
				t.Errorf("asked %q", got)
			}
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if b, err := io.ReadAll(c); string(b) != "first bytes" || version != 6 || err != nil {
				t.Fatalf("version %d, %q, %v", version, b, err)
			}
		})
	}
}

func TestClientGivesUpOnSilence(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, _, err := (&upgrade.Client{}).Dial(ctx, l.Addr().String(), "a", "b"); err == nil {
		t.Fatal("no error")
	}
}

func TestWebBackendLearnsWhoAsked(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Host+" "+r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Host")+" "+r.Header.Get("X-Forwarded-Proto"))
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	addr := serveHTTP(t, server(), upgrade.Web(target, log.New(io.Discard, "", 0)), nil)
	req, _ := http.NewRequest("GET", "http://"+addr+"/page", nil)
	req.Host = "site.example"
	req.Header.Set("X-Forwarded-For", "6.6.6.6")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if b, _ := io.ReadAll(resp.Body); string(b) != "site.example 127.0.0.1 site.example http" {
		t.Fatalf("the backend saw %q", b)
	}
}

func FuzzRequestHead(f *testing.F) {
	f.Add([]byte("CONNECT /erl/web HTTP/1.1\r\nHost: here\r\n" + asked))
	f.Add([]byte("GET /erl/%C3%A4 HTTP/1.1\nHost: [::1]:1\n\n"))
	f.Add([]byte("GET /erl HTTP/1.0\r\nVia: 1.1 a, 1.0 b\r\n\r\nrest"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := upgrade.HeadLength(b)
		if n > len(b) || n > 0 && b[n-1] != '\n' {
			t.Fatalf("head of %d bytes in %q", n, b)
		}
		if n == 0 {
			return
		}
		if again := upgrade.HeadLength(b[:n]); again != n {
			t.Fatalf("%d, then %d", n, again)
		}
		r, err := upgrade.ParseHead(b[:n])
		if err != nil {
			return
		}
		if !upgrade.IsUpgrade(r) {
			return
		}
		d, err := server().Decide(r, netip.AddrPort{})
		if err == nil && (d.Node == "" || strings.ContainsAny(d.Node, "@\x00")) {
			t.Fatalf("decided on %+v", d)
		}
		if err != nil {
			reply := upgrade.AsRefusal(err).Append(nil)
			if upgrade.HeadLength(reply) == 0 {
				t.Fatalf("answer without an end: %q", reply)
			}
		}
	})
}
