package loader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/loader"
)

// Each condition of the rule, violated on purpose: the message goes the long way
// for that reason, and arrives all the same.

func TestQuietPairGoesShort(t *testing.T) {
	for _, cast := range []string{"with cast", "without cast"} {
		t.Run(cast, func(t *testing.T) {
			l := load(t, func(o *loader.Options) { o.WithoutCast = cast == "without cast" })
			for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
				for _, network := range []string{"tcp4", "tcp6", "mapped"} {
					t.Run(fmt.Sprint(kind, " ", network), func(t *testing.T) {
						j := join(t, l, kind, network, 0)
						for i := range 100 {
							message := fmt.Appendf(nil, "message %d", i)
							write(t, j.node, message)
							expect(t, j.client, message)
							write(t, j.client, message)
							expect(t, j.node, message)
						}
						if c := counts(t, l, j.node); c.ShortMessages != 100 || c.LongMessages != 0 {
							t.Errorf("node's messages: %+v", c)
						}
						if kind == loader.Outward {
							return // the client is elsewhere
						}
						if c := counts(t, l, j.client); c.ShortMessages != 100 || c.LongMessages != 0 {
							t.Errorf("client's messages: %+v", c)
						}
					})
				}
			}
		})
	}
}

func TestYoungPairGoesLong(t *testing.T) {
	l := load(t, func(o *loader.Options) { o.Settle = time.Hour })
	j := join(t, l, loader.Direct, "tcp4", 0)
	write(t, j.client, []byte("hello"))
	expect(t, j.node, []byte("hello"))
	if c := counts(t, l, j.client); c.Long.Settling != 1 || c.ShortMessages != 0 {
		t.Errorf("%+v", c)
	}
}

func TestBusyOrFullReaderIsReachedTheLongWay(t *testing.T) {
	l := load(t, limit(1000))
	j := join(t, l, loader.Direct, "tcp4", 0)
	write(t, j.client, bytes.Repeat([]byte("1"), 900)) // short
	write(t, j.client, bytes.Repeat([]byte("2"), 200)) // would be 1100
	write(t, j.client, bytes.Repeat([]byte("3"), 50))  // would fit, and overtake
	c := counts(t, l, j.client)
	if c.ShortBytes != 900 || c.LongBytes != 250 || c.Long.Full != 1 || c.Long.Busy != 1 {
		t.Errorf("%+v", c)
	}
	expect(t, j.node, bytes.Repeat([]byte("1"), 900))
	expect(t, j.node, bytes.Repeat([]byte("2"), 200))
	expect(t, j.node, bytes.Repeat([]byte("3"), 50))
	write(t, j.client, bytes.Repeat([]byte("4"), 5000)) // an empty reader takes any one message
	expect(t, j.node, bytes.Repeat([]byte("4"), 5000))
	if c := counts(t, l, j.client); c.ShortBytes != 5900 {
		t.Errorf("%+v", c)
	}
}

// A receive buffer that its owner has set does not grow, and a full window fills
// it. More than a few bytes beside that would make TCP drop what it has offered a
// window for.
func TestOwnersBufferIsNotOverfilled(t *testing.T) {
	l := load(t)
	client, node := connectBuffered(t, "tcp4", 64<<10)
	if _, err := l.Pair(client, node); err != nil {
		t.Fatal(err)
	}
	small := bytes.Repeat([]byte("s"), 500) // TCP charges more for any segment
	large := bytes.Repeat([]byte("l"), 200_000)
	write(t, client, small)
	expect(t, node, small)
	if c := counts(t, l, client); c.ShortMessages != 1 || c.LongMessages != 0 {
		t.Errorf("a message that the buffer holds: %+v", c)
	}
	done := make(chan error, 1)
	go func() {
		_, err := client.Write(large)
		done <- err
	}()
	expect(t, node, large)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c := counts(t, l, client); c.ShortMessages != 1 || c.Long.Full == 0 {
		t.Errorf("a message that it does not hold: %+v", c)
	}
}

