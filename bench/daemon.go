package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"oneport/door"
	"oneport/loader"
)

// nodeName is the node that every door of a contest knows.
const nodeName = "bench"

// doorWay is a way that leads through a daemon of ours.
type doorWay struct {
	name, what string
	flags      []string
	client     string // the program of the client
	takes      bool   // the node takes descriptors
	path       string // as the daemon calls it
	kind       string // of the short way; empty: there is none
}

// way makes it one that can be started.
func (d doorWay) way() way { return way{name: d.name, what: d.what, start: d.start} }

// start starts a daemon and makes its node known to it. Whether a connection takes
// the way that is meant is for prove.
func (d doorWay) start(ctx context.Context, w *world, t target) (*running, error) {
	port, err := w.freePort(hostSide)
	if err != nil {
		return nil, err
	}
	address := netip.AddrPortFrom(w.address(hostSide), port)
	dir, err := os.MkdirTemp(w.dir, d.name+"-")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	control, socket, pins := filepath.Join(dir, "control"), filepath.Join(dir, "node"), filepath.Join(dir, "bpf")
	line := []string{w.program, "serve", "--listen", address.String(), "--control", control, "--log-level", "error", "--drain", "0s"}
	if d.takes {
		line = append(line, "--node-socket", socket)
	} else {
		line = append(line, "--node-socket", "")
	}
	line = append(line, d.flags...)
	if d.kind != "" {
		line = append(line, "--pins", filepath.Join(pins, "oneport"))
	}
	// Without root the daemon says itself what it lacks.
	if d.kind != "" && os.Geteuid() == 0 {
		if err := os.Mkdir(pins, 0o700); err != nil {
			return nil, fmt.Errorf("making a directory: %w", err)
		}
		// A file system for pins of its own, which nobody else sees and which ends
		// with the daemon. Each of these becomes the next one, without a fork.
		line = append([]string{"unshare", "--mount", "sh", "-c", `mount -t bpf bpf "$0" && exec "$@"`, pins}, line...)
	}
	daemon, err := w.start(w.command(hostSide, line[0], line[1:]...))
	if err != nil {
		return nil, err
	}
	if err := w.listening(ctx, daemon, hostSide, port); err != nil {
		return nil, err
	}
	x := &expected{control: control, path: d.path, kind: d.kind, daemon: daemon}
	if err := x.possible(ctx); err != nil {
		return nil, err
	}
	r := request{Operation: doRegister, Address: address, Name: nodeName, Port: t.tcp.Port()}
	if d.takes {
		r.Port = 0 // nothing but descriptors
	}
	if _, err := t.end.ask(ctx, r); err != nil {
		return nil, err
	}
	if d.takes {
		if _, err := t.end.ask(ctx, request{Operation: doTake, Path: socket, Name: nodeName}); err != nil {
			return nil, err
		}
	}
	w.expect(d.name, x)
	return &running{
		route:  route{Network: "tcp", Address: address.String(), Upgrade: nodeName},
		pids:   func() []int { return []int{daemon.pid()} },
		client: d.client,
	}, nil
}

// expected is the way that the connections through a daemon have to take.
type expected struct {
	control string // its control socket
	path    string
	kind    string // of the short way, or empty
	daemon  *child
}

// possible asks the daemon whether it has a shortcut, if it needs one.
func (x *expected) possible(ctx context.Context) error {
	if x.kind == "" {
		return nil
	}
	var status struct {
		Shortcut string `json:"shortcut"`
	}
	for {
		err := x.ask(ctx, "status", &status)
		if err == nil {
			break
		}
		// A daemon listens a moment before it can be asked.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		select {
		case <-x.daemon.done:
			return fmt.Errorf("the daemon is over: %w", x.daemon.ended())
		case <-ctx.Done():
			return err
		case <-time.After(poll):
		}
	}
	if why, off := strings.CutPrefix(status.Shortcut, "off: "); off {
		return fmt.Errorf("the shortcut is off: %s; see oneport doctor", why)
	}
	return nil
}

