package loader_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/loader"
)

func TestHalfCloseWithBytesQueued(t *testing.T) {
	l := load(t)
	for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
		t.Run(kind.String(), func(t *testing.T) {
			j := join(t, l, kind, "tcp4", 0)
			message := bytes.Repeat([]byte("x"), 10_000)
			write(t, j.node, message)
			write(t, j.node, message)
			j.node.CloseWrite()
			write(t, j.client, message)
			j.client.CloseWrite()
			expect(t, j.client, append(message, message...))
			expectEnd(t, j.client)
			expect(t, j.node, message)
			expectEnd(t, j.node)
		})
	}
}

func TestResetReachesTheOtherEnd(t *testing.T) {
	l := load(t)
	for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
		t.Run(kind.String(), func(t *testing.T) {
			j := join(t, l, kind, "tcp4", 0)
			write(t, j.node, []byte("x"))
			expect(t, j.client, []byte("x"))
			j.client.SetLinger(0)
			j.client.Close()
			j.node.SetReadDeadline(time.Now().Add(patience))
			if _, err := j.node.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("after a reset: %v", err)
			}
			j.node.Close()
			eventually(t, func() error { return empty(l) })
		})
	}
}

// empty tells whether no pair is left.
func empty(l *loader.Loader) error {
	list, err := l.List()
	if err != nil {
		return err
	}
	if len(list) != 0 {
		return fmt.Errorf("%d pairs are left, one of them %+v", len(list), list[0])
	}
	return nil
}

// The same two ports, again and again: a pair is one of sockets, not of addresses.
func TestPortsAreReused(t *testing.T) {
	l := load(t)
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	// An address that nobody else on this host takes ports of.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 99, 0, 1)}}
	for i := range 200 {
		a, err := dialer.DialContext(t.Context(), "tcp4", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		dialer.LocalAddr = a.LocalAddr()
		b, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client, node := a.(*net.TCPConn), b.(*net.TCPConn)
		if _, err := l.Pair(client, node); err != nil {
			t.Fatal(err)
		}
		message := fmt.Appendf(nil, "connection %d", i)
		write(t, client, message)
		write(t, client, message)
		expect(t, node, append(message, message...))
		if c := counts(t, l, client); c.ShortMessages != 2 {
			t.Fatalf("%+v", c)
		}
		client.SetLinger(0) // no TIME_WAIT
		client.Close()
		node.Close()
	}
	eventually(t, func() error { return empty(l) })
}

// Ten thousand pairs: a join costs the same with all of them there, and nothing
// is left when they have closed.
func TestTenThousandPairs(t *testing.T) {
	l := load(t)
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	pairs := min(10_000, int(files.Cur/2)-100)
	if testing.Short() {
		pairs = min(pairs, 1000)
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conns := make([]*net.TCPConn, 0, 2*pairs)
	closeAll := sync.OnceFunc(func() {
		for _, c := range conns {
			c.SetLinger(0)
			c.Close()
		}
	})
	defer closeAll()
	for range pairs {
		a, err := net.Dial("tcp4", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, a.(*net.TCPConn))
		b, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, b.(*net.TCPConn))
	}
	// In parts, so that a pause of this machine does not count for all.
	times := make([]time.Duration, 10)
	for part := range times {
		start := time.Now()
		for i := pairs * part / 10; i < pairs*(part+1)/10; i++ {
			if _, err := l.Pair(conns[2*i], conns[2*i+1]); err != nil {
				t.Fatal(err)
			}
		}
		times[part] = time.Since(start) / time.Duration(pairs/10)
	}
	t.Logf("%d pairs, time of a join by tenths: %v", pairs, times)
	// A virtual machine without acceleration needs more than a millisecond from
	// the first one on.
	if last := min(times[8], times[9]); last > max(time.Millisecond, 3*times[0]) {
		t.Errorf("a join took %v with %d pairs there", last, pairs)
	}
	start := time.Now()
	list, err := l.List()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("listed in %v", time.Since(start))
	if len(list) != pairs {
		t.Errorf("%d pairs listed, of %d", len(list), pairs)
	}
	closeAll()
	eventually(t, func() error { return empty(l) })
}

// Two network namespaces with a wire between them, as containers have.
func TestBetweenNamespaces(t *testing.T) {
	l := load(t)
	client, node := acrossNamespaces(t)
	if _, err := l.Pair(client, node); err != nil {
		t.Fatal(err)
	}
	exchange(t, client, node, writers[0], readers[0], shape{10_000, true}, 3, 8<<20)
	if c := counts(t, l, client); c.ShortBytes == 0 {
		t.Errorf("%+v", c)
	}
	if a, b := way(t, l, client).Namespace, way(t, l, node).Namespace; a == b {
		t.Errorf("both sockets are listed in namespace %d", a)
	}
}

// kill -9 of the process that loaded, and of an end.
func TestPairsOutliveTheirLoader(t *testing.T) {
	skipOldKernel(t)
	pins := pinDirectory(t)
	client, node := connect(t, "tcp4")
	c := startChild(t, "load and pair", pins, client, node)
	c.kill(t)

	for range 1000 {
		write(t, client, []byte("hello"))
		expect(t, node, []byte("hello"))
	}
	l := load(t, func(o *loader.Options) { o.Pins = pins })
	list, err := l.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%d pairs listed after a restart, error %v", len(list), err)
	}
	if list[0].Kind != loader.Direct || len(list[0].Ways) != 2 || !list[0].Ways[0].Open {
		t.Errorf("%+v", list[0])
	}
	if c := counts(t, l, client); c.ShortMessages != 1000 || c.LongMessages != 0 {
		t.Errorf("%+v", c)
	}
	pair, err := l.Pair(client, node) // what is paired already
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Disable(); err != nil {
		t.Fatal(err)
	}
	write(t, client, []byte("long"))
	expect(t, node, []byte("long"))
	if c := counts(t, l, client); c.Long.Gone != 1 {
		t.Errorf("%+v", c)
	}
}

