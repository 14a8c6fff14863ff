package relay

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rest is how long a direction waits for bytes with a goroutine of its own.
// Then it is parked. The nodes' own ticks, by default four a minute and each
// way, wake it for as long each time.
const rest = 2 * time.Second

// parked are the directions that wait for bytes without a goroutine, whose
// stack is most of what an idle connection costs: one goroutine waits for all
// of them. Like pipes it is shared by all relays, and nothing is left of it
// when no relay runs.
var parked lot

// lot is an epoll instance and who waits in it.
type lot struct {
	mu      sync.Mutex
	users   int // relays that run
	epoll   *os.File
	waiting map[int32]*direction // by the descriptor of the end that bytes come from
}

func (l *lot) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
}

func (l *lot) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	if l.users == 0 && l.epoll != nil {
		l.epoll.Close()
		l.epoll, l.waiting = nil, nil
	}
}

// add has a direction woken when its end, whose descriptor this is, can be read
// or has failed.
func (l *lot) add(fd int32, d *direction) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll == nil {
		if err := l.start(); err != nil {
			return err
		}
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: fd}
	if err := l.control(unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return err
	}
	l.waiting[fd] = d
	return nil
}

// remove forgets a descriptor. It comes before the descriptor is closed: while
// another process holds a copy, the kernel would keep it.
func (l *lot) remove(fd int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, fd)
	_ = l.control(unix.EPOLL_CTL_DEL, fd, nil)
}

func (l *lot) control(op int, fd int32, event *unix.EpollEvent) error {
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), op, int(fd), event) }); err != nil {
		return err
	}
	return failed
}

// start makes the epoll instance, which the runtime's own poller waits for.
func (l *lot) start() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	epoll := os.NewFile(uintptr(fd), "epoll")
	raw, err := epoll.SyscallConn()
	if err != nil {
		epoll.Close()
		return err
	}
	l.epoll, l.waiting = epoll, make(map[int32]*direction)
	go l.watch(raw)
	return nil
}

// watch wakes directions, until the epoll instance is closed.
func (l *lot) watch(raw syscall.RawConn) {
	var events [128]unix.EpollEvent
	for {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), events[:], 0)
			return n != 0
		})
		if err != nil {
			return
		}
		if failed != nil && failed != unix.EINTR {
			return // EBADF and EINVAL, which cannot be
		}
		for _, event := range events[:max(n, 0)] {
			if d := l.at(event.Fd); d != nil {
				d.relay.wake(d)
			}
		}
	}
}

func (l *lot) at(fd int32) *direction {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting[fd]
}
