package relay

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// pipeSize is the most that one splice(2) moves, and the size of a pipe: the
// default of /proc/sys/fs/pipe-max-size.
const pipeSize = 1 << 20

// errNoSplice is returned by a pipe's fill for a socket that cannot splice.
// Nothing has been taken from the socket then.
var errNoSplice = errors.New("not supported by this kind of socket")

// pipe is the vessel of the path Splice.
type pipe struct {
	r, w int
	held int // bytes in it
}

func (p *pipe) fill(fd int) (int, error) {
	n, err := splice(fd, p.w, pipeSize)
	if err == unix.EINVAL {
		return 0, errNoSplice
	}
	p.held = n
	return n, err
}

func (p *pipe) drain(fd int) (int, error) {
	n, err := splice(p.r, fd, p.held)
	p.held -= n
	return n, err
}

func (p *pipe) empty() bool { return p.held == 0 }

func (p *pipe) release() { pipes.put(p) }

// splice moves up to size bytes. On an error it returns 0 of them.
func splice(from, to, size int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, size, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err == unix.EINTR {
			continue
		}
		return max(int(n), 0), err
	}
}

// pipes is the one state that the package keeps: a cache of empty pipes,
// shared by all relays, so that a message does not pay for a new pipe. It
// holds none when no relay runs. (A sync.Pool would leave the descriptors of
// dropped pipes to the garbage collector, which sees no reason to hurry.)
var pipes pipeCache

// maxIdlePipes bounds the cache. A direction needs a pipe only while it moves
// bytes, so hardly more are in use than there are processors, besides those
// of ends that do not read.
const maxIdlePipes = 64

type pipeCache struct {
	mu    sync.Mutex
	users int // relays that run
	idle  []*pipe
}

func (c *pipeCache) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users++
}

func (c *pipeCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	if c.users > 0 {
		return
	}
	for _, p := range c.idle {
		p.close()
	}
	c.idle = nil
}

// take returns an empty pipe.
func (c *pipeCache) take() (*pipe, error) {
	c.mu.Lock()
	if last := len(c.idle) - 1; last >= 0 {
		p := c.idle[last]
		c.idle = c.idle[:last]
		c.mu.Unlock()
		return p, nil
	}
	c.mu.Unlock()
	return newPipe()
}

// put keeps a pipe for the next, or closes it.
func (c *pipeCache) put(p *pipe) {
	if p.empty() {
		c.mu.Lock()
		if len(c.idle) < maxIdlePipes {
			c.idle = append(c.idle, p)
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
	p.close()
}

func newPipe() (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	// A user over /proc/sys/fs/pipe-user-pages-soft is refused: a smaller
	// pipe works too, with more calls.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{r: fds[0], w: fds[1]}, nil
}

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}
