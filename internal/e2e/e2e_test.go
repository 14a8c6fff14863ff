package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/hosts"
	"oneport/internal/leak"
)

// What TestMain has built.
var (
	program string // the path of oneport, good for any process as long as this one runs
	beams   string // the directory of the carrier's beams
)

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	leak.Main(m)
}

// patience bounds every wait for what is certain to come.
const patience = 60 * time.Second

// root is the directory of the whole project.
var root = filepath.Join("..", "..")

// build builds the daemon and the carrier.
func build() error {
	if err := depend("cmd/oneport", "erlang/src", "erlang/test"); err != nil {
		return err
	}
	erlang, err := filepath.Abs(filepath.Join(root, "erlang"))
	if err != nil {
		return err
	}
	beams = filepath.Join(erlang, "ebin")
	if output, err := exec.Command("make", "-C", erlang, "all").CombinedOutput(); err != nil {
		return fmt.Errorf("building the carrier: %w\n%s", err, output)
	}
	dir, err := os.MkdirTemp("", "oneport-build-")
	if err != nil {
		return err
	}
	// The program lives on as an open file only: nothing of it is left behind,
	// however the tests end.
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "oneport")
	command := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", file, "oneport/cmd/oneport")...)
	command.Env = append(os.Environ(), buildEnv...)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building oneport: %w\n%s", err, output)
	}
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", file, err)
	}
	program = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	return nil
}

// depend tells the go command, which sees what files a test looks at, that
// these are more than imports show: else it takes an old result for a new one.
func depend(dirs ...string) error {
	for _, dir := range dirs {
		if err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// carrier makes a node use the carrier, over IPv4.
func carrier() hosts.Option { return carrierNamed("oneport") }

// carrierNamed makes a node use one of the carriers, and listen as stock nodes
// do: its connections are relayed.
func carrierNamed(name string) hosts.Option {
	return hosts.Args("-proto_dist", name, "-pa", beams, "-oneport", "listen=true")
}

// alone keeps a node from connecting to nodes by itself, as nodes do to all that
// their peers know.
func alone() hosts.Option { return hosts.Args("-connect_all", "false") }

// together runs functions side by side, which start nodes or talk to them.
func together(t testing.TB, functions ...func()) {
	t.Helper()
	var running sync.WaitGroup
	for _, f := range functions {
		running.Go(f)
	}
	running.Wait()
	if t.Failed() {
		// One of them may have ended early and left its result out.
		t.FailNow()
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: not within %v", what, patience)
		}
	}
}

// ping says what from's net_adm:ping/1 says of a node: pong or pang.
func ping(t testing.TB, from *hosts.Node, to string) string {
	t.Helper()
	return from.Eval(t, "net_adm:ping('"+to+"')")
}

// wantPong fails the test unless a node reaches another one.
func wantPong(t testing.TB, from, to *hosts.Node) {
	t.Helper()
	if got := ping(t, from, to.Name); got != "pong" {
		t.Fatalf("%s pings %s: %s", from.Name, to.Name, got)
	}
}

// disconnect ends the connection of two nodes and waits until both know.
func disconnect(t testing.TB, node, other *hosts.Node) {
	t.Helper()
	node.Eval(t, "erlang:disconnect_node('"+other.Name+"')")
	for _, pair := range [][2]*hosts.Node{{node, other}, {other, node}} {
		eventually(t, "the end of a connection", func() bool {
			return !strings.Contains(pair[0].Eval(t, "nodes(connected)"), "'"+pair[1].Name+"'")
		})
	}
}

// watch makes a node, which must be connected to another one, wait for the news
// that this is gone. The function that it returns waits for that.
func watch(t testing.TB, node, other *hosts.Node) (gone func(t *testing.T)) {
	t.Helper()
	watcher := "'watcher of " + other.Name + "'"
	if got := node.Eval(t, "lists:member('"+other.Name+"', nodes(connected))"); got != "true" {
		t.Fatalf("%s is not connected to %s", node.Name, other.Name)
	}
	node.Eval(t, `Asker = self(), spawn(fun() ->
		true = register(`+watcher+`, self()),
		true = erlang:monitor_node('`+other.Name+`', true),
		Asker ! watching,
		receive {nodedown, _} = Down -> receive {tell, Whom} -> Whom ! Down end end
	end), receive watching -> ok end`)
	return func(t *testing.T) {
		t.Helper()
		if got, want := node.Eval(t, watcher+" ! {tell, self()}, receive {nodedown, Node} -> Node end"), "'"+other.Name+"'"; got != want {
			t.Fatalf("%s saw %s go down, want %s", node.Name, got, want)
		}
	}
}
