package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/epmd"
)

// world is a daemon on the machine's own loopback, for measuring. Its nodes are
// this process, or real ones.
type world struct {
	b            *testing.B
	addr, socket string // the door's address, and the path by which nodes take descriptors
}

func newWorld(b *testing.B) *world {
	dir := b.TempDir()
	w := &world{b, freeAddr(b), filepath.Join(dir, "node.sock")}
	daemon := exec.Command(program, "serve", "--listen", w.addr, "--control", filepath.Join(dir, "control.sock"),
		"--node-socket", w.socket, "--log-level", "error", "--drain", "0s", "--shortcut", "off")
	daemon.Stderr = os.Stderr
	if err := daemon.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		daemon.Process.Signal(unix.SIGTERM)
		if err := daemon.Wait(); err != nil {
			b.Errorf("the daemon's end: %v", err)
		}
	})
	w.await("the daemon", func() bool {
		_, err := (&epmd.Client{Addr: w.addr}).Names(b.Context())
		return err == nil
	})
	return w
}

func (w *world) await(what string, condition func() bool) {
	w.b.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.b.Fatalf("waiting for %s: not within %v", what, patience)
		}
	}
}

// register registers a node of this process until the benchmark ends.
func (w *world) register(name string, port int) {
	w.b.Helper()
	alive, err := (&epmd.Client{Addr: w.addr}).Register(w.b.Context(), epmd.Node{Name: name, Port: uint16(port), Type: epmd.Normal, Highest: 6, Lowest: 5})
	if err != nil {
		w.b.Fatal(err)
	}
	w.b.Cleanup(func() { alive.Close() })
}

// stock makes a node that listens, whose connections are relayed to it, and
// returns its address. serve owns each of them.
func (w *world) stock(name string, serve func(*net.TCPConn)) (addr string) {
	w.b.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		w.b.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { serve(c.(*net.TCPConn)) })
		}
	})
	w.b.Cleanup(func() { l.Close(); served.Wait() })
	w.register(name, l.Addr().(*net.TCPAddr).Port)
	return l.Addr().String()
}

// taker makes a node that takes connections by descriptor only.
func (w *world) taker(name string, serve func(*net.TCPConn)) {
	w.b.Helper()
	w.register(name, 0)
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: w.socket, Net: "unixpacket"})
	if err != nil {
		w.b.Fatal(err)
	}
	var served sync.WaitGroup
	w.b.Cleanup(func() { c.Close(); served.Wait() })
	field := func(tag byte, value string) string {
		return string(binary.BigEndian.AppendUint16([]byte{tag}, uint16(len(value)))) + value
	}
	b := make([]byte, 1<<16)
	if _, err := io.WriteString(c, "H"+field(0x01, "\x01")+field(0x02, name)); err != nil {
		w.b.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || b[0] != 'W' {
		w.b.Fatalf("HELLO is answered by %q, %v", b[:n], err)
	}
	served.Go(func() {
		if err := take(c, b, func(c *net.TCPConn) { served.Go(func() { serve(c) }) }); !errors.Is(err, net.ErrClosed) {
			w.b.Error(err)
		}
	})
}

// take accepts every offer until the connection to the daemon is closed.
func take(c *net.UnixConn, b []byte, serve func(*net.TCPConn)) error {
	open := map[string]*os.File{}
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil {
			return err
		}
		id := string(b[1:min(n, 12)]) // the first field of the daemon's frames
		switch b[0] {
		case 'O':
			messages, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(messages) != 1 {
				return fmt.Errorf("an offer comes with %d control messages, %v", len(messages), err)
			}
			fds, err := unix.ParseUnixRights(&messages[0])
			if err != nil {
				return err
			}
			open[id] = os.NewFile(uintptr(fds[0]), "")
			if _, err := io.WriteString(c, "A"+id); err != nil {
				return err
			}
		case 'C':
			conn, err := net.FileConn(open[id])
			open[id].Close()
			delete(open, id)
			if err != nil {
				return err
			}
			serve(conn.(*net.TCPConn))
		default:
			return fmt.Errorf("the daemon says %q", b[:n])
		}
	}
}

