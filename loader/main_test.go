package loader_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/leak"
	"oneport/loader"
	"oneport/relay"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child() // ends the process
	}
	leak.Main(m)
}

// scale multiplies what the heavy tests do. 1 is a minute's run; 50 moves more
// than 10 GB:
//
//	ONEPORT_SCALE=50 go test -timeout 1h ./loader
func scale(t testing.TB) int {
	value := os.Getenv("ONEPORT_SCALE")
	if value == "" {
		return 1
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("ONEPORT_SCALE=%q: not a number above 0", value)
	}
	return n
}

// heavy is how much a heavy test does of what takes n by default: a quarter of it
// under -short, which is for virtual machines that are twenty times slower.
func heavy(t testing.TB, n int64) int64 {
	if testing.Short() {
		n /= 4
	}
	return n * int64(scale(t))
}

// patience is the deadline of whatever must happen at once.
const patience = 30 * time.Second

// load loads the programs for one test. Its pairs do not wait before their first
// message goes the short way.
func load(t testing.TB, options ...func(*loader.Options)) *loader.Loader {
	t.Helper()
	o := loader.Options{Settle: time.Nanosecond}
	for _, f := range options {
		f(&o)
	}
	l, err := loader.Load(o)
	if errors.Is(err, loader.ErrNotSupported) {
		skipOldKernel(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// skipOldKernel skips the rest of a test where the shortcut need not work. A skip
// on a newer kernel would hide what is broken.
func skipOldKernel(t testing.TB) {
	t.Helper()
	if kernelBefore(6, 1) {
		t.Skip("needs Linux 6.1: before, the memory of the short way is not bounded")
	}
}

// kernelBefore tells whether the kernel is older than a release.
func kernelBefore(major, minor int) bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false
	}
	parts := bytes.SplitN(name.Release[:], []byte("."), 3)
	have, _ := strconv.Atoi(string(parts[0]))
	haveMinor, _ := strconv.Atoi(string(parts[1]))
	return have < major || have == major && haveMinor < minor
}

func limit(n uint32) func(*loader.Options) { return func(o *loader.Options) { o.Limit = n } }

// connect returns the two ends of a connection: "tcp4", "tcp6", or "mapped", whose
// accepted end is an IPv6 socket with an IPv4 peer.
func connect(t testing.TB, network string) (dialed, accepted *net.TCPConn) {
	t.Helper()
	return connectBuffered(t, network, 0)
}

// connectBuffered is connect with send and receive buffers of a size, unless it is
// 0. They are set before the handshake: TCP cuts its segments by the window that it
// was offered there, and waits 200 ms with each that does not fit a smaller one.
func connectBuffered(t testing.TB, network string, buffer int) (dialed, accepted *net.TCPConn) {
	t.Helper()
	control := func(_, _ string, raw syscall.RawConn) (err error) {
		if buffer == 0 {
			return nil
		}
		failed := raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffer),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, buffer))
		})
		return errors.Join(failed, err)
	}
	listen, address, dial := network, "localhost:0", network
	if network == "mapped" {
		listen, address, dial = "tcp", "[::]:0", "tcp4"
	}
	if network == "tcp6" {
		address = "[::1]:0"
	}
	config := net.ListenConfig{Control: control}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(t.Context(), listen, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	target := listener.Addr().String()
	if network == "mapped" {
		target = net.JoinHostPort("127.0.0.1", strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	}
	dialer := net.Dialer{Timeout: patience, Control: control}
	d, err := dialer.DialContext(t.Context(), dial, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	a, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return d.(*net.TCPConn), a.(*net.TCPConn)
}

// joined is a client and a node, somehow connected, with a pair between them.
type joined struct {
	client, node *net.TCPConn
	pair         *loader.Pair
}

// join connects and pairs by kind. For the kinds with a relay, one is started.
func join(t testing.TB, l *loader.Loader, kind loader.Kind, network string, buffer int) joined {
	t.Helper()
	j := arrange(t, kind, network, buffer)
	pair, err := j.make(l)
	if err != nil {
		t.Fatal(err)
	}
	j.start()
	return joined{j.client, j.node, pair}
}

// arrangement is what can be paired, with a relay that is not started.
type arrangement struct {
	client, node *net.TCPConn
	make         func(*loader.Loader) (*loader.Pair, error)
	start        func()
}

func arrange(t testing.TB, kind loader.Kind, network string, buffer int) arrangement {
	t.Helper()
	if kind == loader.Direct {
		client, node := connectBuffered(t, network, buffer)
		return arrangement{client, node, func(l *loader.Loader) (*loader.Pair, error) { return l.Pair(client, node) }, func() {}}
	}
	client, c := connectBuffered(t, network, buffer)
	n, node := connectBuffered(t, network, buffer)
	r := loader.Relay{Client: c, Node: n}
	pair := func(l *loader.Loader) (*loader.Pair, error) { return l.PairThrough(client, node, r) }
	if kind == loader.Outward {
		pair = func(l *loader.Loader) (*loader.Pair, error) { return l.PairOutward(node, r) }
	}
	start := func() {
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan struct{})
		go func() {
			defer close(over)
			relay.Join(ctx, c, n, relay.Options{})
		}()
		t.Cleanup(func() {
			cancel()
			<-over
		})
	}
	return arrangement{client, node, pair, start}
}

// counts returns those of the messages that conn sent.
func counts(t testing.TB, l *loader.Loader, conn *net.TCPConn) loader.Counts {
	t.Helper()
	return way(t, l, conn).Counts
}

func way(t testing.TB, l *loader.Loader, conn *net.TCPConn) loader.Way {
	t.Helper()
	cookie := cookieOf(t, conn)
	list, err := l.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		for _, w := range s.Ways {
			if w.Cookie == cookie {
				return w
			}
		}
	}
	t.Fatalf("no way from %v is listed", conn.LocalAddr())
	return loader.Way{}
}

func cookieOf(t testing.TB, conn syscall.Conn) (cookie uint64) {
	t.Helper()
	onDescriptor(t, conn, func(fd int) (err error) {
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	return cookie
}

func onDescriptor(t testing.TB, conn syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
}

func write(t testing.TB, conn *net.TCPConn, message []byte) {
	t.Helper()
	conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, conn *net.TCPConn, want []byte) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil {
		t.Fatalf("after %d bytes of %d: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("wrong bytes: %.40q..., not %.40q...", got, want)
	}
}

func expectEnd(t testing.TB, conn *net.TCPConn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 100)); err != io.EOF {
		t.Fatalf("%d bytes and %v, not the end", n, err)
	}
}

// eventually waits until f returns nil.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// pattern is what streams are made of, over and over. Its length is a prime, so
// that no multiple of a page or of a power of two is mistaken for its place.
var pattern = sync.OnceValue(func() []byte {
	b := make([]byte, 1048583)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

// at returns up to n bytes of the stream from offset on.
func at(offset int64, n int) []byte {
	from := int(offset % int64(len(pattern())))
	return pattern()[from:min(from+n, len(pattern()))]
}
