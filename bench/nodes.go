package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// nodesContest starts a pair of Erlang nodes for each way, and makes sure of each
// that they are connected by the way it is called. app is the folder of the compiled
// OTP application, which the nodes need that take descriptors. Ways that cannot be
// had are returned beside it.
func nodesContest(ctx context.Context, w *world, app string, ways []string, short bool) (*contest, []Absent, error) {
	baseline := Nodes.Baseline()
	if !slices.Contains(ways, baseline) {
		ways = append([]string{baseline}, ways...)
	}
	erlang, err := findErlang(ctx, w)
	if err != nil {
		return nil, []Absent{{Layout: w.layout, Group: Nodes, Way: baseline, Why: err.Error()}}, err
	}
	c := &contest{group: Nodes, layout: w.layout}
	var absent []Absent
	var pairs []*nodePair
	for _, name := range ways {
		i := slices.IndexFunc(nodeDoors, func(d nodeDoor) bool { return d.name == name })
		if i < 0 {
			continue // takes no part in this group
		}
		p, err := startPair(ctx, w, erlang, nodeDoors[i], app)
		switch {
		case ctx.Err() != nil:
			return nil, absent, context.Cause(ctx)
		case err == nil:
			pairs = append(pairs, p)
			c.entrants = append(c.entrants, entrant{name, p.pids})
		case name == baseline:
			return nil, absent, fmt.Errorf("the way %q, with which the others are compared: %w", name, err)
		default:
			absent = append(absent, Absent{w.layout, Nodes, name, err.Error()})
		}
	}
	for _, n := range nodeWorks(short) {
		c.works = append(c.works, work{
			name: n.name, size: n.size, connections: 1,
			run: func(ctx context.Context, i int) (outcome, error) { return pairs[i].work(ctx, n) },
		})
	}
	return c, absent, nil
}

// nodeWays are the ways of the group Nodes.
var nodeWays = func() (names []string) {
	for _, d := range nodeDoors {
		names = append(names, d.name)
	}
	return names
}()

// nodeWork is what one node does with the other one.
type nodeWork struct {
	name  string
	size  int    // bytes of a message
	term  string // as bench_node knows it
	count int
	kind  func(n nodeWork, nanos []time.Duration) outcome
}

const (
	megabyte = 1 << 20
	large    = 50 * megabyte
)

func nodeWorks(short bool) []nodeWork {
	count := func(n, inShort int) int {
		if short {
			return inShort
		}
		return n
	}
	return []nodeWork{
		{"call", 0, "call", count(5000, 50), latency},
		{"calls of 100 callers", 1000, "{callers, 100}", count(10_000, 200), calls},
		{"messages", 100, "messages", count(150_000, 2000), rate},
		{"messages", megabyte, "megabytes", count(400, 4), bulkOf},
		{"bulk to node", large, fmt.Sprintf("{to_node, %d}", large), count(8, 1), bulkOf},
		{"bulk to client", large, fmt.Sprintf("{to_client, %d}", large), count(8, 1), bulkOf},
	}
}

// latency is the outcome of single calls.
func latency(_ nodeWork, nanos []time.Duration) outcome {
	us := microseconds(nanos)
	slices.Sort(us)
	return outcome{
		figures: []figure{
			{metric: "p50", unit: "us", lower: true, value: nearest(us, 0.5), latencies: us},
			{metric: "p99", unit: "us", lower: true, value: nearest(us, 0.99)},
		},
		amount: float64(len(us)) / 1000, per: "1000 trips",
	}
}

// calls is the outcome of calls side by side.
func calls(n nodeWork, nanos []time.Duration) outcome {
	o := rate(n, nanos)
	o.per = "1000 trips"
	return o
}

func rate(n nodeWork, nanos []time.Duration) outcome {
	return outcome{
		figures: []figure{{metric: "rate", unit: "1/s", value: float64(n.count) / nanos[0].Seconds()}},
		amount:  float64(n.count) / 1000, per: "1000 messages",
	}
}

func bulkOf(n nodeWork, nanos []time.Duration) outcome {
	bytes := float64(n.count) * float64(n.size)
	return outcome{
		figures: []figure{{metric: "throughput", unit: "MB/s", value: bytes / 1e6 / nanos[0].Seconds()}},
		amount:  bytes / (1 << 30), per: "GiB",
	}
}

// work has the client's node do a work with the other one, over the same connection
// as ever, which has to be on its way still.
func (p *nodePair) work(ctx context.Context, n nodeWork) (outcome, error) {
	if err := p.standing(ctx); err != nil {
		return outcome{}, err
	}
	begins(ctx)
	numbers, err := p.client.ask(ctx, fmt.Sprintf("{work, %s, %d, '%s'}", n.term, n.count, p.node.name))
	if err != nil {
		return outcome{}, err
	}
	if len(numbers) == 0 || n.term == "call" && len(numbers) != n.count {
		return outcome{}, fmt.Errorf("%d times were measured in %d times of %q", len(numbers), n.count, n.name)
	}
	nanos := make([]time.Duration, len(numbers))
	for i, number := range numbers {
		// A clock that stands still would make a rate infinite.
		nanos[i] = time.Duration(max(number, 1))
	}
	return n.kind(n, nanos), nil
}
