package handover

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// socketMode lets every user of this host connect. Who may receive what is
	// decided by SO_PEERCRED.
	socketMode = 0o666
	// maxPath is the longest path of a socket, in bytes: sun_path of unix(7)
	// less its final NUL.
	maxPath = 107
)

// Listen makes the socket that receivers connect to, of type SOCK_SEQPACKET.
// A socket that nobody answers on, left behind by a daemon that was killed, is
// replaced; nothing else is. Closing the listener removes the socket.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("node socket: the path has %d bytes, %d are allowed; choose a shorter one with --node-socket", len(path), maxPath)
	}
	addr := &net.UnixAddr{Name: path, Net: "unixpacket"}
	l, err := net.ListenUnix(addr.Net, addr)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(addr); err != nil {
			return nil, err
		}
		l, err = net.ListenUnix(addr.Net, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on the node socket: %w; choose another path with --node-socket", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("setting the node socket's mode: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on, and nothing else.
func removeStale(addr *net.UnixAddr) error {
	switch info, err := os.Lstat(addr.Name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil // its owner has just removed it
	case err != nil:
		return fmt.Errorf("looking at what is in the node socket's place: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("node socket: %s is there and is no socket; choose another path with --node-socket", addr.Name)
	}
	c, err := net.DialTimeout(addr.Net, addr.Name, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("node socket %s is in use by another daemon; choose another path with --node-socket", addr.Name)
	}
	if !errors.Is(err, unix.ECONNREFUSED) { // too busy to answer, for one, is not stale
		return fmt.Errorf("asking who listens on the node socket: %w; choose another path with --node-socket", err)
	}
	if err := os.Remove(addr.Name); err != nil {
		return fmt.Errorf("removing the stale node socket: %w", err)
	}
	return nil
}
