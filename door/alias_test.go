package door_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oneport/door"
	"oneport/epmd"
)

// An alias is good wherever a client names a node, and the record says which
// node it was.
func TestAliasesNameNodes(t *testing.T) {
	d, addr := open(t, door.Options{Aliases: []door.Alias{{Name: "www", Target: "b@inner"}}})
	echo(t, addr, "b")
	if err := d.AddAlias(door.Alias{Name: "api", Target: "b"}); err != nil {
		t.Fatal(err)
	}
	for _, alias := range []string{"www", "api"} {
		for _, tt := range []struct {
			protocol        door.Protocol
			request, answer string
		}{
			{door.Upgrade, strings.Replace(request, "/b", "/"+alias, 1), "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\nVersion: 6\r\n\r\n"},
			{door.HandoverRequest, "\x00\x04h" + alias, "i\x00\x00\x06"},
		} {
			c := dial(t, addr)
			io.WriteString(c, tt.request+"to b")
			b := make([]byte, len(tt.answer)+4)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != tt.answer+"to b" {
				t.Fatalf("%s by %s: %q, %v", alias, tt.protocol, b, err)
			}
			if all := d.Connections(); len(all) != 1 || all[0].Node != "b" || all[0].Protocol != tt.protocol {
				t.Errorf("%s by %s: %+v", alias, tt.protocol, all)
			}
			c.Close()
			eventually(t, "the end of the connection", func() bool { return len(d.Connections()) == 0 })
		}
		node, err := (&epmd.Client{Addr: addr}).Lookup(t.Context(), alias)
		if err != nil || node.Name != "b" || node.Port == 0 {
			t.Errorf("PORT_PLEASE2 for %s: %+v, %v", alias, node, err)
		}
	}
	if names, err := (&epmd.Client{Addr: addr}).Names(t.Context()); err != nil || len(names.Names) != 1 || names.Names[0].Name != "b" {
		t.Errorf("listed: %+v, %v", names, err)
	}
	if !d.RemoveAlias("api") || d.RemoveAlias("api") {
		t.Error("the alias is not removed exactly once")
	}
	c := dial(t, addr)
	io.WriteString(c, strings.Replace(request, "/b", "/api", 1))
	if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), ` 404 `) || !strings.HasSuffix(string(b), "no node \"api\" is registered here\n") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestARegisteredNodeIsMeantBeforeTheAlias(t *testing.T) {
	d, addr := open(t, door.Options{Aliases: []door.Alias{{Name: "c", Target: "b@inner"}, {Name: "gone", Target: "x"}}})
	register(t, addr, "b", 1)
	register(t, addr, "c", 2)
	if node, err := (&epmd.Client{Addr: addr}).Lookup(t.Context(), "c"); err != nil || node.Port != 2 {
		t.Errorf("%+v, %v", node, err)
	}
	want := []door.AliasInfo{{Name: "c", Target: "b@inner", Registered: true, Shadowed: true}, {Name: "gone", Target: "x"}}
	if got := d.Aliases(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWrongAliases(t *testing.T) {
	d, addr := open(t, door.Options{Aliases: []door.Alias{{Name: "www", Target: "b"}}})
	register(t, addr, "b", 1)
	for _, tt := range []struct{ name, target, says string }{
		{"", "b", "empty part"},
		{"a@b", "b", "no node's name"},
		{"a/b", "b", "no node's name"},
		{"a", "b@", "empty part"},
		{"a", "@b", "empty part"},
		{"a", "b@c@d", "no node's name"},
		{"a", "b@c\n", "no node's name"},
		{strings.Repeat("x", 256), "b", "longer than 255"},
		{"a", "nobody", "no node \"nobody\" is registered"},
		{"b", "b@c", "lead to itself"},
		{"a", "www@c", "is an alias itself"},
		{"b", "c@d", "an alias leads to no alias"},
		{"www", "b@c", "leads to \"b\" already"},
	} {
		if err := d.AddAlias(door.Alias{Name: tt.name, Target: tt.target}); !errors.Is(err, door.ErrAlias) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q for %q: %v", tt.name, tt.target, err)
		}
	}
	if err := d.AddAlias(door.Alias{Name: "www", Target: "b"}); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	if _, err := door.Open(t.Context(), door.Options{Listen: []string{"127.0.0.1:0"}, Aliases: []door.Alias{{Name: "a", Target: "a"}}}); !errors.Is(err, door.ErrAlias) {
		t.Errorf("opened with a wrong alias: %v", err)
	}
}

func TestAliasesAreBounded(t *testing.T) {
	d, _ := open(t, door.Options{})
	for i := range door.MaxAliases {
		if err := d.AddAlias(door.Alias{Name: fmt.Sprint("a", i), Target: "b@c"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.AddAlias(door.Alias{Name: "more", Target: "b@c"}); !errors.Is(err, door.ErrAlias) {
		t.Fatal(err)
	}
	d.RemoveAlias("a0")
	if err := d.AddAlias(door.Alias{Name: "more", Target: "b@c"}); err != nil {
		t.Fatal(err)
	}
}

// who asks a door for a node's full name.
func who(t *testing.T, addr, name string) string {
	t.Helper()
	c := dial(t, addr)
	fmt.Fprintf(c, "GET /erl/%s/node HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", name)
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	return strings.Fields(string(b))[1] + " " + body
}

func TestTheReceiverSaysTheFullName(t *testing.T) {
	socket := t.TempDir() + "/node.sock"
	_, addr := open(t, door.Options{NodeSocket: socket, Aliases: []door.Alias{{Name: "www", Target: "b"}, {Name: "full", Target: "b@other"}}})
	register(t, addr, "b", 0)
	if got := who(t, addr, "b"); !strings.HasPrefix(got, "503 node \"b\" does not say its full name: it takes connections by descriptor only") {
		t.Error(got)
	}
	c, err := net.Dial("unixpacket", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(c, "H"+field(1, "\x01")+field(2, "b")+field(3, "inner"))
	if _, err := c.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"b": "200 b@inner\n", "www": "200 b@inner\n", "full": "200 b@other\n",
		"x": "404 no node \"x\" is registered here\n",
	} {
		if got := who(t, addr, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// A node that is asked is asked once, however many want to know, and again when
// it is another one.
func TestANodeIsAskedOnce(t *testing.T) {
	_, addr := open(t, door.Options{})
	asked, port := scripted(t, "\x00\x03sok"+challenge("b@inner"))
	alive, err := (&epmd.Client{Addr: addr}).Register(t.Context(), epmd.Node{Name: "b", Port: port, Type: epmd.Normal, Highest: 6, Lowest: 5})
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan string)
	for range 8 {
		go func() { answers <- who(t, addr, "b") }()
	}
	for range 8 {
		if got := <-answers; got != "200 b@inner\n" {
			t.Error(got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the node was asked %d times", n)
	}
	alive.Close()
	register(t, addr, "b", port)
	if got := who(t, addr, "b"); got != "200 b@inner\n" || asked.Load() != 2 {
		t.Errorf("%s; asked %d times", got, asked.Load())
	}
}

// What answers there may be no node, another one, or one that says no. That is
// not remembered.
func TestNodesThatDoNotSayTheirName(t *testing.T) {
	_, addr := open(t, door.Options{})
	for i, tt := range []struct{ says, want string }{
		{"\x00\x0csnot_allowed", "net_kernel:allow/1"},
		{"\x00\x04snok", "status \"snok\""},
		{"\x00\x03sok" + challenge("other@inner"), "is \"other@inner\""},
		{"\x00\x03sok" + challenge("no name"), "does not answer with a distribution handshake"},
		{"\x00\x03sok\x00\x02Nx", "does not answer with a distribution handshake"},
		{"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer with a distribution handshake"},
		{"", "breaks the handshake off"},
		{"\x00\x03sok", "breaks the handshake off"},
	} {
		asked, port := scripted(t, tt.says)
		name := fmt.Sprint("b", i)
		register(t, addr, name, port)
		for n := int32(1); n <= 2; n++ {
			if got := who(t, addr, name); !strings.HasPrefix(got, "503 ") || !strings.Contains(got, tt.want) || asked.Load() != n {
				t.Errorf("%q: %s; asked %d times", tt.says, got, asked.Load())
			}
		}
	}
}

// scripted is a node's listener that says the same to everyone who begins a
// handshake as the door does, and counts them.
func scripted(t *testing.T, says string) (asked *atomic.Int32, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	asked = new(atomic.Int32)
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			c.SetDeadline(time.Now().Add(30 * time.Second))
			const asker = "oneport-who@oneport.invalid"
			name := make([]byte, 2+15+len(asker))
			if _, err := io.ReadFull(c, name); err != nil || string(name[:3]) != "\x00\x2aN" || !strings.HasSuffix(string(name), asker) {
				t.Errorf("the door begins with %q, %v", name, err)
			}
			io.WriteString(c, says)
			c.Close()
		}
	})
	return asked, uint16(l.Addr().(*net.TCPAddr).Port)
}

// challenge is a node's send_challenge of version 6.
func challenge(name string) string {
	b := append([]byte("N"), make([]byte, 8+4+4)...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
	return string(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
}
