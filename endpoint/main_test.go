package endpoint

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"oneport/internal/hosts"
	"oneport/internal/leak"
)

// By this environment variable a test starts its own binary as another process,
// and says what to do.
const childVariable = "ONEPORT_TEST_CHILD"

func TestMain(m *testing.M) {
	task, addresses, _ := strings.Cut(os.Getenv(childVariable), " ")
	switch task {
	case "hold":
		fmt.Println("ready")
		time.Sleep(10 * time.Minute) // the test kills this process long before
	case "find":
		if err := childFinds(addresses); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	default:
		leak.Main(m)
	}
}

// childFinds looks twice for the end of a connection, and prints what it found.
func childFinds(addresses string) error {
	log := logrus.New()
	log.Out = os.Stdout
	f, err := New(Options{Log: log, Timeout: patience})
	if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range Requirements() {
		fmt.Printf("%s: %v\n", r.Name, r.Met)
	}
	local, remote, _ := strings.Cut(addresses, " ")
	for range 2 {
		s, err := f.End(context.Background(), netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote))
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		fmt.Println("found:", s.PID)
		s.Close()
	}
	return nil
}

// patience bounds every wait of the tests.
const patience = 30 * time.Second

// finder returns a Finder that is closed with the test.
func finder(t testing.TB) *Finder {
	t.Helper()
	// Generous, for a noisy machine.
	f, err := New(Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// world returns a host, by which processes are started that end with the test.
func world(t testing.TB) *hosts.Host {
	t.Helper()
	return hosts.New(t, "a")[0]
}

// listen listens on a loopback address of this host.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "tcp6" {
		address = "[::1]:0"
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// accept returns the next connection, and its client's addresses as the client
// sees them.
func accept(t testing.TB, l net.Listener) (conn net.Conn, local, remote netip.AddrPort) {
	t.Helper()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// erl is the command of a node that evaluates expressions.
func erl(expressions string) []string {
	return []string{
		"erl", "-noinput", "+S", "1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"-eval", expressions,
	}
}

// connects are the expressions that connect to a listener, and stay.
func connects(l net.Listener, options string) string {
	a := addrPort(l.Addr())
	return fmt.Sprintf(`{ok, A} = inet:parse_address("%s"), {ok, _} = gen_tcp:connect(A, %d, [%s]), receive after infinity -> ok end.`,
		a.Addr(), a.Port(), options)
}

// start starts a command in this process's own namespaces.
func start(t testing.TB, h *hosts.Host, command []string) *hosts.Process {
	t.Helper()
	c := exec.Command(command[0], command[1:]...)
	c.Dir = h.Dir
	c.Env = append(os.Environ(), "HOME="+h.Dir)
	return h.Start(t, c)
}

// program makes a program of this name that does what the test binary does.
func program(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	return path
}

// hold starts a process that has nothing but these descriptors, from 3 on, which
// are closed here. A program with the name of an emulator makes it a BEAM in all
// that can be told.
func hold(t testing.TB, h *hosts.Host, command *exec.Cmd, descriptors ...int) *hosts.Process {
	t.Helper()
	for i, fd := range descriptors {
		file := os.NewFile(uintptr(fd), "held "+strconv.Itoa(i))
		command.ExtraFiles = append(command.ExtraFiles, file)
		defer file.Close()
	}
	command.Env = append(os.Environ(), childVariable+"=hold")
	p := h.Start(t, command)
	p.WaitOutput(t, "ready")
	return p
}

// pair makes a connection over the loopback interface, of blocking sockets. The
// addresses are those that a sees.
func pair(t testing.TB, domain, protocol int, bind unix.Sockaddr) (a, b int, local, remote netip.AddrPort) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	must(err)
	defer unix.Close(l)
	must(unix.Bind(l, bind))
	must(unix.Listen(l, 1))
	at, err := unix.Getsockname(l)
	must(err)
	a, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	must(err)
	must(unix.Connect(a, at))
	b, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
	must(err)
	own, err := unix.Getsockname(a)
	must(err)
	return a, b, address(own), address(at)
}

// ipv4 is the loopback address.
func ipv4() unix.Sockaddr { return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}} }

// cookie returns the SO_COOKIE of a socket.
func cookie(t testing.TB, fd int) uint64 {
	t.Helper()
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cookieOf returns the SO_COOKIE of a duplicate.
func cookieOf(t testing.TB, s *Socket) (c uint64) {
	t.Helper()
	if err := control(s, func(fd int) error { c = cookie(t, fd); return nil }); err != nil {
		t.Fatal(err)
	}
	return c
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}
