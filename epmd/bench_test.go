package epmd

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPortPlease compares this server with OTP's daemon, each in its own
// process: how many PORT_PLEASE2_REQ they answer, each on a fresh connection,
// to one and to 64 clients at once, with few and with many registered names.
// The CPU time is the server's own.
func BenchmarkPortPlease(b *testing.B) {
	servers := []struct {
		name  string
		start func(testing.TB) (address string, pid int)
	}{
		{"oneport", serverProcess},
		{"epmd", otpProcess},
	}
	for _, names := range []int{1, 100, 900} {
		for _, server := range servers {
			b.Run(fmt.Sprintf("names=%d/%s", names, server.name), func(b *testing.B) {
				address, pid := server.start(b)
				c := &Client{Addr: address}
				for i := range names {
					register(b, c, Node{Name: fmt.Sprint("node", i), Port: 4711, Type: Normal, Highest: 6, Lowest: 5})
				}
				for _, conns := range []int{1, 64} {
					b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
						before := cpuTime(b, pid)
						portPlease(b, netip.MustParseAddrPort(address), conns, names)
						b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
						b.ReportMetric(float64(cpuTime(b, pid)-before)/float64(b.N), "server-ns/req")
					})
				}
			})
		}
	}
}

// portPlease asks b.N times. It uses the system calls themselves, so that the
// client takes as little as possible of what is measured.
func portPlease(b *testing.B, server netip.AddrPort, conns, names int) {
	address := &unix.SockaddrInet4{Port: int(server.Port()), Addr: server.Addr().As4()}
	var asked atomic.Int64
	var clients sync.WaitGroup
	for range conns {
		clients.Go(func() {
			for i := asked.Add(1); i <= int64(b.N); i = asked.Add(1) {
				request := frame(fmt.Sprint("znode", i%int64(names)))
				if err := askOnce(address, request); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

func askOnce(address unix.Sockaddr, request string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, address); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte(request)); err != nil {
		return err
	}
	var answer [128]byte
	for got := 0; ; {
		n, err := unix.Read(fd, answer[got:])
		switch {
		case err != nil:
			return err
		case n > 0:
			got += n
		case got < 2 || answer[0] != tagPortResponse || answer[1] != ResultOK:
			return fmt.Errorf("answer %q", answer[:got])
		default:
			return nil
		}
	}
}

// otpProcess starts OTP's daemon.
func otpProcess(t testing.TB) (address string, pid int) {
	t.Helper()
	path, err := exec.LookPath("epmd")
	if err != nil {
		t.Skip("OTP's daemon is not installed")
	}
	l := listen(t, "127.0.0.1:0")
	address = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	command := exec.Command(path, "-address", "127.0.0.1", "-port", port)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	until(t, "OTP's daemon listens", func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return address, command.Process.Pid
}

// cpuTime returns what all threads of a process have used, in nanoseconds. It
// is exact to a clock tick of 10 ms (proc_pid_stat(5), utime and stime).
func cpuTime(b *testing.B, pid int) int64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// The second field, a name in parentheses, may have spaces.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return (user + system) * int64(10*time.Millisecond)
}
