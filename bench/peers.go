package bench

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

// peerFiles are the configurations of the peers and our proxy in Erlang. Each
// says in its comments why it is fast.
//
//go:embed peers/haproxy.cfg peers/nginx.conf peers/copying_proxy.erl
var peerFiles embed.FS

// peerWays are the ways that a user would take instead of oneport, and the one that
// nobody should.
func peerWays() []way {
	return []way{
		{
			name:  "haproxy",
			what:  "HAProxy in TCP mode, with splice(2)",
			start: peer(startHAProxy),
		},
		{
			name:  "nginx",
			what:  "nginx's stream proxy, two workers",
			start: peer(startNginx),
		},
		{
			name:  "socat",
			what:  "socat, a process for each connection",
			start: peer(startSocat),
		},
		{
			name:  "beam",
			what:  "a proxy inside an Erlang VM that copies, two processes for each connection",
			start: peer(startBEAM),
		},
		skSKB(),
	}
}

// place is where a peer listens and what it leads to.
type place struct {
	Address netip.Addr
	Port    uint16
	Target  string // "host:port"
}

// Listen is the address to listen at as "host:port".
func (p place) Listen() string { return netip.AddrPortFrom(p.Address, p.Port).String() }

// peer makes the start of a way from that of the program that serves it.
func peer(start func(context.Context, *world, place) (*child, error)) func(context.Context, *world, target) (*running, error) {
	return func(ctx context.Context, w *world, t target) (*running, error) {
		p, c, err := startPeer(ctx, w, t.tcp, start)
		if err != nil {
			return nil, err
		}
		return &running{
			route: route{Network: "tcp", Address: p.Listen()},
			pids:  func() []int { return family(c.pid()) },
		}, nil
	}
}

// startPeer starts a peer before a target, and waits until it listens.
func startPeer(ctx context.Context, w *world, target netip.AddrPort, start func(context.Context, *world, place) (*child, error)) (place, *child, error) {
	port, err := w.freePort(hostSide)
	if err != nil {
		return place{}, nil, err
	}
	p := place{Address: w.address(hostSide), Port: port, Target: target.String()}
	c, err := start(ctx, w, p)
	if err != nil {
		return place{}, nil, err
	}
	if err := w.listening(ctx, c, hostSide, port); err != nil {
		return place{}, nil, err
	}
	return p, c, nil
}

// forking is the command of a program that has processes of its own. If this process
// is killed the first of them is, and the others would go on without it. Root can
// have them end together, in a namespace for their numbers.
func forking(w *world, program string, args ...string) *exec.Cmd {
	unshare, err := exec.LookPath("unshare")
	if err != nil || os.Geteuid() != 0 {
		return w.command(hostSide, program, args...)
	}
	return w.command(hostSide, unshare, append([]string{"--pid", "--fork", "--kill-child", program}, args...)...)
}

func startHAProxy(_ context.Context, w *world, p place) (*child, error) {
	program, err := installed("haproxy", "haproxy")
	if err != nil {
		return nil, err
	}
	// Two descriptors for a connection, two for a pipe, and some for itself; it
	// does not start if there may be too few.
	files := fileLimit()
	pipes := min(1024, files/16)
	config, err := configure(w, p, "haproxy.cfg", struct {
		place
		Connections, Pipes int
	}{p, (files-2*pipes)/2 - 128, pipes})
	if err != nil {
		return nil, err
	}
	// -db: in the foreground, one process.
	return w.start(w.command(hostSide, program, "-db", "-q", "-f", config))
}

// streamModules is where distributions keep nginx's stream module. None is there
// if it is compiled in.
var streamModules = []string{
	"/usr/lib/nginx/modules/ngx_stream_module.so",   // Debian, Alpine
	"/usr/lib64/nginx/modules/ngx_stream_module.so", // Fedora
}

func startNginx(ctx context.Context, w *world, p place) (*child, error) {
	program, err := installed("nginx", "nginx libnginx-mod-stream")
	if err != nil {
		return nil, err
	}
	module, err := streamModule(ctx, program)
	if err != nil {
		return nil, err
	}
	config, err := configure(w, p, "nginx.conf", struct {
		place
		Module, Dir string
		Files       int
	}{p, module, w.dir, fileLimit()})
	if err != nil {
		return nil, err
	}
	// -e: or it opens the log of the system's nginx before it reads a line.
	return w.start(forking(w, program, "-e", "stderr", "-p", w.dir, "-c", config))
}

