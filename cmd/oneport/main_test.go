package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"oneport/door"
	"oneport/epmd"
	"oneport/internal/leak"
	"oneport/upgrade"
)

func TestMain(m *testing.M) { leak.Main(m) }

// oneport runs the program in-process.
func oneport(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := &env{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	code = run(t.Context(), e, append([]string{"oneport"}, args...))
	return code, out.String(), errs.String()
}

// daemon is a door with a control socket, and a node that accepts and says
// nothing.
func daemon(t *testing.T) (addr, socket string) {
	t.Helper()
	d, err := door.Open(t.Context(), door.Options{Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "control.sock")
	control, err := openControl(socket, d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, 0, nil) }()
	t.Cleanup(func() {
		stop()
		<-done
		control.close()
	})
	return d.Addrs()[0].String(), socket
}

// node registers b and returns its listener.
func node(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	alive, err := (&epmd.Client{Addr: addr}).Register(t.Context(), epmd.Node{Name: "b", Port: uint16(l.Addr().(*net.TCPAddr).Port), Type: epmd.Hidden, Highest: 6, Lowest: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
	return l
}

func connect(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, _, err := (&upgrade.Client{}).Dial(t.Context(), addr, "b", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestHelp(t *testing.T) {
	for command, says := range map[string]string{
		"":            "serve       Run the daemon in the foreground",
		"serve":       "--advertise door|direct",
		"nodes":       "--json",
		"connections": "--json",
		"status":      "--control PATH",
		"drop":        "drop NODE|ID",
		"version":     "--json",
		"alias":       "add         Add a further name of a node",
		"alias add":   "--alias ALIAS=TARGET to oneport serve",
		"alias list":  "--json",
	} {
		code, out, errs := oneport(t, append(strings.Fields(command), "--help")...)
		if code != 0 || !strings.Contains(out, says) || errs != "" {
			t.Errorf("%s --help: %d, %s%s", command, code, out, errs)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, _ := oneport(t, "completion", shell); code != 0 || !strings.Contains(out, "oneport") {
			t.Errorf("completion %s: %d", shell, code)
		}
	}
}

// Every flag of serve is described in the help text, with its argument.
func TestEveryFlagOfServeIsNamedByTheHelp(t *testing.T) {
	_, out, _ := oneport(t, "serve", "--help")
	for _, flag := range []string{"--listen ADDR:PORT", "--host NAME", "--address NAME=IP", "--own NAME=UID", "--alias ALIAS=TARGET", "--node-socket PATH", "--allow CIDR", "--discover-from CIDR", "--web URL", "--forward PATTERN",
		"--control PATH", "--drain DURATION", "--max-header BYTES", "--header-timeout DURATION", "--max-connections N", "--max-per-source N", "--log-level LEVEL", "--log-format FORMAT"} {
		if !strings.Contains(out, flag) {
			t.Errorf("no %s in\n%s", flag, out)
		}
	}
}

func TestWrongUse(t *testing.T) {
	_, socket := daemon(t)
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"nonsense", 2, `unknown command "nonsense"`},
		{"serve --nonsense", 2, "unknown flag"},
		{"serve more", 2, "unknown command"},
		{"serve --listen localhost:4369", 2, "0.0.0.0:4369"},
		{"serve --listen 127.0.0.1", 2, "ADDR:PORT"},
		{"serve --address b", 2, "NAME=IP"},
		{"serve --address b@x=127.0.0.2", 2, "without @"},
		{"serve --address b=127.0.0.2 --address c=127.0.0.2", 2, "address of b already"},
		{"serve --own b", 2, "NAME=UID"},
		{"serve --own b=nobody", 2, "number of a user"},
		{"serve --shortcut off --listen 127.0.0.1:0 --node-socket /nonexistent/x.sock --control " + socket + "2", 1, "--node-socket"},
		{"serve --allow 10.0.0.0/33", 2, "10.0.0.0/8"},
		{"serve --discover-from x", 2, "expected a network"},
		{"serve --advertise both", 2, "door or direct"},
		{"serve --path direct", 2, "splice or copy"},
		{"serve --path handover --node-socket=", 2, "--node-socket"},
		{"serve --path shortcut --shortcut off", 2, "switched off"},
		{"serve --path copy --shortcut all", 2, "--shortcut all"},
		{"serve --path splice --advertise direct", 2, "past the door"},
		{"serve --shortcut on", 2, "auto, off or all"},
		{"serve --pins oneport", 2, "absolute path"},
		{"serve --web localhost:80", 2, "http://"},
		{"serve --forward a:b:c", 2, "HOST or HOST:PORT"},
		{"serve --drain -1s", 2, "0 or more"},
		{"serve --header-timeout 0", 2, "more than 0"},
		{"serve --max-header 1", 2, "4096"},
		{"serve --max-connections 1", 2, "16 or more"},
		{"serve --max-per-source 0", 2, "1 or more"},
		{"serve --log-level loud", 2, "debug"},
		{"serve --log-format xml", 2, "json"},
		{"serve --shortcut off --listen 127.0.0.1:0 --node-socket= --control " + socket, 1, "in use by another daemon"},
		{"serve --shortcut off --listen 127.0.0.1:0 --node-socket= --control /nonexistent/x.sock", 1, "--control"},
		{"doctor --pins oneport", 2, "absolute path"},
		{"nodes --control /nonexistent/x.sock", 1, "oneport serve"},
		{"connections --control /nonexistent/x.sock", 1, "oneport serve"},
		{"status --control /nonexistent/x.sock", 1, "oneport serve"},
		{"drop", 2, "accepts 1 arg"},
		{"drop x --control " + socket, 1, "oneport connections"},
		{"drop b@elsewhere --control " + socket, 1, "oneport connections"},
		{"drop 99 --control " + socket, 1, "oneport connections"},
	} {
		code, _, errs := oneport(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(errs, tt.says) || strings.Count(errs, "\n") > 1 && !strings.Contains(errs, `"level"`) {
			t.Errorf("%s: %d %q, want %d with %q in one line", tt.args, code, errs, tt.code, tt.says)
		}
	}
}

func TestANetworkMayBeOneAddress(t *testing.T) {
	got, err := parseNetworks("--allow", []string{"10.1.2.3", "10.9.9.9/8", "2001:db8::1"})
	want := []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}
	if err != nil || !slices.Equal(got, want) {
		t.Fatal(got, err)
	}
}

// keys returns the sorted keys of the first object of a JSON array.
func keys(t *testing.T, text string) []string {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) == 0 {
		t.Fatalf("%s: %v", text, err)
	}
	return slices.Sorted(maps.Keys(list[0]))
}

func TestReadingCommands(t *testing.T) {
	addr, socket := daemon(t)
	at := "--control=" + socket
	for command, says := range map[string]string{"nodes": "no nodes", "connections": "no connections"} {
		if code, out, _ := oneport(t, command, at); code != 0 || !strings.Contains(out, says) {
			t.Errorf("%s: %d %s", command, code, out)
		}
		if code, out, _ := oneport(t, command, "--json", at); code != 0 || strings.TrimSpace(out) != "[]" {
			t.Errorf("%s --json: %d %s", command, code, out)
		}
	}
	node(t, addr)
	connect(t, addr)

	_, out, _ := oneport(t, "nodes", "--json", at)
	if got := keys(t, out); !slices.Equal(got, []string{"age_s", "creation", "hidden", "highest", "lowest", "name", "pid", "port", "uid"}) {
		t.Errorf("nodes has %v", got)
	}
	_, out, _ = oneport(t, "connections", "--json", at)
	if got := keys(t, out); !slices.Equal(got, []string{"age_s", "bytes_to_client", "bytes_to_node", "id", "node", "path", "peer", "protocol", "state", "why"}) {
		t.Errorf("connections has %v", got)
	}
	for command, says := range map[string][]string{
		"nodes":       {"NAME", "b", "hidden", "5-6"},
		"connections": {"127.0.0.1:", "upgrade", "splice", "relayed", "takes no descriptors"},
		"status":      {"serving", "nodes", "1 relayed", "none"},
	} {
		_, out, _ := oneport(t, command, at)
		for _, s := range says {
			if !strings.Contains(out, s) {
				t.Errorf("%s: no %q in\n%s", command, s, out)
			}
		}
	}
	var s status
	_, out, _ = oneport(t, "status", "--json", at)
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Nodes != 1 || s.PID != os.Getpid() || s.Open[door.Relayed] != 1 {
		t.Errorf("%s: %v", out, err)
	}
	if code, out, _ := oneport(t, "version"); code != 0 || !strings.HasPrefix(out, "oneport ") {
		t.Error(code, out)
	}
	if _, out, _ := oneport(t, "__complete", "drop", at, ""); !strings.Contains(out, "\nb\n") {
		t.Errorf("completion of drop: %s", out)
	}
}

func TestDrop(t *testing.T) {
	addr, socket := daemon(t)
	node(t, addr)
	for _, target := range []string{"b", "b@127.0.0.1", "b@LocalHost"} {
		c := connect(t, addr)
		if code, out, errs := oneport(t, "drop", target, "--control", socket); code != 0 || out != "dropped 1 connection\n" {
			t.Fatal(target, code, out, errs)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
	}
	if _, out, _ := oneport(t, "nodes", "--control", socket); !strings.Contains(out, "b ") {
		t.Fatal("the node is not registered any more")
	}
}

func TestControlSocket(t *testing.T) {
	_, socket := daemon(t)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatal(info.Mode(), err)
	}
	// One that a killed daemon has left behind is replaced.
	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	c, err := openControl(stale, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Fatal("not removed at the end:", err)
	}
}

// The whole life of a daemon, as a service manager sees it.
func TestServeUntilSIGTERM(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "oneport")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, tt := range []struct {
		name    string
		signals int
		least   time.Duration
		most    time.Duration
	}{
		{"waits for open connections", 1, 2 * time.Second, 20 * time.Second},
		{"a second signal does not wait", 2, 0, 1900 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer notified.Close()
			notified.SetDeadline(time.Now().Add(30 * time.Second))
			expect := func(want string) {
				b := make([]byte, 64)
				if n, err := notified.Read(b); string(b[:n]) != want {
					t.Fatalf("systemd was told %q, want %q: %v", b[:n], want, err)
				}
			}
			socket := filepath.Join(dir, "control")
			cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--control", socket, "--node-socket", filepath.Join(dir, "node"), "--drain", "2s", "--shortcut", "off")
			cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
			var log bytes.Buffer
			cmd.Stderr = &log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan error, 1)
			go func() { exited <- cmd.Wait() }()
			t.Cleanup(func() { cmd.Process.Kill() })
			expect("READY=1")
			var s status
			if err := (&client{socket}).get(t.Context(), "status", &s); err != nil {
				t.Fatal(err)
			}
			node(t, s.Listen[0])
			c := connect(t, s.Listen[0])
			start := time.Now()
			cmd.Process.Signal(syscall.SIGTERM)
			expect("STOPPING=1")
			if err := (&client{socket}).get(t.Context(), "status", &s); err != nil {
				t.Fatal(err)
			}
			for range tt.signals - 1 {
				cmd.Process.Signal(syscall.SIGTERM)
			}
			if err := <-exited; err != nil {
				t.Fatalf("%v\n%s", err, &log)
			}
			if took := time.Since(start); took < tt.least || took > tt.most {
				t.Errorf("took %v", took)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the connection ended with %v", err)
			}
			for line := range strings.Lines(log.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("not JSON: %s", line)
				}
			}
		})
	}
}
