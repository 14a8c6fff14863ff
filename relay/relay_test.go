package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oneport/internal/leak"
	"oneport/relay"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leak.Main(m) }

// deadline bounds every wait of these tests.
const deadline = 60 * time.Second

// joined is a client and a node with a relay between them.
type joined struct {
	client, node *net.TCPConn // the far ends, held by the test
	// The relay's own ends, to look at while it runs.
	clientSide, nodeSide *net.TCPConn
	counters             *relay.Counters
	cancel               context.CancelCauseFunc
	done                 <-chan relay.Result
}

// join starts a relay over loopback; network is tcp4 or tcp6. Counters are
// filled in. Everything is closed and over at the end of the test.
func join(t testing.TB, network string, o relay.Options) *joined {
	t.Helper()
	j := &joined{counters: new(relay.Counters)}
	o.Counters = j.counters
	j.client, j.clientSide = connect(t, network)
	j.nodeSide, j.node = connect(t, network)
	ctx, cancel := context.WithCancelCause(context.Background())
	j.cancel = cancel
	done := make(chan relay.Result, 1)
	over := make(chan struct{})
	j.done = done
	go func() {
		defer close(over)
		done <- relay.Join(ctx, j.clientSide, j.nodeSide, o)
	}()
	t.Cleanup(func() {
		cancel(nil)
		j.client.Close()
		j.node.Close()
		<-over
	})
	return j
}

// connect returns both ends of a TCP connection over loopback.
func connect(t testing.TB, network string) (dialed, accepted *net.TCPConn) {
	t.Helper()
	address := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network]
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	d, err := net.Dial(network, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := listener.Accept()
	if err != nil {
		d.Close()
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{d, a} {
		if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
			t.Fatal(err)
		}
	}
	return d.(*net.TCPConn), a.(*net.TCPConn)
}

// result waits for the end of the relay.
func (j *joined) result(t testing.TB) relay.Result {
	t.Helper()
	select {
	case result := <-j.done:
		return result
	case <-time.After(deadline):
		t.Fatal("the relay does not end")
		panic("unreachable")
	}
}

// reset closes a connection with RST.
func reset(t testing.TB, conn *net.TCPConn) {
	t.Helper()
	if err := conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// waitUntil waits for a condition.
func waitUntil(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: nothing after %v", what, deadline)
		}
	}
}

// stalled waits until a writer has stood still for a while.
func stalled(t testing.TB, still time.Duration, value func() uint64) {
	t.Helper()
	last, since := value(), time.Now()
	waitUntil(t, "a stall", func() bool {
		if now := value(); now != last || now == 0 {
			last, since = now, time.Now()
		}
		return time.Since(since) > still
	})
}

// pattern is an endless stream of bytes that no piece of can be mistaken for
// another.
func pattern(seed uint64) io.Reader {
	var key [32]byte
	key[0] = byte(seed)
	return rand.NewChaCha8(key)
}

// send writes size bytes of a pattern.
func send(conn io.Writer, seed uint64, size int64) error {
	_, err := io.CopyBuffer(onlyWriter{conn}, io.LimitReader(pattern(seed), size), make([]byte, 64<<10))
	return err
}

// receive reads exactly size bytes and compares them with the pattern.
func receive(conn io.Reader, seed uint64, size int64) error {
	want, got := pattern(seed), make([]byte, 64<<10)
	expected := make([]byte, len(got))
	for at := int64(0); at < size; {
		n, err := conn.Read(got[:min(int64(len(got)), size-at)])
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", at, size, err)
		}
		io.ReadFull(want, expected[:n])
		if !bytes.Equal(got[:n], expected[:n]) {
			return fmt.Errorf("bytes differ between %d and %d", at, at+int64(n))
		}
		at += int64(n)
	}
	return nil
}

// onlyWriter and onlyReader keep io.Copy from splicing in the test's own ends.
type onlyWriter struct{ io.Writer }

// expectEOF reads the orderly end of a direction.
func expectEOF(t testing.TB, conn io.Reader) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("want EOF, got %d bytes and %v", n, err)
	}
}

// expectReset reads what is left until the connection ends by a reset. Of a
// reader and a writer only the first one is told; the other one meets EOF or
// EPIPE, as it does after a FIN. So a writer's error counts as well.
func expectReset(t testing.TB, conn io.Reader, writer <-chan error) {
	t.Helper()
	_, err := io.Copy(io.Discard, onlyReader{conn})
	if writer != nil {
		err = errors.Join(err, <-writer)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("want ECONNRESET, got %v", err)
	}
}

