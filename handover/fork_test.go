package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/epmd"
)

// forkListener is the socket of a node of the fork.
func forkListener(t testing.TB, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// answers is a node whose answer is always the same.
func answers(path string, uid uint32) ForkNode {
	return ForkNode{UID: uid, Ask: func(context.Context, []byte) ([]byte, error) { return []byte(path), nil }}
}

// receiveFork is acceptFork that must succeed.
func receiveFork(t testing.TB, l *net.UnixListener) net.Conn {
	t.Helper()
	conn, err := acceptFork(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// acceptFork takes a descriptor as a node of the fork does: one byte, one
// descriptor, and the end.
func acceptFork(l *net.UnixListener) (net.Conn, error) {
	deadline := time.Now().Add(patience)
	if err := l.SetDeadline(deadline); err != nil {
		return nil, err
	}
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	b, oob := make([]byte, 16), make([]byte, 1024)
	n, oobSize, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	fds, err := rights(oob[:oobSize])
	if err != nil || n != 1 || b[0] != 20 || len(fds) != 1 {
		return nil, fmt.Errorf("received %q and %d descriptors, error %v", b[:n], len(fds), err)
	}
	f := os.NewFile(uintptr(fds[0]), "")
	defer f.Close()
	if n, err := c.Read(b); n != 0 || err != io.EOF {
		return nil, fmt.Errorf("received %q, error %v, want the end", b[:n], err)
	}
	return net.FileConn(f)
}

// The transcript: what was seen between the fork's own daemon, its node b and
// its client a, played to our daemon by a scripted b and a scripted a. b's
// answer is split at every byte.
func TestTheTranscriptOf2016(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "erlang.handover.<0.46.0>.sock")
	l := forkListener(t, path)

	var fork Fork
	registry := new(epmd.Registry)
	server := &epmd.Server{
		Registry: registry,
		Handover: func(ctx context.Context, c *net.TCPConn, name string) {
			defer c.Close()
			node, ok := registry.Lookup(name)
			if !ok {
				t.Errorf("no node %q", name)
				return
			}
			if err := fork.Offer(ctx, ForkNode{UID: 0, Ask: node.Ask}, c); err != nil {
				t.Error(err)
			}
		},
	}
	address := serveEPMD(t, server)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	say := func(c net.Conn, b string) {
		t.Helper()
		if _, err := io.WriteString(c, b); err != nil {
			t.Fatal(err)
		}
	}

	b := dial()
	say(b, "\x00\x0e\x78\x98\x81\x4d\x00\x00\x05\x00\x05\x00\x01b\x00\x00")
	read(t, b, "\x79\x00\x00")
	creation := make([]byte, 1)
	if _, err := io.ReadFull(b, creation); err != nil || creation[0] < 1 || creation[0] > 3 {
		t.Fatalf("creation %d, error %v", creation, err)
	}
	answer := string([]byte{0, byte(len(path))}) + path
	for split := range len(answer) {
		a := dial()
		say(a, []string{"\x00\x02hb", "\x00\x03hb\x00"}[split%2])
		read(t, b, "\x00\x01h")
		say(b, answer[:split])
		say(b, answer[split:])
		given := receiveFork(t, l)
		say(given, "\x69\x00\x00\x2a")
		if response, err := epmd.ReadHandoverResponse(a); err != nil || response != (epmd.HandoverResponse{Version: 42}) {
			t.Fatalf("a is answered %+v, error %v", response, err)
		}
		talk(t, a, given)
		given.Close()
		wantEnd(t, a)
	}
}

// serveEPMD serves until the test ends.
func serveEPMD(t testing.TB, s *epmd.Server) (address string) {
	t.Helper()
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// Every path that is not the node's own socket is refused, and the client's
// connection is as good as before.
func TestPathsOf2016ThatAreRefused(t *testing.T) {
	dir := shortDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	mine := forkListener(t, at("mine"))
	var theirs *net.UnixListener
	public := filepath.Join(dir, "public")
	if err := errors.Join(os.Mkdir(public, 0o755), os.Chmod(public, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	asUser(t, nobody, func() { theirs = forkListener(t, filepath.Join(public, "theirs")) })
	// Listened on by root, and given to nobody afterwards.
	given := forkListener(t, at("given"))
	stale := forkListener(t, at("stale"))
	stale.SetUnlinkOnClose(false)
	stale.Close()
	packet, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: at("packet"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer packet.Close()
	err = errors.Join(
		os.Chown(at("given"), nobody, nobody),
		os.Symlink(at("mine"), at("link")),
		os.WriteFile(at("file"), nil, 0o600),
		unix.Mkfifo(at("fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := mine.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var own uintptr
	if err := raw.Control(func(fd uintptr) { own = fd }); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name, path string
		uid        uint32
		want       string // in the error
	}{
		{"empty", "", 0, "not absolute"},
		{"relative", "tmp/mine", 0, "not absolute"},
		{"abstract", "\x00mine", 0, "not absolute"},
		{"a NUL in it", at("mine") + "\x00x", 0, "NUL"},
		{"200 bytes", "/" + strings.Repeat("x", 199), 0, "200 bytes"},
		{"nothing there", at("nothing"), 0, "no such file"},
		{"a file", at("file"), 0, "is no socket"},
		{"a named pipe", at("fifo"), 0, "is no socket"},
		{"a directory", dir + "/", 0, "is no socket"},
		{"a symbolic link", at("link"), 0, "is no socket"},
		{"a descriptor of the daemon", fmt.Sprintf("/proc/self/fd/%d", own), 0, "is no socket"},
		{"a way through /proc", "/proc/self/root" + at("mine"), 0, "too many levels"},
		{"someone else's socket", theirs.Addr().String(), 0, "belongs to uid 65534"},
		{"root's socket", at("mine"), nobody, "belongs to uid 0"},
		{"someone else listens", given.Addr().String(), nobody, "uid 0 listens"},
		{"nobody listens", at("stale"), 0, "nobody listens"},
		{"not a stream", at("packet"), 0, "connecting"},
	}
	var fork Fork
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client, door := pair(t, "tcp4")
			err := fork.Offer(t.Context(), answers(test.path, test.uid), door)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			talk(t, client, door)
		})
	}

	client, door := pair(t, "tcp6")
	if err := fork.Offer(t.Context(), answers(theirs.Addr().String(), nobody), door); err != nil {
		t.Fatalf("the node's own socket: %v", err)
	}
	door.Close()
	talk(t, client, receiveFork(t, theirs))
}

// A directory on the way may be a link: what counts is whose socket it is.
func TestALinkOnTheWayTo2016(t *testing.T) {
	dir := shortDir(t)
	l := forkListener(t, filepath.Join(dir, "sock"))
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var fork Fork
	client, door := pair(t, "tcp4")
	if err := fork.Offer(t.Context(), answers(filepath.Join(dir, "link", "sock"), 0), door); err != nil {
		t.Fatal(err)
	}
	door.Close()
	talk(t, client, receiveFork(t, l))
}

// A socket whose queue is full does not hold anybody up.
func TestAFullSocketOf2016(t *testing.T) {
	path := filepath.Join(shortDir(t), "sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	var fork Fork
	started := time.Now()
	for i := 0; ; i++ {
		err := fork.Offer(t.Context(), answers(path, 0), doorOf(t))
		if err != nil && strings.Contains(err.Error(), "no more connections") {
			break
		}
		if err != nil || i == 10 {
			t.Fatalf("offer %d: error %v", i, err)
		}
	}
	if took := time.Since(started); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

// A silent node has its deadline, stays registered, and the clients of other
// nodes wait for a part of it at most.
func TestASilentNodeOf2016(t *testing.T) {
	path := filepath.Join(shortDir(t), "sock")
	l := forkListener(t, path)
	fork := Fork{Timeout: 4 * turnTimeout}
	asked := make(chan struct{})
	silent := ForkNode{Ask: func(ctx context.Context, request []byte) ([]byte, error) {
		if string(request) != "h" {
			t.Errorf("the request is %q", request)
		}
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	client, door := pair(t, "tcp4")
	done := make(chan error, 1)
	go func() { done <- fork.Offer(context.Background(), silent, door) }()
	<-asked

	other := doorOf(t)
	started := time.Now()
	wantError(t, fork.Offer(t.Context(), answers(path, 0), other), ErrForkBusy)
	if took := time.Since(started); took > time.Second {
		t.Errorf("it took %v", took)
	}
	gone, cancel := context.WithCancelCause(t.Context())
	why := errors.New("dropped by the operator")
	cancel(why)
	wantError(t, fork.Offer(gone, answers(path, 0), other), why)

	wantError(t, <-done, context.DeadlineExceeded)
	talk(t, client, door)
	if err := fork.Offer(t.Context(), answers(path, 0), other); err != nil {
		t.Fatalf("afterwards: %v", err)
	}
	receiveFork(t, l)
}

// All nodes of the fork use one path, where each makes its socket when it is
// asked: every client still gets to its own node.
func TestNodesOf2016ShareAPath(t *testing.T) {
	path := filepath.Join(shortDir(t), "sock")
	var fork Fork
	var group sync.WaitGroup
	for range 50 {
		client, door := pair(t, "tcp4")
		group.Go(func() {
			var l *net.UnixListener
			node := ForkNode{Ask: func(context.Context, []byte) (_ []byte, err error) {
				if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
					return nil, err
				}
				if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
					return nil, err
				}
				l.SetUnlinkOnClose(false) // the next node's by then
				return []byte(path), nil
			}}
			if err := fork.Offer(t.Context(), node, door); err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			given, err := acceptFork(l)
			if err != nil {
				t.Error(err)
				return
			}
			defer given.Close()
			if given.RemoteAddr().String() != client.LocalAddr().String() {
				t.Errorf("the node of %v got %v", client.LocalAddr(), given.RemoteAddr())
			}
		})
	}
	group.Wait()
}

// Whatever a node answers, the path is one that connect(2) can take whole.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/tmp/erlang.handover.<0.46.0>.sock", "", "/", "tmp", "/\x00", "/" + strings.Repeat("x", 106), "/" + strings.Repeat("x", 107)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if checkPath(path) != nil {
			return
		}
		var sockaddr unix.RawSockaddrUnix
		if path[0] != '/' || len(path) >= len(sockaddr.Path) || strings.Contains(path, "\x00") {
			t.Fatalf("%q passes", path)
		}
	})
}
