package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/netns"
)

// side is where in a layout something runs.
type side int

const (
	clientSide side = iota
	hostSide        // the node, the daemon, the peers
)

// beam is the file name by which the daemon knows an Erlang VM: it touches the
// sockets of no other program.
const beam = "beam.smp"

// poll is the time between two looks at a condition that is waited for.
const poll = 5 * time.Millisecond

// world is one layout, with all that runs in it. Nothing of it has a name outside
// but its directory: namespaces are held by descriptors, and processes die with
// this one. Its methods may be used by several goroutines at once.
type world struct {
	layout  Layout
	program string // the path of oneport
	dir     string // for files and sockets; removed by close

	spaces *spaces // of Veth, else nil

	mu       sync.Mutex
	children []*child
	closed   bool

	// sockets is what the contest of the group Sockets has beside its entrants.
	sockets *sockets
}

// newWorld makes a layout. program is the path of oneport, which the ends of
// connections are processes of, too.
func newWorld(ctx context.Context, layout Layout, program string) (_ *world, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := removeStale(); err != nil {
		return nil, err
	}
	// Commands run in another directory than this process.
	if program, err = filepath.Abs(program); err != nil {
		return nil, fmt.Errorf("finding %s: %w", program, err)
	}
	w := &world{layout: layout, program: program}
	if w.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid())); err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	defer func() {
		if err != nil {
			_ = w.close()
		}
	}()
	// Peers may give up root, and have files to find there.
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return nil, err
	}
	// Before there is any child, which would hold the file open for writing while
	// it is started, so that it could not be executed.
	if err := w.copyProgram(); err != nil {
		return nil, fmt.Errorf("copying %s: %w", program, err)
	}
	switch layout {
	case Loopback:
	case Veth:
		if w.spaces, err = newSpaces(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("layout %q; expected %s or %s", layout, Loopback, Veth)
	}
	return w, nil
}

// copyProgram makes oneport run under the name of an Erlang VM as well.
func (w *world) copyProgram() error {
	path := filepath.Join(w.dir, beam)
	if os.Link(w.program, path) == nil {
		return nil
	}
	// On another file system, not ours, or itself a link.
	from, err := os.Open(w.program)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// close ends all that runs, and leaves nothing behind.
func (w *world) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.stopSince(0)
	if w.spaces != nil {
		w.spaces.close()
	}
	if err := os.RemoveAll(w.dir); err != nil {
		return fmt.Errorf("removing the directory of a layout: %w", err)
	}
	return nil
}

// mark is for stopSince: what runs now is not to be stopped.
func (w *world) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.children)
}

// stopSince stops what was started since the mark.
func (w *world) stopSince(mark int) {
	w.mu.Lock()
	stopped := w.children[mark:]
	w.children = w.children[:mark:mark]
	w.mu.Unlock()
	var all sync.WaitGroup
	for _, c := range stopped {
		all.Go(c.stop)
	}
	all.Wait()
}

// address is the IPv4 address of a side, as the other side reaches it.
func (w *world) address(s side) netip.Addr {
	switch {
	case w.layout == Loopback:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case s == clientSide:
		return clientAddress
	}
	return hostAddress
}

// Ports that freePort gives are below those that the kernel gives to clients, who
// might else have one of them when its owner begins to listen.
const (
	firstPort = 15000
	lastPort  = 32000
)

// freePort is a TCP port of a side that nobody listens on.
func (w *world) freePort(s side) (port uint16, err error) {
	const tries = 100
	in := w.inside(s, func() {
		for range tries {
			at := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(firstPort+rand.IntN(lastPort-firstPort)))
			var l net.Listener
			if l, err = net.Listen("tcp4", at.String()); err == nil {
				port, err = at.Port(), l.Close()
				return
			}
		}
	})
	if err := errors.Join(in, err); err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	return port, nil
}

// inside runs f in the network namespace of a side.
func (w *world) inside(s side, f func()) error {
	if w.spaces == nil {
		f()
		return nil
	}
	return netns.Inside(w.spaces.of(s), f)
}

// command is a command that will run in the network namespace of a side, with
// w.dir for its directory.
func (w *world) command(s side, name string, args ...string) *exec.Cmd {
	line := append([]string{name}, args...)
	if w.spaces != nil {
		// nsenter becomes the command, without a fork, so that the process which
		// is started is the one that is killed.
		line = append([]string{"nsenter", "--net=" + w.spaces.path(s), "--"}, line...)
	}
	c := exec.Command(line[0], line[1:]...)
	c.Dir = w.dir
	return c
}

// listening waits until something in the namespace of a side accepts connections at
// a port. For a child that ends that is an error with its words.
func (w *world) listening(ctx context.Context, c *child, s side, port uint16) error {
	address := netip.AddrPortFrom(w.address(s), port).String()
	for {
		var conn net.Conn
		var err error
		if in := w.inside(s, func() {
			d := net.Dialer{Timeout: time.Second}
			d.SetMultipathTCP(false)
			conn, err = d.DialContext(ctx, "tcp4", address)
		}); in != nil {
			return in
		}
		if err == nil {
			return conn.Close()
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended before it listened at %s: %w", c.name(), address, c.ended())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to listen at %s: %w; it wrote: %s", c.name(), address, context.Cause(ctx), c.stderr())
		case <-time.After(poll):
		}
	}
}

// dirPrefix is how the directories are named; the number of the process follows.
const dirPrefix = "oneport-bench-"

// removeStale removes the directories of processes that were killed.
func removeStale() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		// Another user's may stay.
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("removing what an earlier run has left: %w", err)
		}
	}
	return nil
}
