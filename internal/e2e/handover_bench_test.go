package e2e

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rounds is how often each benchmark here takes turns between what it compares:
// all of them in one iteration.
//
//	go test -run '^$' -bench Hand -benchtime 1x ./internal/e2e
const rounds = 9

// BenchmarkHandover measures how long a client's request takes to reach the node,
// by handover and by the relay: the way that the daemon takes, and nothing else,
// differs.
//
// read is the time from the client's write(2) of the request, with a byte of the
// handshake behind it, until the node has read that byte: it has received the
// descriptor, answered the offer, and seen the commit, or it has accepted the
// daemon's connection. answer is the time until the client has read the node's
// own first byte. The node is this process, or, for answer only, a real one that
// begins the handshake. ratio is relay by handover, of the medians of a round.
func BenchmarkHandover(b *testing.B) {
	const each = 100 // connections of a kind and round
	kinds := []string{"handover", "relay"}
	b.Run("scripted", func(b *testing.B) {
		w := newWorld(b)
		reads := make(chan time.Time, 1)
		serve := func(c *net.TCPConn) {
			defer c.Close()
			first := make([]byte, 1)
			if _, err := c.Read(first); err != nil {
				b.Error(err)
			}
			reads <- time.Now()
			c.Write(first)
			c.Read(first) // the client's end
		}
		w.taker("handover", serve)
		w.stock("relay", serve)
		var read, answer [2][][]time.Duration
		for range rounds {
			both := [2][2][]time.Duration{}
			for range each {
				for _, k := range rand.Perm(2) {
					c, err := dialTCP(w.addr)
					if err != nil {
						b.Fatal(err)
					}
					begin := time.Now()
					io.WriteString(c, requestFor(kinds[k], "!"))
					if err := expect(c, granted+"!"); err != nil {
						b.Fatal(err)
					}
					both[k][1] = append(both[k][1], time.Since(begin))
					both[k][0] = append(both[k][0], (<-reads).Sub(begin))
					abort(c)
				}
			}
			for k := range kinds {
				read[k], answer[k] = append(read[k], both[k][0]), append(answer[k], both[k][1])
			}
		}
		b.ReportMetric(0, "ns/op")
		reportTimes(b, kinds, "read", read)
		reportTimes(b, kinds, "answer", answer)
	})
	b.Run("real", func(b *testing.B) {
		w := newWorld(b)
		w.erlTaker("handover")
		w.erl("relay", untilEnd...)
		var answer [2][][]time.Duration
		for _, kind := range kinds {
			w.ready(kind)
		}
		for round := range rounds {
			both := [2][]time.Duration{}
			for i := range each {
				for _, k := range rand.Perm(2) {
					took, err := w.shake(kinds[k], fmt.Sprintf("x%d-%d", round, i))
					if err != nil {
						b.Fatal(err)
					}
					both[k] = append(both[k], took)
				}
			}
			for k := range kinds {
				answer[k] = append(answer[k], both[k])
			}
		}
		b.ReportMetric(0, "ns/op")
		reportTimes(b, kinds, "answer", answer)
	})
}

