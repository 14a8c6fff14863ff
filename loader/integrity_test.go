package loader_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/loader"
)

// A writer sends the stream from offset on, some of it, and returns how much.
type writer struct {
	name  string
	write func(conn *net.TCPConn, offset int64, size int) (int64, error)
}

var writers = []writer{
	{"write", func(conn *net.TCPConn, offset int64, size int) (int64, error) {
		n, err := conn.Write(at(offset, size))
		return int64(n), err
	}},
	{"writev", func(conn *net.TCPConn, offset int64, size int) (int64, error) {
		b := at(offset, size)
		cut := len(b) / 3
		v := net.Buffers{b[:cut], b[cut : 2*cut], b[2*cut:]}
		return v.WriteTo(conn)
	}},
	{"sendfile", func(conn *net.TCPConn, offset int64, size int) (int64, error) {
		b := at(offset, size)
		f, err := memoryFile(b)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return conn.ReadFrom(io.LimitReader(f, int64(len(b))))
	}},
	{"splice", func(conn *net.TCPConn, offset int64, size int) (int64, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		from, to := file(fds[0]), file(fds[1])
		defer from.Close()
		source, err := net.FileConn(to)
		to.Close()
		if err != nil {
			return 0, err
		}
		defer source.Close()
		b := at(offset, size)
		var fill sync.WaitGroup
		defer fill.Wait()
		fill.Go(func() { from.Write(b) })
		return conn.ReadFrom(io.LimitReader(source, int64(len(b))))
	}},
	{"MSG_MORE", func(conn *net.TCPConn, offset int64, size int) (total int64, err error) {
		b := at(offset, size)
		raw, err := conn.SyscallConn()
		if err != nil {
			return 0, err
		}
		for len(b) > 0 {
			part, flags := b[:min(len(b), 1+size/4)], unix.MSG_MORE
			if len(part) == len(b) {
				flags = 0
			}
			var n int
			var failed error
			err := raw.Write(func(fd uintptr) bool {
				n, failed = unix.SendmsgN(int(fd), part, nil, nil, flags)
				return failed != unix.EAGAIN
			})
			if err := errors.Join(err, failed); err != nil {
				return total, err
			}
			b = b[n:]
			total += int64(n)
		}
		return total, nil
	}},
}

// memoryFile returns a file that holds b, to be read from its beginning.
func memoryFile(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("stream", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "stream")
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// A reader reads some bytes.
type reader struct {
	name string
	read func(conn *net.TCPConn, buffer []byte) (int, error)
}

var readers = []reader{
	// Go waits edge-triggered, and reads until EAGAIN before it waits.
	{"edge", func(conn *net.TCPConn, buffer []byte) (int, error) { return conn.Read(buffer) }},
	{"level", func(conn *net.TCPConn, buffer []byte) (n int, err error) {
		return receive(conn, buffer, 0)
	}},
	{"MSG_PEEK", func(conn *net.TCPConn, buffer []byte) (int, error) {
		peeked := make([]byte, len(buffer))
		n, err := receive(conn, peeked, unix.MSG_PEEK)
		if err != nil || n == 0 {
			return n, err
		}
		got, err := receive(conn, buffer[:n], 0)
		if !bytes.Equal(buffer[:got], peeked[:got]) {
			return 0, errors.New("peeked bytes are not those that are read")
		}
		return got, err
	}},
}

// receive waits by poll(2), level-triggered, and calls recv(2) once.
func receive(conn *net.TCPConn, buffer []byte, flags int) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	deadline := time.Now().Add(patience)
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, failed = unix.Poll(p, int(patience.Milliseconds())); failed == unix.EINTR {
				continue
			}
			if failed == nil && p[0].Revents == 0 {
				failed = os.ErrDeadlineExceeded
			}
			if failed != nil {
				return
			}
			n, _, failed = unix.Recvfrom(int(fd), buffer, flags)
			if failed != unix.EAGAIN && failed != unix.EINTR || time.Now().After(deadline) {
				return
			}
		}
	})
	return max(n, 0), errors.Join(err, failed)
}

// shape is how a stream is cut into messages.
type shape struct {
	largest int
	pauses  bool
}

var shapes = []shape{{100, true}, {10_000, true}, {1 << 20, false}, {64 << 10, true}}

// send sends size bytes of the stream, and its end.
func send(conn *net.TCPConn, w writer, s shape, seed uint64, size int64) error {
	random := rand.New(rand.NewPCG(seed, 1))
	for offset := int64(0); offset < size; {
		conn.SetWriteDeadline(time.Now().Add(patience))
		n := int(min(size-offset, 1+random.Int64N(int64(s.largest))))
		sent, err := w.write(conn, offset, n)
		if err != nil {
			return fmt.Errorf("%s, after %d bytes: %w", w.name, offset, err)
		}
		offset += sent
		if s.pauses && random.IntN(200) == 0 {
			time.Sleep(time.Duration(random.IntN(500)) * time.Microsecond)
		}
	}
	return conn.CloseWrite()
}