type onlyReader struct{ io.Reader }

func TestBytesBothWaysAtOnce(t *testing.T) {
	const size = 50 << 20
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, path := range []relay.Path{relay.Splice, relay.Copy} {
			t.Run(network+"/"+string(path), func(t *testing.T) {
				j := join(t, network, relay.Options{Only: path})
				var all sync.WaitGroup
				run := func(what string, do func() error) {
					all.Go(func() {
						if err := do(); err != nil {
							t.Errorf("%s: %v", what, err)
						}
					})
				}
				run("client sends", func() error { return errors.Join(send(j.client, 1, size), j.client.CloseWrite()) })
				run("node sends", func() error { return errors.Join(send(j.node, 2, size), j.node.CloseWrite()) })
				run("node receives", func() error { return receive(j.node, 1, size) })
				run("client receives", func() error { return receive(j.client, 2, size) })
				all.Wait()
				expectEOF(t, j.client)
				expectEOF(t, j.node)
				result := j.result(t)
				if result.Reason != relay.Finished || result.Err != nil || result.Path != path {
					t.Errorf("result: %+v", result)
				}
				if toNode, toClient := j.counters.ToNode.Load(), j.counters.ToClient.Load(); toNode != size || toClient != size {
					t.Errorf("counted %d to the node and %d to the client, want %d", toNode, toClient, size)
				}
			})
		}
	}
}

// The process's own account of read(2) and write(2) tells whether bytes came
// through it: the test's ends read them once, a relay that copies a second time.
func TestSplicedBytesDoNotEnterTheProcess(t *testing.T) {
	const size = 8 << 20
	read := func(path relay.Path) float64 {
		j := join(t, "tcp4", relay.Options{Only: path})
		before := bytesRead(t)
		var all sync.WaitGroup
		all.Go(func() {
			if err := send(j.client, 1, size); err != nil {
				t.Error(err)
			}
		})
		if err := receive(j.node, 1, size); err != nil {
			t.Error(err)
		}
		all.Wait()
		return float64(bytesRead(t)-before) / size
	}
	if times := read(relay.Splice); times > 1.1 {
		t.Errorf("spliced bytes were read %.2f times, want once", times)
	}
	if times := read(relay.Copy); times < 1.9 {
		t.Errorf("copied bytes were read %.2f times, want twice: this test sees nothing", times)
	}
}

// bytesRead is what this process has read so far, by any read call.
func bytesRead(t *testing.T) uint64 {
	t.Helper()
	account, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(account)) {
		if value, ok := strings.CutPrefix(line, "rchar: "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("/proc/self/io holds no rchar")
	return 0
}

func TestOneDirectionEndsAndTheOtherGoesOn(t *testing.T) {
	const size = 16 << 20 // more than all buffers on the way hold
	for _, first := range []string{"client", "node"} {
		t.Run(first+" first", func(t *testing.T) {
			j := join(t, "tcp4", relay.Options{})
			early, late := j.client, j.node
			if first == "node" {
				early, late = late, early
			}
			sent := make(chan error, 1)
			go func() { sent <- errors.Join(send(early, 1, size), early.CloseWrite()) }()
			// The bytes are queued everywhere before the first one is read.
			stalled(t, 100*time.Millisecond, func() uint64 {
				return j.counters.ToNode.Load() + j.counters.ToClient.Load()
			})
			if err := receive(late, 1, size); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, late)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			for i := range uint64(3) {
				if err := send(late, i, 1000); err != nil {
					t.Fatal(err)
				}
				if err := receive(early, i, 1000); err != nil {
					t.Fatal(err)
				}
			}
			if err := late.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, early)
			if result := j.result(t); result.Reason != relay.Finished {
				t.Errorf("result: %+v", result)
			}
		})
	}
}

