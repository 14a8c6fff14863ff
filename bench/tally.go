package bench

import (
	"math/rand/v2"
	"slices"
)

// tally holds the figures of a contest, round by round. Only whole rounds are
// kept, and of each work only those who did it in all of them: so that what is
// compared with each other is of the same rounds.
type tally struct {
	contest *contest
	out     map[part]bool // who is taken out of what
	rounds  int           // that were committed
	kept    []*kept
	byKey   map[key]*kept
	pending []pending
}

// part is what an entrant has in a work, by its title.
type part struct {
	entrant int
	work    string
}

type key struct {
	point Point
	way   string
}

// kept is a series as it grows.
type kept struct {
	key
	part      part
	rounds    []float64
	latencies []float64
}

// pending is a figure of the round that runs.
type pending struct {
	key    key
	part   part
	figure figure
}

func newTally(c *contest) *tally {
	return &tally{contest: c, out: make(map[part]bool), byKey: make(map[key]*kept)}
}

// order draws who does a work, one after the other.
func (t *tally) order(w work) []int {
	var order []int
	for i, e := range t.contest.entrants {
		if !t.out[part{i, w.title()}] && (w.only == nil || w.only(e.way)) {
			order = append(order, i)
		}
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// turns is how many a round has.
func (t *tally) turns() int {
	n := 0
	for _, w := range t.contest.works {
		n += len(t.order(w))
	}
	return n
}

// begin forgets what was not committed.
func (t *tally) begin() { t.pending = t.pending[:0] }

// add notes the figures of a turn.
func (t *tally) add(w work, entrant int, o outcome) {
	for _, f := range o.figures {
		point := Point{
			Layout: t.contest.layout, Group: t.contest.group,
			Work: w.name, Connections: w.connections, Size: w.size, Names: w.names,
			Metric: f.metric, Unit: f.unit, Lower: f.lower,
		}
		t.pending = append(t.pending, pending{key{point, t.contest.entrants[entrant].way}, part{entrant, w.title()}, f})
	}
}

// takeOut keeps an entrant from a work in all that follows.
func (t *tally) takeOut(w work, entrant int) { t.out[part{entrant, w.title()}] = true }

// commit makes the round that has run one of those that count.
func (t *tally) commit() {
	for _, p := range t.pending {
		k := t.byKey[p.key]
		if k == nil {
			k = &kept{key: p.key, part: p.part}
			t.byKey[p.key] = k
			t.kept = append(t.kept, k)
		}
		k.rounds = append(k.rounds, p.figure.value)
		k.latencies = append(k.latencies, p.figure.latencies...)
	}
	t.rounds++
	t.begin()
}

// series are those that are whole.
func (t *tally) series() []Series {
	var all []Series
	for _, k := range t.kept {
		if t.out[k.part] || len(k.rounds) != t.rounds {
			continue
		}
		all = append(all, Series{Point: k.point, Way: k.way, Rounds: k.rounds, Sample: sample(k.latencies)})
	}
	return all
}

// sampleSteps are the intervals between the quantiles of a sample.
const sampleSteps = 100

// sample returns the quantiles of all latencies.
func sample(latencies []float64) []float64 {
	if len(latencies) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(latencies))
	quantiles := make([]float64, sampleSteps+1)
	for i := range quantiles {
		at := float64(i) / sampleSteps * float64(len(sorted)-1)
		low := int(at)
		high := min(low+1, len(sorted)-1)
		quantiles[i] = sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
	}
	return quantiles
}
