package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// synthetic makes up a result as a run would give it: the sizes of the figures are
// real, the noise is drawn.
type synthetic struct {
	r   *Result
	rng *rand.Rand
}

func syntheticResult() *Result {
	s := &synthetic{rng: rand.New(rand.NewPCG(1, 2)), r: &Result{
		Schema: Schema, Began: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Seconds: 2345, Complete: true,
		Machine:  Machine{Kernel: "6.1.0-30-amd64", Processor: "AMD EPYC 7B13", CPUs: 2, Memory: 8 << 30, Virtual: "kvm", MaxFiles: 1 << 20},
		Settings: Settings{Rounds: 7, Layouts: []Layout{Loopback, Veth}, Groups: []Group{Sockets, Nodes, EPMD}},
		Versions: []Version{{"oneport", "devel"}, {"Go", "go1.26.8 linux/arm64"}, {"Erlang/OTP", "25"}, {"haproxy", "2.6.12"}},
		Absent:   []Absent{{Layout: Loopback, Group: Nodes, Way: "shortcut-direct", Why: "the pipe | in this reason\nis escaped"}},
	}}
	for _, l := range s.r.Settings.Layouts {
		s.sockets(l)
		s.nodes(l)
		s.epmd(l)
		s.growth(l)
		for way, memory := range map[string]int64{"direct": 6 << 20, "splice": 7 << 20, "sk_skb": 900 << 20} {
			s.r.Slow = append(s.r.Slow, SlowReader{Layout: l, Way: way, Offered: 1 << 30, Accepted: uint64(memory), Memory: memory, Sleep: 5})
		}
	}
	return s.r
}

// cost of a way relative to direct: of time and of CPU, and inversely of bulk.
var syntheticCost = map[string]float64{
	"direct": 1, control: 1, "unix": 0.55, "handover": 1.01, "shortcut-direct": 0.62, "shortcut-through": 0.66, "shortcut-outward": 1.3,
	"splice": 1.9, "copy": 2.4, "haproxy": 2.2, "nginx": 2.9, "socat": 3.6, "beam": 6.5, "sk_skb": 1.25,
}

func syntheticWays() []string {
	var ways []string
	for way := range syntheticCost {
		ways = append(ways, way)
	}
	slices.Sort(ways) // not in the order of the tables
	return ways
}

func (s *synthetic) add(p Point, way string, value float64) *Series {
	series := Series{Point: p, Way: way}
	for range s.r.Settings.Rounds {
		series.Rounds = append(series.Rounds, value*(1+0.04*s.rng.NormFloat64()))
	}
	s.r.Series = append(s.r.Series, series)
	return &s.r.Series[len(s.r.Series)-1]
}

func (s *synthetic) sample(around float64) []float64 {
	v := make([]float64, 101)
	for i := range v {
		v[i] = around * (0.8 + 0.4*float64(i)/100)
	}
	for i := range 10 {
		v[91+i] *= 1 + float64(i*i)/20
	}
	return v
}

func (s *synthetic) sockets(l Layout) {
	for _, way := range syntheticWays() {
		cost := syntheticCost[way]
		for _, c := range []struct {
			work        string
			connections int
		}{{"bulk to node", 1}, {"bulk to client", 1}, {"bulk both ways", 1}, {"bulk to node", 4}, {"bulk to node", 64}} {
			p := Point{Layout: l, Group: Sockets, Work: c.work, Connections: c.connections}
			s.add(with(p, "throughput", "MB/s", false), way, 2600/cost)
			s.add(with(p, "machine CPU", "s/GiB", true), way, 0.4*cost)
			if way != "direct" {
				s.add(with(p, "daemon CPU", "s/GiB", true), way, 0.2*cost)
			}
		}
		for _, c := range [][2]int{{1, 64}, {1, 4096}, {4, 64}, {64, 64}} {
			p := Point{Layout: l, Group: Sockets, Work: "round trip", Connections: c[0], Size: c[1]}
			base := 14 * cost * (1 + float64(c[0])/4)
			s.add(with(p, "p50", "us", true), way, base).Sample = s.sample(base)
			s.add(with(p, "p99", "us", true), way, 2*base)
			s.add(with(p, "p99.9", "us", true), way, 4*base)
			s.add(with(p, "trips", "1/s", false), way, 1e6/base)
			s.add(with(p, "machine CPU", "s/1000 trips", true), way, base/1000)
		}
		p := Point{Layout: l, Group: Sockets, Work: "set-up", Connections: 1}
		s.add(with(p, "p50", "us", true), way, 60*cost).Sample = s.sample(60 * cost)
		s.add(with(p, "p99", "us", true), way, 150*cost)
		p.Connections = 16
		s.add(with(p, "rate", "1/s", false), way, 30000/cost)
	}
}

