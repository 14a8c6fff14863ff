package bench

import (
	"context"

	"oneport/bench/sockmap"
)

// SockmapRelay accepts connections at the address listen and joins each with one to
// target by the textbook's sockmap of type sk_skb, until the context is done. UNSAFE,
// and here to be measured only: it piles up memory before a slow reader without a
// bound, and may double and lose bytes. Package sockmap says why.
func SockmapRelay(ctx context.Context, listen, target string) error {
	return sockmap.Relay(ctx, listen, target)
}

// skSKB is the textbook's relay inside the kernel.
func skSKB() way {
	return way{
		name:   "sk_skb",
		what:   "UNSAFE: the textbook's sockmap relay; no back-pressure, unbounded memory, and bytes that double or get lost",
		unsafe: true,
		start: peer(func(ctx context.Context, w *world, p place) (*child, error) {
			return w.start(w.command(hostSide, w.program, "bench-sockmap", p.Listen(), p.Target))
		}),
	}
}
