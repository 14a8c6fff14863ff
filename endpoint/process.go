package endpoint

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// process is a BEAM that runs on this host.
type process struct {
	pid int
	// pidfd refers to this very process, and never to another that gets its
	// number. What is read of /proc/PID is only believed if it was alive
	// afterwards, or if what was read proves right.
	pidfd     *os.File
	namespace *namespace // where it is; machines sets it

	// table is the descriptors that were seen last. It does not change.
	table atomic.Pointer[table]

	mu    sync.Mutex
	found []int // the numbers of the descriptors that were found last, at most recent
	next  int   // the oldest of them, if they are so many
}

// table is what descriptors of a process referred to, in the order of their
// numbers.
type table []descriptor

type descriptor struct {
	number int
	inode  uint32 // of the socket, or 0 for what is no socket
}

const (
	recent = 8 // numbers that a process may use again
	lowest = 8 // free ones, of which it uses the first
)

// maxTable is how many descriptors a process may have for them to be remembered.
const maxTable = 1 << 16

// errNoBEAM says that a process runs another program, or none any more.
var errNoBEAM = errors.New("not an Erlang VM")

// openProcess returns the process with this number if it is a BEAM, with no
// namespace yet. The error is errNoBEAM if it is none, and fs.ErrPermission if it
// must not be known.
func openProcess(pid int) (*process, error) {
	// Most processes are none, and cost no descriptor.
	if err := checkProgram(pid); err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, errNoBEAM
	} else if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	p := &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	if err := p.check(); err != nil {
		p.pidfd.Close()
		return nil, err
	}
	return p, nil
}

// check makes sure that the process is a BEAM at this moment.
func (p *process) check() error {
	err := checkProgram(p.pid)
	if !p.alive() {
		return errNoBEAM // and what was looked at may have been another one
	}
	return err
}

// checkProgram makes sure that whoever has this number runs a BEAM. The link is
// the kernel's own and so holds in any mount namespace, and for a program that
// was replaced or deleted.
func checkProgram(pid int) error {
	program, err := os.Readlink(procPath(pid, "exe"))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return err
	case err != nil || !isBEAM(program):
		return errNoBEAM // a kernel thread has no such link
	}
	return nil
}

