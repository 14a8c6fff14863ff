package epmd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ErrNameInUse says that a live node has the name already.
var ErrNameInUse = errors.New("name in use")

// maxFormer is how many names are remembered that are no longer registered.
// OTP's daemon remembers as many.
const maxFormer = 1000

// Registration is a node in a Registry. It does not change while it is there,
// and may be read by anybody without a lock.
type Registration struct {
	Node
	Creation uint32 // 1 to 3 if Highest is below 6, else 4 or more
	Since    time.Time
	Peer     netip.AddrPort // of the connection that registered it, as seen from the daemon;
	Local    netip.AddrPort // zero if there is none. IPv4 addresses are never mapped into IPv6

	answer  []byte        // the PORT2_RESP that tells Node
	counter uint32        // what Creation is made of
	alive   *net.TCPConn  // nil if there is no connection, or
	held    *heldSocket   // the acceptor has it
	fd      int           // of the connection, for DUMP_REQ
	gone    chan struct{} // closed when it is no longer registered

	question *question // nil if the node cannot be asked

	// Neighbours in the registry's list; only to be used under its lock.
	newer, older *Registration
}

// Gone returns a channel that is closed when the node is no longer registered.
func (r *Registration) Gone() <-chan struct{} { return r.gone }

// Registry holds the registered nodes by name. The zero value is empty and
// ready to use. All methods may be called at the same time, and none of them
// waits for a node. A registry has no limit.
type Registry struct {
	mu     sync.RWMutex
	byName map[string]*Registration
	live   chain

	// Names that were registered before: a name that comes back must get
	// another creation. At most maxFormer of them.
	formerByName map[string]*Registration
	former       chain
	// The highest counter among those forgotten, so that these too get
	// another creation.
	forgotten uint32
}

// Register enters a node until Unregister. The connection alive, which may be
// nil, says whether the node lives: when it is found to be closed, another
// node may have the name. The registry looks at it and neither reads from nor
// closes it.
//
// The error wraps ErrNameInUse if a live node has the name, and ErrInvalidNode
// if a daemon may not hold such a node.
func (r *Registry) Register(node Node, alive *net.TCPConn) (*Registration, error) {
	entry := newRegistration(node)
	if alive != nil {
		entry.alive = alive
		entry.Peer, entry.Local = endpoints(alive)
		entry.fd = descriptor(alive)
		if node.Highest < version6 {
			entry.question = &question{told: make(chan struct{})}
		}
	}
	if err := r.enter(entry); err != nil {
		return nil, err
	}
	return entry, nil
}

// newRegistration is one of a node that nobody holds.
func newRegistration(node Node) *Registration {
	return &Registration{
		Node:   node,
		Since:  time.Now(),
		answer: PortResponse{ResultOK, node}.Append(nil),
		fd:     -1,
		gone:   make(chan struct{}),
	}
}

// enter registers an entry that nobody has seen yet.
func (r *Registry) enter(entry *Registration) error {
	if err := entry.validate(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if holder, taken := r.byName[entry.Name]; taken {
		// A node that was killed and started again can be here before our
		// reader of its old connection ran (erlang/otp issue 11083).
		if !holder.dead() {
			return fmt.Errorf("%w: %q is registered by a live node at port %d", ErrNameInUse, entry.Name, holder.Port)
		}
		r.remove(holder)
	}
	r.insert(entry)
	return nil
}

// insert gives entry its creation and enters it.
func (r *Registry) insert(entry *Registration) {
	if r.byName == nil {
		r.byName = make(map[string]*Registration)
		r.formerByName = make(map[string]*Registration)
	}
	if former, known := r.formerByName[entry.Name]; known {
		entry.counter = former.counter
		r.forget(former)
	} else {
		// The time makes it another creation than before a restart of ours.
		entry.counter = max(uint32(entry.Since.Unix()), r.forgotten)
	}
	entry.Creation = entry.nextCreation()
	r.byName[entry.Name] = entry
	r.live.push(entry)
}

// nextCreation advances the counter. An old node takes only 1 to 3; a new one
// must not get these, by which others would know an old one (OTP's daemon does
// the same).
func (r *Registration) nextCreation() uint32 {
	if r.counter++; r.counter < 4 {
		r.counter = 4
	}
	if r.Highest >= version6 {
		return r.counter
	}
	return r.counter%3 + 1
}

// Unregister removes a registration. It returns false if it was not there
// any more.
func (r *Registry) Unregister(entry *Registration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byName[entry.Name] != entry {
		return false
	}
	r.remove(entry)
	return true
}

// remove makes a live entry a former one.
func (r *Registry) remove(entry *Registration) {
	delete(r.byName, entry.Name)
	r.live.unlink(entry)
	r.formerByName[entry.Name] = entry
	r.former.push(entry)
	if len(r.formerByName) > maxFormer {
		oldest := r.former.oldest
		r.forgotten = max(r.forgotten, oldest.counter)
		r.forget(oldest)
	}
	close(entry.gone)
}

func (r *Registry) forget(entry *Registration) {
	delete(r.formerByName, entry.Name)
	r.former.unlink(entry)
}

// Lookup finds a node by its name.
func (r *Registry) Lookup(name string) (*Registration, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	entry, ok := r.byName[name]
	return entry, ok
}

// lookup is Lookup for a name that is part of a buffer.
func (r *Registry) lookup(name []byte) (*Registration, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	entry, ok := r.byName[string(name)]
	return entry, ok
}

// All returns the nodes, the newest first, as OTP's daemon lists them.
func (r *Registry) All() []*Registration {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.live.appendTo(make([]*Registration, 0, len(r.byName)))
}

// formerNames returns the names that are remembered, the oldest first, as
// OTP's daemon lists them.
func (r *Registry) formerNames() []*Registration {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := r.former.appendTo(make([]*Registration, 0, len(r.formerByName)))
	slices.Reverse(all)
	return all
}

// Len returns the number of registered nodes.
func (r *Registry) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byName)
}

// chain is a list of registrations in the order in which they came.
type chain struct{ newest, oldest *Registration }

func (c *chain) push(entry *Registration) {
	entry.newer, entry.older = nil, c.newest
	if c.newest != nil {
		c.newest.newer = entry
	} else {
		c.oldest = entry
	}
	c.newest = entry
}

func (c *chain) unlink(entry *Registration) {
	if entry.newer != nil {
		entry.newer.older = entry.older
	} else {
		c.newest = entry.older
	}
	if entry.older != nil {
		entry.older.newer = entry.newer
	} else {
		c.oldest = entry.newer
	}
	entry.newer, entry.older = nil, nil
}

// appendTo appends the entries to list, the newest first.
func (c *chain) appendTo(list []*Registration) []*Registration {
	for entry := c.newest; entry != nil; entry = entry.older {
		list = append(list, entry)
	}
	return list
}
