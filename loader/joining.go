package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"oneport/bpf"
)

// role is what a socket does in a pair.
type role int

const (
	reads  role = 1 << iota // it may be given messages past its TCP
	writes                  // its messages may go the short way
)

const (
	ingress = uint32(bpf.ShortcutFormINGRESS)
	egress  = uint32(bpf.ShortcutFormEGRESS)
)

// joining is a pair in the making.
type joining struct {
	loader *Loader
	kind   Kind
	ends   []*end
}

// end is one socket of it.
type end struct {
	conn   syscall.Conn
	role   role
	cookie uint64
	before bpf.ShortcutEndpoint // described a moment before seen
	seen   bpf.ShortcutEndpoint
	route  bpf.ShortcutRoute
	target bool // somebody's route leads here
}

// end adds a socket.
func (j *joining) end(conn syscall.Conn, role role) *end {
	e := &end{conn: conn, role: role}
	j.ends = append(j.ends, e)
	return e
}

// send gives e a route to target, which must be described already. If the two
// had one before, it holds still: the sequence numbers of the long way's two ends
// keep their distance as long as the sockets live.
func (e *end) send(target *end, form, delta uint32) {
	e.route = bpf.ShortcutRoute{
		TargetCookie: target.cookie,
		Target:       target.seen.Address,
		Form:         form,
		Delta:        delta,
	}
	target.target = true
	if old := e.seen.Route; old.TargetCookie == target.cookie && old.Form == form {
		e.route.Delta = old.Delta
		e.route.Begin = old.Begin
	}
}

// look checks every socket and has the kernel describe it, where no descriptor
// tells: at which address it is, and how far it has come.
func (j *joining) look() (err error) {
	stage := j.loader.objects.Stage
	for _, e := range j.ends {
		if e.cookie, err = check(e.conn, e.role); err != nil {
			return err
		}
		if err := e.put(stage, uint32(0), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("putting a socket on the stage: %w", err)
		}
		defer e.control(func(fd int32) error { return stage.Delete(fd) })
	}
	// Twice: two sockets are not described at the same moment, and a busy
	// connection has moved between the one and the other.
	for range 2 {
		err = j.loader.each(j.loader.staged, func(seen *bpf.ShortcutEndpoint) {
			for _, e := range j.ends {
				if e.cookie == seen.Cookie {
					e.before, e.seen = e.seen, *seen
				}
			}
		})
		if err != nil {
			return err
		}
	}
	for _, e := range j.ends {
		if e.before.Cookie == 0 {
			return errors.New("kernel does not describe the socket")
		}
	}
	return nil
}

// install puts the sockets into the maps: first what the program needs to know,
// then those who send, at last, which opens the short way, those who may be
// sent to.
func (j *joining) install() (err error) {
	l, o := j.loader, &j.loader.objects
	var done []func() error
	defer func() {
		if err != nil {
			// Nothing has gone the short way yet.
			for _, undo := range done {
				_ = undo()
			}
		}
	}()
	insert := func(m *ebpf.Map, e *end) error {
		// Of a pair that was disabled, or that lives. To insert again is no way
		// to find out: it is refused as if the socket were somebody else's.
		if l.has(m, e.cookie) {
			return nil
		}
		err := e.put(m, nil, ebpf.UpdateNoExist)
		switch {
		case errors.Is(err, unix.EBUSY):
			return ErrBusy
		case errors.Is(err, unix.EOPNOTSUPP):
			return unsuitable("it has closed meanwhile")
		case errors.Is(err, unix.E2BIG):
			return fmt.Errorf("map of sockets full: %w", err)
		case err != nil:
			return fmt.Errorf("inserting into map of sockets: %w", err)
		}
		done = append([]func() error{func() error { return m.Delete(e.cookie) }}, done...)
		return nil
	}
	begin := now() + uint64(l.options.Settle)
	for _, e := range j.ends {
		if e.route.TargetCookie == 0 {
			continue
		}
		e.route.Kind = uint32(j.kind)
		if l.trying {
			e.route.Kind = uint32(bpf.ShortcutKindTRIAL)
		}
		e.route.Limit = l.options.Limit
		if !l.alive(e) {
			e.route.Begin = begin
		}
		if err := e.blockEarly(); err != nil {
			return err
		}
		if err := e.put(o.Counters, &bpf.ShortcutCounts{}, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("giving a socket its counters: %w", err)
		}
		if err := e.put(o.Routes, &e.route, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("giving a socket its route: %w", err)
		}
	}
	for _, e := range j.ends {
		home := o.Keepers
		if e.route.TargetCookie != 0 {
			home = o.Senders
		} else if !e.target {
			continue
		}
		if err := insert(home, e); err != nil {
			return err
		}
	}
	for _, e := range j.ends {
		if !e.target {
			continue
		}
		if err := insert(o.Targets, e); err != nil {
			return err
		}
	}
	return nil
}

