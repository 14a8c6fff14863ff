package loader

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"oneport/bpf"
)

// Pins is the directory where an installation keeps its pins.
const Pins = "/sys/fs/bpf/oneport"

// Options are the details of Load. The zero value pins nothing: the pairs then
// still outlive this process, but another one cannot list or shut them.
type Options struct {
	// Pins is the directory on a mounted bpffs to pin in. It is made, with
	// everything in it, in one step. What a process of the same version has
	// pinned there is taken over, with its pairs; what another version has
	// pinned is replaced, and its pairs go on unlisted until they close.
	Pins string
	// Limit is how many bytes may wait at a socket that came the short way,
	// if its receive buffer can hold them; one message may exceed it. Zero
	// means DefaultLimit.
	Limit uint32
	// Settle is how long a new pair waits before its first message goes the
	// short way, for readers that are inside the kernel at that moment. Zero
	// means DefaultSettle.
	Settle time.Duration
	// WithoutCast makes the programs read other sockets by helper calls also
	// where the kernel has bpf_rdonly_cast. For tests.
	WithoutCast bool
}

// DefaultLimit is how many bytes may wait that came the short way: about as many as
// TCP itself lets a sender be ahead of its reader.
const DefaultLimit = 4 << 20

// DefaultSettle is how long a new pair waits.
const DefaultSettle = 100 * time.Millisecond

// Loader has the programs in the kernel and pairs sockets. Its methods may be
// used by several goroutines at once.
//
// Load needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and pinning access to the
// directory. The methods need none of them.
type Loader struct {
	options Options
	trying  bool // its pairs are trials, and no part of the totals
	objects bpf.ShortcutObjects
	// attached is nil on kernels without links for socket maps (before 6.10).
	// There the attachment belongs to the map.
	attached link.Link
	// staged walks the sockets on the stage, routed all that have a route.
	staged, routed *link.Iter

	mu sync.Mutex // the stage is one
}

// Load loads the programs, tries them on loopback connections of its own, and
// pins them. It takes some hundred milliseconds, most of
// them to read the kernel's types. An error that is ErrNotSupported
// says that this host cannot have the shortcut, why, and the remedy.
func Load(o Options) (_ *Loader, err error) {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Settle == 0 {
		o.Settle = DefaultSettle
	}
	if err := checkHost(o.Pins); err != nil {
		return nil, err
	}
	l := &Loader{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.discard())
		}
	}()
	if err := l.load(!o.WithoutCast); err != nil {
		return nil, err
	}
	taken, err := l.takeOver()
	if err != nil {
		return nil, err
	}
	if !taken {
		if err := l.attach(); err != nil {
			return nil, err
		}
	}
	if err := l.walk(); err != nil {
		return nil, err
	}
	if err := l.try(); err != nil {
		return nil, err
	}
	if !taken {
		if err := l.pin(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// load brings maps and programs into the kernel.
func (l *Loader) load(cast bool) error {
	spec, err := bpf.LoadShortcut()
	if err != nil {
		return fmt.Errorf("reading the shortcut's object: %w", err)
	}
	if err := spec.Variables[bpf.ShortcutVarCanCast].Set(cast); err != nil {
		return fmt.Errorf("setting a constant of the shortcut's object: %w", err)
	}
	err = spec.LoadAndAssign(&l.objects, nil)
	if err != nil && cast {
		// The kernel has no bpf_rdonly_cast, or no JIT to call it from.
		return l.load(false)
	}
	if err != nil {
		return &UnsupportedError{What: release() + " does not take the programs", Remedy: "Linux 6.1 or later, with BTF", Err: err}
	}
	return nil
}

// attach makes the program see the messages of whatever comes into senders.
func (l *Loader) attach() error {
	attached, err := link.AttachRawLink(link.RawLinkOptions{
		Target:  l.objects.Senders.FD(),
		Program: l.objects.Shortcut,
		Attach:  ebpf.AttachSkMsgVerdict,
	})
	if err == nil {
		l.attached = attached
		return nil
	}
	// Before 6.10 there is no link for it.
	if err := link.RawAttachProgram(attachment(&l.objects)); err != nil {
		return &UnsupportedError{What: release() + " does not attach the program", Remedy: "CONFIG_NET_SOCK_MSG", Err: err}
	}
	return nil
}

func attachment(o *bpf.ShortcutObjects) link.RawAttachProgramOptions {
	return link.RawAttachProgramOptions{
		Target:  o.Senders.FD(),
		Program: o.Shortcut,
		Attach:  ebpf.AttachSkMsgVerdict,
	}
}

// walk makes the two iterators.
func (l *Loader) walk() (err error) {
	l.staged, err = link.AttachIter(link.IterOptions{Program: l.objects.Describe, Map: l.objects.Stage})
	if err != nil {
		return &UnsupportedError{What: "no iterator over socket storage", Err: err}
	}
	l.routed, err = link.AttachIter(link.IterOptions{Program: l.objects.Describe, Map: l.objects.Routes})
	if err != nil {
		return &UnsupportedError{What: "no iterator over socket storage", Err: err}
	}
	return nil
}

// Close lets go of the programs. Pairs go on, and so do the pins.
func (l *Loader) Close() error {
	if l.options.Pins == "" {
		return l.discard()
	}
	return l.release()
}

// discard undoes what is not pinned. Without it, before 6.10, program and map
// would hold each other for good. Sockets in the map keep the program.
func (l *Loader) discard() error {
	var err error
	if l.attached == nil && l.objects.Senders != nil && l.objects.Shortcut != nil {
		err = link.RawDetachProgram(link.RawDetachProgramOptions(attachment(&l.objects)))
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, link.ErrNotSupported) {
			err = nil
		}
	}
	return errors.Join(err, l.release())
}

// release closes every descriptor.
func (l *Loader) release() error {
	var errs []error
	for _, i := range []*link.Iter{l.staged, l.routed} {
		if i != nil {
			errs = append(errs, i.Close())
		}
	}
	if l.attached != nil {
		errs = append(errs, l.attached.Close())
	}
	return errors.Join(append(errs, l.objects.Close())...)
}