// settled waits until the daemon says that the connections of these clients take the
// way that is expected.
func (x *expected) settled(ctx context.Context, clients []netip.AddrPort) error {
	within := time.Second
	if x.kind == loader.Direct.String() {
		// The others are settled before their first byte, and this one beside.
		within = 6 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, within+time.Duration(len(clients))*2*time.Millisecond)
	defer cancel()
	var before error // what the last look but one has shown: time may cut the last
	for {
		why, err := x.look(ctx, clients, x.standing)
		switch {
		case err != nil && before != nil && ctx.Err() != nil:
			return before
		case err == nil && why == "":
			return nil
		case err == nil:
			err = fmt.Errorf("a connection does not take the way that is meant: %s", why)
		}
		before = err
		select {
		case <-x.daemon.done:
			return fmt.Errorf("the daemon is over: %w", x.daemon.ended())
		case <-ctx.Done():
			return err
		case <-time.After(poll):
		}
	}
}

// look asks the daemon for its connections and has f look at each that is a
// client's. It returns what f says, if anything.
func (x *expected) look(ctx context.Context, clients []netip.AddrPort, f func(door.Info) string) (string, error) {
	var all []door.Info
	if err := x.ask(ctx, "connections", &all); err != nil {
		return "", err
	}
	left := make(map[netip.AddrPort]bool, len(clients))
	for _, c := range clients {
		left[c] = true
	}
	for _, info := range all {
		peer, err := netip.ParseAddrPort(info.Peer)
		if err != nil {
			return "", fmt.Errorf("the daemon calls a peer %q: %w", info.Peer, err)
		}
		if !left[peer] {
			continue
		}
		if why := f(info); why != "" {
			return why, nil
		}
		delete(left, peer)
	}
	for peer := range left {
		return fmt.Sprintf("the daemon does not know the connection of %s", peer), nil
	}
	return "", nil
}

// ask asks the daemon at its control socket.
func (x *expected) ask(ctx context.Context, what string, answer any) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", x.control)
		},
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	asked, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://oneport/v1/"+what, nil)
	if err != nil {
		return err
	}
	said, err := (&http.Client{Transport: transport}).Do(asked)
	if err != nil {
		return fmt.Errorf("asking the daemon for its %s: %w", what, err)
	}
	defer said.Body.Close()
	if said.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the daemon for its %s: %s", what, said.Status)
	}
	if err := json.NewDecoder(said.Body).Decode(answer); err != nil {
		return fmt.Errorf("reading the daemon's %s: %w", what, err)
	}
	return nil
}

// standing says why a connection is not on the way that is expected.
func (x *expected) standing(i door.Info) string {
	why := ""
	if i.Why != "" {
		why = " (" + i.Why + ")"
	}
	switch s := i.Shortcut; {
	case i.Path != x.path:
		return fmt.Sprintf("it is on the path %q%s; expected %q", i.Path, why, x.path)
	case x.kind == "" && s != nil:
		return fmt.Sprintf("it has a short way, %s", s.Kind)
	case x.kind == "":
		return ""
	case s == nil:
		return "it has no short way" + why
	case s.Kind != x.kind:
		return fmt.Sprintf("its short way is %s; expected %s", s.Kind, x.kind)
	case !s.Open:
		return "its short way is closed" + why
	}
	return ""
}

// outward tells whether only what the node says goes short.
func (x *expected) outward() bool { return x.kind == loader.Outward.String() }

// went says why a connection did not go the way that is expected, after messages
// one of which fits, in each direction, behind the other.
func (x *expected) went(i door.Info) string {
	if why := x.standing(i); why != "" || x.kind == "" {
		return why
	}
	s := i.Shortcut
	if s.ToClient.ShortBytes <= s.ToClient.LongBytes {
		return fmt.Sprintf("%d bytes to the client went short, and %d did not: %s", s.ToClient.ShortBytes, s.ToClient.LongBytes, s.Long())
	}
	if !x.outward() && s.ToNode.ShortBytes <= s.ToNode.LongBytes {
		return fmt.Sprintf("%d bytes to the node went short, and %d did not: %s", s.ToNode.ShortBytes, s.ToNode.LongBytes, s.Long())
	}
	return ""
}
