package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Whatever a mistyped --control names, it is there afterwards.
func TestControlReplacesNothingButAStaleSocket(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if c, err := openControl(path, nil); err == nil {
			c.close()
			t.Errorf("%s was taken for a control socket", path)
		} else if !strings.Contains(err.Error(), "is no socket; choose another path with --control") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(link); err != nil || string(b) != "precious" {
		t.Fatalf("the file is now %q, %v", b, err)
	}
}

// Whatever the umask is, the daemon's user and group can use the socket, and
// nobody else.
func TestControlModeIsNotTheUmasks(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077} {
		before := syscall.Umask(mask)
		path := filepath.Join(t.TempDir(), "control.sock")
		c, err := openControl(path, nil)
		syscall.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|controlMode {
			t.Errorf("umask %03o: mode %v, %v", mask, info.Mode(), err)
		}
		c.close()
	}
}

// The socket's routes are as docs/PROTOCOL.md has them, and there are no others.
func TestControlRoutes(t *testing.T) {
	_, socket := daemon(t)
	transport := &http.Transport{Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", socket) }}
	defer transport.CloseIdleConnections()
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/v1/nodes", 200},
		{"GET", "/v1/connections", 200},
		{"GET", "/v1/status", 200},
		{"POST", "/v1/drop?target=nobody", 200},
		{"GET", "/v1/drop?target=nobody", 405},
		{"GET", "/v1/aliases", 200},
		{"POST", "/v1/aliases?alias=a&target=b", 200},
		{"DELETE", "/v1/aliases?alias=a", 200},
		{"PUT", "/v1/aliases", 405},
		{"POST", "/v1/nodes", 405},
		{"GET", "/nodes", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://oneport"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, resp.Status, tt.status)
		}
	}
}

// A node with two connections is one proposal.
func TestCompletionNamesEachTargetOnce(t *testing.T) {
	addr, socket := daemon(t)
	node(t, addr)
	connect(t, addr)
	connect(t, addr)
	_, out, _ := oneport(t, "__complete", "drop", "--control="+socket, "")
	if n := strings.Count("\n"+out, "\nb\n"); n != 1 {
		t.Errorf("b is proposed %d times in\n%s", n, out)
	}
}
