package door_test

import (
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"oneport/door"
	"oneport/epmd"
	"oneport/relay"
	"oneport/upgrade"
)

// A path that is demanded is taken where it is possible, also if there is a better
// one.
func TestTheDemandedPathIsTaken(t *testing.T) {
	for _, path := range []relay.Path{relay.Splice, relay.Copy, door.Handover} {
		t.Run(string(path), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "node.sock")
			d, addr := open(t, door.Options{Path: path, NodeSocket: socket})
			echo(t, addr, "b")
			r := receive(t, socket)
			// A client of this host would be told the node's own port.
			_, port, _ := strings.Cut(addr, ":")
			found, err := (&epmd.Client{Addr: addr}).Lookup(t.Context(), "b")
			if err != nil || port != strconv.Itoa(int(found.Port)) {
				t.Errorf("EPMD says port %d of the door's %s, %v", found.Port, port, err)
			}
			c := dial(t, addr)
			io.WriteString(c, request+"hello")
			if path == door.Handover {
				node, _ := r.take()
				if node == nil {
					t.FailNow()
				}
				defer node.Close()
				eventually(t, "the record", func() bool {
					all := d.Connections()
					return len(all) == 1 && all[0].Path == "handover"
				})
				return
			}
			c.CloseWrite()
			if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "hello") {
				t.Fatalf("%q, %v", b, err)
			}
			eventually(t, "the count", func() bool { return d.Stats().Paths[string(path)] == 1 })
			if n := d.Stats().Handovers; len(n) > 0 {
				t.Errorf("the node was offered it: %v", n)
			}
		})
	}
}

// Where the path is not possible the client is refused in its own protocol and
// told why, and no other one is taken.
func TestTheDemandedPathOrNone(t *testing.T) {
	pattern, err := upgrade.ParsePattern("*.test")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := strings.Replace(request, "localhost", "x.test", 1)
	const byName = "\x00\x15N12345678" + "1234\x00\x06a@here" // a handshake: send_name of version 6
	for _, tt := range []struct {
		name string
		path relay.Path
		send string
		want string // how the answer begins
		why  string // and what it says
	}{
		{"handover to a node that takes none", door.Handover, request, "HTTP/1.1 503 ", "--path handover is not possible: the node takes no descriptors"},
		{"the same for a stock client", door.Handover, byName, "\x00\x0csnot_allowed", ""},
		{"the same for a client of the 2016 fork", door.Handover, "\x00\x02hb", "i\x01", ""},
		{"handover to another host", door.Handover, elsewhere, "HTTP/1.1 503 ", "on another host"},
		{"shortcut to another host", relay.Shortcut, elsewhere, "HTTP/1.1 503 ", "on another host"},
		{"shortcut without any", relay.Shortcut, request, "HTTP/1.1 503 ", "--path shortcut is not possible: there is none"},
		{"splice to a node without a port", relay.Splice, strings.Replace(request, "/b", "/bare", 1), "HTTP/1.1 503 ", "by descriptor only"},
		{"copy to a node without a port", relay.Copy, strings.Replace(request, "/b", "/bare", 1), "HTTP/1.1 503 ", "by descriptor only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, addr := open(t, door.Options{Path: tt.path, Forward: []upgrade.Pattern{pattern}})
			echo(t, addr, "b")
			register(t, addr, "bare", 0)
			if tt.send == byName {
				if _, err := (&epmd.Client{Addr: addr}).Lookup(t.Context(), "b"); err != nil {
					t.Fatal(err)
				}
			}
			c := dial(t, addr)
			io.WriteString(c, tt.send)
			b, err := io.ReadAll(c)
			if err != nil || !strings.HasPrefix(string(b), tt.want) || !strings.Contains(string(b), tt.why) {
				t.Errorf("%q, %v", b, err)
			}
			c.Close()
			eventually(t, "the count", func() bool { return d.Stats().Refused[door.CausePath] == 1 })
			if paths := d.Stats().Paths; len(paths) > 0 {
				t.Errorf("it took another one: %v", paths)
			}
		})
	}
}
