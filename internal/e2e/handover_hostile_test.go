package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/hosts"
)

// nobody is a user without rights.
const nobody = 65534

// A liar is a node of this process whose receiver does what a test says. It has
// a listener, too, as a stock node has: what is not handed over gets there.
type liar struct {
	conn   *net.UnixConn
	accept func(t *testing.T) *net.TCPConn
}

// lie registers a name and connects a receiver for it, which is welcome.
func (d *daemon) lie(t *testing.T, name string) *liar {
	t.Helper()
	l := &liar{accept: registerListener(t, d.host, name)}
	var answer []byte
	l.conn, answer = d.hello(t, name)
	if len(answer) == 0 || answer[0] != 'W' {
		t.Fatalf("HELLO is answered by %q", answer)
	}
	return l
}

// hello connects a receiver for a name and returns what the daemon answers.
func (d *daemon) hello(t *testing.T, name string) (conn *net.UnixConn, answer []byte) {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: d.node, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(fmt.Appendf(nil, "H\x01\x00\x01\x01\x02\x00%c%s", len(name), name)); err != nil {
		t.Fatal(err)
	}
	answer = make([]byte, 1<<16)
	n, err := conn.Read(answer)
	if err != nil {
		t.Fatal(err)
	}
	return conn, answer[:n]
}

// offered takes the next offer: its id, as a field, and the descriptor.
func (l *liar) offered() (id []byte, fd int, err error) {
	b, oob := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := l.conn.ReadMsgUnix(b, oob)
		if err != nil {
			return nil, -1, err
		}
		if n < 12 || b[0] != 'O' {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			return nil, -1, fmt.Errorf("an offer comes with %d control messages, %v", len(messages), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return nil, -1, err
		}
		return bytes.Clone(b[1:12]), fds[0], nil
	}
}

// untaken waits for the next offer and leaves it, with the descriptor, where it
// is.
func (l *liar) untaken() error {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	var peeked error
	if err := raw.Read(func(fd uintptr) bool {
		_, _, peeked = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return peeked != unix.EAGAIN
	}); err != nil {
		return err
	}
	return peeked
}

func (l *liar) say(frame byte, id []byte) error {
	_, err := l.conn.Write(append([]byte{frame}, id...))
	return err
}

// Whatever a receiver does to an offer, the client gets its node by the relay,
// and nobody else waits for it.
func TestReceiversThatLieHarmNobody(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta)
	good := beta.Erl(t, "good", withoutListener(d), hosts.Args("-kernel", "net_setuptime", "60"))
	d.ready(t, good)
	another := func(id []byte) []byte { id = bytes.Clone(id); id[len(id)-1]++; return id }

	for _, lie := range []struct {
		name string
		// answer is what becomes of the offer. It owns the descriptor. Nil
		// leaves the offer unread and ends the receiver.
		answer func(l *liar, id []byte, fd int) error
		handed bool // the liar has the connection; else it is relayed
	}{
		{"never answers", func(l *liar, id []byte, fd int) error { return unix.Close(fd) }, false},
		{"never answers and keeps its copy", func(l *liar, id []byte, fd int) error { return keep(t, fd) }, false},
		{"answers another's id", func(l *liar, id []byte, fd int) error {
			return errors.Join(unix.Close(fd), l.say('A', another(id)))
		}, false},
		{"refuses and keeps its copy", func(l *liar, id []byte, fd int) error {
			return errors.Join(keep(t, fd), l.say('N', append(bytes.Clone(id), "\x11\x00\x02no"...)))
		}, false},
		{"says a megabyte of nonsense", func(l *liar, id []byte, fd int) error {
			unix.Close(fd)
			nonsense := bytes.Repeat([]byte("nonsense"), 1<<13-1)
			for range 16 {
				if _, err := l.conn.Write(nonsense); err != nil {
					break // the daemon has had enough
				}
			}
			return nil
		}, false},
		{"ends in the middle", func(l *liar, id []byte, fd int) error { return errors.Join(unix.Close(fd), l.conn.Close()) }, false},
		{"ends in the middle and keeps its copy", func(l *liar, id []byte, fd int) error { return errors.Join(keep(t, fd), l.conn.Close()) }, false},
		{"ends with the offer unread", nil, false},
		{"answers twice", func(l *liar, id []byte, fd int) error {
			if err := errors.Join(l.say('A', id), l.say('A', id)); err != nil {
				return err
			}
			file := os.NewFile(uintptr(fd), "")
			defer file.Close()
			b := make([]byte, 64)
			if n, err := l.conn.Read(b); err != nil || b[0] != 'C' {
				return fmt.Errorf("the daemon says %q, %v; want COMMIT", b[:n], err)
			}
			conn, err := net.FileConn(file)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = io.Copy(conn, conn)
			return err
		}, true},
	} {
		t.Run(lie.name, func(t *testing.T) {
			before := descriptors(t, d)
			name := "liar"
			l := d.lie(t, name)
			done := make(chan error, 1)
			go func() {
				if lie.answer == nil {
					done <- errors.Join(l.untaken(), l.conn.Close())
					return
				}
				id, fd, err := l.offered()
				if err == nil {
					err = lie.answer(l, id, fd)
				}
				done <- err
			}()
			served := make(chan *net.TCPConn, 1)
			go func() {
				defer close(served)
				client, status, reason := upgradeTo(t, alpha, beta.IPv4, name, beta.IPv4.String())
				if status != http.StatusSwitchingProtocols {
					t.Errorf("the door answers %d: %s", status, reason)
				}
				served <- client
			}()
			for range 5 {
				begin := time.Now()
				if err := shakeThrough(t, alpha, beta, "good"); err != nil {
					t.Errorf("another node, meanwhile: %v", err)
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("another node's client waited %v", took)
				}
			}
			client := <-served
			if t.Failed() {
				return
			}
			if !lie.handed {
				node := l.accept(t)
				io.WriteString(client, "to the node")
				b := make([]byte, len("to the node"))
				if _, err := io.ReadFull(node, b); err != nil || string(b) != "to the node" {
					t.Errorf("the node reads %q, %v", b, err)
				}
				// Its end is the client's end, whoever has a copy.
				node.Close()
				if n, err := client.Read(b); err != io.EOF {
					t.Errorf("the client reads %d bytes, %v; want the end", n, err)
				}
				client.Close()
			} else {
				io.WriteString(client, "there and back")
				client.CloseWrite()
				if b, err := io.ReadAll(client); err != nil || string(b) != "there and back" {
					t.Errorf("the client reads %q, %v", b, err)
				}
			}
			if err := <-done; err != nil {
				t.Errorf("the liar: %v", err)
			}
			l.conn.Close()
			d.noConnections(t)
			// The registration of the name is one more.
			eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= before+1 })
		})
		eventually(t, "the liar to be unregistered", func() bool { _, ok := d.nodes(t)["liar"]; return !ok })
	}
}

