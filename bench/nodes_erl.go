package bench

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed nodes/bench_epmd.erl nodes/bench_node.erl
var nodeFiles embed.FS

// maxNodeAnswer bounds what a node answers: a number for each of some thousand calls.
const maxNodeAnswer = 1 << 20

// erlang is an installation of Erlang/OTP.
type erlang struct {
	erl  string // the program
	root string // its ROOTDIR
	bin  string // where its emulator is
}

// findErlang finds the installation, and compiles our modules into the directory of
// the world.
func findErlang(ctx context.Context, w *world) (*erlang, error) {
	erl, err := installed("erl", "erlang-base")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"nodes/bench_epmd.erl", "nodes/bench_node.erl"} {
		if err := compile(ctx, w, nodeFiles, name); err != nil {
			return nil, err
		}
	}
	// All nodes of a world are started with its directory for a home.
	cookie := filepath.Join(w.dir, ".erlang.cookie")
	if _, err := os.Stat(cookie); os.IsNotExist(err) {
		if err := os.WriteFile(cookie, []byte(rand.Text()), 0o400); err != nil {
			return nil, err
		}
	}
	c := exec.CommandContext(ctx, erl, "-noinput", "-eval",
		`io:put_chars([code:root_dir(), "\n", code:root_dir(), "/erts-", erlang:system_info(version), "/bin"]), halt().`)
	c.Env = erlangEnv(os.Environ(), w.dir)
	out, err := c.Output()
	root, bin, ok := strings.Cut(string(out), "\n")
	if err != nil || !ok {
		return nil, fmt.Errorf("asking erl where it is: %v: it said %q", err, out)
	}
	return &erlang{erl: erl, root: root, bin: bin}, nil
}

// disguised makes the installation run by another file name, in a folder of links:
// the daemon knows an Erlang VM by its program's, and does not know this one.
func (e *erlang) disguised(w *world) (program string, env []string, err error) {
	dir := filepath.Join(w.dir, "disguised")
	entries, err := os.ReadDir(e.bin)
	if err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		return "", nil, err
	}
	for _, entry := range entries {
		if entry.Name() == beam {
			continue
		}
		if err := os.Symlink(filepath.Join(e.bin, entry.Name()), filepath.Join(dir, entry.Name())); err != nil && !os.IsExist(err) {
			return "", nil, err
		}
	}
	// The kernel tells the name of the file itself, so a link would not do.
	emulator, err := os.ReadFile(filepath.Join(e.bin, beam))
	if err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "emulator"), emulator, 0o755); err != nil {
		return "", nil, err
	}
	if err := os.Symlink("emulator", filepath.Join(dir, beam)); err != nil && !os.IsExist(err) {
		return "", nil, err
	}
	return filepath.Join(dir, "erlexec"), []string{"ROOTDIR=" + e.root, "BINDIR=" + dir, "EMU=beam", "PROGNAME=erl"}, nil
}

// erlNode is a running Erlang node.
type erlNode struct {
	name   string // such as node_splice@10.88.0.2
	child  *child
	socket string // where it does as it is told
}

// nodeOptions say how a node differs from the plain one.
type nodeOptions struct {
	args     []string
	env      []string
	disguise bool
}

// start starts a node on a side of the world, under the host part of its address.
func (e *erlang) start(w *world, s side, name string, o nodeOptions) (*erlNode, error) {
	n := &erlNode{name: name + "@" + w.address(s).String(), socket: filepath.Join(w.dir, name)}
	program, env := e.erl, erlangEnv(os.Environ(), w.dir)
	if o.disguise {
		other, more, err := e.disguised(w)
		if err != nil {
			return nil, fmt.Errorf("copying the emulator: %v", err)
		}
		program, env = other, append(env, more...)
	}
	args := []string{
		"-name", n.name, "-start_epmd", "false", "-connect_all", "false", "-noinput",
		// Many nodes share few processors: an idle one must not spin.
		"+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"-kernel", "logger", logToStderr,
		"-pa", w.dir, "-run", "bench_node", "start", n.socket,
	}
	c := w.command(s, program, append(args, o.args...)...)
	c.Env = append(env, o.env...)
	var err error
	n.child, err = w.start(c)
	return n, err
}

// ready waits until the node runs.
func (n *erlNode) ready(ctx context.Context) error {
	for {
		if _, err := os.Stat(n.socket); err == nil {
			return nil
		}
		select {
		case <-n.child.done:
			return fmt.Errorf("node %s ended at its start: %w", n.name, n.child.ended())
		case <-ctx.Done():
			return fmt.Errorf("waiting for node %s to run: %w; it wrote: %s", n.name, context.Cause(ctx), n.child.stderr())
		case <-time.After(poll):
		}
	}
}

// ask has the node do something and returns its numbers.
func (n *erlNode) ask(ctx context.Context, term string) ([]int64, error) {
	answer, err := n.exchange(ctx, term)
	if err != nil {
		select {
		case <-n.child.done:
			err = n.child.ended()
		default:
		}
		return nil, fmt.Errorf("having node %s do %s: %w", n.name, term, err)
	}
	verdict, rest, _ := strings.Cut(answer, " ")
	if verdict != "ok" {
		return nil, fmt.Errorf("node %s doing %s: raised %s", n.name, term, rest)
	}
	var numbers []int64
	for _, field := range strings.Fields(rest) {
		number, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("node %s doing %s: it answered %q", n.name, term, field)
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

func (n *erlNode) exchange(ctx context.Context, term string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", n.socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(term)))
	if _, err := conn.Write(append(frame, term...)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxNodeAnswer))
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", err
	case len(answer) < 4:
		return "", io.ErrUnexpectedEOF
	}
	return string(answer[4:]), nil
}

// ends asks the node for both ends of its connection with another one, which it
// makes if what is "connect".
func (n *erlNode) ends(ctx context.Context, what, other string) (here, there netip.AddrPort, err error) {
	numbers, err := n.ask(ctx, fmt.Sprintf("{%s, '%s'}", what, other))
	if err != nil {
		return here, there, err
	}
	if len(numbers) != 10 {
		return here, there, errors.New("the connection of the nodes is not one of IPv4")
	}
	end := func(of []int64) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(of[0]), byte(of[1]), byte(of[2]), byte(of[3])}), uint16(of[4]))
	}
	return end(numbers[:5]), end(numbers[5:]), nil
}
