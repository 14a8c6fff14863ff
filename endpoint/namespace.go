package endpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxIdle is how many netlink sockets of a namespace are kept between
// questions.
const maxIdle = 4

// namespace is a network namespace and the netlink sockets that ask in it. It
// keeps the kernel's namespace alive, and so is closed with the last of its
// processes.
type namespace struct {
	inode uint64   // which the kernel knows it by
	file  *os.File // nil if it is that of this process

	processes int // BEAMs that are in it; under the lock of machines

	mu     sync.Mutex
	idle   []*diagnosis
	denied error // that it may not be entered
	closed bool
}

// ownNamespace is that of this process: of the thread that asks, since its first
// one, which /proc/PID is about, may have been moved by somebody.
func ownNamespace() (*namespace, error) {
	n, err := openNamespace("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("finding own network namespace: %w (is /proc mounted?)", err)
	}
	n.file.Close()
	n.file = nil
	return n, nil
}

// namespaceOf opens that of the process with this number.
func namespaceOf(pid int) (*namespace, error) { return openNamespace(procPath(pid, "ns/net")) }

func openNamespace(path string) (*namespace, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var status unix.Stat_t
	if err := control(file, func(fd int) error { return unix.Fstat(fd, &status) }); err != nil {
		file.Close()
		return nil, err
	}
	return &namespace{inode: status.Ino, file: file}, nil
}

// look asks for a socket of this namespace. The error is unix.ENOENT if it has
// none with these ends.
func (n *namespace) look(local, remote netip.AddrPort) (Record, error) {
	d, err := n.take()
	if err != nil {
		return Record{}, err
	}
	r, err := d.look(local, remote, false)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		d.close() // it may be out of step
		return Record{}, err
	}
	n.put(d)
	return r, err
}

// take returns an idle netlink socket or opens one.
func (n *namespace) take() (*diagnosis, error) {
	n.mu.Lock()
	if last := len(n.idle) - 1; last >= 0 {
		d := n.idle[last]
		n.idle = n.idle[:last]
		n.mu.Unlock()
		return d, nil
	}
	denied := n.denied
	n.mu.Unlock()
	switch {
	case denied != nil:
		return nil, denied
	case n.file == nil:
		return newDiagnosis()
	}
	d, err := n.open()
	if errors.Is(err, unix.EPERM) {
		err = sysAdmin.missing(err)
		n.mu.Lock()
		n.denied = err
		n.mu.Unlock()
	}
	return d, err
}

// open opens a netlink socket in the namespace, which it belongs to for good.
func (n *namespace) open() (d *diagnosis, err error) {
	onOwnThread(func() {
		if err = control(n.file, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }); err != nil {
			err = fmt.Errorf("entering network namespace %d: %w", n.inode, err)
			return
		}
		d, err = newDiagnosis()
	})
	return d, err
}

// onOwnThread runs f on a thread that ends with it, so that nobody else runs
// where f has gone. It is never the first thread of the process, which does not
// end, and which is what others see of the process in /proc.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onOwnThread(f) // on another, since this one is held
			return
		}
		f()
	}()
	<-done
}

// put keeps a netlink socket for the next question.
func (n *namespace) put(d *diagnosis) {
	n.mu.Lock()
	keep := !n.closed && len(n.idle) < maxIdle
	if keep {
		n.idle = append(n.idle, d)
	}
	n.mu.Unlock()
	if !keep {
		d.close()
	}
}

// close lets go of the kernel's namespace, when the questions are over that are
// being asked.
func (n *namespace) close() {
	n.mu.Lock()
	idle := n.idle
	n.idle, n.closed = nil, true
	n.mu.Unlock()
	for _, d := range idle {
		d.close()
	}
	if n.file != nil {
		n.file.Close()
	}
}

// control runs f with the descriptor of conn, which it leaves as it is. The error
// is that of f, or fs.ErrClosed.
func control(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fs.ErrClosed
	}
	var failed error
	if raw.Control(func(fd uintptr) { failed = f(int(fd)) }) != nil {
		return fs.ErrClosed // nothing else can be wrong
	}
	return failed
}
