package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// DefaultTimeout is how long a search may take.
const DefaultTimeout = 2 * time.Second

// Options are the options of a Finder.
type Options struct {
	// Log takes a warning about each capability that was missing, once. Nil
	// discards it.
	Log logrus.FieldLogger

	// Timeout is how long a search may take, if its context allows more. 0
	// means DefaultTimeout.
	Timeout time.Duration
}

// Finder finds the ends of connections. It remembers the BEAMs of this host,
// their descriptors and their network namespaces between the searches, and looks
// for new ones when it has not found an end, twenty times a second at most. What
// it remembers is never believed without a look. All its methods may be called at
// the same time.
//
// Of the capabilities, it needs CAP_SYS_PTRACE for the nodes of other users, and
// CAP_SYS_ADMIN for those in other network namespaces.
type Finder struct {
	timeout  time.Duration
	log      logrus.FieldLogger
	machines *machines

	mu   sync.Mutex
	told map[string]bool // capabilities
}

// New returns a Finder. It has to be closed.
func New(o Options) (*Finder, error) {
	m, err := newMachines()
	if err != nil {
		return nil, err
	}
	f := &Finder{timeout: o.Timeout, log: o.Log, machines: m, told: make(map[string]bool)}
	if f.timeout == 0 {
		f.timeout = DefaultTimeout
	}
	return f, nil
}

// Close lets go of all that the Finder remembers. Sockets that it has returned
// remain.
func (f *Finder) Close() error {
	f.machines.close()
	return nil
}

// Owner is who has an end of a connection.
type Owner struct {
	PID       int    // as seen from here
	UID       uint32 // of the socket: who made it, or accepted it
	Namespace uint64 // the number of the socket's network namespace
	Cookie    uint64 // SO_COOKIE of the socket
}

// Owner returns the BEAM that has the end of a connection with these addresses,
// as that end sees them; with a zero remote, the one that listens on local. If
// some are likely, their process numbers are given, and they are looked at first.
//
// A BEAM in another network namespace is found as well. Addresses may be in use
// in several: then the first answer counts, of the likely processes' namespaces,
// this one, and the others in no order.
//
// The errors are ErrNotFound, ErrNotBEAM, MissingError, UnsuitableError for an
// end that no process has yet or any more, ErrClosed, or that of ctx.
func (f *Finder) Owner(ctx context.Context, local, remote netip.AddrPort, likely ...int) (o Owner, err error) {
	err = f.search(ctx, likely, func(ctx context.Context, v view) error {
		e, err := v.find(local, remote)
		if err != nil {
			return err
		}
		o, err = v.owner(ctx, e)
		return err
	})
	if err != nil {
		return Owner{}, fmt.Errorf("owner of %s: %w", describe(local, remote), err)
	}
	return o, nil
}

// End returns a duplicate of the socket that is the end of an established
// connection with these addresses, as that end sees them. As with Owner, but an
// UnsuitableError may also be about a socket that is blocking, of MPTCP, with TLS
// in the kernel, or not established.
func (f *Finder) End(ctx context.Context, local, remote netip.AddrPort, likely ...int) (s *Socket, err error) {
	err = f.search(ctx, likely, func(ctx context.Context, v view) error {
		e, err := v.find(local, remote)
		if err != nil {
			return err
		}
		s, err = v.take(ctx, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("end %s: %w", describe(local, remote), err)
	}
	return s, nil
}

// Ends returns both ends of a connection: first the one for which local is its
// own address, then the other. As with End. Both ends of a connection between
// loopback addresses are in one namespace.
func (f *Finder) Ends(ctx context.Context, local, remote netip.AddrPort, likely ...int) (near, far *Socket, err error) {
	err = f.search(ctx, likely, func(ctx context.Context, v view) error {
		a, b, err := v.findBoth(local, remote)
		if err != nil {
			return err
		}
		if near, err = v.take(ctx, a); err != nil {
			return fmt.Errorf("at %s: %w", local, err)
		}
		if far, err = v.take(ctx, b); err != nil {
			near.Close()
			return fmt.Errorf("at %s: %w", remote, err)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("ends of %s: %w", describe(local, remote), err)
	}
	return near, far, nil
}

func describe(local, remote netip.AddrPort) string {
	if !remote.IsValid() {
		return "listener " + local.String()
	}
	return "connection " + local.String() + " to " + remote.String()
}

// search makes an attempt with those who are known, and another one with
// everybody if that does not find what is looked for.
func (f *Finder) search(ctx context.Context, likely []int, attempt func(context.Context, view) error) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	for _, pid := range likely {
		if !f.machines.knows(pid) {
			// Whether it can be known shows when it has not been found.
			_ = f.machines.meet(pid)
		}
	}
	v, err := f.machines.view(likely)
	if err != nil {
		return err
	}
	if err = attempt(ctx, v); err == nil || final(err) {
		return f.tell(err)
	}
	if err := f.machines.refresh(ctx); err != nil {
		return err
	}
	if v, err = f.machines.view(likely); err != nil {
		return err
	}
	err = attempt(ctx, v)
	if v.hidden != nil && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotBEAM)) {
		err = sysPtrace.missing(v.hidden)
	}
	return f.tell(err)
}

// final tells whether an error will be the same when more processes are known.
func final(err error) bool {
	var unsuitable *UnsuitableError
	return errors.As(err, &unsuitable)
}

// tell passes on an error, and logs what is missing for the first time.
func (f *Finder) tell(err error) error {
	var missing *MissingError
	if f.log == nil || !errors.As(err, &missing) {
		return err
	}
	f.mu.Lock()
	told := f.told[missing.What]
	f.told[missing.What] = true
	f.mu.Unlock()
	if !told {
		f.log.Warn(missing)
	}
	return err
}

// end is an end of a connection, or a listener, whoever has it.
type end struct {
	Record
	namespace     *namespace
	local, remote netip.AddrPort // not mapped
}

// lookIn looks in one namespace. The error is ErrNotFound if it is not there.
func lookIn(n *namespace, local, remote netip.AddrPort) (end, error) {
	r, err := n.look(local, remote)
	if errors.Is(err, unix.ENOENT) {
		err = ErrNotFound
	}
	return end{r, n, unmap(local), unmap(remote)}, err
}

// find looks in all namespaces.
func (v view) find(local, remote netip.AddrPort) (end, error) {
	worst := ErrNotFound
	for _, n := range v.namespaces {
		e, err := lookIn(n, local, remote)
		switch {
		case err == nil:
			return e, nil
		case !errors.Is(err, ErrNotFound):
			worst = err // it may be there
		}
	}
	return end{}, worst
}

// findBoth looks for both ends of a connection in all namespaces. A namespace
// that has both has the connection.
func (v view) findBoth(local, remote netip.AddrPort) (near, far end, err error) {
	apart := !local.Addr().Unmap().IsLoopback() && !remote.Addr().Unmap().IsLoopback()
	worst := ErrNotFound
	for _, n := range v.namespaces {
		a, errA := lookIn(n, local, remote)
		b, errB := lookIn(n, remote, local)
		if errA == nil && errB == nil {
			return a, b, nil
		}
		if errA == nil && apart && near.namespace == nil {
			near = a
		}
		if errB == nil && apart && far.namespace == nil {
			far = b
		}
		if near.namespace != nil && far.namespace != nil {
			return near, far, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, ErrNotFound) {
				worst = err
			}
		}
	}
	return end{}, end{}, worst
}

