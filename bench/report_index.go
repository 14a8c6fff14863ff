package bench

import (
	"slices"
	"strings"
)

// index finds the series of a Result.
type index struct {
	result *Result
	series map[seriesKey]*Series
	points []Point // in the order in which they were measured
}

type seriesKey struct {
	point Point
	way   string
}

func newIndex(r *Result) *index {
	ix := &index{result: r, series: map[seriesKey]*Series{}}
	seen := map[Point]bool{}
	for i := range r.Series {
		s := &r.Series[i]
		if k := (seriesKey{s.Point, s.Way}); ix.series[k] == nil {
			ix.series[k] = s
		}
		if !seen[s.Point] {
			seen[s.Point] = true
			ix.points = append(ix.points, s.Point)
		}
	}
	return ix
}

// rounds of a way at a point; nil if it was not measured there.
func (ix *index) rounds(p Point, way string) []float64 {
	if s := ix.series[seriesKey{p, way}]; s != nil {
		return s.Rounds
	}
	return nil
}

// absolute is what a way reached.
func (ix *index) absolute(p Point, way string) spread { return spreadOf(ix.rounds(p, way)) }

// ratio is what a way reached divided by what another did in the same rounds.
func (ix *index) ratio(p Point, way, other string) spread {
	return spreadOf(ratios(ix.rounds(p, way), ix.rounds(p, other)))
}

// toBaseline is the ratio to the baseline of the point's group.
func (ix *index) toBaseline(p Point, way string) spread {
	return ix.ratio(p, way, p.Group.Baseline())
}

// ways that were measured at any of the points, in the order of the tables.
func (ix *index) ways(points []Point) []string {
	in := map[Point]bool{}
	for _, p := range points {
		in[p] = true
	}
	var ways []string
	for _, s := range ix.result.Series {
		if in[s.Point] && !slices.Contains(ways, s.Way) {
			ways = append(ways, s.Way)
		}
	}
	sortWays(ways)
	return ways
}

// at returns the points that satisfy every condition.
func (ix *index) at(conditions ...func(Point) bool) []Point {
	return selected(ix.points, conditions...)
}

func selected(points []Point, conditions ...func(Point) bool) []Point {
	var found []Point
	for _, p := range points {
		if !slices.ContainsFunc(conditions, func(c func(Point) bool) bool { return !c(p) }) {
			found = append(found, p)
		}
	}
	return found
}

func inLayout(l Layout) func(Point) bool { return func(p Point) bool { return p.Layout == l } }
func inGroup(g Group) func(Point) bool   { return func(p Point) bool { return p.Group == g } }
func ofTopic(t topic) func(Point) bool   { return func(p Point) bool { return topicOf(p) == t } }
func ofMetric(m string) func(Point) bool { return func(p Point) bool { return p.Metric == m } }

// few leaves out the points that were measured for growth.
func few(p Point) bool { return p.Connections <= 64 }

// layouts and groups that have series, in an order that does not depend on the run.
func (ix *index) layouts() []Layout {
	return present(ix, []Layout{Loopback, Veth}, func(p Point) Layout { return p.Layout })
}

func (ix *index) groups() []Group {
	return present(ix, []Group{Sockets, Nodes, EPMD}, func(p Point) Group { return p.Group })
}

func present[T comparable](ix *index, order []T, of func(Point) T) []T {
	var found []T
	for _, p := range ix.points {
		if v := of(p); !slices.Contains(found, v) {
			found = append(found, v)
		}
	}
	slices.SortStableFunc(found, func(a, b T) int {
		return later(order, a) - later(order, b)
	})
	return found
}

func later[T comparable](order []T, v T) int {
	if i := slices.Index(order, v); i >= 0 {
		return i
	}
	return len(order)
}

// topic is what a point is about.
type topic string

// The topics, in the order of a report.
const (
	aboutBulk   topic = "Bulk"
	aboutTrips  topic = "Request and answer"
	aboutSetUp  topic = "Set-up of connections"
	aboutRates  topic = "Rates"
	aboutCPU    topic = "CPU time"
	aboutMemory topic = "Memory"
	aboutOthers topic = "More"
)

var topics = []topic{aboutBulk, aboutTrips, aboutRates, aboutSetUp, aboutCPU, aboutMemory, aboutOthers}

func topicOf(p Point) topic {
	switch {
	case strings.HasSuffix(p.Metric, "CPU"):
		return aboutCPU
	case strings.Contains(p.Work, "set-up"):
		return aboutSetUp
	case p.Unit == "B" || strings.HasSuffix(p.Metric, "memory"):
		return aboutMemory
	case p.Unit == "MB/s":
		return aboutBulk
	case p.Unit == "us" || p.Unit == "ms" || p.Unit == "ns":
		return aboutTrips
	case p.Unit == "1/s":
		return aboutRates
	}
	return aboutOthers
}

// perGiB tells whether a point is the machine's CPU time for the bytes moved.
func perGiB(p Point) bool { return p.Metric == "machine CPU" && p.Unit == "s/GiB" }
