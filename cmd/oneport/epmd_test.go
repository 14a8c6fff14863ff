package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/epmd"
)

// patience bounds every wait of the tests.
const patience = 60 * time.Second

// TestEPMD tests the program as others start it: by the name epmd, and as
// oneport epmd.
func TestEPMD(t *testing.T) {
	directory := t.TempDir()
	oneport := filepath.Join(directory, "oneport")
	if output, err := exec.Command("go", "build", "-o", oneport, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	ours := filepath.Join(directory, "epmd")
	if err := os.Symlink(oneport, ours); err != nil {
		t.Fatal(err)
	}
	byName := epmdProgram{ours}
	byCommand := epmdProgram{oneport, "epmd"}

	t.Run("says what OTP's says without a daemon", func(t *testing.T) { testWithoutDaemon(t, byName) })
	t.Run("says what OTP's says with a daemon", func(t *testing.T) { testWithDaemon(t, byCommand) })
	t.Run("listens where it is told to", func(t *testing.T) { testAddresses(t, byName) })
	t.Run("detaches by name", func(t *testing.T) { testDetach(t, byName) })
	t.Run("detaches as command", func(t *testing.T) { testDetach(t, byCommand) })
	t.Run("is activated by systemd", func(t *testing.T) { testSystemd(t, byName) })
	t.Run("holds 20000 names", func(t *testing.T) { testManyNames(t, byName) })
	t.Run("is started by erl in place of its own", func(t *testing.T) {
		testNodes(t, byName, otpWith(t, ours))
	})
	t.Run("is started by erl -epmd", func(t *testing.T) {
		testNodes(t, byCommand, func(c *exec.Cmd) {
			c.Args = append(c.Args, "-epmd", oneport+" epmd -daemon")
		})
	})
}

// epmdProgram is a way to start a daemon's program.
type epmdProgram []string

// command prepares a run that is independent of this process's environment.
func (p epmdProgram) command(port int, args ...string) *exec.Cmd {
	c := exec.Command(p[0], append(p[1:len(p):len(p)], args...)...)
	c.Env = append(cleanEnvironment(), fmt.Sprintf("ERL_EPMD_PORT=%d", port))
	return c
}

// cleanEnvironment is this process's environment without what a daemon heeds.
func cleanEnvironment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "ERL_") && !strings.HasPrefix(entry, "LISTEN_") && !strings.HasPrefix(entry, "NOTIFY_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// result is what a run printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

func (p epmdProgram) run(t *testing.T, port int, args ...string) result {
	t.Helper()
	c := p.command(port, args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	c.WaitDelay = patience
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", c, err)
	}
	return result{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// comparable removes what differs from run to run: times, ports, descriptors;
// and the case of the system's messages, which differs between C and Go.
func (r result) comparable(port int) result {
	clean := func(s string) string {
		s = regexp.MustCompile(`\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}`).ReplaceAllString(s, "DATE")
		s = regexp.MustCompile(`fd = \d+`).ReplaceAllString(s, "fd = N")
		return strings.ToLower(strings.ReplaceAll(s, strconv.Itoa(port), "PORT"))
	}
	return result{clean(r.stdout), clean(r.stderr), r.code}
}

// start runs a daemon in the foreground until the test ends, and waits until
// it listens.
func (p epmdProgram) start(t *testing.T, port int, args ...string) *exec.Cmd {
	t.Helper()
	c := p.command(port, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		// A daemon may be killed by what it is asked, or by us.
		_ = c.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = c.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("%s does not end", c)
			_ = c.Process.Kill()
			<-ended
		}
	})
	until(t, "the daemon listens", func() bool { return listening(port) })
	return c
}

func listening(port int) bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// freePort returns a port that is free on all addresses.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

func clientOf(port int) *epmd.Client {
	return &epmd.Client{Addr: fmt.Sprintf("127.0.0.1:%d", port), Timeout: patience}
}

func registerNode(t *testing.T, port int, name string) *epmd.Alive {
	t.Helper()
	alive, err := clientOf(port).Register(t.Context(), epmd.Node{Name: name, Port: 4711, Type: epmd.Normal, Highest: 6, Lowest: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
	return alive
}

// otpProgram returns OTP's daemon, which the tests compare with.
func otpProgram(t *testing.T) epmdProgram {
	t.Helper()
	path, err := exec.LookPath("epmd")
	if err != nil {
		t.Fatal("epmd is not installed (install erlang-base)")
	}
	return epmdProgram{path}
}

func testWithoutDaemon(t *testing.T, ours epmdProgram) {
	otp := otpProgram(t)
	port := freePort(t)
	for _, args := range []string{
		"-names", "-started", "-kill", "-dump", "-stop foo",
		"-help", "help", "-names more", "-started more", "-kill more", "-dump more", "-stop", "-stop foo more",
		"-port", "-port 0", "-port x", "-address", "-packet_timeout", "-packet_timeout x", "-delay_accept 0", "-delay_write",
		"-d -d -port 1 -names", "-systemd", "-address 1.2.3.x", "-address 192.0.2.1",
	} {
		arguments := strings.Fields(args)
		want := otp.run(t, port, arguments...).comparable(port)
		if got := ours.run(t, port, arguments...).comparable(port); got != want {
			t.Errorf("epmd %s:\n%+v\nwant\n%+v", args, got, want)
		}
	}
}

func testWithDaemon(t *testing.T, ours epmdProgram) {
	for _, flags := range [][]string{nil, {"-relaxed_command_check"}} {
		var results [2][]result
		for i, program := range []epmdProgram{otpProgram(t), ours} {
			port := freePort(t)
			program.start(t, port, flags...)
			run := func(args ...string) {
				results[i] = append(results[i], program.run(t, port, args...).comparable(port))
			}
			run("-names")
			first := registerNode(t, port, "foo")
			registerNode(t, port, "b\u00e4r")
			run("-names")
			run("-started")
			run("-dump")
			run() // another daemon
			run("-d", "-port", strconv.Itoa(port))
			if flags == nil {
				run("-stop", "foo")
				run("-kill")
				first.Close()
				until(t, "the name is free", func() bool {
					names, err := clientOf(port).Names(t.Context())
					return err == nil && len(names.Names) == 1
				})
			} else {
				run("-stop", "nobody")
				run("-stop", "foo")
			}
			run("-names")
			run("-dump")
			if flags != nil {
				run("-kill")
				until(t, "the daemon has ended", func() bool { return !listening(port) })
				run("-names")
			}
		}
		for i, want := range results[0] {
			got := results[1][i]
			// These lines of the debugging output are not OTP's.
			want.stderr = strings.ReplaceAll(want.stderr, "running - daemon = 0", "running")
			if got != want {
				t.Errorf("with flags %q, run %d:\n%+v\nwant\n%+v", flags, i, got, want)
			}
		}
	}
}

func testAddresses(t *testing.T, ours epmdProgram) {
	for _, test := range []struct{ list, open, shut string }{
		{"", "127.0.0.1 127.0.0.2 ::1", ""},
		{"127.0.0.2", "127.0.0.1 127.0.0.1 ::1", "127.0.0.2"}, // loopback is the loopback address, as for OTP's
		{"::,127.0.0.1", "127.0.0.1 ::1", "127.0.0.2"},
		{"0.0.0.0", "127.0.0.1 127.0.0.2 ::1", ""},
	} {
		t.Run(test.list, func(t *testing.T) {
			port := freePort(t)
			ours.start(t, port, "-address", test.list)
			for _, address := range strings.Fields(test.open) {
				c := &epmd.Client{Addr: net.JoinHostPort(address, strconv.Itoa(port)), Timeout: patience}
				if names, err := c.Names(t.Context()); err != nil || names.Port != uint32(port) {
					t.Errorf("at %s: %+v, %v", address, names, err)
				}
			}
			for _, address := range strings.Fields(test.shut) {
				if c, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(port))); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("at %s: connected to %v, error %v", address, c, err)
				}
			}
		})
	}
}

