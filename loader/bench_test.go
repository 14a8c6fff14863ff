package loader_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/loader"
	"oneport/relay"
)

// BenchmarkShortcut compares connections with and without a pair, side by side:
// every iteration is a round in which each does the same work, in changing order.
// It reports the medians, and the median of the rounds' ratios of speed (above 1:
// the pair is faster) and of CPU time of the whole process (below 1: cheaper):
//
//	go test -run '^$' -bench BenchmarkShortcut -benchtime 7x ./loader
func BenchmarkShortcut(b *testing.B) {
	loads := []struct {
		name, unit string
		run        func(b *testing.B, client, node *net.TCPConn) float64
	}{
		{"bulk", "MB/s", func(b *testing.B, client, node *net.TCPConn) float64 { return bulk(b, node, client) }},
		{"bulk both ways", "MB/s", func(b *testing.B, client, node *net.TCPConn) float64 {
			start := time.Now()
			var back sync.WaitGroup
			back.Go(func() { bulk(b, client, node) })
			bulk(b, node, client)
			back.Wait()
			return 2 * bulkBytes / 1e6 / time.Since(start).Seconds()
		}},
		{"round trip 64 B", "trips/s", roundTrips},
	}
	for _, kind := range []loader.Kind{loader.Direct, loader.Through, loader.Outward} {
		for _, load := range loads {
			b.Run(kind.String()+"/"+load.name, func(b *testing.B) { compare(b, kind, load.unit, load.run) })
		}
	}
}

func compare(b *testing.B, kind loader.Kind, unit string, run func(*testing.B, *net.TCPConn, *net.TCPConn) float64) {
	l := load(b)
	var speeds, costs [2][]float64 // without, with
	var speed, cost []float64
	var short, long uint64
	for round := range b.N {
		for turn := range 2 {
			with := (turn + round) % 2
			c := benched(b, l, kind, with == 1)
			before := cpu()
			speeds[with] = append(speeds[with], run(b, c.client, c.node))
			costs[with] = append(costs[with], cpu()-before)
			if with == 1 {
				n := counts(b, l, c.node)
				short, long = short+n.ShortBytes, long+n.LongBytes
			}
			c.close()
		}
		speed = append(speed, speeds[1][round]/speeds[0][round])
		cost = append(cost, costs[1][round]/costs[0][round])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(speeds[0]), "without-"+unit)
	b.ReportMetric(median(speeds[1]), "with-"+unit)
	b.ReportMetric(median(speed), "ratio")
	b.ReportMetric(median(cost), "cpu-ratio")
	b.ReportMetric(100*float64(short)/float64(max(short+long, 1)), "short-%")
}

type benchConn struct {
	client, node *net.TCPConn
	close        func()
}

// benched connects, with a relay where the kind has one, and pairs if asked.
func benched(b *testing.B, l *loader.Loader, kind loader.Kind, pair bool) benchConn {
	client, c := connect(b, "tcp4")
	node := c
	var over sync.WaitGroup
	if kind == loader.Direct {
		if pair {
			if _, err := l.Pair(client, node); err != nil {
				b.Fatal(err)
			}
		}
	} else {
		var n *net.TCPConn
		n, node = connect(b, "tcp4")
		if pair {
			r := loader.Relay{Client: c, Node: n}
			var err error
			if kind == loader.Through {
				_, err = l.PairThrough(client, node, r)
			} else {
				_, err = l.PairOutward(node, r)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		over.Go(func() { relay.Join(context.Background(), c, n, relay.Options{}) })
	}
	return benchConn{client, node, func() {
		client.Close()
		node.Close()
		over.Wait()
	}}
}

const bulkBytes = 1 << 30

// bulk sends bulkBytes, of which each block is looked at, and returns MB/s. Both
// ends are threads that read and write their non-blocking descriptors themselves,
// as an Erlang VM does: Go's poller and scheduler would be a part of the figure.
func bulk(b *testing.B, from, to *net.TCPConn) float64 {
	start := time.Now()
	var sender sync.WaitGroup
	defer sender.Wait()
	block := pattern()[:256<<10]
	sender.Go(func() {
		onThread(b, from, func(fd int) error {
			for sent := 0; sent < bulkBytes; {
				n, err := retry(fd, unix.POLLOUT, func() (int, error) { return unix.Write(fd, block[sent%len(block):]) })
				if err != nil {
					return err
				}
				sent += n
			}
			return nil
		})
	})
	got := make([]byte, 256<<10)
	onThread(b, to, func(fd int) error {
		for offset := 0; offset < bulkBytes; {
			n, err := retry(fd, unix.POLLIN, func() (int, error) { return unix.Read(fd, got[:min(len(got), bulkBytes-offset)]) })
			if err != nil {
				return err
			}
			if n == 0 {
				return io.ErrUnexpectedEOF
			}
			place := offset % len(block)
			if first := min(n, 16, len(block)-place); !bytes.Equal(got[:first], block[place:place+first]) {
				return fmt.Errorf("wrong bytes after %d", offset)
			}
			offset += n
		}
		return nil
	})
	return bulkBytes / 1e6 / time.Since(start).Seconds()
}

// onThread runs f with the descriptor of c, on a thread of its own.
func onThread(b *testing.B, c *net.TCPConn, f func(fd int) error) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		raw, err := c.SyscallConn()
		if err == nil {
			if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
				err = e
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// retry calls f until it does not have to wait.
func retry(fd int, event int16, f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EAGAIN && err != unix.EINTR {
			return n, err
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: event}}, int(patience.Milliseconds())); err != nil && err != unix.EINTR {
			return 0, err
		}
	}
}

func roundTrips(b *testing.B, client, node *net.TCPConn) float64 {
	const trips = 20_000
	message := pattern()[:64]
	var echo sync.WaitGroup
	defer echo.Wait()
	echo.Go(func() {
		buffer := make([]byte, len(message))
		for range trips {
			if _, err := io.ReadFull(node, buffer); err != nil {
				b.Error(err)
				return
			}
			if _, err := node.Write(buffer); err != nil {
				b.Error(err)
				return
			}
		}
	})
	start := time.Now()
	answer := make([]byte, len(message))
	for range trips {
		if _, err := client.Write(message); err != nil {
			b.Error(err)
			break
		}
		if _, err := io.ReadFull(client, answer); err != nil || !bytes.Equal(answer, message) {
			b.Errorf("wrong answer, or %v", err)
			break
		}
	}
	return trips / time.Since(start).Seconds()
}

// BenchmarkJoin measures what a pair costs to make.
func BenchmarkJoin(b *testing.B) {
	l := load(b)
	for b.Loop() {
		b.StopTimer()
		client, node := connect(b, "tcp4")
		b.StartTimer()
		if _, err := l.Pair(client, node); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		client.SetLinger(0)
		client.Close()
		node.Close()
		b.StartTimer()
	}
}

// cpu returns the CPU time of this process in seconds.
func cpu() float64 {
	var u unix.Rusage
	// It cannot fail for this process.
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