// errStale says that a descriptor is not, or no more, what was looked for.
var errStale = errors.New("another descriptor by now")

// owner finds who has an end.
func (v view) owner(ctx context.Context, e end) (o Owner, err error) {
	err = v.visit(ctx, e, func(p *process, number int) error {
		d, err := openDescriptors(p.pid)
		if err != nil {
			return err
		}
		defer d.close()
		if d.inode(number) != e.Inode {
			return errStale
		}
		if err := p.check(); err != nil {
			return err
		}
		o = e.owner(p)
		return nil
	})
	return o, err
}

func (e end) owner(p *process) Owner {
	return Owner{PID: p.pid, UID: e.UID, Namespace: e.namespace.inode, Cookie: e.Cookie}
}

// take finds who has an end, and takes a duplicate.
func (v view) take(ctx context.Context, e end) (s *Socket, err error) {
	if e.State != unix.BPF_TCP_ESTABLISHED {
		return nil, unsuitable("its state is %d, not established", e.State)
	}
	err = v.visit(ctx, e, func(p *process, number int) error {
		s, err = take(p, number, e)
		return err
	})
	return s, err
}

// visit calls f with the descriptor that refers to an end, first with those that
// are remembered and those that are likely, until it finds it right.
func (v view) visit(ctx context.Context, e end, f func(p *process, number int) error) error {
	if e.Inode == 0 {
		return unsuitable("it is not accepted yet, or closed already")
	}
	for _, p := range v.processes {
		if number, ok := p.remembered(e.Inode); ok {
			if err := f(p, number); !elsewhere(err) {
				return orMissing(err)
			}
		}
	}
	// The process is most likely where the socket is. It is not if somebody has
	// handed the socket over.
	processes := slices.Clone(v.processes)
	slices.SortStableFunc(processes, func(a, b *process) int {
		switch {
		case (a.namespace == e.namespace) == (b.namespace == e.namespace):
			return 0
		case a.namespace == e.namespace:
			return -1
		}
		return 1
	})
	for _, p := range processes {
		if number, ok := p.guess(e.Inode); ok {
			if err := f(p, number); !elsewhere(err) {
				return orMissing(err)
			}
		}
	}
	var denied error
	for _, p := range processes {
		number, ok, err := p.search(ctx, e.Inode)
		if ok {
			err = f(p, number)
			if err == nil {
				return nil
			}
		}
		switch {
		case errors.Is(err, fs.ErrPermission):
			denied = err // somebody else may have it
		case err != nil && !elsewhere(err):
			return err
		}
	}
	if denied != nil {
		return orMissing(denied)
	}
	return ErrNotBEAM
}

// orMissing says what is missing of an error that forbids to look at a process.
func orMissing(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return sysPtrace.missing(err)
	}
	return err
}

// elsewhere tells whether an error means that the socket is to be looked for in
// other descriptors, or other processes: this one is not it, or has gone.
func elsewhere(err error) bool {
	for _, gone := range []error{errStale, errNoBEAM, fs.ErrNotExist, unix.ESRCH, unix.EBADF, fs.ErrClosed} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
