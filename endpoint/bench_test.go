package endpoint

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"
)

// BenchmarkLook asks the kernel for a socket, without a search for its owner: by a
// netlink socket for each question, and by one for all.
func BenchmarkLook(b *testing.B) {
	l := listen(b, "tcp4")
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	_, local, remote := accept(b, l)
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			if _, err := Look(local, remote); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("each", func(b *testing.B) {
		LookEach(slices.Repeat([]Ends{{local, remote}}, b.N), func(_ int, _ Record, err error) {
			if err != nil {
				b.Fatal(err)
			}
		})
	})
}

// BenchmarkEnd takes the end of one connection again and again, and closes it.
func BenchmarkEnd(b *testing.B) {
	h, f := world(b), finder(b)
	l := listen(b, "tcp4")
	start(b, h, erl(connects(l, "")))
	_, local, remote := accept(b, l)
	for b.Loop() {
		s, err := f.End(b.Context(), local, remote)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkNewEnd takes the end of a connection that was just made by a known
// node with so many others.
func BenchmarkNewEnd(b *testing.B) {
	for _, others := range []int{0, 100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("beside %d", others), func(b *testing.B) {
			h, f := world(b), finder(b)
			l := listen(b, "tcp4")
			start(b, h, erl(fmt.Sprintf(
				`[{ok, _} = gen_tcp:connect({127,0,0,1}, %d, []) || _ <- lists:seq(1, %d)], %s`, addrPort(l.Addr()).Port(), others, reconnects(l, 0))))
			for range others {
				accept(b, l)
			}
			var spent time.Duration
			for b.Loop() {
				conn, local, remote := accept(b, l)
				start := time.Now()
				s, err := f.End(b.Context(), local, remote)
				if err != nil {
					b.Fatal(err)
				}
				s.Close()
				spent += time.Since(start)
				next(b, conn)
			}
			b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "µs/search")
			b.ReportMetric(0, "ns/op")
		})
	}
}
