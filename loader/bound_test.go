package loader_test

import (
	"bufio"
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

	"oneport/loader"
)

// A reader that sleeps bounds what is accepted for it, and what it costs the
// host, nearly as with plain TCP: at most twice as much, and the limit.
func TestSleepingReaderBoundsItsWriter(t *testing.T) {
	l := load(t)
	pairs, sleep := min(100, 10*scale(t)), 5*time.Second
	if scale(t) == 1 {
		sleep = time.Second
	}
	for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
		t.Run(kind.String(), func(t *testing.T) {
			without := writeToSleepers(t, nil, kind, pairs, sleep)
			with := writeToSleepers(t, l, kind, pairs, sleep)
			t.Logf("%d connections without pairs: %v", pairs, without)
			t.Logf("%d connections with pairs: %v", pairs, with)
			more := int64(pairs * (loader.DefaultLimit + len(sleepersMessage())))
			if with.accepted > 2*without.accepted+more {
				t.Error("too much is accepted")
			}
			if with.charged > 2*without.charged+more {
				t.Error("too much is charged to the readers")
			}
			// Fewer connections would be lost in what the host does beside.
			const beside = 256 << 20
			if pairs == 100 && with.used > 2*max(without.used, without.accepted)+more+beside {
				t.Error("too much memory is used")
			}
		})
	}
}

// usage is what connections took whose readers sleep, in bytes.
type usage struct {
	accepted int64 // by the writers' sockets
	charged  int64 // to the readers' sockets
	used     int64 // of the host's memory; other programs count too
}

func (u usage) String() string {
	return fmt.Sprintf("%d KB accepted, %d KB charged, %d KB of the host's memory", u.accepted>>10, u.charged>>10, u.used>>10)
}

func sleepersMessage() []byte { return pattern()[:64<<10] }

// writeToSleepers offers a GB to each of some readers that sleep, who then read all
// that was accepted. The connections are paired if l is not nil.
func writeToSleepers(t *testing.T, l *loader.Loader, kind loader.Kind, count int, sleep time.Duration) (u usage) {
	t.Helper()
	const offered = 1 << 30
	connections := make([]arrangement, count)
	for i := range connections {
		connections[i] = arrange(t, kind, "tcp4", 0)
		if l != nil {
			if _, err := connections[i].make(l); err != nil {
				t.Fatal(err)
			}
		}
		connections[i].start()
	}
	before := memAvailable(t)
	deadline := time.Now().Add(sleep)
	accepted := make([]int64, count)
	var writers sync.WaitGroup
	for i, c := range connections {
		c.node.SetWriteDeadline(deadline)
		writers.Go(func() {
			for accepted[i] < offered {
				n, err := c.node.Write(sleepersMessage())
				accepted[i] += int64(n)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			t.Errorf("all of %d bytes accepted", offered)
		})
	}
	writers.Wait()
	u.used = before - memAvailable(t)
	for i, c := range connections {
		u.accepted += accepted[i]
		onDescriptor(t, c.client, func(fd int) error {
			// SK_MEMINFO_RMEM_ALLOC is the first of nine numbers.
			charged, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO)
			u.charged += int64(charged)
			return err
		})
	}
	// TCP of a hundred sleepers runs short of memory, with pairs or without. A
	// window that was closed for that opens with the sender's next probe only,
	// and the probes have become rare.
	const rare = 4 * time.Minute
	var readers sync.WaitGroup
	for i, c := range connections {
		c.client.SetReadDeadline(time.Now().Add(rare))
		readers.Go(func() {
			if n, err := io.CopyN(io.Discard, onlyReader{c.client}, accepted[i]); err != nil {
				t.Errorf("%d bytes read of %d accepted: %v", n, accepted[i], err)
			}
			c.client.Close()
			c.node.Close()
		})
	}
	readers.Wait()
	return u
}

// onlyReader keeps io.Copy from splice(2), which cannot read what came short.
type onlyReader struct{ io.Reader }

func memAvailable(t testing.TB) int64 {
	t.Helper()
	return field(t, "/proc/meminfo", "MemAvailable:", "MemAvailable:") << 10
}

