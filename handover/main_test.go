package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	// patience bounds every wait of the tests.
	patience = 30 * time.Second
	// nobody is a user without rights.
	nobody = 65534
)

// shortDir returns a directory whose path leaves room for a socket's name, and
// which every user may enter.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "oneport")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// registry is who owns which name.
type registry struct {
	mu     sync.Mutex
	owners map[string]Owner
}

func (r *registry) owner(name string) (Owner, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	owner, ok := r.owners[name]
	return owner, ok
}

// register registers a name, anew if it is registered.
func (r *registry) register(name string, uid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owners[name] = Owner{uid, new(byte)}
}

// daemon is a Server at work.
type daemon struct {
	*Server
	registry
	path string
	stop func()
}

// start serves receivers until the test ends. These names are registered, by
// root.
func start(t testing.TB, s *Server, names ...string) *daemon {
	t.Helper()
	d := &daemon{Server: s, path: filepath.Join(shortDir(t), "node.sock")}
	d.owners = map[string]Owner{}
	for _, name := range names {
		d.register(name, 0)
	}
	s.Owner = d.owner
	l, err := Listen(d.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	d.stop = sync.OnceFunc(func() {
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
	t.Cleanup(d.stop)
	return d
}

// node is a receiver that does what a test says.
type node struct {
	t    testing.TB
	conn *net.UnixConn
}

// dial connects to the daemon and says nothing.
func (d *daemon) dial(t testing.TB) *node {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: d.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &node{t, c}
}

// join connects a receiver that is welcome.
func (d *daemon) join(t testing.TB, name string) *node {
	t.Helper()
	n := d.dial(t)
	n.say(hello{[]byte{version}, name, ""})
	if f, _ := n.hear(); f != (welcome{version}) {
		t.Fatalf("HELLO was answered by %#v", f)
	}
	return n
}

func (n *node) say(f frame) {
	n.t.Helper()
	if _, err := n.conn.Write(f.append(nil)); err != nil {
		n.t.Errorf("saying %T: %v", f, err)
	}
}

// unread returns how many bytes of the daemon's wait to be heard.
func (n *node) unread() (bytes int) {
	n.t.Helper()
	raw, err := n.conn.SyscallConn()
	if err != nil {
		n.t.Fatal(err)
	}
	var asked error
	if err := raw.Control(func(fd uintptr) { bytes, asked = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil || asked != nil {
		n.t.Fatal(err, asked)
	}
	return bytes
}

// hear returns the next frame and the descriptor that came with it. The frame
// is nil at the end of the connection.
func (n *node) hear() (frame, *net.TCPConn) {
	n.t.Helper()
	b, fds := n.packet()
	if len(b) == 0 {
		return nil, nil
	}
	f, err := parse(b)
	if err != nil {
		n.t.Errorf("hearing the daemon: %v", err)
	}
	if _, ok := f.(offer); ok != (len(fds) == 1) {
		n.t.Errorf("%T came with %d descriptors", f, len(fds))
	}
	if len(fds) != 1 {
		return f, nil
	}
	return f, connOf(n.t, fds[0])
}

// packet returns the next packet and the descriptors that came with it.
func (n *node) packet() (b []byte, fds []int) {
	n.t.Helper()
	b, oob := make([]byte, maxFrame+1), make([]byte, 1024)
	size, oobSize, _, _, err := n.conn.ReadMsgUnix(b, oob)
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Err == io.EOF {
		return nil, nil
	}
	if err != nil {
		n.t.Errorf("hearing the daemon: %v", err)
		return nil, nil
	}
	if fds, err = rights(oob[:oobSize]); err != nil {
		n.t.Errorf("hearing the daemon: %v", err)
	}
	return b[:size], fds
}

// rights returns the descriptors that came with a packet.
func rights(oob []byte) (all []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			return nil, err
		}
		all = append(all, fds...)
	}
	return all, nil
}

// connOf makes a descriptor a connection.
func connOf(t testing.TB, fd int) *net.TCPConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// offered takes an offer.
func (n *node) offered() (offer, *net.TCPConn) {
	n.t.Helper()
	f, c := n.hear()
	o, ok := f.(offer)
	if !ok {
		n.t.Errorf("the daemon says %#v, not an offer", f)
	}
	return o, c
}

// expect hears exactly this frame; nil is the end.
func (n *node) expect(want frame) {
	n.t.Helper()
	if got, _ := n.hear(); got != want {
		n.t.Errorf("the daemon says %#v, want %#v", got, want)
	}
}

// pair makes a connection from a client to the door.
func pair(t testing.TB, network string) (client, door *net.TCPConn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "tcp6" {
		address = "[::1]:0"
	}
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	client, door = c.(*net.TCPConn), a.(*net.TCPConn)
	if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return client, door
}

func endpoint(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// offerOf is the offer of a connection to a node.
func offerOf(name string, door *net.TCPConn) Offer {
	return Offer{Name: name, Conn: door, Peer: endpoint(door.RemoteAddr()), Local: endpoint(door.LocalAddr()), Protocol: "upgrade"}
}

// result is what Offer returned.
type result struct {
	granted bool
	err     error
}

// offer offers while the test plays the node.
func (d *daemon) offer(t testing.TB, o Offer) <-chan result {
	done := make(chan result, 1)
	go func() {
		granted, err := d.Offer(t.Context(), o)
		done <- result{granted, err}
	}()
	return done
}

// talk says something on a connection both ways.
func talk(t testing.TB, client, server net.Conn) {
	t.Helper()
	if err := server.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		const said = "over to you"
		if _, err := io.WriteString(way[0], said); err != nil {
			t.Fatal(err)
		}
		read(t, way[1], said)
	}
}

// read reads exactly this.
func read(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, error %v, want %q", got, err, want)
	}
}

// wantEnd reads the end of a connection.
func wantEnd(t testing.TB, c net.Conn) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Errorf("read %q, error %v, want the end", got, err)
	}
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

// asUser calls do as another user, whom the kernel sees in what do connects,
// listens on, and makes. Users are the threads' to the kernel; only setuid(3)
// makes them the process's.
func asUser(t testing.TB, uid int, do func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := setEffective(uid); err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		do()
		err := setEffective(0)
		if err == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with the goroutine
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("becoming uid %d and back: %v (tests run as root)", uid, err)
	}
}

func setEffective(uid int) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return errno
	}
	return nil
}

// wantError checks an error of Offer; nil means that any will do.
func wantError(t testing.TB, got, want error) {
	t.Helper()
	if got == nil || want != nil && !errors.Is(got, want) {
		t.Errorf("error %v, want %v", got, want)
	}
}