func TestBlockingReaderIsLeftAlone(t *testing.T) {
	l := load(t)
	for _, test := range []struct {
		name      string
		set, undo func(fd int) error
	}{
		{"blocking", func(fd int) error { return unix.SetNonblock(fd, false) }, func(fd int) error { return unix.SetNonblock(fd, true) }},
		{"SO_RCVLOWAT",
			func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 2) },
			func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := join(t, l, loader.Direct, "tcp4", 0)
			onDescriptor(t, j.node, test.set)
			write(t, j.client, []byte("long"))
			onDescriptor(t, j.node, test.undo)
			expect(t, j.node, []byte("long"))
			write(t, j.client, []byte("short"))
			expect(t, j.node, []byte("short"))
			if c := counts(t, l, j.client); c.Long.Blocks != 1 || c.ShortMessages != 1 {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestClosingEndsAreLeftToTCP(t *testing.T) {
	l := load(t)
	t.Run("sender", func(t *testing.T) {
		j := join(t, l, loader.Direct, "tcp4", 0)
		write(t, j.client, []byte("last"))
		if err := j.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := j.client.Write([]byte("too late")); !errors.Is(err, unix.EPIPE) {
			t.Errorf("writing after the end: %v", err)
		}
		if c := counts(t, l, j.client); c.Long.Closing != 1 || c.ShortMessages != 1 {
			t.Errorf("%+v", c)
		}
		expect(t, j.node, []byte("last"))
		expectEnd(t, j.node)
		write(t, j.node, []byte("answer")) // the other direction goes on
		expect(t, j.client, []byte("answer"))
	})
	t.Run("receiver", func(t *testing.T) {
		j := join(t, l, loader.Direct, "tcp4", 0)
		if err := j.node.CloseRead(); err != nil {
			t.Fatal(err)
		}
		write(t, j.client, []byte("unheard"))
		if c := counts(t, l, j.client); c.Long.Closing != 1 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("client elsewhere", func(t *testing.T) {
		client, c := connect(t, "tcp4")
		n, node := connect(t, "tcp4")
		if _, err := l.PairOutward(node, loader.Relay{Client: c, Node: n}); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		write(t, node, []byte("long"))
		expect(t, n, []byte("long"))
		expectEnd(t, client)
		if c := counts(t, l, node); c.Long.Closing != 1 {
			t.Errorf("%+v", c)
		}
	})
}

func TestClosedTargetIsGone(t *testing.T) {
	l := load(t)
	j := join(t, l, loader.Direct, "tcp4", 0)
	// Shut without a word to the other end: only the map can tell.
	onDescriptor(t, j.node, func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
	if err := j.pair.Disable(); err != nil {
		t.Fatal(err)
	}
	write(t, j.client, []byte("long"))
	expect(t, j.node, []byte("long"))
	if c := counts(t, l, j.client); c.Long.Gone != 1 {
		t.Errorf("%+v", c)
	}
	j.node.Close()
	eventually(t, func() error {
		if _, err := j.client.Write([]byte("x")); err == nil {
			return errors.New("still writing to nobody")
		}
		return nil
	})
}

// What has taken the long way to the relay must be written to the client before
// the node's next message may go past it.
func TestOutwardWaitsForTheRelay(t *testing.T) {
	l := load(t)
	client, c := connect(t, "tcp4")
	n, node := connect(t, "tcp4")
	// The node has said something already, and the relay has taken a part.
	write(t, node, []byte("first second "))
	expect(t, n, []byte("first "))
	pair, err := l.PairOutward(node, loader.Relay{Client: c, Node: n, ToClient: 6})
	if err != nil {
		t.Fatal(err)
	}
	write(t, node, []byte("third "))
	if counts := counts(t, l, node); counts.Long.Busy != 1 {
		t.Errorf("%+v", counts)
	}
	write(t, c, []byte("first "))
	expect(t, n, []byte("second third "))
	write(t, c, []byte("second third "))
	write(t, node, []byte("fourth"))
	expect(t, client, []byte("first second third fourth"))
	if counts := counts(t, l, node); counts.Long.Busy != 1 || counts.ShortMessages != 1 {
		t.Errorf("%+v", counts)
	}

	// A pair that was taken out comes back while the relay has something.
	if err := pair.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, node, []byte("five "))
	eventually(t, func() error {
		_, err := l.PairOutward(node, loader.Relay{Client: c, Node: n})
		return err
	})
	write(t, node, []byte("six "))
	expect(t, n, []byte("five six "))
	write(t, c, []byte("five six "))
	write(t, node, []byte("seven"))
	expect(t, client, []byte("five six seven"))
	if counts := counts(t, l, node); counts.ShortMessages != 2 || counts.Long.Busy != 2 {
		t.Errorf("%+v", counts)
	}
}

func TestOutwardLeavesAFullClientToTheRelay(t *testing.T) {
	l := load(t)
	client, c := connectBuffered(t, "tcp4", 16<<10)
	n, node := connect(t, "tcp4")
	if _, err := l.PairOutward(node, loader.Relay{Client: c, Node: n}); err != nil {
		t.Fatal(err)
	}
	var sent []byte
	for counts(t, l, node).Long.Full == 0 {
		message := at(int64(len(sent)), 1000)
		write(t, node, message)
		sent = append(sent, message...)
		if len(sent) > 16<<20 {
			t.Fatal("a client that does not read takes everything")
		}
	}
	short := int(counts(t, l, node).ShortBytes)
	expect(t, client, sent[:short])
	expect(t, n, sent[short:])
}

// A relay that has read a little too much before it starts says so.
func TestThroughCountsWhatTheRelayHolds(t *testing.T) {
	l := load(t)
	client, c := connect(t, "tcp4")
	n, node := connect(t, "tcp4")
	write(t, client, []byte("header, prefix, "))
	expect(t, c, []byte("header, "))
	expect(t, c, []byte("prefix, "))
	if _, err := l.PairThrough(client, node, loader.Relay{Client: c, Node: n, ToNode: uint32(len("prefix, "))}); err != nil {
		t.Fatal(err)
	}
	write(t, client, []byte("busy, "))
	write(t, n, []byte("prefix, "))
	expect(t, c, []byte("busy, "))
	expect(t, node, []byte("prefix, "))
	write(t, client, []byte("busy still, "))
	expect(t, c, []byte("busy still, "))
	write(t, n, []byte("busy, busy still, "))
	expect(t, node, []byte("busy, busy still, "))
	write(t, client, []byte("short"))
	expect(t, node, []byte("short"))
	if counts := counts(t, l, client); counts.Long.Busy != 2 || counts.ShortMessages != 1 {
		t.Errorf("%+v", counts)
	}
}

// Sequence numbers wrap at 4 GiB. These are about to.
func TestSequenceNumbersWrap(t *testing.T) {
	l := load(t, limit(500))
	const nearly = 1<<32 - 600
	client, node := craft(t, nearly, nearly+100)
	if _, err := l.Pair(client, node); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, ends := range [][2]*net.TCPConn{{client, node}, {node, client}} {
			message := bytes.Repeat([]byte("x"), 400)
			write(t, ends[0], message) // short
			write(t, ends[0], message) // long
			expect(t, ends[1], append(message, message...))
		}
	}
	for _, conn := range []*net.TCPConn{client, node} {
		if c := counts(t, l, conn); c.ShortMessages != 3 || c.Long.Full != 3 || c.LongMessages != 3 {
			t.Errorf("%+v", c)
		}
	}
}

func TestUnsuitableSocketsAreRefused(t *testing.T) {
	l := load(t)
	refused := func(name string, want error, pair func(t *testing.T) (*loader.Pair, error)) {
		t.Run(name, func(t *testing.T) {
			_, err := pair(t)
			var unsuitable *loader.UnsuitableError
			if want == nil && !errors.As(err, &unsuitable) || want != nil && !errors.Is(err, want) {
				t.Errorf("error %v", err)
			}
		})
	}
	refused("blocking", nil, func(t *testing.T) (*loader.Pair, error) {
		a, b := connect(t, "tcp4")
		onDescriptor(t, b, func(fd int) error { return unix.SetNonblock(fd, false) })
		defer onDescriptor(t, b, func(fd int) error { return unix.SetNonblock(fd, true) })
		return l.Pair(a, b)
	})
	refused("strangers", loader.ErrNotPeers, func(t *testing.T) (*loader.Pair, error) {
		a, _ := connect(t, "tcp4")
		b, _ := connect(t, "tcp4")
		return l.Pair(a, b)
	})
	refused("itself", loader.ErrNotPeers, func(t *testing.T) (*loader.Pair, error) {
		a, _ := connect(t, "tcp4")
		return l.Pair(a, a)
	})
	refused("half closed", nil, func(t *testing.T) (*loader.Pair, error) {
		a, b := connect(t, "tcp4")
		a.CloseWrite()
		return l.Pair(a, b)
	})
	refused("MPTCP", nil, func(t *testing.T) (*loader.Pair, error) {
		var config net.ListenConfig
		config.SetMultipathTCP(true)
		listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		var dialer net.Dialer
		dialer.SetMultipathTCP(true)
		a, err := dialer.Dial("tcp4", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if is, _ := a.(*net.TCPConn).MultipathTCP(); !is {
			t.Skip("needs Linux 5.6: MPTCP, which this one may be built without")
		}
		return l.Pair(a.(*net.TCPConn), b.(*net.TCPConn))
	})
	protocols, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_ulp")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(protocols), "tls") { // compiled in, or its module is loaded
		refused("TLS in the kernel", nil, func(t *testing.T) (*loader.Pair, error) {
			a, b := connect(t, "tcp4")
			onDescriptor(t, a, func(fd int) error { return unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_ULP, "tls") })
			return l.Pair(a, b)
		})
	}
	refused("unix", nil, func(t *testing.T) (*loader.Pair, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		a, b := file(fds[0]), file(fds[1])
		defer a.Close()
		defer b.Close()
		return l.Pair(a, b)
	})
	refused("in the map of another loader", loader.ErrBusy, func(t *testing.T) (*loader.Pair, error) {
		a, b := connect(t, "tcp4")
		if _, err := load(t).Pair(a, b); err != nil {
			t.Fatal(err)
		}
		return l.Pair(a, b)
	})
}

func TestSendersBlockEarly(t *testing.T) {
	l := load(t)
	client, node := connect(t, "tcp4")
	const own = 70_000
	onDescriptor(t, node, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, own)
	})
	if _, err := l.Pair(client, node); err != nil {
		t.Fatal(err)
	}
	for conn, want := range map[*net.TCPConn]int{client: 128 << 10, node: own} {
		onDescriptor(t, conn, func(fd int) error {
			got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
			if got != want {
				t.Errorf("%d unsent bytes allowed, not %d", got, want)
			}
			return err
		})
	}
}

