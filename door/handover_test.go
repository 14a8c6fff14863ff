package door_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/door"
)

// receiver is a node's side of the handover protocol, by hand: what package
// handover encodes is written out here, as docs/PROTOCOL.md has it.
type receiver struct {
	t *testing.T
	c *net.UnixConn
}

func field(tag byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{tag}, uint16(len(value)))) + value
}

// receive connects to the door's node socket as the receiver of node b.
func receive(t *testing.T, path string) *receiver {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	r := &receiver{t, c}
	r.send("H" + field(1, "\x01") + field(2, "b"))
	if frame, _ := r.read(); frame != "W"+field(1, "\x01") {
		t.Fatalf("%q", frame)
	}
	return r
}

func (r *receiver) send(frame string) {
	if _, err := r.c.Write([]byte(frame)); err != nil {
		r.t.Error(err)
	}
}

// read returns the next frame and the descriptor that came with it, or -1.
func (r *receiver) read() (frame string, fd int) {
	b, oob := make([]byte, 1<<16), make([]byte, 64)
	n, oobn, _, _, err := r.c.ReadMsgUnix(b, oob)
	if err != nil {
		r.t.Error(err)
		return "", -1
	}
	fd = -1
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	return string(b[:n]), fd
}

// hold keeps a descriptor until the test ends.
func (r *receiver) hold(fd int) { r.t.Cleanup(func() { syscall.Close(fd) }) }

// take accepts the next offer and returns the connection, once it is
// committed, and what the offer said.
func (r *receiver) take() (c *net.TCPConn, offer string) {
	offer, fd := r.read()
	if fd < 0 {
		r.t.Errorf("no descriptor with %q", offer)
		return nil, offer
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	id := offer[4:12] // 'O' 10 0008 id64
	r.send("A" + field(0x10, id))
	if commit, _ := r.read(); commit != "C"+field(0x10, id) {
		r.t.Errorf("%q", commit)
		return nil, offer
	}
	nc, err := net.FileConn(f)
	if err != nil {
		r.t.Error(err)
		return nil, offer
	}
	return nc.(*net.TCPConn), offer
}

func TestTheNodeGetsTheConnectionItself(t *testing.T) {
	for _, tt := range []struct {
		protocol door.Protocol
		request  string
		answer   string
	}{
		{door.Upgrade, request, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\nVersion: 6\r\n\r\n"},
		{door.HandoverRequest, "\x00\x02hb", "i\x00\x00\x06"},
	} {
		t.Run(string(tt.protocol), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "node.sock")
			d, addr := open(t, door.Options{NodeSocket: socket})
			register(t, addr, "b", 0) // no port at all
			r := receive(t, socket)
			c := dial(t, addr)
			io.WriteString(c, tt.request+"first")
			node, offer := r.take()
			if node == nil {
				t.FailNow()
			}
			defer node.Close()
			if !strings.Contains(offer, field(0x22, string(tt.protocol))) {
				t.Errorf("offered as %q", offer)
			}
			if node.RemoteAddr().String() != c.LocalAddr().String() {
				t.Errorf("the node sees %v, not its real peer", node.RemoteAddr())
			}
			answer := make([]byte, len(tt.answer))
			if _, err := io.ReadFull(c, answer); err != nil || string(answer) != tt.answer {
				t.Fatalf("%q, %v", answer, err)
			}
			node.SetDeadline(time.Now().Add(30 * time.Second))
			b := make([]byte, 5)
			if _, err := io.ReadFull(node, b); err != nil || string(b) != "first" {
				t.Fatalf("%q, %v", b, err)
			}
			io.WriteString(node, "reply!")
			if _, err := io.ReadFull(c, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			var info door.Info
			eventually(t, "the kernel's counters", func() bool {
				all := d.Connections()
				if len(all) != 1 {
					t.Fatalf("%+v", all)
				}
				info = all[0]
				return info.BytesToNode == 5 && info.BytesToClient == 6
			})
			if info.State != door.HandedOver || info.Path != "handover" || info.Node != "b" || info.TCP == nil || info.TCP.State != "estab" {
				t.Errorf("%+v", info)
			}
			if st := d.Stats(); st.Handovers["v1 accepted"] != 1 || st.Paths["handover"] != 1 {
				t.Errorf("%+v", st)
			}
			if n, err := d.DropNode("b"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			if _, err := node.Read(b); err == nil || err == io.EOF {
				t.Errorf("after a drop the node reads %v", err)
			}
			eventually(t, "the end of the record", func() bool { return len(d.Connections()) == 0 })

			// The record of one that ends by itself ends as well.
			c = dial(t, addr)
			io.WriteString(c, tt.request)
			if node, _ = r.take(); node == nil {
				t.FailNow()
			}
			if n := len(d.Connections()); n != 1 {
				t.Fatal(n)
			}
			node.Close()
			c.Close()
			eventually(t, "the end of the record", func() bool { return len(d.Connections()) == 0 })
		})
	}
}

// A stock client of this host is told the door's port for a node that has none.
func TestANodeWithoutAPortIsReachedByStockClients(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "node.sock")
	_, addr := open(t, door.Options{NodeSocket: socket})
	register(t, addr, "b", 0)
	r := receive(t, socket)
	c := dial(t, addr)
	io.WriteString(c, "\x00\x02zb")
	answer, err := io.ReadAll(c)
	if err != nil || len(answer) < 4 || answer[1] != 0 || int(binary.BigEndian.Uint16(answer[2:])) != c.RemoteAddr().(*net.TCPAddr).Port {
		t.Fatalf("%q, %v", answer, err)
	}
	c = dial(t, addr)
	name := "\x00\x12N" + strings.Repeat("\x00", 12) + "\x00\x03a@b"
	io.WriteString(c, name)
	node, _ := r.take()
	if node == nil {
		t.FailNow()
	}
	defer node.Close()
	node.SetDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, len(name))
	if _, err := io.ReadFull(node, b); err != nil || string(b) != name {
		t.Fatalf("%q, %v", b, err)
	}
}

