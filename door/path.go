package door

import (
	"context"
	"errors"
	"fmt"
	"net"

	"oneport/relay"
)

// Paths are those that Options.Path can demand, as they are listed to a user.
// Every connection to a node takes the one that is demanded, or is refused.
// Clients of this host are told the door's port then in place of the node's own,
// or they would connect past it. The shortcut is that over a relay: what becomes of
// a connection that is handed over is not known when its client is told yes.
var Paths = [...]relay.Path{Handover, relay.Shortcut, relay.Splice, relay.Copy}

// handsOver tells whether connections may be handed over.
func (d *Door) handsOver() bool { return d.o.Path == "" || d.o.Path == Handover }

// demanded says why a connection is on a path that was demanded.
func (d *Door) demanded() string {
	if d.o.Path == "" {
		return ""
	}
	return "--path " + string(d.o.Path)
}

// possible says why the path that is demanded of a connection to a node of this
// host, which is about to be relayed, is not possible, or nil. It is asked before
// the client is told yes.
func (d *Door) possible(ctx context.Context, c *Conn, node *net.TCPConn) error {
	if d.o.Path != relay.Shortcut {
		return relay.Try(d.o.Path)
	}
	if d.o.Shortcut == nil {
		return errors.New("there is none")
	}
	return d.o.Shortcut.Check(ctx, c.known(), c.tcp, node)
}

// impossible is why a client is refused for want of the path that is demanded.
func (d *Door) impossible(why string) string {
	return fmt.Sprintf("%s is not possible: %s", d.demanded(), why)
}
