package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"oneport/epmd"
)

const (
	// holdTime bounds a change of what a holder holds.
	holdTime = time.Minute
	// registering is how many nodes a holder registers at once.
	registering = 16
)

// Hold is the process that holds registrations at a daemon, each of which is an
// open connection: too many for a process that has others to look after. It reads
// how many there are to be from in, a number a line, and writes the number when it
// is so. It returns at the end of in, or when ctx ends.
func Hold(ctx context.Context, address string, in io.Reader, out io.Writer) error {
	raiseFileLimit()
	var held []io.Closer
	defer func() { closeAll(held) }()
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%q: expected ADDRESS:PORT of a daemon", address)
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil || n < 0 {
			return fmt.Errorf("%q: expected the number of nodes to hold", lines.Text())
		}
		held, err = holdNodes(ctx, at, held, n)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, n)
	}
	return ctx.Err()
}

// holdNodes makes held what it is to be.
func holdNodes(ctx context.Context, at netip.AddrPort, held []io.Closer, n int) ([]io.Closer, error) {
	if n < len(held) {
		closeAll(held[n:])
		held = held[:n:n]
		return held, awaitGone(ctx, &epmd.Client{Addr: at.String(), Timeout: epmdSilence}, n)
	}
	first := len(held)
	held = append(held, make([]io.Closer, n-first)...)
	var wait sync.WaitGroup
	errs := make([]error, registering)
	for part := range registering {
		wait.Go(func() {
			for i := first + part; i < n && errs[part] == nil; i += registering {
				held[i], errs[part] = register(ctx, at, i)
			}
		})
	}
	wait.Wait()
	return held, errors.Join(errs...)
}

// perSource is how many nodes of a holder come from one address.
const perSource = 1000

// register registers the i-th node. Those of a loopback address come from many
// addresses: if all came from one, few ports would be left for others to connect
// to the daemon from, and the kernel would take long to find one.
func register(ctx context.Context, at netip.AddrPort, i int) (io.Closer, error) {
	dialer := net.Dialer{KeepAlive: -1}
	dialer.SetMultipathTCP(false)
	if at.Addr().Is4() && at.Addr().IsLoopback() {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/perSource))}
		// A port that bind(2) takes would be taken at every address.
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			var optErr error
			err := raw.Control(func(fd uintptr) {
				optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			return errors.Join(err, optErr)
		}
	}
	client := &epmd.Client{Addr: at.String(), Timeout: epmdSilence, DialContext: dialer.DialContext}
	name := heldName(i)
	alive, err := client.Register(ctx, epmd.Node{Name: name, Port: heldPort, Type: epmd.Normal, Highest: 6, Lowest: 5})
	if err != nil {
		return nil, fmt.Errorf("registering %s: %w", name, err)
	}
	return alive, nil
}

// awaitGone waits until the daemon has only the first n of the nodes that were held.
func awaitGone(ctx context.Context, client *epmd.Client, n int) error {
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	for {
		names, err := client.Names(ctx)
		if err != nil {
			return fmt.Errorf("asking for the names that are registered: %w", err)
		}
		registered := 0
		for _, name := range names.Names {
			if strings.HasPrefix(name.Name, heldPrefix) {
				registered++
			}
		}
		if registered <= n {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d of the nodes that were held are registered, %d should be: %w", registered, n, ctx.Err())
		}
	}
}

func closeAll(held []io.Closer) {
	for _, c := range held {
		if c != nil {
			c.Close()
		}
	}
}

// holder is a process that holds registrations.
type holder struct {
	child   *child
	in      io.WriteCloser
	answers chan string
	held    int
}

// startHolder starts one for the daemon at address.
func startHolder(w *world, address netip.AddrPort) (*holder, error) {
	command := w.command(hostSide, w.program, "bench-hold", address.String())
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	h := &holder{in: in, answers: make(chan string, 1)}
	command.Stdout = &lineWriter{to: h.answers}
	h.child, err = w.start(command)
	if err != nil {
		in.Close()
		return nil, err
	}
	return h, nil
}

// hold makes it hold n nodes.
func (h *holder) hold(ctx context.Context, n int) error {
	if h.held == n {
		return nil
	}
	if _, err := fmt.Fprintln(h.in, n); err != nil {
		return fmt.Errorf("telling the process that holds nodes what to do: %w: %s", err, h.child.stderr())
	}
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	select {
	case got := <-h.answers:
		if got != strconv.Itoa(n) {
			return fmt.Errorf("the process that holds nodes was to hold %d, and holds %q", n, got)
		}
		h.held = n
		return nil
	case <-h.child.done:
		return fmt.Errorf("the process that holds nodes has ended: %s", h.child.stderr())
	case <-ctx.Done():
		return fmt.Errorf("registering %d nodes: %w", n, ctx.Err())
	}
}

// lineWriter sends each line that is written to it. Who asks one question at a
// time has an answer at most to come; more are dropped.
type lineWriter struct {
	to      chan<- string
	partial strings.Builder
}

func (l *lineWriter) Write(b []byte) (int, error) {
	for _, c := range b {
		if c != '\n' {
			l.partial.WriteByte(c)
			continue
		}
		select {
		case l.to <- l.partial.String():
		default:
		}
		l.partial.Reset()
	}
	return len(b), nil
}
