package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultForkTimeout bounds a whole handover to a node of the fork.
	DefaultForkTimeout = 2 * time.Second

	// turnTimeout is how long a handover waits for the one before it. A node
	// that is slow must not make the clients of others wait for as long.
	turnTimeout = 500 * time.Millisecond

	// forkRequest is what the node is asked on its ALIVE connection, and
	// forkMark the byte that its descriptor comes with.
	forkRequest = 'h'
	forkMark    = 20
)

// ErrForkBusy says that another node of the fork was served all the time.
var ErrForkBusy = errors.New("another handover of the 2016 protocol took too long")

// Fork hands connections over to nodes of the OTP fork of 2016, which is one
// at a time: all its nodes of a host use the same path for their sockets. The
// zero value is ready to use. A host has one Fork.
type Fork struct {
	// Timeout bounds the time from the question to the sending of the
	// descriptor. 0 means DefaultForkTimeout.
	Timeout time.Duration

	once sync.Once
	turn chan struct{} // holds an element while a handover takes place
}

// ForkNode is a node of the fork, as its registration tells.
type ForkNode struct {
	// UID is the user who registered the node. The socket must be his.
	UID uint32
	// Ask sends a request on the node's ALIVE connection and returns its
	// answer, both without their length. It returns when ctx ends.
	Ask func(ctx context.Context, request []byte) (answer []byte, err error)
}

// Offer gives c's descriptor to a node, which then answers the client itself
// (`69 00 version16`). Nothing was said to the client before.
//
// Without an error the node has the connection, and the caller closes its own
// copy, by Close and nothing else. The protocol has no word for "I have it".
// With an error the node has never had it, and the caller has it as before,
// with other TCP_NODELAY and SO_KEEPALIVE perhaps. The error is ErrForkBusy, or
// says what was wrong with the node's answer or its socket, or wraps the
// error of Ask.
func (f *Fork) Offer(ctx context.Context, node ForkNode, c *net.TCPConn) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	defer func() { <-f.turn }()
	ctx, done := context.WithTimeout(ctx, f.timeout())
	defer done()
	path, err := node.Ask(ctx, []byte{forkRequest})
	if err != nil {
		return fmt.Errorf("asking the node for its socket: %w", err)
	}
	return give(string(path), node.UID, c)
}

// begin waits for the turn.
func (f *Fork) begin(ctx context.Context) error {
	f.once.Do(func() { f.turn = make(chan struct{}, 1) })
	timer := time.NewTimer(turnTimeout)
	defer timer.Stop()
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrForkBusy
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *Fork) timeout() time.Duration {
	if f.Timeout > 0 {
		return f.Timeout
	}
	return DefaultForkTimeout
}

// give sends c's descriptor to the socket at path, if it belongs to uid. None
// of its steps waits.
func give(path string, uid uint32, c *net.TCPConn) error {
	socket, err := connectOwned(path, uid)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	descriptor, err := prepare(c)
	if err != nil {
		return fmt.Errorf("preparing the connection: %w", err)
	}
	if err := sendDescriptor(socket, []byte{forkMark}, descriptor); err != nil {
		return fmt.Errorf("sending the descriptor: %w", err)
	}
	return nil
}

// connectOwned connects to a socket of a user, who has chosen the path and may
// change what is there at any time. So it is opened once; what the descriptor
// refers to is looked at, and connected to by that descriptor.
func connectOwned(path string, uid uint32) (socket int, err error) {
	if err := checkPath(path); err != nil {
		return -1, err
	}
	target, err := openSocket(path, uid)
	if err != nil {
		return -1, err
	}
	defer unix.Close(target)
	socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := connect(socket, target, path, uid); err != nil {
		unix.Close(socket)
		return -1, err
	}
	return socket, nil
}

// checkPath tells whether a path can be that of a node's socket.
func checkPath(path string) error {
	switch {
	case len(path) > maxPath:
		return fmt.Errorf("the path of the node's socket has %d bytes, %d are allowed", len(path), maxPath)
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("the path of the node's socket, %q, is not absolute", path)
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("the path of the node's socket, %q, has a NUL", path)
	}
	return nil
}

// openSocket opens what is at path, and does not follow it if it is a symbolic
// link. Links on the way to it do no harm, as long as they are not those of
// /proc, by which the path would lead through the daemon's own descriptors.
func openSocket(path string, uid uint32) (int, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, fmt.Errorf("opening the node's socket: %w", &os.PathError{Op: "openat2", Path: path, Err: err})
	}
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	switch {
	case err != nil:
		err = fmt.Errorf("looking at the node's socket: %w", &os.PathError{Op: "fstat", Path: path, Err: err})
	case stat.Mode&unix.S_IFMT != unix.S_IFSOCK:
		err = fmt.Errorf("the node's socket %q is no socket", path)
	case stat.Uid != uid:
		err = fmt.Errorf("the node's socket %q belongs to uid %d, the node to uid %d", path, stat.Uid, uid)
	default:
		return fd, nil
	}
	unix.Close(fd)
	return -1, err
}

// connect connects to the socket that target refers to, and checks who listens:
// the file could be older than its present user's.
func connect(socket, target int, path string, uid uint32) error {
	at := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", target)}
	switch err := unix.Connect(socket, at); err {
	case nil:
	case unix.EAGAIN:
		return fmt.Errorf("the node's socket %q takes no more connections now", path)
	case unix.ECONNREFUSED:
		return fmt.Errorf("nobody listens on the node's socket %q", path)
	case unix.ENOENT:
		return fmt.Errorf("connecting to the node's socket %q: %w (is /proc mounted?)", path, err)
	default:
		return fmt.Errorf("connecting to the node's socket %q: %w", path, err)
	}
	cred, err := peerOf(socket)
	switch {
	case err != nil:
		return fmt.Errorf("asking who listens on the node's socket %q: %w", path, err)
	case cred.Uid != uid:
		return fmt.Errorf("uid %d listens on the node's socket %q, the node belongs to uid %d", cred.Uid, path, uid)
	}
	return nil
}
