package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"oneport/door"
)

const (
	defaultControl = "/run/oneport/control.sock"
	// controlMode lets the daemon's user and group in.
	controlMode = 0o660
	// maxControlPath is the longest path of a socket, in bytes: sun_path of
	// unix(7) less its final NUL.
	maxControlPath = 107
	// controlTimeout bounds every request on the control socket.
	controlTimeout = 10 * time.Second
	// maxControl is the longest answer that a command reads, in bytes.
	maxControl = 256 << 20
)

// control is the daemon's side of the control socket: JSON over HTTP.
type control struct {
	http *http.Server
	done chan struct{}
}

// dropped is the answer to a drop.
type dropped struct {
	Dropped int    `json:"dropped"`
	Error   string `json:"error,omitempty"` // of what could not be
}

// openControl listens on path, with mode 0660: who may open the socket may use
// the daemon. A socket that nobody answers on, left behind by a daemon that was
// killed, is replaced.
func openControl(path string, d *door.Door) (*control, error) {
	if path == defaultControl {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("making the control socket's directory: %w; choose another path with --control", err)
		}
	}
	l, err := listenControl(path)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/nodes", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.Nodes()) })
	mux.HandleFunc("GET /v1/connections", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.Connections()) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, statusOf(d)) })
	mux.HandleFunc("POST /v1/drop", func(w http.ResponseWriter, r *http.Request) {
		n, err := drop(d, r.FormValue("target"))
		answer := dropped{Dropped: n}
		if err != nil {
			answer.Error = err.Error()
		}
		reply(w, answer)
	})
	routeAliases(mux, d)
	c := &control{done: make(chan struct{}), http: &http.Server{
		Handler: mux, ReadTimeout: controlTimeout, WriteTimeout: controlTimeout, MaxHeaderBytes: 8 << 10,
	}}
	go func() {
		defer close(c.done)
		_ = c.http.Serve(l) // ends with close
	}()
	return c, nil
}

// listenControl makes the socket, in the place of a stale one if need be.
func listenControl(path string) (net.Listener, error) {
	// bind(2) makes the file with the mode that the descriptor has, less the
	// umask: nobody else can connect in the moment before the chmod below,
	// which gives back what the umask took.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if closed := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), controlMode) }); closed != nil {
			return closed
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		l, err = lc.Listen(context.Background(), "unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on the control socket: %w; choose another path with --control", err)
	}
	if err := os.Chmod(path, controlMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("setting the control socket's mode: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on, and nothing else.
func removeStale(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil // its owner has just removed it
	case err != nil:
		return fmt.Errorf("looking at what is in the control socket's place: %w", err)
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("control socket: %s is there and is no socket; choose another path with --control", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("control socket %s is in use by another daemon; choose another path with --control", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // too busy to answer, for one, is not stale
		return fmt.Errorf("asking who listens on the control socket: %w; choose another path with --control", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the stale control socket: %w", err)
	}
	return nil
}

// close ends the control socket and removes it.
func (c *control) close() {
	_ = c.http.Close()
	<-c.done
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error is the asker's going away
}

// drop ends connections: digits are the ID of one, anything else is a node.
func drop(d *door.Door, target string) (int, error) {
	id, err := strconv.ParseUint(target, 10, 64)
	if err != nil {
		return d.DropNode(target)
	}
	found, err := d.DropID(id)
	if !found || err != nil {
		return 0, err
	}
	return 1, nil
}

// client is a command's side of the control socket.
type client struct{ path string }

// flag adds the flag that says which daemon is asked.
func (c *client) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.path, "control", defaultControl, "`PATH` of the daemon's control socket")
}

// get asks for path and decodes the answer into v.
func (c *client) get(ctx context.Context, path string, v any) error {
	return c.do(ctx, http.MethodGet, path, v)
}

func (c *client) do(ctx context.Context, method, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://oneport/v1/"+path, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return failed(fmt.Errorf("no daemon answers on %s; start one with `oneport serve`, or name its socket with --control", c.path))
	case errors.Is(err, os.ErrPermission):
		return failed(fmt.Errorf("no permission to use %s; ask as root or as a member of the socket's group", c.path))
	case err != nil:
		return failed(fmt.Errorf("asking the daemon: %w", err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return failed(fmt.Errorf("asking the daemon for %s: answer %s; daemon and command may be of different versions", path, resp.Status))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxControl)).Decode(v); err != nil {
		return failed(fmt.Errorf("reading the daemon's answer: %w", err))
	}
	return nil
}

func (c *client) drop(ctx context.Context, target string) (int, error) {
	var d dropped
	err := c.do(ctx, http.MethodPost, "drop?target="+url.QueryEscape(target), &d)
	if err == nil && d.Error != "" {
		err = failed(errors.New(d.Error))
	}
	return d.Dropped, err
}
