// Package epmd speaks the protocol of the Erlang Port Mapper Daemon: a codec
// without state, a registry of names, a server and a client. The server is a
// drop-in for OTP's daemon, without its limit on the number of names.
//
// It knows nothing of HTTP, of BPF, or of how a connection is handed over to a
// node: for that, and for the port that a node is said to have, a Server asks
// functions that its owner sets.
//
// All integers on the wire are big-endian. A request is a 16-bit length and
// that many bytes of payload; answers have no length. One request is made per
// connection, which the server then closes, save for the connection by which a
// node registers: it stays open for as long as the node has its name.
//
// The protocol is described in the ERTS User's Guide, "Distribution Protocol",
// section "EPMD Protocol". HANDOVER_REQ is no part of it: it comes from a fork
// of 2016 and is described at [HandoverRequest].
package epmd
