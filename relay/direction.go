package relay

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// direction moves bytes from one end to the other.
type direction struct {
	relay    *relay
	from, to *side
	moved    *atomic.Uint64

	// The two attempts below as func values, made once: a closure per message
	// would be garbage per message.
	tryFill, tryDrain func(fd uintptr) bool
	// What an attempt leaves behind. The vessel is nil while there is nothing
	// to move.
	vessel vessel
	n      int
	err    error
}

func newDirection(r *relay, from, to *side, moved *atomic.Uint64) *direction {
	d := &direction{relay: r, from: from, to: to, moved: moved}
	d.tryFill, d.tryDrain = d.fillOnce, d.drainOnce
	return d
}

// move moves the prefix and then everything that comes from one end to the
// other, and passes the end of the direction on. If it fails it returns the
// end that failed.
func (d *direction) move(prefix []byte) (*side, error) {
	defer d.putDown()
	if len(prefix) > 0 {
		d.vessel = &buffer{left: prefix}
		if failed, err := d.drain(); err != nil {
			return failed, err
		}
		d.putDown()
	}
	for {
		if err := d.fill(); err != nil {
			return d.from, err
		}
		if d.n == 0 {
			// The end of a connection that is broken is not passed on as an
			// orderly one.
			if err := d.from.broken(); err != nil {
				return d.from, err
			}
			return d.to, d.to.finish()
		}
		if failed, err := d.drain(); err != nil {
			return failed, err
		}
	}
}

// fill waits for bytes and takes some. It leaves their number in d.n, which
// is 0 when there will be no more.
func (d *direction) fill() error {
	if err := d.from.raw.Read(d.tryFill); err != nil {
		return err
	}
	return d.err
}

// fillOnce is called when the connection may be readable, and reports whether
// the waiting is over. The vessel that the last bytes were in is used as long
// as there are more, and put down before the connection is waited for.
func (d *direction) fillOnce(fd uintptr) bool {
	for {
		if d.vessel == nil {
			d.vessel = d.relay.take()
		}
		d.n, d.err = d.vessel.fill(int(fd))
		switch {
		case d.err == unix.EAGAIN:
			d.putDown()
			return false
		case d.err == errNoSplice:
			d.putDown()
			d.relay.fallBack(d.err)
		default:
			return true
		}
	}
}

// drain empties the vessel. If it fails it returns the end that failed: also
// the one that the bytes came from, if it breaks while the other end takes
// nothing.
func (d *direction) drain() (*side, error) {
	for {
		err := d.to.raw.Write(d.tryDrain)
		if err == nil {
			return d.to, d.err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return d.to, err
		}
		if err := d.from.broken(); err != nil {
			return d.from, err
		}
		if err := d.to.armPatience(); err != nil {
			return d.to, err
		}
	}
}

// drainOnce is called when the connection may be writable, and reports
// whether the waiting is over. What does not fit stays in the vessel.
func (d *direction) drainOnce(fd uintptr) bool {
	for !d.vessel.empty() {
		n, err := d.vessel.drain(int(fd))
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			d.err = err
			return true
		}
		d.moved.Add(uint64(n))
	}
	return true
}

// putDown gives the vessel up, if there is one.
func (d *direction) putDown() {
	if d.vessel != nil {
		d.vessel.release()
		d.vessel = nil
	}
}
