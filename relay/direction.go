package relay

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// errIdle is returned by fill when nothing has come for a while.
var errIdle = errors.New("nothing to move")

// direction moves bytes from one end to the other.
type direction struct {
	relay    *relay
	from, to *side
	moved    *atomic.Uint64
	prefix   []byte // still to be moved, before anything else
	busy     bool   // bytes have come since the rest was begun
	parked   bool   // under relay.mu: no goroutine has it

	// The two attempts below as func values, made once: a closure per message
	// would be garbage per message.
	tryFill, tryDrain func(fd uintptr) bool
	// What an attempt leaves behind. The vessel is nil while there is nothing
	// to move.
	vessel vessel
	n      int
	err    error
}

func (d *direction) init(r *relay, from, to *side, moved *atomic.Uint64) {
	d.relay, d.from, d.to, d.moved = r, from, to, moved
	d.tryFill, d.tryDrain = d.fillOnce, d.drainOnce
}

// run moves everything from one end to the other and passes its end on, or ends
// the relay if that fails. It returns early if the direction is parked, and is
// called again when there is something to move.
func (d *direction) run() {
	for {
		_ = d.from.armRest() // the next read says the same
		failed, err := d.move()
		switch {
		case err == errIdle:
			if d.relay.park(d) {
				return
			}
			continue
		case err != nil:
			d.relay.fail(failed, err)
		case d.relay.eofs.Add(1) == 2:
			d.relay.end(Finished, nil)
		default:
			// Nobody reads this end any more. It can still be reset, and the
			// other direction may have nothing to write by which it would find
			// out.
			d.relay.fail(d.from, d.from.watch())
		}
		d.relay.leave(1)
		return
	}
}

// move moves the prefix and then everything that comes from one end to the
// other, and passes the end of the direction on. If it fails it returns the
// end that failed, or errIdle.
func (d *direction) move() (*side, error) {
	defer d.putDown()
	if len(d.prefix) > 0 {
		d.vessel = &buffer{left: d.prefix}
		d.prefix = nil
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
// is 0 when there will be no more. If none come for a while it is errIdle.
func (d *direction) fill() error {
	for {
		err := d.from.raw.Read(d.tryFill)
		switch {
		case err == nil:
			d.busy = true
			return d.err
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case !d.busy:
			return errIdle
		}
		// The rest is begun anew by its end, not by every message.
		d.busy = false
		if err := d.from.armRest(); err != nil {
			return err
		}
	}
}

// fillOnce is called when the connection may be readable, and reports whether
// the waiting is over. The vessel that the last bytes were in is used as long
// as there are more, and put down before the connection is waited for.
func (d *direction) fillOnce(fd uintptr) bool {
	for {
		if d.vessel == nil {
			if d.vessel, d.err = d.relay.take(); d.err != nil {
				return true
			}
		}
		d.n, d.err = d.vessel.fill(int(fd))
		switch {
		case d.err == unix.EAGAIN:
			d.putDown()
			return false
		case d.err == errNoSplice:
			d.putDown()
			if d.err = d.relay.fallBack(d.err); d.err != nil {
				return true
			}
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
