package handover

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkOffer measures the time from an offer to the commit. Each node is
// offered one connection after the other, and plays its part in this process.
func BenchmarkOffer(b *testing.B) {
	for _, nodes := range []int{1, 20} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			names := make([]string, nodes)
			for i := range names {
				names[i] = fmt.Sprintf("n%d", i)
			}
			d := start(b, &Server{}, names...)
			var taking, offering sync.WaitGroup
			defer taking.Wait()
			defer d.stop()
			for _, name := range names {
				n := d.join(b, name)
				taking.Go(func() { takeAll(n) })
			}
			took := make([][]time.Duration, nodes)
			b.ResetTimer()
			for i, name := range names {
				o := offerOf(name, doorOf(b))
				offering.Go(func() {
					for range (b.N + nodes - 1) / nodes {
						started := time.Now()
						if _, err := d.Offer(b.Context(), o); err != nil {
							b.Error(err)
							return
						}
						took[i] = append(took[i], time.Since(started))
					}
				})
			}
			offering.Wait()
			b.StopTimer()
			all := slices.Concat(took...)
			slices.Sort(all)
			b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "offers/s")
			b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1000, "p50-us")
			b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1000, "p99-us")
		})
	}
}

// takeAll takes every offer until the daemon ends.
func takeAll(n *node) {
	for {
		switch f, conn := n.hear(); f := f.(type) {
		case offer:
			conn.Close()
			n.say(accept{f.id})
		case nil:
			return
		}
	}
}