// take reads size bytes of the stream, which must be right, and its end.
func take(conn *net.TCPConn, r reader, s shape, seed uint64, size int64) error {
	random := rand.New(rand.NewPCG(seed, 2))
	buffer := make([]byte, max(2*s.largest, 64<<10))
	for offset := int64(0); ; {
		conn.SetReadDeadline(time.Now().Add(patience))
		n, err := r.read(conn, buffer[:1+random.IntN(len(buffer))])
		if n == 0 && offset == size && (err == nil || err == io.EOF) {
			return nil
		}
		if err != nil || n == 0 {
			return fmt.Errorf("%s, after %d bytes of %d: %w", r.name, offset, size, err)
		}
		for got := buffer[:n]; len(got) > 0; {
			want := at(offset, len(got))
			if !bytes.Equal(got[:len(want)], want) {
				return fmt.Errorf("%s: wrong bytes after %d of %d", r.name, offset, size)
			}
			got = got[len(want):]
			offset += int64(len(want))
		}
		if s.pauses && random.IntN(200) == 0 {
			time.Sleep(time.Duration(random.IntN(500)) * time.Microsecond)
		}
	}
}

// exchange sends size bytes each way at once and checks every one.
func exchange(t testing.TB, a, b *net.TCPConn, w writer, r reader, s shape, seed uint64, size int64) {
	t.Helper()
	var all sync.WaitGroup
	for i, ends := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		seed := seed + uint64(i)*1000
		all.Go(func() {
			if err := send(ends[0], w, s, seed, size); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := take(ends[1], r, s, seed, size); err != nil {
				t.Error(err)
				// Whoever sends must not wait for this reader.
				a.Close()
				b.Close()
			}
		})
	}
	all.Wait()
}

func TestStreamsArriveWhole(t *testing.T) {
	l := load(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	size := heavy(t, 1<<20)
	turn := 0
	var short, long uint64
	for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
		for _, buffer := range []int{0, 16 << 10, 64 << 10} {
			for _, w := range writers {
				for i, r := range readers {
					turn++
					if scale(t) == 1 && (turn+turn/len(readers))%len(readers) != i {
						continue // one reader for each writer is a minute's run
					}
					shape := shapes[turn%len(shapes)]
					size := size
					if shape.largest <= 100 {
						size /= 16 // as many messages, not as many bytes
					}
					if buffer == 16<<10 {
						// With two windows of such a buffer to a segment, TCP itself, without a
						// pair as well, falls into sending one every 200 ms after some 100 MB.
						size = min(size, 16<<20)
					}
					name := fmt.Sprintf("%v/buffer %d/%s/%s/up to %d", kind, buffer, w.name, r.name, shape.largest)
					t.Run(name, func(t *testing.T) {
						network := []string{"tcp4", "tcp6"}[turn%2]
						j := join(t, l, kind, network, buffer)
						list, err := l.List()
						if err != nil || len(list) == 0 {
							t.Fatalf("%d pairs listed, error %v", len(list), err)
						}
						exchange(t, j.client, j.node, w, r, shape, seed+uint64(turn), size)
						c := counts(t, l, j.node)
						short += c.ShortBytes
						long += c.LongBytes
					})
				}
			}
		}
	}
	t.Logf("of the nodes' bytes %d went the short way and %d the long way", short, long)
	if short == 0 || long == 0 {
		t.Error("one of the two ways was not tested")
	}
}

// Pairs come and go while streams run over them.
func TestPairsComeAndGoUnderTraffic(t *testing.T) {
	l := load(t)
	for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
		t.Run(kind.String(), func(t *testing.T) {
			a := arrange(t, kind, "tcp4", 0)
			// The relation between a relay's two ends is taken before it runs.
			pair, err := a.make(l)
			if err != nil {
				t.Fatal(err)
			}
			a.start()
			// Not less under -short: under load the long way is hardly ever empty,
			// and a short stream may end before it was.
			size := int64(16<<20) * int64(scale(t))
			done := make(chan struct{})
			go func() {
				defer close(done)
				exchange(t, a.client, a.node, writers[0], readers[0], shape{4000, true}, 7, size)
			}()
			cycles := 0
			for running := true; running; {
				if err := pair.Disable(); err != nil {
					t.Error(err)
				}
				var unsuitable *loader.UnsuitableError
				_, err := a.make(l)
				if err != nil && !errors.As(err, &unsuitable) { // at the end of the streams
					t.Error(err)
				}
				if err == nil {
					cycles++
				}
				select {
				case <-done:
					running = false
				case <-time.After(time.Millisecond):
				}
			}
			c := counts(t, l, a.node)
			t.Logf("%d cycles; %d messages short, %d long", cycles, c.ShortMessages, c.LongMessages)
			if cycles == 0 || c.ShortMessages == 0 || c.Long.Gone == 0 {
				t.Errorf("%d cycles, %+v", cycles, c)
			}
		})
	}
}

// A busy connection is paired live, again and again, each time a new one.
func TestLiveInsert(t *testing.T) {
	l := load(t, func(o *loader.Options) { o.Settle = 0 })
	const each = 1 << 20
	for range heavy(t, 20) {
		client, node := connect(t, "tcp4")
		done := make(chan struct{})
		go func() {
			defer close(done)
			exchange(t, client, node, writers[0], readers[0], shape{2000, true}, 1, each)
		}()
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		_, err := l.Pair(client, node)
		var unsuitable *loader.UnsuitableError
		if err != nil && !errors.As(err, &unsuitable) {
			t.Error(err)
		}
		<-done
		client.Close()
		node.Close()
	}
}