func (s *synthetic) nodes(l Layout) {
	for _, way := range []string{"direct", "handover", "shortcut-through", "shortcut-outward", "splice", "haproxy"} {
		cost := syntheticCost[way]
		p := Point{Layout: l, Group: Nodes, Work: "call"}
		s.add(with(p, "p50", "us", true), way, 40*cost)
		s.add(with(p, "p99", "us", true), way, 90*cost)
		p.Work = "messages"
		s.add(with(p, "rate", "1/s", false), way, 800000/cost)
		p.Work, p.Size = "to node", 50<<20
		s.add(with(p, "throughput", "MB/s", false), way, 1500/cost)
	}
}

func (s *synthetic) epmd(l Layout) {
	rate := map[string]float64{"epmd": 18000, "oneport": 40000, "door": 25000}
	for _, way := range []string{"door", "epmd", "oneport"} {
		for _, work := range []string{"PORT_PLEASE2", "ALIVE2"} {
			for _, connections := range []int{1, 64} {
				for _, names := range []int{10, 100, 1000, 10000, 20000} {
					if way == "epmd" && names > 1000 {
						continue
					}
					p := Point{Layout: l, Group: EPMD, Work: work, Connections: connections, Names: names}
					s.add(with(p, "rate", "1/s", false), way, rate[way]*(1-float64(names)/1e6))
				}
			}
		}
	}
}

func (s *synthetic) growth(l Layout) {
	for _, way := range []string{"direct", "splice", "handover", "haproxy", "shortcut-through"} {
		for _, n := range []int{1, 10, 100, 1000, 10000} {
			p := Point{Layout: l, Group: Sockets, Work: "growth: bulk", Connections: n}
			s.add(with(p, "throughput", "MB/s", false), way, 2500/syntheticCost[way]/(1+float64(n)/20000))
			p.Work, p.Size = "growth: round trip", 64
			s.add(with(p, "p50", "us", true), way, 14*syntheticCost[way]*float64(n))
			p.Work, p.Size = "growth: set-up", 0
			s.add(with(p, "rate", "1/s", false), way, 30000/syntheticCost[way])
		}
	}
	for _, way := range []string{"splice", "copy", "haproxy"} {
		for _, n := range []int{10, 1000, 10000} {
			p := Point{Layout: l, Group: Sockets, Work: "idle", Connections: n}
			s.add(with(p, "daemon memory", "B", true), way, 7000*syntheticCost[way])
			s.add(with(p, "kernel memory", "B", true), way, 9000)
		}
	}
}

func with(p Point, metric, unit string, lower bool) Point {
	p.Metric, p.Unit, p.Lower = metric, unit, lower
	return p
}

// find is the series of a way at a work, or a panic: the tests name what exists.
func find(r *Result, way, work, metric string, connections int) *Series {
	for i := range r.Series {
		s := &r.Series[i]
		if s.Way == way && s.Work == work && s.Metric == metric && s.Connections == connections {
			return s
		}
	}
	panic(fmt.Sprintf("no series %s, %s, %s, %d", way, work, metric, connections))
}
