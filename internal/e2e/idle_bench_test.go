package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/epmd"
	"oneport/upgrade"
)

// BenchmarkIdle holds 5,000 relayed connections open that have been in use and
// say nothing, and reports what the daemon pays for each: resident memory and
// descriptors, and its processor time over 10 seconds of rest.
func BenchmarkIdle(b *testing.B) {
	const connections = 5000
	const rest = 10 * time.Second
	binary := filepath.Join(b.TempDir(), "oneport")
	if out, err := exec.Command("go", "build", "-o", binary, "oneport/cmd/oneport").CombinedOutput(); err != nil {
		b.Fatalf("building: %v\n%s", err, out)
	}
	for range b.N {
		node, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer node.Close()
		addr := freeAddr(b)
		daemon := exec.Command(binary, "serve", "--listen", addr, "--control", filepath.Join(b.TempDir(), "control.sock"), "--node-socket", "", "--log-level", "error", "--drain", "0s", "--shortcut", "off")
		daemon.Stderr = os.Stderr
		if err := daemon.Start(); err != nil {
			b.Fatal(err)
		}
		defer daemon.Wait()
		defer daemon.Process.Signal(unix.SIGTERM)
		client := epmd.Client{Addr: addr}
		var alive *epmd.Alive
		for deadline := time.Now().Add(10 * time.Second); alive == nil; time.Sleep(10 * time.Millisecond) {
			alive, err = client.Register(b.Context(), epmd.Node{Name: "b", Port: uint16(node.Addr().(*net.TCPAddr).Port), Type: epmd.Normal, Highest: 6, Lowest: 5})
			if err != nil && time.Now().After(deadline) {
				b.Fatal(err)
			}
		}
		defer alive.Close()

		before := usageOf(b, daemon.Process.Pid)
		for range connections {
			c, _, err := (&upgrade.Client{}).Dial(b.Context(), addr, "b", "127.0.0.1")
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			n, err := node.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer n.Close()
			for _, way := range [][2]net.Conn{{c, n}, {n, c}} {
				io.WriteString(way[0], "ping")
				if _, err := io.ReadFull(way[1], make([]byte, 4)); err != nil {
					b.Fatal(err)
				}
			}
		}
		during := usageOf(b, daemon.Process.Pid)
		time.Sleep(rest)
		after := usageOf(b, daemon.Process.Pid)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(after.resident-before.resident)/connections, "resident-B/conn")
		b.ReportMetric(float64(after.files-before.files)/connections, "fds/conn")
		b.ReportMetric(100*(after.processor-during.processor).Seconds()/rest.Seconds(), "cpu-%")
	}
}

// usage is what a process has of the machine.
type usage struct {
	resident  int // bytes
	files     int
	processor time.Duration
}

func usageOf(b *testing.B, pid int) usage {
	b.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	var u usage
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		b.Fatal(err)
	}
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rss, &u.resident); err != nil {
		b.Fatal(err)
	}
	u.resident <<= 10
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		b.Fatal(err)
	}
	u.files = len(files)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		b.Fatal(err)
	}
	// proc_pid_stat(5): the command's name, in parentheses, may hold blanks;
	// utime and stime are the 12th and 13th fields behind it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11], &user); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Sscan(fields[12], &system); err != nil {
		b.Fatal(err)
	}
	const tick = time.Second / 100 // USER_HZ
	u.processor = time.Duration(user+system) * tick
	return u
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(b *testing.B) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
