package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// growthWays are those whose growth is measured: the slope is the result, and those
// that are left out go the ways of others.
var growthWays = []string{"direct", "handover", "shortcut-through", "splice", "haproxy"}

// idleWays are those whose idle connections are weighed.
var idleWays = []string{"splice", "copy", "shortcut-through", "haproxy", "nginx"}

const (
	// most connections and registered nodes that are asked for.
	mostIdle  = 10_000
	mostNames = 20_000
	// A relay may have two sockets for a connection and, when both directions
	// move, two pipes.
	descriptorsMoving = 6
)

// growthAmounts are how much is done in a turn, however many connections there are.
type growthAmounts struct {
	bytes       uint64
	trips       uint64
	setUps      int
	connections []int
	names       []int
	idle        []int
}

func growthOf(short bool) growthAmounts {
	if short {
		return growthAmounts{bytes: 8 << 20, trips: 400, setUps: 10, connections: []int{10, 100}, names: []int{10, 100}, idle: []int{100}}
	}
	a := growthAmounts{bytes: 512 << 20, trips: 6000, setUps: 100, connections: []int{10, 100, 1000, 10_000}, names: []int{10, 100, 1000, 10_000, mostNames},
		idle: []int{30, 300, 3000, mostIdle}}
	a.connections = upTo(a.connections, (int(min(maxFiles(), 1<<30))-spareDescriptors)/descriptorsMoving)
	a.names = upTo(a.names, doorMost())
	return a
}

// upTo puts most in place of the sizes that are above it.
func upTo(sizes []int, most int) []int {
	i := slices.IndexFunc(sizes, func(n int) bool { return n > most })
	if i < 0 {
		return sizes
	}
	return append(slices.Clone(sizes[:i]), most)
}