// BenchmarkHandedOver compares a connection that was handed over with a direct
// one that is open beside it: bulk in one direction, and round trips of 64 bytes.
// Both do the same in turns of some 10 ms. ratio is that of the speeds of a round,
// handed over by direct. The scripted nodes have new connections in each round:
// the bulk of two that are made alike can differ by a quarter, and stay so.
func BenchmarkHandedOver(b *testing.B) {
	kinds := []string{"handed", "direct"}
	b.Run("scripted", func(b *testing.B) {
		w := newWorld(b)
		w.taker("b", echoOrCount)
		addr := w.stock("c", echoOrCount)
		connect := []func() *net.TCPConn{
			func() *net.TCPConn { return w.connect("b") },
			func() *net.TCPConn {
				c, err := dialTCP(addr)
				if err != nil {
					b.Fatal(err)
				}
				return c
			},
		}
		b.ReportMetric(0, "ns/op")
		for _, load := range []struct {
			unit   string
			slices int
			amount float64 // of a slice
			run    func(net.Conn) error
		}{{"trips/s", 8, sliceTrips, trips}, {"MB/s", 8, sliceBytes / 1e6, bulk}} {
			var speeds [2][]float64
			for range 3 * rounds {
				var conns [2]*net.TCPConn
				for _, k := range rand.Perm(2) {
					conns[k] = connect[k]()
				}
				var took [2]time.Duration
				for range load.slices {
					for _, k := range rand.Perm(2) {
						begin := time.Now()
						if err := load.run(conns[k]); err != nil {
							b.Fatal(err)
						}
						took[k] += time.Since(begin)
					}
				}
				for k, c := range conns {
					c.Close()
					speeds[k] = append(speeds[k], float64(load.slices)*load.amount/took[k].Seconds())
				}
			}
			reportSpeeds(b, kinds, load.unit, speeds)
		}
	})
	b.Run("real", func(b *testing.B) {
		beams := b.TempDir()
		source := filepath.Join("testdata", "handover_bench.erl")
		if out, err := exec.Command("erlc", "-Wall", "-Werror", "-o", beams, source).CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		w := newWorld(b)
		w.erlTaker("b", "-pa", beams)
		w.erl("c", append([]string{"-pa", beams}, untilEnd...)...)
		w.ready("b")
		w.ready("c")
		output := bufio.NewScanner(w.erl("a", "-pa", beams, "-run", "handover_bench", "main", strconv.Itoa(rounds), "c@127.0.0.1", "b@127.0.0.1"))
		took := map[string][]float64{} // seconds
		ports := map[string]string{}
		for output.Scan() {
			var work, kind string
			var n int64
			if _, err := fmt.Sscan(output.Text(), &work, &kind, &n); err != nil {
				b.Fatalf("node a says %q", output.Text())
			}
			if work == "port" {
				ports[kind] = strconv.FormatInt(n, 10)
			} else {
				took[work+kind] = append(took[work+kind], float64(n)/1e9)
			}
		}
		if _, port, _ := net.SplitHostPort(w.addr); ports["handed"] != port || ports["direct"] == port {
			b.Fatalf("connected to the ports %v, and the door's is %s", ports, port)
		}
		b.ReportMetric(0, "ns/op")
		for _, load := range []struct {
			work, unit string
			amount     float64 // of a round, as handover_bench.erl has it
		}{{"trips", "trips/s", 20 * 200}, {"bulk", "MB/s", 4 * 50}} {
			var both [2][]float64
			for k, kind := range kinds {
				all := took[load.work+kind]
				if len(all) != rounds+1 {
					b.Fatalf("node a did %d rounds", len(all))
				}
				for _, seconds := range all[1:] { // the first is to get warm
					both[k] = append(both[k], load.amount/seconds)
				}
			}
			reportSpeeds(b, kinds, load.unit, both)
		}
	})
}

// BenchmarkHandovers measures how many connections a second reach their nodes,
// from the client's connect(2) to the node's first byte at the client, with 16
// clients at once.
func BenchmarkHandovers(b *testing.B) {
	const clients, slice = 16, 400 * time.Millisecond
	answer := func(c *net.TCPConn) {
		defer c.Close()
		first := make([]byte, 1)
		if _, err := c.Read(first); err == nil {
			c.Write(first)
			c.Read(first)
		}
	}
	for _, nodes := range []int{1, 20} {
		for _, who := range []string{"scripted", "real"} {
			kinds, isReal := []string{"handover", "relay"}, who == "real"
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, who), func(b *testing.B) {
				w := newWorld(b)
				var names [2][]string
				for i := range nodes {
					for k, kind := range kinds {
						names[k] = append(names[k], kind+strconv.Itoa(i))
					}
					if isReal {
						w.erlTaker(names[0][i])
						w.ready(names[0][i])
					} else {
						w.taker(names[0][i], answer)
						w.stock(names[1][i], answer)
					}
				}
				compared := len(kinds)
				if isReal {
					compared = 1 // as many stock nodes more are too much for a small machine
				}
				var asked atomic.Int64
				one := func(name string) error {
					n := asked.Add(1)
					if isReal {
						_, err := w.shake(name, "y"+strconv.FormatInt(n, 10))
						return err
					}
					c, err := dialTCP(w.addr)
					if err != nil {
						return err
					}
					defer abort(c)
					io.WriteString(c, requestFor(name, "!"))
					return expect(c, granted+"!")
				}
				var rates [2][]float64
				for range rounds {
					for _, k := range rand.Perm(compared) {
						var done atomic.Int64
						var running sync.WaitGroup
						begin := time.Now()
						for i := range clients {
							running.Go(func() {
								for j := i; time.Since(begin) < slice; j++ {
									if err := one(names[k][j%nodes]); err != nil {
										b.Error(err)
										return
									}
									done.Add(1)
								}
							})
						}
						running.Wait()
						rates[k] = append(rates[k], float64(done.Load())/time.Since(begin).Seconds())
					}
				}
				b.ReportMetric(0, "ns/op")
				if compared == 2 {
					reportSpeeds(b, kinds, "conns/s", rates)
				} else {
					reportQuartiles(b, "handover-conns/s", rates[0])
				}
			})
		}
	}
}