func TestResetIsCarriedOver(t *testing.T) {
	// Each case brings the connection into a state and leaves it to be reset.
	// If the other end is writing then, its error will come.
	states := map[string]func(t *testing.T, j *joined, resetting, other *net.TCPConn) <-chan error{
		"idle": func(t *testing.T, j *joined, resetting, other *net.TCPConn) <-chan error {
			exchange(t, resetting, other)
			return nil
		},
		"the other end does not read": func(t *testing.T, j *joined, resetting, other *net.TCPConn) <-chan error {
			go send(resetting, 1, 1<<30)
			stalled(t, 100*time.Millisecond, func() uint64 {
				return j.counters.ToNode.Load() + j.counters.ToClient.Load()
			})
			return nil
		},
		"the other end writes": func(t *testing.T, j *joined, resetting, other *net.TCPConn) <-chan error {
			writer := make(chan error, 1)
			go func() { writer <- send(other, 1, 1<<30) }()
			if err := receive(resetting, 1, 1<<20); err != nil {
				t.Fatal(err)
			}
			return writer
		},
		"its direction has ended": func(t *testing.T, j *joined, resetting, other *net.TCPConn) <-chan error {
			exchange(t, resetting, other)
			if err := resetting.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, other)
			return nil
		},
		"the other direction has ended": func(t *testing.T, j *joined, resetting, other *net.TCPConn) <-chan error {
			exchange(t, resetting, other)
			if err := other.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, resetting)
			return nil
		},
	}
	for state, bring := range states {
		for _, who := range []string{"client", "node"} {
			t.Run(who+"/"+state, func(t *testing.T) {
				j := join(t, "tcp4", relay.Options{})
				resetting, other, want := j.client, j.node, relay.ClientReset
				if who == "node" {
					resetting, other, want = j.node, j.client, relay.NodeReset
				}
				writer := bring(t, j, resetting, other)
				reset(t, resetting)
				result := j.result(t)
				if result.Reason != want || result.Err == nil {
					t.Errorf("result: %+v", result)
				}
				if state == "its direction has ended" {
					// EOF stands in front of it, for good: what is left to
					// see is that this end can no longer write either.
					if pending := socketError(t, other); pending != syscall.EPIPE {
						t.Errorf("the other end's pending error is %v, want EPIPE", pending)
					}
					return
				}
				expectReset(t, other, writer)
			})
		}
	}
}

// exchange sends a few bytes both ways, so that the relay is known to run.
func exchange(t *testing.T, a, b *net.TCPConn) {
	t.Helper()
	for range 3 {
		for _, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
			if err := send(way[0], 7, 64); err != nil {
				t.Fatal(err)
			}
			if err := receive(way[1], 7, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// socketError waits for a connection to have an error and returns it.
func socketError(t *testing.T, conn *net.TCPConn) error {
	t.Helper()
	var pending int
	waitUntil(t, "a pending error", func() bool {
		pending = socketOption(t, conn, unix.SOL_SOCKET, unix.SO_ERROR)
		return pending != 0
	})
	return syscall.Errno(pending)
}

func socketOption(t *testing.T, conn *net.TCPConn, level, option int) (value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if ctlErr := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, option) }); ctlErr != nil {
		t.Fatal(ctlErr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// A reader that pauses longer than the relay's patience with a stalled end
// gets every byte.
func TestSlowReaderLosesNothing(t *testing.T) {
	const size = 24 << 20
	j := join(t, "tcp4", relay.Options{})
	go send(j.client, 1, size)
	stalled(t, 2500*time.Millisecond, j.counters.ToNode.Load)
	if err := receive(j.node, 1, size); err != nil {
		t.Error(err)
	}
}

func TestIdleConnectionIsNotEnded(t *testing.T) {
	j := join(t, "tcp4", relay.Options{})
	exchange(t, j.client, j.node)
	// Longer than any interval at which the relay looks at a connection.
	select {
	case result := <-j.done:
		t.Fatalf("an idle relay ended: %+v", result)
	case <-time.After(2500 * time.Millisecond):
	}
	exchange(t, j.client, j.node)
}

func TestPrefixGoesFirst(t *testing.T) {
	for _, size := range []int64{1, 1000, 16 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			var whole bytes.Buffer
			if err := send(&whole, 1, size+1000); err != nil {
				t.Fatal(err)
			}
			j := join(t, "tcp4", relay.Options{Prefix: whole.Bytes()[:size]})
			// The node's own bytes do not wait for the prefix to be read.
			if err := send(j.node, 2, 1000); err != nil {
				t.Fatal(err)
			}
			if err := receive(j.client, 2, 1000); err != nil {
				t.Fatal(err)
			}
			if _, err := j.client.Write(whole.Bytes()[size:]); err != nil {
				t.Fatal(err)
			}
			if err := receive(j.node, 1, size+1000); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "the count", func() bool { return j.counters.ToNode.Load() == uint64(size+1000) })
		})
	}
}