// growth measures how bulk, latency, set-up and memory go with the number of
// connections, and all but memory, which is weighed in the group EPMD, with that of
// registered nodes.
func (r *run) growth(ctx context.Context, of *contest, w *world) error {
	c := growthContest(of, w, r.o.Short)
	if err := r.contest(ctx, c); err != nil {
		return err
	}
	r.sayLimits(c.layout)
	for _, name := range idleWays {
		if !r.o.wants(Sockets, name) || !slices.ContainsFunc(of.entrants, func(e entrant) bool { return e.way == name }) {
			continue
		}
		for _, n := range growthOf(r.o.Short).idle {
			r.progress.say("%s %s idle, connections %d: %s", c.layout, c.group, n, name)
			r.idle(ctx, w, name, n)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// growthContest is one of the ways that are up already, few of them.
func growthContest(of *contest, w *world, short bool) *contest {
	c := &contest{group: of.group, layout: of.layout}
	for _, e := range of.entrants {
		if slices.Contains(growthWays, e.way) {
			c.entrants = append(c.entrants, e)
		}
	}
	s, a := w.sockets, growthOf(short)
	way := func(i int) string { return c.entrants[i].way }
	for _, n := range a.connections {
		c.works = append(c.works,
			work{name: "bulk to node", connections: n, run: func(ctx context.Context, i int) (outcome, error) {
				return s.bulk(ctx, way(i), toNode, n, a.bytes)
			}},
			work{name: "round trip", connections: n, size: 64, run: func(ctx context.Context, i int) (outcome, error) {
				return s.trips(ctx, way(i), 64, n, max(a.trips, uint64(n)))
			}},
			work{name: "set-up beside others", connections: n, run: func(ctx context.Context, i int) (outcome, error) {
				return s.setUpBeside(ctx, way(i), n, a.setUps)
			}})
	}
	holders := make(map[string]*holder)
	// with is a work beside n registered nodes, of the ways that nodes are found by.
	with := func(n int, x work, do func(ctx context.Context, way string) (outcome, error)) work {
		x.names, x.connections = n, 1
		x.only = func(way string) bool { return way == c.group.Baseline() || s.ways[way].route.Upgrade != "" }
		x.run = func(ctx context.Context, i int) (outcome, error) {
			if err := holdAt(ctx, w, holders, s.ways[way(i)].route, n); err != nil {
				return outcome{}, err
			}
			return do(ctx, way(i))
		}
		return x
	}
	most := a.names[len(a.names)-1]
	for _, n := range a.names {
		c.works = append(c.works,
			with(n, work{name: "bulk to node"}, func(ctx context.Context, way string) (outcome, error) {
				return s.bulk(ctx, way, toNode, 1, a.bytes)
			}),
			with(n, work{name: "round trip", size: 64}, func(ctx context.Context, way string) (outcome, error) {
				return s.trips(ctx, way, 64, 1, a.trips)
			}),
			with(n, work{name: "set-up"}, func(ctx context.Context, way string) (outcome, error) {
				o, err := s.setUp(ctx, way, a.setUps)
				if n == most {
					// The next round begins with connections, which the door counts too.
					err = errors.Join(err, holdAt(ctx, w, holders, s.ways[way].route, 1))
				}
				return o, err
			}))
	}
	return c
}

// setUpBeside sets connections up while others are open.
func (s *sockets) setUpBeside(ctx context.Context, way string, others, count int) (o outcome, err error) {
	up := s.ways[way]
	client := s.clients[up.client]
	opened, err := client.ask(ctx, request{Operation: doOpen, Route: up.route, Connections: others, Header: header{Kind: hold}})
	if err != nil {
		return outcome{}, fmt.Errorf("connecting: %w", err)
	}
	defer func() {
		_, closeErr := client.ask(ctx, request{Operation: doClose})
		err = errors.Join(err, closeErr)
	}()
	if opened.Count != others {
		return outcome{}, fmt.Errorf("%d connections could be opened, %d were asked for: %s", opened.Count, others, opened.Note)
	}
	return s.setUp(ctx, way, count)
}

// holdAt has so many nodes registered at the door that a route leads through, if it
// does, beside the one of the contest.
func holdAt(ctx context.Context, w *world, holders map[string]*holder, r route, n int) error {
	if r.Upgrade == "" {
		return nil
	}
	h := holders[r.Address]
	if h == nil {
		address, err := netip.ParseAddrPort(r.Address)
		if err != nil {
			return err
		}
		if h, err = startHolder(w, address); err != nil {
			return err
		}
		holders[r.Address] = h
	}
	return h.hold(ctx, n-1)
}

// idle weighs so many idle connections of a way.
func (r *run) idle(ctx context.Context, w *world, name string, asked int) {
	ways := r.o.sockets()
	i := slices.IndexFunc(ways, func(w way) bool { return w.name == name })
	if i < 0 {
		return
	}
	each, held, err := idle(ctx, w, ways[i], asked)
	if err != nil {
		why := fmt.Sprintf("idle: %v", err)
		if held > 0 {
			why = fmt.Sprintf("idle: %d connections in place of %d: %v", held, asked, err)
		}
		r.result.Absent = append(r.result.Absent, Absent{w.layout, Sockets, name, why})
	}
	if held == 0 || ctx.Err() != nil {
		return
	}
	for _, m := range []struct {
		metric string
		value  float64
		from   int // connections: with fewer, what else happens on the machine is more
	}{{"daemon memory", each.daemon, 0}, {"kernel memory", each.kernel, 0}, {"machine memory", each.machine, 3000}} {
		if held < m.from {
			continue
		}
		point := Point{Layout: w.layout, Group: Sockets, Work: "idle", Connections: held, Metric: m.metric, Unit: "B", Lower: true}
		r.result.Series = append(r.result.Series, Series{Point: point, Way: name, Rounds: []float64{m.value}})
	}
}

// sayLimits says how far below what is asked for this machine's limits are.
func (r *run) sayLimits(layout Layout) {
	if r.o.Short {
		return
	}
	a := growthOf(false)
	if n := a.connections[len(a.connections)-1]; n < mostIdle {
		r.result.Absent = append(r.result.Absent, Absent{layout, Sockets, "all",
			fmt.Sprintf("more than %d connections that move bytes at once: the limit is %d open files, of which a relay may need %d for each; raise it by ulimit -Hn", n, maxFiles(), descriptorsMoving)})
	}
	if n := a.names[len(a.names)-1]; n < mostNames {
		r.result.Absent = append(r.result.Absent, Absent{layout, Sockets, "all",
			fmt.Sprintf("set-up with more than %d registered nodes: the limit is %d open files, of which a door counts two for each; raise it by ulimit -Hn", n, maxFiles())})
	}
}
