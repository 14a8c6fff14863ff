// Package handover gives an accepted TCP connection to an Erlang node: not its
// bytes, the descriptor itself. Afterwards the daemon has no part in it.
//
// There are two protocols. In the first, by [Server], each node that can take
// connections keeps one unix connection to the daemon open and is offered
// descriptors on it; docs/PROTOCOL.md, "Handover", has every byte. In the
// second, by [Fork], which is that of an OTP fork of 2016, the node is asked
// for a unix socket each time.
//
// The package knows nothing of who asked for the node and in which protocol,
// of EPMD's wire, and of what is done with a connection that no node took: it
// still belongs to the caller, and its peer has noticed nothing.
package handover