// isBEAM tells whether a program is an emulator of OTP, by its file: beam.smp, or
// that of another type or flavour, such as beam.debug.smp.
func isBEAM(program string) bool {
	name := filepath.Base(strings.TrimSuffix(program, " (deleted)"))
	return strings.HasPrefix(name, "beam.") && strings.HasSuffix(name, ".smp")
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// alive tells whether the process has not ended.
func (p *process) alive() bool {
	return control(p.pidfd, func(fd int) error {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		for err == unix.EINTR { // a signal is enough, although nothing is waited for
			n, err = unix.Poll(poll, 0)
		}
		if n > 0 {
			return errNoBEAM
		}
		return err
	}) == nil
}

// wait returns when the process has ended, or after close.
func (p *process) wait() {
	raw, err := p.pidfd.SyscallConn()
	if err == nil {
		// It is readable from the end of the process on. The error is that it
		// was closed.
		_ = raw.Read(func(uintptr) bool { return !p.alive() })
	}
}

func (p *process) close() { p.pidfd.Close() }

// duplicate takes a duplicate of a descriptor of the process (pidfd_getfd(2)).
func (p *process) duplicate(number int) (duplicate int, err error) {
	err = control(p.pidfd, func(fd int) error {
		duplicate, err = unix.PidfdGetfd(fd, number, 0)
		return err
	})
	return duplicate, err
}

// remembered returns the descriptor that referred to a socket when the process
// was last searched.
func (p *process) remembered(inode uint32) (number int, ok bool) {
	if t := p.table.Load(); t != nil {
		for _, d := range *t {
			if d.inode == inode {
				return d.number, true
			}
		}
	}
	return 0, false
}

// guess looks for the descriptor that refers to a socket where a new connection is
// likely to be, which does not depend on how many the process has: at the numbers
// that were found last, since those of connections that have ended are used again,
// and at the lowest that were free, since the kernel takes those.
func (p *process) guess(inode uint32) (number int, ok bool) {
	d, err := openDescriptors(p.pid)
	if err != nil {
		return 0, false // search says it
	}
	defer d.close()
	for _, n := range p.likely() {
		if d.inode(n) == inode {
			p.note(n, inode)
			return n, true
		}
	}
	return 0, false
}

// likely returns numbers to look at first.
func (p *process) likely() []int {
	p.mu.Lock()
	numbers := slices.Clone(p.found)
	p.mu.Unlock()
	most := len(numbers) + lowest
	var known table
	if t := p.table.Load(); t != nil {
		known = *t
	}
	for n := 0; len(numbers) < most; n++ {
		if len(known) > 0 && known[0].number == n {
			known = known[1:]
			continue
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// note remembers where a socket was found. Of two at a time one may be forgotten,
// and is looked for anew.
func (p *process) note(number int, inode uint32) {
	p.foundAt(number)
	var known table
	if t := p.table.Load(); t != nil {
		known = *t
	}
	i, there := slices.BinarySearchFunc(known, number, func(d descriptor, n int) int { return cmp.Compare(d.number, n) })
	switch d := (descriptor{number, inode}); {
	case there:
		known = slices.Clone(known)
		known[i] = d
	case len(known) < maxTable:
		known = slices.Concat(known[:i], table{d}, known[i:])
	}
	p.table.Store(&known)
}

// foundAt puts a number among those that were found last.
func (p *process) foundAt(number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case slices.Contains(p.found, number):
	case len(p.found) < recent:
		p.found = append(p.found, number)
	default:
		p.found[p.next] = number
		p.next = (p.next + 1) % recent
	}
}

// search looks for the descriptor that refers to a socket. The numbers that were
// not there the last time come first, so that a new connection usually costs the
// list of numbers and one look.
func (p *process) search(ctx context.Context, inode uint32) (number int, ok bool, err error) {
	d, err := openDescriptors(p.pid)
	if err != nil {
		return 0, false, err
	}
	defer d.close()
	numbers, err := d.numbers()
	if err != nil {
		return 0, false, err
	}
	var before table
	if t := p.table.Load(); t != nil {
		before = *t
	}
	now := make(table, len(numbers))
	fresh := make([]bool, len(numbers))
	for i, n := range numbers {
		for len(before) > 0 && before[0].number < n {
			before = before[1:]
		}
		now[i].number = n
		if fresh[i] = len(before) == 0 || before[0].number != n; !fresh[i] {
			now[i].inode = before[0].inode
		}
	}
	unseen := len(now) // below this index, fresh ones have not been looked at
	defer func() { p.remember(now, fresh, unseen) }()
	for _, first := range []bool{true, false} {
		// The highest first: likely the newest.
		for i := len(now) - 1; i >= 0; i-- {
			if fresh[i] != first {
				continue
			}
			if err := ctx.Err(); err != nil {
				return 0, false, err
			}
			now[i].inode = d.inode(now[i].number)
			unseen = min(unseen, i)
			if now[i].inode == inode {
				p.foundAt(now[i].number)
				return now[i].number, true, nil
			}
		}
		unseen = 0
	}
	return 0, false, nil
}

// remember keeps a table, without those fresh entries that are below unseen.
func (p *process) remember(t table, fresh []bool, unseen int) {
	if len(t) > maxTable {
		return
	}
	seen := t[:0]
	for i, d := range t {
		if !fresh[i] || i >= unseen {
			seen = append(seen, d)
		}
	}
	p.table.Store(&seen)
}

// descriptors is the open directory of a process's descriptors.
type descriptors struct {
	dir *os.File
	// links says that it is /proc/PID/fd, where descriptors are links, and not
	// /proc/PID/fdinfo, where they are files of text.
	links bool
}

// openDescriptors opens /proc/PID/fd, which is for the process's user and for
// CAP_DAC_READ_SEARCH, or else /proc/PID/fdinfo, for which CAP_SYS_PTRACE is
// enough, but which takes longer and tells inodes from Linux 5.14 on only.
func openDescriptors(pid int) (*descriptors, error) {
	dir, err := os.Open(procPath(pid, "fd"))
	if err == nil {
		return &descriptors{dir, true}, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		if dir, err = os.Open(procPath(pid, "fdinfo")); err == nil {
			return &descriptors{dir, false}, nil
		}
	}
	return nil, err
}

func (d *descriptors) close() { d.dir.Close() }

// numbers returns the descriptors in the order of their numbers.
func (d *descriptors) numbers() ([]int, error) {
	names, err := d.dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// inode returns the inode of the socket that a descriptor refers to, or 0 if it
// is no socket, or closed. In fdinfo a file may seem to be a socket.
func (d *descriptors) inode(number int) (inode uint32) {
	text := make([]byte, 256)
	// An error is a descriptor that is closed by now.
	_ = control(d.dir, func(dir int) error {
		name := strconv.Itoa(number)
		if d.links {
			n, err := unix.Readlinkat(dir, name, text)
			if err == nil {
				inode = parseLink(string(text[:n]))
			}
			return err
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		n, err := unix.Read(fd, text)
		if err == nil {
			inode = parseInfo(string(text[:n]))
		}
		return err
	})
	return inode
}

// parseLink reads the target of a link in /proc/PID/fd: "socket:[INODE]".
func parseLink(target string) uint32 {
	digits, ok := strings.CutPrefix(target, "socket:[")
	if !ok {
		return 0
	}
	return parseInode(strings.TrimSuffix(digits, "]"))
}

// parseInfo reads a file in /proc/PID/fdinfo, where "ino:" is followed by the
// inode of whatever file it is, in a line of its own.
func parseInfo(text string) uint32 {
	_, rest, ok := strings.Cut(text, "\nino:\t")
	if !ok {
		return 0
	}
	digits, _, ok := strings.Cut(rest, "\n")
	if !ok {
		return 0
	}
	return parseInode(digits)
}

func parseInode(digits string) uint32 {
	inode, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(inode)
}