// A daemon belongs to nobody, and listens when its parent returns.
func testDetach(t *testing.T, ours epmdProgram) {
	port := freePort(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := ours.command(port, "-daemon", "-relaxed_command_check")
	// A caller may hold pipes open; a daemon must not.
	c.Stdout, c.Stderr, c.ExtraFiles = w, w, []*os.File{w}
	err = c.Run()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if !listening(port) {
		t.Fatal("the daemon does not listen")
	}
	defer func() {
		if killed := ours.run(t, port, "-kill"); killed.code != 0 {
			t.Errorf("killing the daemon: %+v", killed)
		}
		until(t, "the daemon has ended", func() bool { return !listening(port) })
	}()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if output, err := io.ReadAll(r); err != nil || len(output) > 0 {
		t.Errorf("the daemon printed %q or kept its caller's pipe: %v", output, err)
	}
	pid := daemonOf(t, port)
	if session, err := unix.Getsid(pid); err != nil || session == os.Getpid() || session == sessionOf(t, os.Getpid()) {
		t.Errorf("the daemon is in session %d, error %v", session, err)
	}
	for file, want := range map[string]string{"cwd": "/", "fd/0": "/dev/null", "fd/1": "/dev/null", "fd/2": "/dev/null"} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, file)); got != want {
			t.Errorf("%s of the daemon is %q, %v; want %q", file, got, err, want)
		}
	}
	if again := ours.run(t, port, "-daemon"); again != (result{}) {
		t.Errorf("a second daemon: %+v", again)
	}
	if failed := ours.run(t, freePort(t), "-daemon", "-address", "192.0.2.1"); failed.code != 1 ||
		!strings.Contains(failed.stderr, "192.0.2.1: cannot assign requested address") {
		t.Errorf("a daemon that cannot listen: %+v", failed)
	}
}