// granted is the door's answer to an upgrade.
const granted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\nVersion: 6\r\n\r\n"

// requestFor is the request for a node, and what the client says right behind it.
func requestFor(name, first string) string {
	return "CONNECT /erl/" + name + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n" + first
}

func dialTCP(addr string) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp4", addr, patience)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// connect connects to a node through the door.
func (w *world) connect(name string) *net.TCPConn {
	w.b.Helper()
	c, err := dialTCP(w.addr)
	if err == nil {
		_, err = io.WriteString(c, requestFor(name, ""))
	}
	if err == nil {
		err = expect(c, granted)
	}
	if err != nil {
		w.b.Fatal(err)
	}
	return c
}

// expect reads exactly this.
func expect(c io.Reader, want string) error {
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("read %q, want %q: %w", got[:n], want, err)
	}
	if string(got) != want {
		return fmt.Errorf("read %q, want %q", got, want)
	}
	return nil
}

// abort closes a connection so that nothing of it is left to wait for.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// erl starts a real node at 127.0.0.1, which ends with its standard input, and
// returns what it prints.
func (w *world) erl(name string, args ...string) io.Reader {
	w.b.Helper()
	_, port, _ := net.SplitHostPort(w.addr)
	node := exec.Command("erl", append([]string{"-noshell", "-name", name + "@127.0.0.1", "-setcookie", "c", "-start_epmd", "false",
		"-connect_all", "false", "-kernel", "prevent_overlapping_partitions", "false"}, args...)...)
	node.Env = append(os.Environ(), "ERL_EPMD_PORT="+port, "ERL_CRASH_DUMP_SECONDS=0")
	node.Stderr = os.Stderr
	input, err := node.StdinPipe()
	if err != nil {
		w.b.Fatal(err)
	}
	output, err := node.StdoutPipe()
	if err != nil {
		w.b.Fatal(err)
	}
	if err := node.Start(); err != nil {
		w.b.Fatal(err)
	}
	w.b.Cleanup(func() {
		input.Close()
		node.Wait()
	})
	return output
}

// untilEnd has a node live until its standard input ends.
var untilEnd = []string{"-eval", `io:get_line(""), halt().`}

// erlTaker starts a real node that takes connections by descriptor only.
func (w *world) erlTaker(name string, args ...string) {
	w.erl(name, append(append([]string{"-proto_dist", "oneport", "-pa", beams, "-oneport", "node_socket=" + w.socket}, args...), untilEnd...)...)
}

// ready waits until a real node can be reached through the door.
func (w *world) ready(name string) {
	w.await(name, func() bool {
		_, err := w.shake(name, "ready-"+name)
		return err == nil
	})
}

// shake connects to a real node, begins a handshake as the node who@bench, ends
// it at once, and returns how long it took from the request until the node's
// first word was there.
func (w *world) shake(name, who string) (time.Duration, error) {
	c, err := dialTCP(w.addr)
	if err != nil {
		return 0, err
	}
	defer abort(c)
	begin := time.Now()
	if _, err := io.WriteString(c, requestFor(name, handshakeOf(who+"@bench.invalid"))); err != nil {
		return 0, err
	}
	err = expect(c, granted+"\x00\x03sok")
	return time.Since(begin), err
}

// handshakeOf is the first message of a handshake of version 6, with the flags
// that OTP 25 and later demand.
func handshakeOf(full string) string {
	const flags = 0x4_0707_0f94
	b := binary.BigEndian.AppendUint16(nil, uint16(15+len(full)))
	b = binary.BigEndian.AppendUint64(append(b, 'N'), flags)
	b = binary.BigEndian.AppendUint32(b, 4)
	b = binary.BigEndian.AppendUint16(b, uint16(len(full)))
	return string(append(b, full...))
}