// keep holds a descriptor until the end of the test.
func keep(t *testing.T, fd int) error {
	t.Cleanup(func() { unix.Close(fd) })
	return nil
}

// shakeThrough begins a handshake with a real node through the door, and ends
// it. Each is a node of its own: the other side may not know yet that the one
// before has gone, and would speak of simultaneous ones.
func shakeThrough(t *testing.T, from, to *hosts.Host, node string) error {
	conn, err := from.Dial(t.Context(), "tcp", netAddr(to))
	if err != nil {
		return err
	}
	defer abort(conn.(*net.TCPConn))
	conn.SetDeadline(time.Now().Add(patience))
	shaker := fmt.Sprintf("shaker%d@alpha.invalid", conn.LocalAddr().(*net.TCPAddr).Port)
	if _, err := io.WriteString(conn, requestFor(node, handshakeOf(shaker))); err != nil {
		return err
	}
	return expect(conn, granted+"\x00\x03sok")
}

func netAddr(h *hosts.Host) string {
	return net.JoinHostPort(h.IPv4.String(), fmt.Sprint(hosts.Port))
}

// A name's connections go to the user who has registered it, or whom --own
// names, and nobody else receives them.
func TestOnlyANamesUserReceivesForIt(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta, "--own", "pinned=1")
	good := beta.Erl(t, "good", withoutListener(d))
	d.ready(t, good)
	if err := os.Chmod(beta.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	wantRejected := func(t *testing.T, name string) {
		t.Helper()
		var answer []byte
		asUser(t, nobody, func() { _, answer = d.hello(t, name) })
		if len(answer) == 0 || answer[0] != 'R' || !bytes.Contains(answer, []byte("belongs to another user")) {
			t.Errorf("HELLO is answered by %q", answer)
		}
		eventually(t, "the warning", func() bool {
			said := d.Output()
			return strings.Contains(said, `"level":"warning","msg":"rejecting receiver"`) && strings.Contains(said, `node \"`+name+`\" belongs to another user`)
		})
	}
	t.Run("another user's node", func(t *testing.T) {
		wantRejected(t, "good")
		if err := shakeThrough(t, alpha, beta, "good"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a name that is taken", func(t *testing.T) {
		squatter := aliveAs(t, d, nobody, "good", 1)
		squatter.WaitOutput(t, "76 01 00 00 00 63") // result 1, creation 99
		wantRejected(t, "good")
		if err := shakeThrough(t, alpha, beta, "good"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a name that is pinned to somebody", func(t *testing.T) {
		registerAs(t, d, nobody, "pinned", 1)
		wantRejected(t, "pinned")
	})
	t.Run("a port of somebody else's", func(t *testing.T) {
		secret, err := beta.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer secret.Close()
		registerAs(t, d, nobody, "thief", uint16(secret.Addr().(*net.TCPAddr).Port))
		if _, status, reason := upgradeTo(t, alpha, beta.IPv4, "thief", beta.IPv4.String()); status != http.StatusServiceUnavailable {
			t.Errorf("the door answers %d: %s", status, reason)
		}
	})
}

// asUser runs f as a user. Only f's own thread is changed, which ends with it.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- errno
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// registerAs registers a node by a process of a user, until the test ends.
func registerAs(t *testing.T, d *daemon, uid int, name string, port uint16) {
	t.Helper()
	aliveAs(t, d, uid, name, port)
	eventually(t, "the registration of "+name, func() bool { _, ok := d.nodes(t)[name]; return ok })
}

// aliveAs asks for a registration by a process of a user, which prints the
// answer, a byte in two hexadecimal digits, and lives until the test ends or the
// connection does.
func aliveAs(t *testing.T, d *daemon, uid int, name string, port uint16) *hosts.Process {
	t.Helper()
	request := binary.BigEndian.AppendUint16([]byte{'x'}, port)
	request = append(request, 77, 0, 0, 6, 0, 5, 0, byte(len(name)))
	request = append(append(request, name...), 0, 0)
	request = append([]byte{0, byte(len(request))}, request...)
	escaped := ""
	for _, b := range request {
		escaped += fmt.Sprintf(`\x%02x`, b)
	}
	return d.host.Start(t, d.host.Command(context.Background(), "setpriv", fmt.Sprintf("--reuid=%d", uid), "--clear-groups",
		"bash", "-c", fmt.Sprintf(`exec 3<>/dev/tcp/127.0.0.1/%d && printf '%s' >&3 && head -c 6 <&3 | od -An -tx1 && cat <&3 >/dev/null`, hosts.Port, escaped)))
}

// A node that says it is one of the fork of 2016, and names a path that is no
// socket of its own, gets nothing, stays registered, and keeps nobody waiting.
func TestForkNodesWithBadPathsGetNothing(t *testing.T) {
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta)
	good := beta.Erl(t, "good", withoutListener(d), hosts.Args("-kernel", "net_setuptime", "60"))
	d.ready(t, good)
	dir, err := os.MkdirTemp("", "oneport")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	taker, err := net.Listen("unix", filepath.Join(dir, "taker"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taker.Close() })
	link, file, others := filepath.Join(dir, "link"), filepath.Join(dir, "file"), filepath.Join(dir, "others")
	other, err := net.Listen("unix", others)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	if err := errors.Join(os.Symlink(filepath.Join(dir, "taker"), link), os.WriteFile(file, nil, 0o644), os.Chown(others, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path string }{
		{"a link", link},
		{"a file", file},
		{"200 bytes", "/" + strings.Repeat("x", 199)},
		{"somebody else's socket", others},
		{"a relative path", "taker"},
		{"none at all, ever", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := descriptors(t, d)
			alive, err := beta.Dial(t.Context(), "tcp", "127.0.0.1:"+fmt.Sprint(hosts.Port))
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			alive.SetDeadline(time.Now().Add(patience))
			// The transcript of a node of the fork; its port answers nobody.
			io.WriteString(alive, "\x00\x0e\x78\x00\x01\x4d\x00\x00\x05\x00\x05\x00\x01\x62\x00\x00")
			if err := expect(alive, "\x79\x00\x00"); err != nil {
				t.Fatal(err)
			}
			if creation := make([]byte, 1); expectSome(alive, creation) != nil || creation[0] < 1 || creation[0] > 3 {
				t.Fatalf("creation %v, want 1 to 3", creation)
			}
			node := make(chan error, 1)
			go func() {
				err := expect(alive, "\x00\x01\x68")
				if err == nil && c.path != "" {
					_, err = alive.Write(append([]byte{0, byte(len(c.path))}, c.path...))
				}
				node <- err
			}()
			client := dial(t, alpha, beta.IPv4)
			io.WriteString(client, "\x00\x02\x68\x62")
			begin := time.Now()
			if err := shakeThrough(t, alpha, beta, "good"); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("another node's client waited %v", took)
			}
			if answer, err := io.ReadAll(client); err != nil || string(answer) != "\x69\x01" {
				t.Errorf("the client reads %q, %v; want 69 01 and the end", answer, err)
			}
			if err := <-node; err != nil {
				t.Error(err)
			}
			if _, ok := d.nodes(t)["b"]; !ok {
				t.Error("the node is unregistered")
			}
			alive.Close()
			d.noConnections(t)
			eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= before })
		})
	}
}

func expectSome(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return err
}
