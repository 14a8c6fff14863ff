package relay_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"oneport/relay"
)

// BenchmarkRelay compares Join with bare, side by side: every iteration is a
// round in which each moves the same load, in changing order. It reports the
// medians of both and the median of the rounds' ratios (above 1: Join is
// better). Seven rounds or more:
//
//	go test -run '^$' -bench BenchmarkRelay -benchtime 9x ./relay
func BenchmarkRelay(b *testing.B) {
	loads := []struct {
		name, unit string
		run        func(b *testing.B, client, node *net.TCPConn) float64
	}{
		{"bulk", "MB/s", bulkOneWay},
		{"bulk both ways", "MB/s", bulkBothWays},
		{"round trip 64 B", "trips/s", roundTrips},
	}
	relays := []func(client, node *net.TCPConn){
		func(client, node *net.TCPConn) {
			relay.Join(context.Background(), client, node, relay.Options{})
		},
		bare,
	}
	for _, load := range loads {
		b.Run(load.name, func(b *testing.B) {
			var ratios []float64
			speeds := make([][]float64, len(relays))
			for round := range b.N {
				for i := range relays {
					which := (i + round) % len(relays)
					speed := through(b, relays[which], load.run)
					speeds[which] = append(speeds[which], speed)
				}
				ratios = append(ratios, speeds[0][round]/speeds[1][round])
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(speeds[0]), "join-"+load.unit)
			b.ReportMetric(median(speeds[1]), "bare-"+load.unit)
			b.ReportMetric(median(ratios), "ratio")
		})
	}
}

// bare is the relay to compare with: what anybody would write.
func bare(client, node *net.TCPConn) {
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(node, client)
		node.CloseWrite()
	})
	both.Go(func() {
		io.Copy(client, node)
		client.CloseWrite()
	})
	both.Wait()
	client.Close()
	node.Close()
}

// through runs a load through a relay and returns its speed.
func through(b *testing.B, join func(client, node *net.TCPConn), load func(*testing.B, *net.TCPConn, *net.TCPConn) float64) float64 {
	client, clientSide := connect(b, "tcp4")
	nodeSide, node := connect(b, "tcp4")
	var over sync.WaitGroup
	over.Go(func() { join(clientSide, nodeSide) })
	defer over.Wait()
	defer client.Close()
	defer node.Close()
	return load(b, client, node)
}

// block is what bulk loads repeat, and check.
var block = sync.OnceValue(func() []byte {
	b := make([]byte, 1<<20)
	io.ReadFull(pattern(1), b)
	return b
})

const bulkBlocks = 768

func bulkOneWay(b *testing.B, client, node *net.TCPConn) float64 {
	start := time.Now()
	stream(b, client, node)
	return bulkBlocks / time.Since(start).Seconds()
}

func bulkBothWays(b *testing.B, client, node *net.TCPConn) float64 {
	start := time.Now()
	var back sync.WaitGroup
	back.Go(func() { stream(b, node, client) })
	stream(b, client, node)
	back.Wait()
	return 2 * bulkBlocks / time.Since(start).Seconds()
}

