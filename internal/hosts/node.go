package hosts

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// control is the program by which a node answers Call.
//
//go:embed control.eval
var control string

// Node is a running Erlang node.
type Node struct {
	*Process
	Name string // the whole name, such as b@10.9.0.2

	socket string // where it answers
}

// An Option says how a node differs from the plain one: long name, stock
// distribution, the cookie that all nodes of the test share, no epmd started,
// since one answers already.
type Option func(*nodeConfig)

type nodeConfig struct {
	kind, name string // the flag and the name
	cookie     string
	startEPMD  bool
	args       []string
	env        []string
	root       *Root
}

// LongName names a node by a host part with a dot or a colon in it: an address
// or an FQDN of its host. The default host part is the host's IPv4 address.
func LongName(host string) Option {
	return func(c *nodeConfig) { c.kind, c.name = "-name", "@"+host }
}

// ShortName names a node by its host's Name.
func ShortName() Option {
	return func(c *nodeConfig) { c.kind, c.name = "-sname", "" }
}

// Hidden makes a hidden node.
func Hidden() Option { return Args("-hidden") }

// Cookie sets a cookie of the node's own.
func Cookie(cookie string) Option { return func(c *nodeConfig) { c.cookie = cookie } }

// ProtoDist sets the carrier of the distribution, such as inet6_tcp.
func ProtoDist(carrier string) Option { return Args("-proto_dist", carrier) }

// CodePath puts a directory in front of the code path.
func CodePath(dir string) Option { return Args("-pa", dir) }

// EPMDPort makes the node look for EPMD at another port than 4369.
func EPMDPort(port int) Option { return Env("ERL_EPMD_PORT=" + strconv.Itoa(port)) }

// StartEPMD makes the node start an epmd if none answers, as erl does by
// itself. That epmd does not end with the node.
func StartEPMD() Option { return func(c *nodeConfig) { c.startEPMD = true } }

// Args adds arguments to the command line of erl.
func Args(args ...string) Option {
	return func(c *nodeConfig) { c.args = append(c.args, args...) }
}

// Env adds variables, each NAME=VALUE, to the node's environment.
func Env(variables ...string) Option {
	return func(c *nodeConfig) { c.env = append(c.env, variables...) }
}

// Erl starts an Erlang node with the given name, the part before the @, and
// returns when it runs, distributed. It is killed at the end of the test.
func (h *Host) Erl(t testing.TB, name string, options ...Option) *Node {
	t.Helper()
	config := nodeConfig{kind: "-name", name: "@" + h.IPv4.String(), cookie: h.cookie}
	for _, option := range options {
		option(&config)
	}
	home, err := os.MkdirTemp(h.Dir, name+"-")
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{Name: name + config.name, socket: filepath.Join(home, "control")}
	if config.kind == "-sname" {
		n.Name = name + "@" + h.Name
	}
	args := []string{
		config.kind, name + config.name,
		"-setcookie", config.cookie,
		"-start_epmd", strconv.FormatBool(config.startEPMD),
		"-noinput",
		// Many nodes share few processors: an idle one must not spin.
		"+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"-eval", control,
	}
	command := config.root.erl(h, append(args, config.args...))
	command.Env = append(environment(), "HOME="+home, "CONTROL="+n.socket, "ERL_CRASH_DUMP_SECONDS=0")
	command.Env = append(command.Env, config.env...)
	n.Process = h.Start(t, command)
	waitFor(t, n.Process, "the start", func() bool {
		_, err := os.Stat(n.socket)
		return err == nil
	})
	if started := n.Eval(t, "atom_to_list(node())"); started != strconv.Quote(n.Name) {
		t.Fatalf("node %s runs under the name %s", n.Name, started)
	}
	return n
}

// environment is the test's own, without what would configure a node.
func environment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "ERL_") && !strings.HasPrefix(variable, "HOME=") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// Eval evaluates Erlang expressions in the node and returns the value of the
// last one as ~0tp prints it. It fails the test if they raise.
func (n *Node) Eval(t testing.TB, expressions string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	value, err := n.Call(ctx, expressions)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// Call is Eval for any goroutine: what the expressions raise, and a node that
// is gone, are errors. Calls run side by side.
func (n *Node) Call(ctx context.Context, expressions string) (string, error) {
	value, err := n.call(ctx, expressions)
	if err != nil {
		return "", fmt.Errorf("evaluating %q in %s: %w", expressions, n.Name, err)
	}
	return value, nil
}

func (n *Node) call(ctx context.Context, expressions string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", n.socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	request := strings.TrimSuffix(strings.TrimSpace(expressions), ".") + "."
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(request)))
	if _, err := conn.Write(append(frame, request...)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	if len(answer) < 4 {
		return "", fmt.Errorf("reading the answer: %w", io.ErrUnexpectedEOF)
	}
	verdict, value, _ := strings.Cut(string(answer[4:]), " ")
	if verdict != "ok" {
		return "", fmt.Errorf("raised %s", value)
	}
	return value, nil
}

// Stop ends the node in order, by init:stop/0, and waits for its end.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	n.Eval(t, "init:stop()")
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := n.Wait(ctx); err != nil {
		t.Fatalf("stopping node %s: %v; it wrote:\n%s", n.Name, err, n.Output())
	}
}
