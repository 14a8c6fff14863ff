package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// maxMachines is how many BEAMs are known at a time. Each costs two
	// descriptors at most, and a goroutine.
	maxMachines = 1024

	// Between two walks over the processes of this host pass listInterval, and
	// listShare times as long as the last one took, at least; but no more than
	// listPause, or searches would end before the walk that they wait for.
	listInterval = 50 * time.Millisecond
	listShare    = 20
	listPause    = DefaultTimeout / 2
)

// machines is the BEAMs that run on this host, with their network namespaces.
// They are found when somebody asks for it, and leave by themselves when they
// end.
type machines struct {
	own *namespace

	mu         sync.Mutex
	processes  map[int]*process
	namespaces map[uint64]*namespace // of the processes, without own
	hidden     error                 // that the last walk lacked the capability to look at a process
	next       *walk                 // the one that has not begun; nil if nobody waits for one
	closed     bool

	walking   sync.Mutex // held by the walk that runs; guards notBefore
	notBefore time.Time  // when the next one may begin

	stop chan struct{}  // closed to end walks
	all  sync.WaitGroup // the goroutines
}

// walk is one walk over all processes. Whoever waits for it waits for done.
type walk struct {
	done chan struct{}
	err  error // once done is closed
}

func newMachines() (*machines, error) {
	own, err := ownNamespace()
	if err != nil {
		return nil, err
	}
	return &machines{
		own:        own,
		processes:  make(map[int]*process),
		namespaces: make(map[uint64]*namespace),
		stop:       make(chan struct{}),
	}, nil
}

// refresh returns when everybody is known who was there when it was called.
func (m *machines) refresh(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	w := m.next
	if w == nil {
		w = &walk{done: make(chan struct{})}
		m.next = w
		m.all.Go(func() { m.run(w) })
	}
	m.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the list of processes: %w", context.Cause(ctx))
	}
}

// run waits until it is time for the next walk, and walks.
func (m *machines) run(w *walk) {
	defer close(w.done)
	m.walking.Lock()
	defer m.walking.Unlock()
	select {
	case <-m.stop:
		w.err = ErrClosed
		return
	case <-time.After(time.Until(m.notBefore)):
	}
	m.mu.Lock()
	m.next = nil // from here on it is too late to join
	m.mu.Unlock()
	start := time.Now()
	w.err = m.walk()
	now := time.Now()
	m.notBefore = now.Add(pause(now.Sub(start)))
}

// pause is how long after a walk the next one may begin.
func pause(took time.Duration) time.Duration {
	return min(max(listInterval, listShare*took), listPause)
}

// walk looks at every process of this host.
func (m *machines) walk() error {
	proc, err := os.Open("/proc")
	if err != nil {
		return fmt.Errorf("listing processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("listing processes: %w", err)
	}
	var hidden error
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || m.knows(pid) {
			continue
		}
		err = m.meet(pid)
		switch {
		case errors.Is(err, ErrClosed):
			return err
		case errors.Is(err, fs.ErrPermission):
			hidden = err
		case err != nil && !elsewhere(err):
			return fmt.Errorf("getting to know process %d: %w", pid, err)
		}
	}
	if hidden != nil && sysPtrace.check() == nil {
		// Such a process is out of reach, in a parent user namespace or behind
		// a security module. There is no remedy, and it is no node of ours.
		hidden = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hidden = hidden
	return nil
}

// knows tells whether the process with this number is a known one.
func (m *machines) knows(pid int) bool {
	m.mu.Lock()
	p := m.processes[pid]
	m.mu.Unlock()
	return p != nil && p.alive()
}

// meet enters a process if it is a BEAM.
func (m *machines) meet(pid int) error {
	p, err := openProcess(pid)
	if err != nil {
		return err
	}
	n, err := namespaceOf(pid)
	if err != nil {
		p.close()
		return err
	}
	if !p.alive() {
		p.close()
		n.close() // and may be another process's
		return errNoBEAM
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, replaces := m.processes[pid] // or somebody else has met it at the same time
	if m.closed || replaces && m.processes[pid].alive() || !replaces && len(m.processes) >= maxMachines {
		p.close()
		n.close()
		if m.closed {
			return ErrClosed
		}
		return nil
	}
	known := m.namespaces[n.inode]
	if n.inode == m.own.inode {
		known = m.own
	}
	if known != nil {
		n.close()
		n = known
	} else {
		m.namespaces[n.inode] = n
	}
	n.processes++
	p.namespace = n
	m.processes[pid] = p
	m.all.Go(func() { m.watch(p) })
	return nil
}

// watch lets go of a process, and of its namespace if it was the last one there,
// when it has ended.
func (m *machines) watch(p *process) {
	p.wait()
	p.close()
	m.mu.Lock()
	if m.processes[p.pid] == p {
		delete(m.processes, p.pid)
	}
	n := p.namespace
	n.processes--
	empty := n.processes == 0 && n != m.own
	if empty {
		delete(m.namespaces, n.inode)
	}
	m.mu.Unlock()
	if empty {
		n.close()
	}
}

// close lets go of all.
func (m *machines) close() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.closed = true
	close(m.stop)
	for _, p := range m.processes {
		p.close() // which ends its watch
	}
	m.mu.Unlock()
	m.all.Wait()
	m.own.close()
}

// view is who is known at one moment, in the order in which to ask.
type view struct {
	namespaces []*namespace // this one first, unless there is a better guess
	processes  []*process
	hidden     error // that there may be more
}

// view returns who is known. The processes with the given numbers, and their
// namespaces, come first.
func (m *machines) view(first []int) (view, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return view{}, ErrClosed
	}
	v := view{hidden: m.hidden}
	add := func(n *namespace) {
		if !slices.Contains(v.namespaces, n) {
			v.namespaces = append(v.namespaces, n)
		}
	}
	for _, pid := range first {
		if p := m.processes[pid]; p != nil && !slices.Contains(v.processes, p) {
			v.processes = append(v.processes, p)
			add(p.namespace)
		}
	}
	add(m.own)
	guessed := len(v.processes)
	for _, p := range m.processes {
		if !slices.Contains(v.processes[:guessed], p) {
			v.processes = append(v.processes, p)
		}
	}
	for _, n := range m.namespaces {
		add(n)
	}
	return v, nil
}
