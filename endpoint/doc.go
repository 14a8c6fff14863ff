// Package endpoint finds the ends of TCP connections on this host: from a
// connection's two addresses to the process that has an end of it, and to a
// duplicate of its socket.
//
// It asks the kernel for exactly one socket (sock_diag(7)), in this network
// namespace and in those of the Erlang VMs of this host, and looks for that
// socket among the descriptors of these VMs only. It takes a socket of nobody
// else: what is done with a duplicate relies on a single thread that writes at a
// time and on a reader that does not block, and a BEAM is known for both.
//
// It knows nothing of what is done with a socket, nor of nodes and their names.
package endpoint
