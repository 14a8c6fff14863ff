package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/iotest"
	"time"

	"oneport/internal/hosts"
)

// dial connects to the open port of a host's address.
func dial(t *testing.T, from *hosts.Host, to netip.Addr) *net.TCPConn {
	t.Helper()
	conn, err := from.Dial(t.Context(), "tcp", netip.AddrPortFrom(to, hosts.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// upgradeTo asks a door for a node at host. If the answer is 101, the next byte
// on the connection is the node's; else there is a reason.
func upgradeTo(t *testing.T, from *hosts.Host, door netip.Addr, node, host string) (conn *net.TCPConn, status int, reason string) {
	t.Helper()
	conn = dial(t, from, door)
	fmt.Fprintf(conn, "CONNECT /erl/%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n", node, host)
	// One byte at a time, so that none of the node's is taken.
	answer, err := http.ReadResponse(bufio.NewReader(iotest.OneByteReader(conn)), nil)
	if err != nil {
		t.Fatalf("asking the door for %s at %s: %v", node, host, err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		reason = readBody(t, answer)
	}
	return conn, answer.StatusCode, reason
}

// browser is an HTTP client on a host.
func browser(t *testing.T, h *hosts.Host) *http.Client {
	transport := &http.Transport{DialContext: h.Dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// get fetches a page from the open port.
func get(t *testing.T, client *http.Client, at netip.Addr, path string) (status int, body string) {
	t.Helper()
	answer, err := client.Get("http://" + netip.AddrPortFrom(at, hosts.Port).String() + path)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, readBody(t, answer)
}

func readBody(t *testing.T, answer *http.Response) string {
	t.Helper()
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("reading the body of an answer %s: %v", answer.Status, err)
	}
	return string(body)
}

func TestWebPageFromTheSamePort(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	serve(t, alpha)
	const backend = "127.0.0.1:8080"
	serve(t, beta, "--web", "http://"+backend)
	listener, err := beta.Listen(t.Context(), "tcp4", backend)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "page %s for %s", r.URL.Path, r.Header.Get("X-Forwarded-For"))
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	var a, b *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a") },
		func() { b = beta.Erl(t, "b") },
	)
	wantPong(t, a, b)
	for _, address := range []struct{ from, to netip.Addr }{{alpha.IPv4, beta.IPv4}, {alpha.IPv6, beta.IPv6}} {
		status, body := get(t, browser(t, alpha), address.to, "/index.html")
		if want := "page /index.html for " + address.from.String(); status != http.StatusOK || body != want {
			t.Errorf("%d %q, want %q", status, body, want)
		}
	}
	// A daemon that was not given a web server has no page.
	if status, _ := get(t, browser(t, beta), alpha.IPv4, "/index.html"); status != http.StatusNotFound {
		t.Errorf("a door without a web server answers %d", status)
	}
}

func TestDiscoveryIsForThisHostAndWhoMay(t *testing.T) {
	made := hosts.New(t, "alpha", "beta", "gamma")
	alpha, beta, gamma := made[0], made[1], made[2]
	serve(t, beta, "--discover-from", gamma.IPv4.String()+"/32")
	together(t,
		func() { beta.Erl(t, "b") },
		func() { beta.Erl(t, "c") },
	)
	if status, body := get(t, browser(t, alpha), beta.IPv4, "/erl"); status != http.StatusForbidden {
		t.Errorf("discovery from a host that may not: %d %s", status, body)
	}
	for _, from := range []*hosts.Host{beta, gamma} {
		status, body := get(t, browser(t, from), beta.IPv4, "/erl")
		var nodes []struct{ Name string }
		if err := json.Unmarshal([]byte(body), &nodes); err != nil || status != http.StatusOK {
			t.Errorf("discovery from %s: %d %s (%v)", from.Name, status, body, err)
		} else if len(nodes) != 2 || nodes[0].Name != "b" || nodes[1].Name != "c" {
			t.Errorf("discovery from %s: %v", from.Name, nodes)
		}
	}
}

// Of a source that may not connect, nothing gets further than the door,
// whichever protocol it speaks.
func TestSourcesThatMayNotConnect(t *testing.T) {
	made := hosts.New(t, "alpha", "beta", "gamma")
	alpha, beta, gamma := made[0], made[1], made[2]
	for _, h := range []*hosts.Host{alpha, gamma} {
		serve(t, h)
	}
	serve(t, beta, "--allow", alpha.IPv4.String())
	var a, b, c, stranger *hosts.Node
	together(t,
		func() { a = alpha.Erl(t, "a", alone()) },
		func() { b = beta.Erl(t, "b", alone()) },
		func() { c = gamma.Erl(t, "c", alone()) },
		func() { stranger = gamma.Erl(t, "stranger", alone(), carrier()) },
	)
	for _, node := range []*hosts.Node{c, stranger} {
		if got := ping(t, node, b.Name); got != "pang" {
			t.Errorf("%s pings: %s", node.Name, got)
		}
	}
	stranger.WaitOutput(t, "answered 403: ")
	if status, _ := get(t, browser(t, gamma), beta.IPv4, "/"); status != http.StatusForbidden {
		t.Errorf("a browser gets %d", status)
	}
	handshake := dial(t, gamma, beta.IPv4)
	handshake.Write(sendName("c@" + gamma.IPv4.String()))
	if answer, err := io.ReadAll(handshake); err != nil || string(answer) != "\x00\x0csnot_allowed" {
		t.Errorf("a handshake is answered %q, %v", answer, err)
	}
	wantPong(t, a, b)
	// It is about who comes in: the nodes here may go out.
	wantPong(t, b, c)
}

// sendName is the first message of a distribution handshake.
func sendName(name string) []byte {
	message := append([]byte{'N'}, make([]byte, 8+4)...) // flags and creation
	message = append(message, byte(len(name)>>8), byte(len(name)))
	message = append(message, name...)
	return append([]byte{byte(len(message) >> 8), byte(len(message))}, message...)
}