func TestPairingTwiceChangesNothing(t *testing.T) {
	l := load(t)
	j := join(t, l, loader.Direct, "tcp4", 0)
	write(t, j.client, []byte("one "))
	if _, err := l.Pair(j.node, j.client); err != nil {
		t.Fatal(err)
	}
	write(t, j.client, []byte("two"))
	expect(t, j.node, []byte("one two"))
	if c := counts(t, l, j.client); c.ShortMessages != 2 {
		t.Errorf("%+v", c)
	}
}

// Remove waits for the reader, and a pair that cannot be drained stays whole.
func TestRemoveWaitsForTheReader(t *testing.T) {
	l := load(t)
	j := join(t, l, loader.Direct, "tcp4", 0)
	write(t, j.client, []byte("unread"))
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if err := j.pair.Remove(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("removing with unread bytes: %v", err)
	}
	expect(t, j.node, []byte("unread"))
	if err := j.pair.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := counts(t, l, j.client)
	write(t, j.client, []byte("plain TCP"))
	expect(t, j.node, []byte("plain TCP"))
	if after := counts(t, l, j.client); after != before {
		t.Errorf("the program still sees messages: %+v, %+v", before, after)
	}
	eventually(t, func() error { // the kernel takes a moment to let go of a socket
		_, err := l.Pair(j.client, j.node)
		return err
	})
	write(t, j.client, []byte("back"))
	expect(t, j.node, []byte("back"))
	if after := counts(t, l, j.client); after.ShortMessages != before.ShortMessages+1 {
		t.Errorf("%+v", after)
	}
}