// Whatever the receiver does, the client is served by the relay, or told why
// not, and notices nothing else.
func TestBrokenReceiversLeadToTheRelay(t *testing.T) {
	for name, behave := range map[string]func(r *receiver){
		"never answers": func(r *receiver) {
			_, fd := r.read()
			r.hold(fd)
			r.read() // CANCEL
		},
		"refuses": func(r *receiver) {
			offer, fd := r.read()
			r.hold(fd)
			r.send("N" + field(0x10, offer[4:12]) + field(0x11, "no room"))
		},
		"closes": func(r *receiver) {
			_, fd := r.read()
			r.hold(fd)
			r.c.Close()
		},
		"talks garbage": func(r *receiver) {
			_, fd := r.read()
			r.hold(fd)
			r.c.Write([]byte(strings.Repeat("\xff", 60000)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "node.sock")
			d, addr := open(t, door.Options{NodeSocket: socket})
			echo(t, addr, "b")
			r := receive(t, socket)
			done := make(chan struct{})
			go func() { defer close(done); behave(r) }()
			defer func() { <-done }()
			c := ask(t, addr)
			io.WriteString(c, "hello")
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			if all := d.Connections(); len(all) != 1 || all[0].Path != "splice" || all[0].Why == "" {
				t.Errorf("%+v", all)
			}
			// Both see the end, though the receiver holds a copy.
			c.CloseWrite()
			if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
				t.Errorf("%q, %v after the node's end", b, err)
			}
		})
	}
	t.Run("never comes, and the node has no port", func(t *testing.T) {
		_, addr := open(t, door.Options{NodeSocket: filepath.Join(t.TempDir(), "node.sock")})
		register(t, addr, "b", 0)
		c := dial(t, addr)
		io.WriteString(c, request)
		if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "503 ") || !strings.Contains(string(b), "by descriptor only") {
			t.Fatalf("%q, %v", b, err)
		}
	})
}

// The transcript of the OTP fork of 2016, with a node that is played by hand.
func TestANodeOfTheForkOf2016(t *testing.T) {
	d, addr := open(t, door.Options{})
	path := filepath.Join(t.TempDir(), "erlang.handover.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(30 * time.Second))
	alive := dial(t, addr)
	io.WriteString(alive, "\x00\x0e\x78\x98\x81\x4d\x00\x00\x05\x00\x05\x00\x01b\x00\x00")
	b := make([]byte, 4)
	if _, err := io.ReadFull(alive, b); err != nil || b[0] != 'y' || b[1] != 0 || b[2] != 0 || b[3] < 1 || b[3] > 3 {
		t.Fatalf("%x, %v", b, err)
	}
	c := dial(t, addr)
	io.WriteString(c, "\x00\x02hb")
	if _, err := io.ReadFull(alive, b[:3]); err != nil || string(b[:3]) != "\x00\x01h" {
		t.Fatalf("%x, %v", b, err)
	}
	frame := string(binary.BigEndian.AppendUint16(nil, uint16(len(path)))) + path
	for i := range len(frame) { // in as many writes as can be
		io.WriteString(alive, frame[i:i+1])
	}
	u, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t, u}
	mark, fd := r.read()
	u.Close()
	if mark != "\x14" || fd < 0 {
		t.Fatalf("%q, %d", mark, fd)
	}
	f := os.NewFile(uintptr(fd), "")
	node, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	io.WriteString(node, "i\x00\x00\x2a")
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "i\x00\x00\x2a" {
		t.Fatalf("%q, %v", b, err)
	}
	eventually(t, "the record", func() bool {
		all := d.Connections()
		return len(all) == 1 && all[0].State == door.HandedOver && d.Stats().Handovers["2016 accepted"] == 1
	})
}
