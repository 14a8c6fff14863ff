package bench

import (
	"context"
	"net/netip"
)

// way is one way of serving a connection from a client to a node.
type way struct {
	name   string // such as "splice"; as in Series.Way
	what   string // a line for people
	unsafe bool   // measured as a warning: it may lose, double or pile up bytes
	// start brings the way up for a node that listens at target, in the network
	// namespace of the host. An error says why the way cannot be had here; it
	// becomes an Absent.
	start func(ctx context.Context, w *world, target target) (*running, error)
}

// target is the node's end as ways see it.
type target struct {
	tcp  netip.AddrPort // where it listens
	unix string         // where it listens as well
	end  *end           // to register it with a door, or to have it take descriptors
}

// running is a way that is up, until the world is closed.
type running struct {
	route route
	// pids are the processes whose CPU time and memory are those of the daemon, as
	// they are now: some start one for each connection. Nil: there is no daemon.
	pids   func() []int
	client string // the program that the client runs as: "" or "beam.smp"; see world.end
}

// route is how a client connects. It is JSON, and given to the client's process.
type route struct {
	Network string `json:"network"`           // "tcp" or "unix"
	Address string `json:"address"`           // "host:port" or a path
	Upgrade string `json:"upgrade,omitempty"` // name of the node to ask a door for, by an HTTP upgrade
}
