// Package shortcut decides which connections get the kernel's short way, and for
// how long.
//
// It finds the ends of a connection (package endpoint), has them paired (package
// loader), and watches what the pairs gain: one that keeps going the long way is
// taken out, and comes back after a rest. Nothing that fails here harms a
// connection, which goes on as it would without.
//
// It knows nothing of nodes, of names or of protocols, and does not know how a
// message is led the short way.
package shortcut