func TestCountersFollowWhileTheRelayRuns(t *testing.T) {
	j := join(t, "tcp4", relay.Options{})
	for i := range uint64(10) {
		if err := send(j.client, i, 100); err != nil {
			t.Fatal(err)
		}
		if err := receive(j.node, i, 100); err != nil {
			t.Fatal(err)
		}
		want := (i + 1) * 100
		waitUntil(t, "the count", func() bool { return j.counters.ToNode.Load() == want })
	}
	if counted := j.counters.ToClient.Load(); counted != 0 {
		t.Errorf("counted %d bytes to the client, which got none", counted)
	}
}

func TestCancelClosesBoth(t *testing.T) {
	states := map[string]func(t *testing.T, j *joined){
		"idle": func(t *testing.T, j *joined) { exchange(t, j.client, j.node) },
		"stalled": func(t *testing.T, j *joined) {
			go send(j.client, 1, 1<<30)
			stalled(t, 100*time.Millisecond, j.counters.ToNode.Load)
		},
		"at once": func(t *testing.T, j *joined) {},
	}
	for state, bring := range states {
		t.Run(state, func(t *testing.T) {
			j := join(t, "tcp4", relay.Options{})
			bring(t, j)
			cause := errors.New("the daemon stops")
			j.cancel(cause)
			result := j.result(t)
			if result.Reason != relay.Cancelled || !errors.Is(result.Err, cause) {
				t.Errorf("result: %+v", result)
			}
			for _, conn := range []*net.TCPConn{j.clientSide, j.nodeSide} {
				if _, err := conn.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("writing to an end of a relay that is over: %v, want net.ErrClosed", err)
				}
			}
		})
	}
}

func TestClosedConnectionIsRefused(t *testing.T) {
	_, client := connect(t, "tcp4")
	_, node := connect(t, "tcp4")
	node.Close()
	result := relay.Join(t.Context(), client, node, relay.Options{})
	if result.Reason != relay.NodeFailed || !errors.Is(result.Err, net.ErrClosed) {
		t.Errorf("result: %+v", result)
	}
	if err := client.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the client was left open")
	}
}