// unsent is how many bytes a sender may have written that its TCP has not sent.
const unsent = 128 << 10

// blockEarly has a sender wait for its TCP after 128 KB that cannot be sent, and
// not only after a full send buffer of megabytes. What has gone the long way must
// be read before the short way opens again: the less a full reader lets into TCP,
// the sooner that is. It stays for life, which plain TCP does not feel; an owner's
// own choice is left.
func (e *end) blockEarly() error {
	return e.control(func(fd int32) error {
		set, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		if err == nil && set == 0 {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
		}
		if err != nil {
			return fmt.Errorf("bounding what a socket has unsent: %w", err)
		}
		return nil
	})
}

// alive tells whether the route that e had leads to an open target still.
func (l *Loader) alive(e *end) bool {
	return e.seen.Route.TargetCookie == e.route.TargetCookie && l.has(l.objects.Targets, e.route.TargetCookie)
}

// has tells whether a socket is in a map of sockets.
func (l *Loader) has(m *ebpf.Map, cookie uint64) bool {
	var value uint64
	return m.Lookup(cookie, &value) == nil
}

func (j *joining) pair() *Pair {
	p := &Pair{loader: j.loader, kind: j.kind}
	for _, e := range j.ends {
		if e.route.TargetCookie != 0 {
			p.senders = append(p.senders, e.cookie)
		} else if e.target {
			p.keepers = append(p.keepers, e.cookie)
		}
		if e.target {
			p.targets = append(p.targets, e.cookie)
		}
	}
	return p
}

// put makes an entry for the socket. A map of sockets has the cookie for its
// key and takes the descriptor for its value; socket storage the other way
// round, with a value of its own.
func (e *end) put(m *ebpf.Map, value any, flags ebpf.MapUpdateFlags) error {
	return e.control(func(fd int32) error {
		if m.Type() == ebpf.SockHash {
			return m.Update(e.cookie, uint64(fd), flags)
		}
		return m.Update(fd, value, flags)
	})
}

func (e *end) control(f func(fd int32) error) error { return control(e.conn, f) }

// control runs f with the descriptor of conn, which it leaves as it is.
func control(conn syscall.Conn, f func(fd int32) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int32(fd)) }); err != nil {
		return err
	}
	return failed
}

// check tells whether a socket can be paired, and its cookie.
func check(conn syscall.Conn, role role) (cookie uint64, err error) {
	err = control(conn, func(descriptor int32) error {
		fd := int(descriptor)
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil {
			return fmt.Errorf("asking for the protocol of a socket: %w", err)
		}
		if protocol != unix.IPPROTO_TCP {
			return unsuitable("its protocol is %d, not TCP; MPTCP (262) cannot be paired", protocol)
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("asking for the state of a socket: %w", err)
		}
		if info.State != unix.BPF_TCP_ESTABLISHED {
			return unsuitable("its state is %d, not established", info.State)
		}
		ulp, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP)
		if err == nil && ulp != "" {
			return unsuitable("the kernel runs %q on it", ulp)
		}
		if role&reads != 0 {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil {
				return fmt.Errorf("asking for the flags of a socket: %w", err)
			}
			if flags&unix.O_NONBLOCK == 0 {
				return unsuitable("it is blocking")
			}
		}
		if cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
			return fmt.Errorf("asking for the cookie of a socket: %w", err)
		}
		return nil
	})
	return cookie, err
}

// each runs an iterator and calls f with every socket that it describes.
func (l *Loader) each(iterator *link.Iter, f func(*bpf.ShortcutEndpoint)) error {
	r, err := iterator.Open()
	if err != nil {
		return fmt.Errorf("describing sockets: %w", err)
	}
	defer r.Close()
	// Whole records only: the kernel fills its buffer with them, of 32 KiB,
	// and hands out what was asked for.
	const size = int(unsafe.Sizeof(bpf.ShortcutEndpoint{}))
	buffer := make([]byte, 64*size)
	held := 0
	for {
		n, err := r.Read(buffer[held:])
		held += n
		at := 0
		for ; held-at >= size; at += size {
			var e bpf.ShortcutEndpoint
			if _, err := binary.Decode(buffer[at:at+size], binary.NativeEndian, &e); err != nil {
				return fmt.Errorf("describing sockets: %w", err)
			}
			f(&e)
		}
		held = copy(buffer, buffer[at:held])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("describing sockets: %w", err)
		}
	}
}
