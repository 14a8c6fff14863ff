package bench

import (
	"context"
	"fmt"
	"math"
	"time"
)

// amounts are how much is done in a turn.
type amounts struct {
	bytes      uint64 // of bulk, all connections and both directions together
	trips      uint64 // of all connections together
	sequential int    // connections that are set up one by one
	crowd      int    // clients that set connections up at once
	crowdTime  time.Duration
	slow       uint64 // bytes that are offered to a slow reader
	sleep      time.Duration
}

func (s *sockets) amounts() amounts {
	if s.short {
		return amounts{bytes: 64 << 20, trips: 500, sequential: 20, crowd: 16, crowdTime: 100 * time.Millisecond, slow: 64 << 20, sleep: time.Second}
	}
	// Seven rounds move more than 4 GiB, and each turn fifty times what buffers hold.
	return amounts{bytes: 640 << 20, trips: 6000, sequential: 200, crowd: 16, crowdTime: 400 * time.Millisecond, slow: 1 << 30, sleep: 5 * time.Second}
}

// works are all works of the contest.
func (s *sockets) works(c *contest) []work {
	a := s.amounts()
	of := func(i int) string { return c.entrants[i].way }
	var all []work
	for _, b := range []struct {
		name        string
		direction   direction
		connections int
	}{
		{"bulk to node", toNode, 1},
		{"bulk to client", toClient, 1},
		{"bulk both ways", bothWays, 1},
		{"bulk to node", toNode, 4},
		{"bulk to node", toNode, 64},
	} {
		all = append(all, work{
			name: b.name, connections: b.connections,
			run: func(ctx context.Context, i int) (outcome, error) {
				return s.bulk(ctx, of(i), b.direction, b.connections, a.bytes)
			},
		})
	}
	for _, b := range []struct {
		connections, size int
	}{{1, 64}, {1, 4 << 10}, {4, 64}, {64, 64}} {
		all = append(all, work{
			name: "round trip", connections: b.connections, size: b.size,
			run: func(ctx context.Context, i int) (outcome, error) {
				return s.trips(ctx, of(i), b.size, b.connections, a.trips)
			},
		})
	}
	return append(all,
		work{
			name: "set-up", connections: 1,
			run: func(ctx context.Context, i int) (outcome, error) { return s.setUp(ctx, of(i), a.sequential) },
		},
		work{
			name: "set-up", connections: a.crowd,
			run: func(ctx context.Context, i int) (outcome, error) {
				return s.setUpCrowd(ctx, of(i), a.crowd, a.crowdTime)
			},
		},
	)
}

// bulk moves bytes, shared out over the connections and the directions.
func (s *sockets) bulk(ctx context.Context, way string, d direction, connections int, bytes uint64) (outcome, error) {
	each := bytes / uint64(connections)
	total := each * uint64(connections)
	if d == bothWays {
		each /= 2
		total = 2 * each * uint64(connections)
	}
	got, err := s.turn(ctx, way, connections, header{Kind: bulk, Direction: d, Size: uint32(pieceOf(connections)), Count: each}, false)
	if err != nil {
		return outcome{}, err
	}
	return outcome{
		figures: []figure{{metric: "throughput", unit: "MB/s", value: float64(total) / 1e6 / got.Elapsed.Seconds()}},
		amount:  float64(total) / (1 << 30), per: "GiB",
	}, nil
}

// trips sends messages and waits for the echo of each, on every connection.
func (s *sockets) trips(ctx context.Context, way string, size, connections int, count uint64) (outcome, error) {
	each := max(1, count/uint64(connections))
	got, err := s.turn(ctx, way, connections, header{Kind: trips, Size: uint32(size), Count: each}, false)
	if err != nil {
		return outcome{}, err
	}
	latencies := microseconds(got.Latencies)
	if want := int(each) * connections; len(latencies) != want {
		return outcome{}, fmt.Errorf("%d round trips were made; expected %d", len(latencies), want)
	}
	return outcome{
		figures: []figure{
			{metric: "p50", unit: "us", lower: true, value: nearest(latencies, 0.5), latencies: latencies},
			{metric: "p99", unit: "us", lower: true, value: nearest(latencies, 0.99)},
			{metric: "p99.9", unit: "us", lower: true, value: nearest(latencies, 0.999)},
			{metric: "rate", unit: "1/s", value: float64(len(latencies)) / got.Elapsed.Seconds()},
		},
		amount: float64(len(latencies)) / 1000, per: "1000 trips",
	}, nil
}

// setUp connects until the node's first byte is there, again and again.
func (s *sockets) setUp(ctx context.Context, way string, count int) (outcome, error) {
	up := s.ways[way]
	got, err := s.clients[up.client].ask(ctx, request{Operation: doSetUp, Route: up.route, Connections: count})
	if err != nil {
		return outcome{}, err
	}
	latencies := microseconds(got.Latencies)
	return outcome{figures: []figure{
		{metric: "p50", unit: "us", lower: true, value: nearest(latencies, 0.5), latencies: latencies},
		{metric: "p99", unit: "us", lower: true, value: nearest(latencies, 0.99)},
	}}, nil
}

// setUpCrowd does the same by many clients at once.
func (s *sockets) setUpCrowd(ctx context.Context, way string, clients int, within time.Duration) (outcome, error) {
	up := s.ways[way]
	got, err := s.clients[up.client].ask(ctx, request{Operation: doSetUp, Route: up.route, Connections: clients, Time: within})
	if err != nil {
		return outcome{}, err
	}
	return outcome{figures: []figure{{metric: "rate", unit: "1/s", value: float64(got.Count) / got.Elapsed.Seconds()}}}, nil
}

func microseconds(all []time.Duration) []float64 {
	us := make([]float64, len(all))
	for i, d := range all {
		us[i] = float64(d) / float64(time.Microsecond)
	}
	return us
}

// nearest is the quantile of a sorted list by the nearest rank, 0 of an empty one.
func nearest(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}
