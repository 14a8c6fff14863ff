package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"oneport/epmd"
	"oneport/upgrade"
)

// whoTimeout bounds the asking of a node of this host for its full name.
const whoTimeout = 3 * time.Second

// minForget is how many nodes' names may be known before those of nodes that
// have gone are looked for.
const minForget = 1024

// fullNames are the full names that nodes of this host have said when they
// were asked. Each is good as long as the node is registered. The zero value is
// empty.
type fullNames struct {
	mu       sync.Mutex
	byName   map[string]*asked
	forgetAt int // number of names at which those of gone nodes are looked for
}

// asked is the one question to a node, that all who want to know wait for.
type asked struct {
	node *epmd.Registration
	done chan struct{} // closed when the answer is there
	full string
	err  error
}

// who answers the question for a node's full name, name@host, as it knows it
// itself. The distribution's handshake insists on that name, whatever name the
// node was found by. The error is a *upgrade.Refusal.
func (d *Door) who(ctx context.Context, want upgrade.Decision, local netip.AddrPort) (string, error) {
	if want.Host != "" {
		return d.whoElsewhere(ctx, want, local)
	}
	reg, full, ok := d.resolve(want.Node)
	switch {
	case !ok:
		return "", upgrade.Unknown(want.Node)
	case full != "":
		return full, nil
	}
	if host, ok := d.receivers.server.Host(reg.Name); ok {
		return reg.Name + "@" + host, nil
	}
	full, err := d.names.get(ctx, reg, func() (string, error) { return d.ask(ctx, reg, local.Addr()) })
	if err != nil {
		return "", unavailable(fmt.Sprintf("node %q does not say its full name: %v", reg.Name, err))
	}
	return full, nil
}

// whoElsewhere asks a node of another host. Its door finds it by an alias as
// well, and one that knows of no such questions can be asked like that, too.
func (d *Door) whoElsewhere(ctx context.Context, want upgrade.Decision, local netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	node, version, err := d.reach(ctx, local, want)
	if err != nil {
		return "", forwardRefusal(want, err)
	}
	defer node.Close()
	full, err := askName(ctx, node, version)
	if err != nil {
		return "", unavailable(fmt.Sprintf("node %q at %s does not say its full name: %v", want.Node, want.Host, err))
	}
	return full, nil
}

// ask asks a node of this host by the beginning of a handshake.
func (d *Door) ask(ctx context.Context, reg *epmd.Registration, local netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, whoTimeout)
	defer cancel()
	node, err := d.dial(ctx, local, reg)
	switch {
	case errors.Is(err, errNoPort):
		return "", errors.New("it takes connections by descriptor only, and its receiver does not say it")
	case err != nil:
		d.log.WithField("node", reg.Name).WithError(err).Debug("asking the node for its full name")
		return "", fmt.Errorf("it does not answer on its port %d", reg.Port)
	}
	defer node.Close()
	full, err := askName(ctx, node, reg.Highest)
	if err != nil {
		return "", err
	}
	if name, _, _ := strings.Cut(full, "@"); name != reg.Name {
		return "", fmt.Errorf("what answers on its port %d is %q", reg.Port, full)
	}
	return full, nil
}

// get returns the full name of a node, which ask finds out unless it is known.
// One asks at a time, the others wait for the answer; if it was only that the
// asker has given up, the next one asks.
func (n *fullNames) get(ctx context.Context, reg *epmd.Registration, ask func() (string, error)) (string, error) {
	for {
		a, mine := n.enter(reg)
		if mine {
			a.full, a.err = ask()
			if a.err != nil {
				n.drop(a)
			}
			close(a.done)
			return a.full, a.err
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if !errors.Is(a.err, context.Canceled) {
			return a.full, a.err
		}
	}
}

// enter returns the question to a node. mine says that the caller has to ask
// it.
func (n *fullNames) enter(reg *epmd.Registration) (a *asked, mine bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a := n.byName[reg.Name]; a != nil && a.node == reg {
		return a, false
	}
	if n.byName == nil {
		n.byName = make(map[string]*asked)
		n.forgetAt = minForget
	}
	if len(n.byName) >= n.forgetAt {
		n.forget()
	}
	a = &asked{node: reg, done: make(chan struct{})}
	n.byName[reg.Name] = a
	return a, true
}

func (n *fullNames) drop(a *asked) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byName[a.node.Name] == a {
		delete(n.byName, a.node.Name)
	}
}

// forget drops the names of nodes that are not registered any more.
func (n *fullNames) forget() {
	for name, a := range n.byName {
		select {
		case <-a.node.Gone():
			delete(n.byName, name)
		default:
		}
	}
	n.forgetAt = max(minForget, 2*len(n.byName))
}

// askName begins a handshake on a connection to a node, to learn from its
// challenge what it is called, and leaves the closing of the connection, which
// ends the handshake, to the caller. version is the highest one of the
// distribution protocol that the node speaks.
func askName(ctx context.Context, node *net.TCPConn, version uint16) (string, error) {
	if deadline, ok := ctx.Deadline(); ok {
		node.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { node.SetDeadline(time.Unix(1, 0)) })()
	full, err := exchangeNames(node, version)
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return "", ctx.Err()
	}
	return full, err
}
