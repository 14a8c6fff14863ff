// Package loader brings the shortcut into the kernel and pairs sockets.
//
// It loads the programs of package bpf, checks by a trial on the running kernel
// that they do what they must, pins them so that they outlive this process, and
// puts pairs of sockets into their maps. From then on the sockets' messages go
// the short way by the rule that bpf/shortcut.bpf.c states, and nothing of it
// depends on this process any more. A pair ends with its sockets.
//
// It is the only user of cilium/ebpf but for the benchmarks, and knows nothing of
// Erlang, of nodes, or of how a socket was found. It trusts its caller in one thing
// that it cannot see: each socket must be written by one thread at a time (a BEAM writes under
// a lock; an arbitrary program may not).
package loader