func TestKilledEndIsSeenByTheOther(t *testing.T) {
	l := load(t)
	client, node := connect(t, "tcp4")
	if _, err := l.Pair(client, node); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, "hold", "", node)
	node.Close() // the child's is the only one now
	write(t, client, []byte("short and never read"))
	c.kill(t)
	client.SetReadDeadline(time.Now().Add(patience))
	if n, err := client.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the other end was killed: %d bytes, error %v", n, err)
	}
	client.Close()
	eventually(t, func() error { return empty(l) })
}

// Another version's pins give way, all at once, and its pairs go on.
func TestPinsOfAnotherVersionAreReplaced(t *testing.T) {
	pins := pinDirectory(t)
	client, node := connect(t, "tcp4")
	old := load(t, func(o *loader.Options) { o.Pins = pins })
	if _, err := old.Pair(client, node); err != nil {
		t.Fatal(err)
	}
	// A version with a program less is another version.
	if err := os.Remove(pins + "/describe"); err != nil {
		t.Fatal(err)
	}
	l := load(t, func(o *loader.Options) { o.Pins = pins })
	if err := empty(l); err != nil {
		t.Error(err)
	}
	if _, err := l.Pair(client, node); !errors.Is(err, loader.ErrBusy) {
		t.Errorf("pairing what another version has paired: %v", err)
	}
	write(t, client, []byte("short"))
	expect(t, node, []byte("short"))
	if c := counts(t, old, client); c.ShortMessages != 1 {
		t.Errorf("%+v", c)
	}
	left, err := filepath.Glob(pins + "-*")
	if err != nil || len(left) != 0 {
		t.Errorf("beside the pins: %v, error %v", left, err)
	}
	info, err := os.Stat(pins + "/senders")
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, error %v", info, err)
	}
}

func TestPinsNeedABPFFS(t *testing.T) {
	_, err := loader.Load(loader.Options{Pins: t.TempDir() + "/pins"})
	if !errors.Is(err, loader.ErrNotSupported) || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("error %v", err)
	}
}

// A kernel before 6.1 is refused, by an error that names it and says which to use;
// any other is taken.
func TestOldKernelsAreRefused(t *testing.T) {
	l, err := loader.Load(loader.Options{})
	if err == nil {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if !kernelBefore(6, 1) {
		if err != nil {
			t.Error(err)
		}
		return
	}
	var unsupported *loader.UnsupportedError
	if !errors.As(err, &unsupported) || !errors.Is(err, loader.ErrNotSupported) {
		t.Fatalf("error %v, want an UnsupportedError", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{unix.ByteSliceToString(name.Release[:]), "Linux 6.1 or later"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
}

// Exactly the capabilities that the documentation names, and each one missing.
func TestCapabilities(t *testing.T) {
	all := []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}
	t.Run("all", func(t *testing.T) {
		skipOldKernel(t)
		if out := startChild(t, "load", strings.Join(all, ",")).finish(t); out != "ok" {
			t.Errorf("with %v: %s", all, out)
		}
	})
	for i, missing := range all {
		t.Run("without "+missing, func(t *testing.T) {
			rest := append(append([]string(nil), all[:i]...), all[i+1:]...)
			out := startChild(t, "load", strings.Join(rest, ",")).finish(t)
			if !strings.Contains(out, "not supported") || !strings.Contains(out, missing+": not held") {
				t.Errorf("with %v: %s", rest, out)
			}
		})
	}
	t.Run("none after the start", func(t *testing.T) {
		skipOldKernel(t)
		if out := startChild(t, "load, drop, pair", strings.Join(all, ",")).finish(t); out != "ok" {
			t.Error(out)
		}
	})
}

// pinDirectory returns where to pin on a bpffs that is the test's own.
func pinDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loader.Unpin(dir + "/oneport"); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir + "/oneport"
}

// process is this binary as another process.
type process struct {
	command *exec.Cmd
	output  *bytes.Buffer
}

// startChild starts a child, gives it sockets as its descriptors from 3 on, and
// waits until it has done what it is for, or has ended.
func startChild(t *testing.T, task, argument string, conns ...*net.TCPConn) *process {
	t.Helper()
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), childVariable+"="+task, argumentVariable+"="+argument)
	for _, c := range conns {
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		command.ExtraFiles = append(command.ExtraFiles, f)
	}
	ready, done, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	command.ExtraFiles = append(command.ExtraFiles, done)
	command.Env = append(command.Env, readyVariable+"="+strconv.Itoa(2+len(command.ExtraFiles)))
	p := &process{command, new(bytes.Buffer)}
	command.Stdout, command.Stderr = p.output, p.output
	err = command.Start()
	done.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if command.ProcessState == nil {
			command.Process.Kill()
			command.Wait()
		}
	})
	ready.SetReadDeadline(time.Now().Add(patience))
	if n, err := ready.Read(make([]byte, 1)); n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the other process is not ready")
	}
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if p.command.Wait(); p.output.Len() != 0 {
		t.Fatalf("the other process says %s", p.output)
	}
}

func (p *process) finish(t *testing.T) string {
	t.Helper()
	p.command.Wait()
	return strings.TrimSpace(p.output.String())
}
