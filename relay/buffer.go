package relay

import (
	"sync"

	"golang.org/x/sys/unix"
)

// bufferSize is the size of the path Copy's buffers.
const bufferSize = 64 << 10

// buffer is the vessel of the path Copy.
type buffer struct {
	space []byte
	left  []byte // still to be drained
}

var buffers = sync.Pool{New: func() any { return &buffer{space: make([]byte, bufferSize)} }}

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) fill(fd int) (int, error) {
	for {
		n, err := unix.Read(fd, b.space)
		if err == unix.EINTR {
			continue
		}
		n = max(n, 0)
		b.left = b.space[:n]
		return n, err
	}
}

func (b *buffer) drain(fd int) (int, error) {
	for {
		n, err := unix.Write(fd, b.left)
		if err == unix.EINTR {
			continue
		}
		n = max(n, 0)
		b.left = b.left[n:]
		return n, err
	}
}

func (b *buffer) empty() bool { return len(b.left) == 0 }

// release keeps the buffer for the next, unless it is somebody else's bytes.
func (b *buffer) release() {
	b.left = nil
	if b.space != nil {
		buffers.Put(b)
	}
}