// stream sends bulkBlocks blocks and checks what arrives.
func stream(b *testing.B, from, to *net.TCPConn) {
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		for range bulkBlocks {
			if _, err := from.Write(block()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	got := make([]byte, 256<<10)
	for at := 0; at < bulkBlocks<<20; {
		rest := block()[at%len(block()):]
		n, err := to.Read(got[:min(len(got), len(rest))])
		if err != nil || !bytes.Equal(got[:n], rest[:n]) {
			b.Errorf("after %d bytes: wrong bytes, or %v", at, err)
			return
		}
		at += n
	}
}

func roundTrips(b *testing.B, client, node *net.TCPConn) float64 {
	const trips = 20_000
	message := block()[:64]
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

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// BenchmarkIdle measures what relayed connections cost that have talked and
// now say nothing, in a process that does nothing but relay them:
//
//	go test -run '^$' -bench BenchmarkIdle -benchtime 1x -v ./relay
func BenchmarkIdle(b *testing.B) {
	const connections = 5000
	const rest = 10 * time.Second
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()

	for range b.N {
		process := startRelayProcess(b, listener.Addr().String())
		empty := process.usage(b)
		var ends []*net.TCPConn
		for range connections {
			client, err := net.Dial("tcp4", process.address)
			if err != nil {
				b.Fatal(err)
			}
			node, err := listener.Accept()
			if err != nil {
				b.Fatal(err)
			}
			ends = append(ends, client.(*net.TCPConn), node.(*net.TCPConn))
		}
		// Each has been in use, both ways: buffers, stacks and pipes exist.
		for i := 0; i < len(ends); i += 2 {
			pingPong(b, ends[i], ends[i+1])
			pingPong(b, ends[i+1], ends[i])
		}
		before := process.usage(b)
		time.Sleep(rest)
		after := process.usage(b)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(after.resident-empty.resident)/connections, "resident-B/conn")
		b.ReportMetric(float64(after.descriptors-empty.descriptors)/connections, "fds/conn")
		b.ReportMetric(100*float64(after.cpu-before.cpu)/float64(rest), "cpu-%")
		for _, end := range ends {
			end.Close()
		}
		process.stop(b)
	}
}

func pingPong(b *testing.B, from, to *net.TCPConn) {
	message := block()[:1000]
	if _, err := from.Write(message); err != nil {
		b.Fatal(err)
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, message) {
		b.Fatalf("wrong bytes, or %v", err)
	}
}

// relayTo names the environment variable by which BenchmarkIdle starts this
// binary again as a program that relays to the address it holds.
const relayTo = "ONEPORT_RELAY_TO"

type relayProcess struct {
	command *exec.Cmd
	stdin   io.Closer
	address string
}

func startRelayProcess(b *testing.B, target string) *relayProcess {
	b.Helper()
	command := exec.Command(os.Args[0], "-test.run=^TestRelayProcess$")
	command.Env = append(os.Environ(), relayTo+"="+target)
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatalf("the relay process says no address: %v", err)
	}
	return &relayProcess{command, stdin, strings.TrimSpace(line)}
}

func (p *relayProcess) stop(b *testing.B) {
	b.Helper()
	p.stdin.Close()
	if err := p.command.Wait(); err != nil {
		b.Error(err)
	}
}

type usage struct {
	resident    int // bytes
	descriptors int
	cpu         time.Duration
}

func (p *relayProcess) usage(b *testing.B) (u usage) {
	b.Helper()
	proc := fmt.Sprintf("/proc/%d/", p.command.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kilobytes, err := strconv.Atoi(fields[1])
			if err != nil {
				b.Fatal(err)
			}
			u.resident = kilobytes << 10
		}
	}
	entries, err := os.ReadDir(proc + "fd")
	if err != nil {
		b.Fatal(err)
	}
	u.descriptors = len(entries)
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		b.Fatal(err)
	}
	// utime and stime are fields 14 and 15, in hundredths of a second; the
	// command's name, the only field with blanks, ends with the last bracket.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	return u
}

// TestRelayProcess is the program that BenchmarkIdle measures. Without its
// environment variable it does nothing.
func TestRelayProcess(t *testing.T) {
	target := os.Getenv(relayTo)
	if target == "" {
		return
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(listener.Addr())
	var relays sync.WaitGroup
	relays.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			relays.Go(func() {
				node, err := net.Dial("tcp4", target)
				if err != nil {
					t.Error(err)
					client.Close()
					return
				}
				relays.Add(1)
				relay.Start(context.Background(), client.(*net.TCPConn), node.(*net.TCPConn), relay.Options{}, func(relay.Result) { relays.Done() })
			})
		}
	})
	io.Copy(io.Discard, os.Stdin)
	listener.Close()
	relays.Wait()
}
