package bench

import (
	"context"

	"oneport/door"
	"oneport/loader"
	"oneport/relay"
)

// ways are the ways that need nothing but oneport itself, the baseline first.
//
// Each that leads through a daemon has one of its own. The node, and the client
// where it is to be paired, run by the name of an Erlang VM; outward is the form
// for a client that the daemon cannot find.
func ways() []way {
	// The way is the best that the daemon finds, as it is for a user: to demand one
	// by --path costs every connection a trial. Only copying is never the best.
	const off, on = "--shortcut=off", "--shortcut=all"
	all := []way{
		{name: "direct", what: "TCP, and nothing between", start: startDirect},
		{name: control, what: "the same once more, to see what the machine does by itself", start: startDirect},
		{name: "unix", what: "a unix socket, what there is below TCP", start: startUnix},
	}
	for _, d := range []doorWay{
		{
			name: "handover", what: "the accepted connection is handed to the node",
			flags: []string{off}, takes: true, client: beam, path: string(door.Handover),
		},
		{
			name: "shortcut-direct", what: "handed over, and both ends of the connection paired in the kernel",
			flags: []string{on}, takes: true, client: beam, path: string(relay.Shortcut), kind: loader.Direct.String(),
		},
		{
			name: "shortcut-through", what: "relayed, and the client and the node paired past the relay",
			flags: []string{on}, client: beam, path: string(relay.Shortcut), kind: loader.Through.String(),
		},
		{
			name: "shortcut-outward", what: "relayed, and the node paired with the way to a client elsewhere",
			flags: []string{on}, path: string(relay.Shortcut), kind: loader.Outward.String(),
		},
		{
			name: "splice", what: "relayed by splice(2)",
			flags: []string{off}, client: beam, path: string(relay.Splice),
		},
		{
			name: "copy", what: "relayed by copying",
			flags: []string{off, "--path=" + string(relay.Copy)}, client: beam, path: string(relay.Copy),
		},
	} {
		all = append(all, d.way())
	}
	return all
}

// control is the way that is the baseline once more: what distinguishes it is
// noise, and the ratios of other ways cannot be told from 1 any better than its own.
const control = "direct-again"

func startDirect(_ context.Context, _ *world, t target) (*running, error) {
	return &running{route: route{Network: "tcp", Address: t.tcp.String()}, client: beam}, nil
}

func startUnix(_ context.Context, _ *world, t target) (*running, error) {
	return &running{route: route{Network: "unix", Address: t.unix}, client: beam}, nil
}