// tcpPages is the memory of all of TCP on this host.
func tcpPages(t testing.TB) int64 {
	t.Helper()
	return field(t, "/proc/net/sockstat", "TCP:", "mem")
}

// field returns the number behind name in the line that begins with begin.
func field(t testing.TB, path, begin, name string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if _, rest, ok := strings.Cut(lines.Text(), name+" "); ok && strings.HasPrefix(lines.Text(), begin) {
			var n int64
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %s", name, path)
	return 0
}

// Many pairs, each of a few messages, some closed with bytes unread: nothing of
// them is left, neither in the maps nor in the memory of TCP.
//
//	ONEPORT_SCALE=400 go test -run ShortLives ./loader
//
// makes a hundred thousand.
func TestShortLivesLeaveNothing(t *testing.T) {
	l := load(t)
	destroyed := inspectDestroyed(t)
	pairs := 250 * scale(t)
	before := tcpPages(t)
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	large := pattern()[:100_000]
	for i := range pairs {
		a, err := net.DialTimeout("tcp4", listener.Addr().String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		b, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client, node := a.(*net.TCPConn), b.(*net.TCPConn)
		if _, err := l.Pair(client, node); err != nil {
			t.Fatal(err)
		}
		write(t, client, []byte("hello"))
		expect(t, node, []byte("hello"))
		switch i % 4 {
		case 0: // unread, the short way
			write(t, client, large)
		case 1: // unread, both ways
			write(t, node, large)
			write(t, client, large)
		case 2: // read in part
			write(t, client, large)
			expect(t, node, large[:30_000])
		}
		client.SetLinger(0) // no TIME_WAIT
		if i%8 < 4 {
			node.Close()
			client.Close()
		} else {
			client.Close()
			node.Close()
		}
		if i%1000 == 999 { // let others have the processor
			time.Sleep(100 * time.Millisecond)
		}
	}
	eventually(t, func() error { return empty(l) })
	eventually(t, func() error {
		// What others of this host do with TCP in the meantime is far less
		// than a page for each pair.
		if more := tcpPages(t) - before; more > int64(max(pairs/10, 1000)) {
			return fmt.Errorf("%d pages more of TCP memory", more)
		}
		return nil
	})
	destroyed.check(t, int64(2*pairs))
}

// Under pressure of TCP's memory the short way is not taken, and nothing fails
// that does not fail without a pair. The thresholds are one kernel's, not one
// test's: it changes them only where it is told that it may.
//
//	ONEPORT_OWN_KERNEL=1 go test -run Pressure ./loader
func TestPressureClosesTheShortWay(t *testing.T) {
	if os.Getenv("ONEPORT_OWN_KERNEL") == "" {
		t.Skip("changes the host's tcp_mem; set ONEPORT_OWN_KERNEL=1 in a machine of its own")
	}
	l := load(t)
	path := filepath.Join("/proc/sys/net/ipv4", "tcp_mem")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
	// The kernel counts by processor, to a megabyte each: more than that is held
	// here, far from the most there may be.
	for range 8 {
		client, node := connect(t, "tcp4")
		client.SetReadBuffer(1 << 20) // and nobody reads
		node.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := node.Write(make([]byte, 16<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("16 MB to one who does not read: %v", err)
		}
	}
	for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
		t.Run(kind.String(), func(t *testing.T) {
			if err := os.WriteFile(path, old, 0); err != nil {
				t.Fatal(err)
			}
			j := join(t, l, kind, "tcp4", 0)
			if err := os.WriteFile(path, []byte("4 8 1000000"), 0); err != nil {
				t.Fatal(err)
			}
			exchange(t, j.client, j.node, writers[0], readers[0], shape{10_000, true}, 11, 4<<20)
			if c := counts(t, l, j.node); c.Long.Pressure == 0 {
				t.Errorf("%+v", c)
			}
		})
	}

	// Who starts then is not told to use another kernel.
	if err := os.WriteFile(path, []byte("4 8 1000000"), 0); err != nil {
		t.Fatal(err)
	}
	var scarce *loader.UnsupportedError
	if _, err := loader.Load(loader.Options{}); !errors.As(err, &scarce) || !strings.Contains(scarce.What, "scarce") || scarce.Remedy == "" {
		t.Errorf("loading: %v", err)
	}
}