func TestShortRelaysLeaveNothing(t *testing.T) {
	leak.Check(t)
	const relays, atOnce = 1000, 50
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for range relays {
		slots <- struct{}{}
		client, clientSide := connect(t, "tcp4")
		nodeSide, node := connect(t, "tcp4")
		all.Go(func() {
			defer func() { <-slots }()
			result := relay.Join(context.Background(), clientSide, nodeSide, relay.Options{})
			if result.Reason != relay.Finished {
				t.Errorf("result: %+v", result)
			}
		})
		all.Go(func() {
			defer client.Close()
			defer node.Close()
			if err := errors.Join(send(client, 1, 5000), client.CloseWrite(), receive(node, 1, 5000)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestIdleRelaysHoldNoPipes(t *testing.T) {
	const relays = 100
	var idle [relays]*joined
	for i := range idle {
		idle[i] = join(t, "tcp4", relay.Options{})
		exchange(t, idle[i].client, idle[i].node)
	}
	// The cache keeps those that were in use at the same time, two descriptors
	// each; every relay holding one per direction would make 400.
	limit := 4*runtime.GOMAXPROCS(0) + 8
	waitUntil(t, fmt.Sprintf("at most %d pipe descriptors", limit), func() bool { return countPipes(t) <= limit })
}

func countPipes(t *testing.T) (pipes int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && strings.HasPrefix(target, "pipe:") {
			pipes++
		}
	}
	return pipes
}

func TestWithoutAPipeBytesAreCopied(t *testing.T) {
	client, clientSide := connect(t, "tcp4")
	defer client.Close()
	nodeSide, node := connect(t, "tcp4")
	defer node.Close()
	exhaustDescriptors(t)

	type step struct {
		path relay.Path
		why  string
	}
	steps := make(chan step, 10)
	done := make(chan relay.Result, 1)
	go func() {
		done <- relay.Join(context.Background(), clientSide, nodeSide, relay.Options{
			OnPath: func(path relay.Path, why string) { steps <- step{path, why} },
		})
	}()
	exchange(t, client, node)
	client.Close()
	node.Close()
	result := <-done
	if result.Path != relay.Copy || !strings.Contains(result.Why, "too many open files") {
		t.Errorf("result: %+v", result)
	}
	if said := <-steps; said.path != result.Path || said.why != result.Why {
		t.Errorf("OnPath was told %+v, the result is %+v", said, result)
	}
}

// A relay that may take one path only does not fall back: it resets both ends
// where that is not possible, before the first byte or later, and says why.
func TestOnlyOnePath(t *testing.T) {
	type changed = func(open bool, why string)
	for _, tt := range []struct {
		name  string
		o     relay.Options
		spoil func(t *testing.T) // makes the path impossible, before the start
		path  relay.Path         // in the result
		why   string             // in its error
	}{
		{"splice without descriptors", relay.Options{Only: relay.Splice}, exhaustDescriptors, "", "splice: too many open files"},
		{"shortcut with nobody who makes one", relay.Options{Only: relay.Shortcut}, nil, relay.Splice, "shortcut: none here"},
		{"shortcut that cannot be made", relay.Options{Only: relay.Shortcut,
			Shortcut: func(_ context.Context, _, _ *net.TCPConn, _ int, changed changed) func() {
				changed(false, "no reason")
				return func() {}
			}}, nil, relay.Splice, "shortcut: no reason"},
		{"shortcut that is taken out", relay.Options{Only: relay.Shortcut,
			Shortcut: func(_ context.Context, _, _ *net.TCPConn, _ int, changed changed) func() {
				changed(true, "")
				timer := time.AfterFunc(10*time.Millisecond, func() { changed(false, "no gain") })
				return func() { timer.Stop() }
			}}, nil, relay.Splice, "shortcut: no gain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, clientSide := connect(t, "tcp4")
			defer client.Close()
			nodeSide, node := connect(t, "tcp4")
			defer node.Close()
			if tt.spoil != nil {
				tt.spoil(t)
				if err := relay.Try(tt.o.Only); err == nil || err.Error() != tt.why {
					t.Errorf("tried beforehand: %v", err)
				}
			}
			result := relay.Join(t.Context(), clientSide, nodeSide, tt.o)
			if result.Reason != relay.Impossible || result.Path != tt.path || result.Err == nil || result.Err.Error() != tt.why {
				t.Errorf("result: %+v", result)
			}
			for _, end := range []*net.TCPConn{client, node} {
				if _, err := end.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("an end sees %v, not a reset", err)
				}
			}
		})
	}
	for _, path := range []relay.Path{relay.Copy, relay.Splice, relay.Shortcut} {
		if err := relay.Try(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// exhaustDescriptors leaves the process no free descriptor until the end of
// the test.
func exhaustDescriptors(t *testing.T) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := old
	few.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	var taken []int
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
		for _, fd := range taken {
			unix.Close(fd)
		}
	})
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EMFILE {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, fd)
	}
}

func TestSocketsGetNodelayAndKeepAlive(t *testing.T) {
	client, clientSide := connect(t, "tcp4")
	nodeSide, node := connect(t, "tcp4")
	for _, conn := range []*net.TCPConn{clientSide, nodeSide} {
		if err := errors.Join(conn.SetNoDelay(false), conn.SetKeepAlive(false)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan relay.Result, 1)
	go func() { done <- relay.Join(context.Background(), clientSide, nodeSide, relay.Options{}) }()
	exchange(t, client, node)
	for _, conn := range []*net.TCPConn{clientSide, nodeSide} {
		for _, option := range []struct {
			name                string
			level, number, want int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 5},
		} {
			if got := socketOption(t, conn, option.level, option.number); got != option.want {
				t.Errorf("%s is %d, want %d", option.name, got, option.want)
			}
		}
	}
	client.Close()
	node.Close()
	<-done
}

// What the owner before has set on a connection does not reach into the relay.
func TestDeadlinesOfTheOwnerBeforeAreOver(t *testing.T) {
	client, clientSide := connect(t, "tcp4")
	nodeSide, node := connect(t, "tcp4")
	for _, conn := range []*net.TCPConn{clientSide, nodeSide} {
		if err := conn.SetDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan relay.Result, 1)
	go func() { done <- relay.Join(context.Background(), clientSide, nodeSide, relay.Options{}) }()
	exchange(t, client, node)
	client.Close()
	node.Close()
	<-done
}