func sessionOf(t *testing.T, pid int) int {
	t.Helper()
	session, err := unix.Getsid(pid)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// daemonOf returns the process that was started as a daemon for a port. Nodes
// have the port in their environment, too, but not that name.
func daemonOf(t *testing.T, port int) int {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("ERL_EPMD_PORT=%d\x00", port)
	for _, file := range commands {
		// A process that has ended meanwhile is not the one.
		command, _ := os.ReadFile(file)
		environment, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if bytes.HasPrefix(command, []byte("epmd\x00")) && strings.Contains(string(environment), mark) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			return pid
		}
	}
	t.Fatal("no daemon is found")
	return 0
}

func testSystemd(t *testing.T, ours epmdProgram) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	notify := filepath.Join(t.TempDir(), "notify")
	supervisor, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer supervisor.Close()
	if err := supervisor.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}

	c := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -systemd`, ours[0])
	c.Env = append(cleanEnvironment(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+notify)
	c.ExtraFiles = []*os.File{socket}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}()
	message := make([]byte, 1024)
	n, err := supervisor.Read(message)
	if want := fmt.Sprintf("READY=1\nSTATUS=Processing port mapping requests...\nMAINPID=%d", c.Process.Pid); err != nil || string(message[:n]) != want {
		t.Errorf("told systemd %q, %v; want %q", message[:n], err, want)
	}
	client := &epmd.Client{Addr: l.Addr().String(), Timeout: patience}
	if names, err := client.Names(t.Context()); err != nil || names.Port != epmd.DefaultPort {
		t.Errorf("names %+v, %v", names, err)
	}
	if err := client.Kill(t.Context()); err != nil {
		t.Errorf("killing it: %v", err)
		_ = c.Process.Kill()
	}
}

// There is no FD_SETSIZE: 20,000 nodes at once, each with its connection, or as
// many as the limit of open files allows here.
func testManyNames(t *testing.T, ours epmdProgram) {
	nodes := allowFiles(t, 20000)
	port := freePort(t)
	daemon := ours.start(t, port)
	empty := residentKB(t, daemon.Process.Pid)

	var alive []*epmd.Alive
	defer func() {
		for _, a := range alive {
			a.Close()
		}
	}()
	begin := time.Now()
	for i := range nodes {
		// One address has not ports enough for all, beside those of others.
		c := &epmd.Client{Addr: fmt.Sprintf("127.0.0.%d:%d", 1+i%8, port), Timeout: patience, DialContext: dialReset}
		a, err := c.Register(t.Context(), epmd.Node{Name: fmt.Sprint("node", i), Port: uint16(i), Type: epmd.Normal, Highest: 6, Lowest: 5})
		if err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
		alive = append(alive, a)
	}
	t.Logf("registered %d nodes in %v; %.1f KB of the daemon each", nodes, time.Since(begin).Round(time.Millisecond),
		float64(residentKB(t, daemon.Process.Pid)-empty)/float64(nodes))
	client := clientOf(port)
	names, err := client.Names(t.Context())
	if err != nil || len(names.Names) != nodes || names.Names[0].Name != fmt.Sprint("node", nodes-1) {
		t.Fatalf("%d names, %v", len(names.Names), err)
	}
	for _, i := range []int{0, 1, nodes / 2, nodes - 1} {
		if node, err := client.Lookup(t.Context(), fmt.Sprint("node", i)); err != nil || node.Port != uint16(i) {
			t.Errorf("node %d is found as %+v, %v", i, node, err)
		}
	}
	for _, a := range alive[:nodes-1] {
		a.Close()
	}
	until(t, "all names but one are free", func() bool {
		names, err := client.Names(t.Context())
		return err == nil && len(names.Names) == 1
	})
}

// dialReset makes a connection that is reset when it is closed: thousands in
// TIME_WAIT would take the ports from other tests.
func dialReset(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
	if err == nil {
		err = c.(*net.TCPConn).SetLinger(0)
	}
	return c, err
}

// allowFiles raises the limit of open files for the test to what the given
// number of connections takes, and returns how many it allows, which is that
// number unless the test may not raise the hard limit (CAP_SYS_RESOURCE).
func allowFiles(t *testing.T, connections int) int {
	t.Helper()
	const others = 200
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	want := uint64(connections + others)
	raised := unix.Rlimit{Cur: max(before.Cur, want), Max: max(before.Max, want)}
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised)
	if err == unix.EPERM {
		raised = unix.Rlimit{Cur: before.Max, Max: before.Max}
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &raised)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	})
	// FD_SETSIZE, the limit of OTP's daemon, is 1024.
	allowed := min(connections, int(raised.Cur)-others)
	if allowed < 2000 {
		t.Fatalf("only %d open files are allowed (raise ulimit -n)", raised.Cur)
	}
	return allowed
}

// residentKB returns how much memory a process occupies.
func residentKB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no VmRSS in %q", status)
	}
	kb, err := strconv.Atoi(string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// otpWith makes erl start another epmd instead of the one beside its emulator,
// which it takes whatever the PATH says: it is given a directory in which all
// but epmd is OTP's, like that of a release.
func otpWith(t *testing.T, epmd string) func(*exec.Cmd) {
	t.Helper()
	root, err := exec.Command("erl", "-noshell", "-eval", `io:put_chars(code:root_dir()), halt().`).Output()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob(string(root) + "/erts-*/bin/*")
	if err != nil || len(programs) == 0 {
		t.Fatalf("no programs of OTP below %s: %v", root, err)
	}
	directory := t.TempDir()
	for _, program := range programs {
		if filepath.Base(program) == "epmd" {
			program = epmd
		}
		if err := os.Symlink(program, filepath.Join(directory, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	return func(c *exec.Cmd) {
		// What the script erl does.
		c.Path = filepath.Join(directory, "erlexec")
		c.Env = append(c.Env, "BINDIR="+directory, "ROOTDIR="+string(root), "EMU=beam", "PROGNAME=erl")
	}
}

// testNodes starts real nodes: they start the daemon by themselves, and find
// each other through it.
func testNodes(t *testing.T, ours epmdProgram, prepare func(*exec.Cmd)) {
	port := freePort(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	erl := func(args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, "erl", append(args, "-noinput", "-setcookie", "secret", "-kernel", "logger_level", "error")...)
		c.Env = append(cleanEnvironment(), fmt.Sprintf("ERL_EPMD_PORT=%d", port), "ERL_CRASH_DUMP_BYTES=0")
		prepare(c)
		return c
	}
	first := erl("-sname", "first@localhost", "-eval", `P = open_port({fd, 0, 1}, [eof]), receive {P, eof} -> halt() end.`)
	input, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	first.Stderr = t.Output()
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		input.Close()
		if err := first.Wait(); err != nil {
			t.Errorf("first node: %v", err)
		}
		until(t, "the daemon is killed", func() bool { return ours.run(t, port, "-kill").code == 0 })
		until(t, "the daemon has ended", func() bool { return !listening(port) })
	}()
	until(t, "the first node is registered", func() bool {
		return strings.Contains(ours.run(t, port, "-names").stdout, "\nname first at port ")
	})
	if executable, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", daemonOf(t, port))); filepath.Base(executable) != "oneport" {
		t.Errorf("the daemon that erl started is %q, %v", executable, err)
	}
	second := erl("-sname", "second@localhost", "-eval",
		`io:format("~p ~p~n", [net_adm:ping('first@localhost'), erl_epmd:names("localhost")]), halt().`)
	output, err := second.CombinedOutput()
	if err != nil || !regexp.MustCompile(`^pong \{ok,\[\{"first",\d+\},\{"second",\d+\}\]\}\n$`).Match(output) {
		t.Errorf("second node: %v\n%s", err, output)
	}
	if names := ours.run(t, port, "-names").stdout; !regexp.MustCompile(fmt.Sprintf(
		`^epmd: up and running on port %d with data:\n(name second at port \d+\n)?name first at port \d+\n$`, port)).MatchString(names) {
		t.Errorf("names:\n%s", names)
	}
}

func TestEPMDFlags(t *testing.T) {
	tests := []struct {
		args string
		want epmdCommand
	}{
		{"", epmdCommand{}},
		{"-d -debug -d", epmdCommand{debug: 3}},
		{"-port 4370 -address 192.0.2.1,::1", epmdCommand{port: 4370, addresses: []string{"192.0.2.1", "::1"}}},
		{"-relaxed_command_check -systemd", epmdCommand{relaxed: true, systemd: true}},
		{"-packet_timeout 1 -delay_accept 2 -delay_write 3s", epmdCommand{packetTimeout: time.Second, delayAccept: 2 * time.Second, delayWrite: 3 * time.Second}},
	}
	for _, test := range tests {
		got := epmdCommand{args: strings.Fields(test.args)}
		got.environ = func(string) string { return "" }
		if _, ok := got.parse(); !ok {
			t.Errorf("%q is refused", test.args)
		}
		got.args, got.environ = nil, nil
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: %+v, want %+v", test.args, got, test.want)
		}
	}
}

func TestAtoi(t *testing.T) {
	for text, want := range map[string]int{"": 0, "4369": 4369, " 12x": 12, "-3": -3, "+4": 4, "x": 0, "-": 0, "99999999999": 0, "1-2": 1} {
		if got := atoi(text); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

func TestListenAddresses(t *testing.T) {
	tests := []struct{ list, want string }{
		{"", "0.0.0.0 ::"},
		{"192.0.2.1", "127.0.0.1? ::1? 192.0.2.1"},
		{"192.0.2.1 192.0.2.1,127.0.0.1, ::1", "127.0.0.1? ::1? 192.0.2.1"},
		{"::,127.0.0.1", "127.0.0.1? ::"},
		{"0.0.0.0,192.0.2.1,2001:db8::1", "::1? 0.0.0.0 2001:db8::1"},
	}
	for _, test := range tests {
		addresses, err := listenAddresses(splitAddresses(test.list))
		var got []string
		for _, a := range addresses {
			text := a.address.String()
			if a.optional {
				text += "?"
			}
			got = append(got, text)
		}
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("list %q: %q, %v; want %q", test.list, got, err, test.want)
		}
	}
	if _, err := listenAddresses([]string{"localhost"}); err == nil {
		t.Error("a name is taken for an address")
	}
}