// streamModule is the path of nginx's stream module, or empty if nginx has it
// within.
func streamModule(ctx context.Context, program string) (string, error) {
	for _, path := range streamModules {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	built, err := exec.CommandContext(ctx, program, "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("asking nginx how it was built: %v", err)
	}
	if strings.Contains(string(built), "--with-stream ") {
		return "", nil
	}
	return "", fmt.Errorf("nginx's stream module is missing: apt-get install libnginx-mod-stream")
}

func startSocat(_ context.Context, w *world, p place) (*child, error) {
	program, err := installed("socat", "socat")
	if err != nil {
		return nil, err
	}
	return w.start(forking(w, program, socatArgs(p)...))
}

// socatArgs has socat copy blocks of 128 KiB: its own 8 KiB move a third of what
// these do, and with more than these round trips take longer. -t is how long it goes on after one end has said that it
// sends no more: half a second, if it is not told. backlog is the queue of a
// listener, 5 by itself.
func socatArgs(p place) []string {
	return []string{"-b", "131072", "-t", "3600",
		fmt.Sprintf("TCP4-LISTEN:%d,bind=%s,backlog=4096,reuseaddr,fork,nodelay", p.Port, p.Address),
		"TCP4:" + p.Target + ",nodelay"}
}

func startBEAM(ctx context.Context, w *world, p place) (*child, error) {
	erl, err := installed("erl", "erlang-base")
	if err != nil {
		return nil, err
	}
	if err := compile(ctx, w, peerFiles, "peers/copying_proxy.erl"); err != nil {
		return nil, err
	}
	c := w.command(hostSide, erl,
		"-noinput", "-pa", w.dir,
		// An idle scheduler must not spin on a processor that the ends need.
		"+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"+Q", "65536", "+P", "262144",
		"-kernel", "logger", logToStderr,
		"-s", "copying_proxy", "main", p.Listen(), p.Target)
	c.Env = erlangEnv(os.Environ(), w.dir)
	return w.start(c)
}

// logToStderr has an Erlang VM log where the reason of a failure is looked for.
const logToStderr = "[{handler,default,logger_std_h,#{config => #{type => standard_error}}}]"

// erlangEnv is an environment without what would configure an Erlang VM, and with
// a home in which it finds no settings and may leave some.
func erlangEnv(environ []string, home string) []string {
	var kept []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "ERL_") && !strings.HasPrefix(variable, "HOME=") {
			kept = append(kept, variable)
		}
	}
	return append(kept, "HOME="+home, "ERL_CRASH_DUMP_SECONDS=0")
}

// compile compiles an embedded Erlang module into the directory of the world.
func compile(ctx context.Context, w *world, files embed.FS, name string) error {
	erlc, err := installed("erlc", "erlang-base")
	if err != nil {
		return err
	}
	source, err := files.ReadFile(name)
	if err != nil {
		return err
	}
	path := filepath.Join(w.dir, filepath.Base(name))
	if err := os.WriteFile(path, source, 0o644); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, erlc, "-o", w.dir, path).CombinedOutput(); err != nil {
		return fmt.Errorf("compiling %s: %v: %s", filepath.Base(name), err, bytes.TrimSpace(out))
	}
	return nil
}

// fileLimit is how many descriptors a peer may have: what ten thousand connections
// need with room, since some make tables of that size, or what the limit allows.
func fileLimit() int { return int(min(maxFiles(), 65536)) }

// configure fills in a configuration and returns its path.
func configure(w *world, p place, name string, data any) (string, error) {
	t, err := template.ParseFS(peerFiles, "peers/"+name)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		return "", err
	}
	path := filepath.Join(w.dir, strconv.Itoa(int(p.Port))+"-"+name)
	return path, os.WriteFile(path, text.Bytes(), 0o644)
}

// installed is the path of a program, also of one that is only in root's PATH.
func installed(program, packages string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is missing: apt-get install %s", program, packages)
}

// family is a process and all that descend from it. Processor time of those that
// have ended is in that of their parents.
func family(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		// Those whose parent thread has ended hang on another thread of it.
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, list := range lists {
			children, _ := os.ReadFile(list) // gone: no children
			for _, child := range strings.Fields(string(children)) {
				if n, err := strconv.Atoi(child); err == nil {
					pids = append(pids, n)
				}
			}
		}
	}
	return pids
}
