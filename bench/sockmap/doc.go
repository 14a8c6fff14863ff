// Package sockmap relays connections as the textbook does with a sockmap: a
// program of type sk_skb sends what arrives at one socket by another one, and no
// byte passes through user space. It is here to be measured and is UNSAFE; nothing
// but the harness may use it:
//
//   - Nothing pushes back. What a socket is to send waits on a queue in the kernel
//     that has no bound and is charged to nobody, so a reader who sleeps makes the
//     sender's whole stream pile up in memory.
//   - A retransmitted segment that overlaps with what has arrived is handed over
//     whole when the window is under pressure: the receiver gets bytes twice, and
//     nothing tells it.
//   - A program that lets some bytes pass, to bound the queue, makes the kernel's
//     accounting of TCP memory go wrong.
//   - Bytes that arrived before the socket was put in the map wait for the next
//     ones, a FIN or a reset is not led on, and a FIN that is passed breaks the
//     queue of what the socket still has to send. The last bytes before a FIN are
//     left behind if we have sent one. The relay here sees to all that by hand.
//   - To take out a socket that still has bytes to send loses them.
//
// It is the one user of cilium/ebpf beside package loader, since that one has no
// business with programs that lose bytes.
package sockmap