// What the nodes of BenchmarkHandedOver are asked for, by the first byte.
const (
	sliceTrips = 500
	tripSize   = 64
	sliceBytes = 32 << 20
)

// trips does sliceTrips round trips.
func trips(c net.Conn) error {
	message := make([]byte, tripSize)
	message[0] = 't'
	for range sliceTrips {
		if _, err := c.Write(message); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, message); err != nil {
			return err
		}
	}
	return nil
}

// bulk sends sliceBytes, which the other end says that it has.
func bulk(c net.Conn) error {
	head := make([]byte, tripSize)
	head[0] = 'b'
	if _, err := c.Write(head); err != nil {
		return err
	}
	b := make([]byte, 256<<10)
	for range sliceBytes / len(b) {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(c, head)
	return err
}

// echoOrCount is the other end of trips and bulk.
func echoOrCount(c *net.TCPConn) {
	defer c.Close()
	message, b := make([]byte, tripSize), make([]byte, 256<<10)
	for {
		if _, err := io.ReadFull(c, message); err != nil {
			return
		}
		if message[0] == 'b' {
			for left := sliceBytes; left > 0; {
				n, err := c.Read(b[:min(left, len(b))])
				if err != nil {
					return
				}
				left -= n
			}
		}
		if _, err := c.Write(message); err != nil {
			return
		}
	}
}

// reportTimes reports the times of two kinds, by rounds.
func reportTimes(b *testing.B, kinds []string, what string, times [2][][]time.Duration) {
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	var ratios []float64
	for round := range times[0] {
		for k := range kinds {
			slices.Sort(times[k][round])
		}
		ratios = append(ratios, micros(quantile(times[1][round], 0.5))/micros(quantile(times[0][round], 0.5)))
	}
	for k, kind := range kinds {
		all := slices.Concat(times[k]...)
		slices.Sort(all)
		b.ReportMetric(micros(quantile(all, 0.5)), kind+"-"+what+"-p50-us")
		b.ReportMetric(micros(quantile(all, 0.99)), kind+"-"+what+"-p99-us")
	}
	reportQuartiles(b, what+"-ratio", ratios)
}

// reportSpeeds reports the speeds of two kinds, each round's being of the same
// moment.
func reportSpeeds(b *testing.B, kinds []string, unit string, speeds [2][]float64) {
	var ratios []float64
	for round := range speeds[0] {
		ratios = append(ratios, speeds[0][round]/speeds[1][round])
	}
	reportQuartiles(b, unit+"-ratio", ratios)
	for k, kind := range kinds {
		slices.Sort(speeds[k])
		b.ReportMetric(quantile(speeds[k], 0.5), kind+"-"+unit)
	}
}

// reportQuartiles reports the median and the quartiles of what the rounds gave.
func reportQuartiles(b *testing.B, unit string, values []float64) {
	slices.Sort(values)
	b.ReportMetric(quantile(values, 0.5), unit)
	b.ReportMetric(quantile(values, 0.25), unit+"-q1")
	b.ReportMetric(quantile(values, 0.75), unit+"-q3")
}

// quantile is the nearest of sorted values.
func quantile[T any](sorted []T, q float64) T { return sorted[int(q*float64(len(sorted)-1)+0.5)] }
