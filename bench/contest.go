package bench

import "context"

// contest is what is compared with each other in one layout. The ways are up, and
// take turns at every work.
type contest struct {
	group    Group
	layout   Layout
	entrants []entrant
	works    []work
}

// entrant is a way that takes part.
type entrant struct {
	way  string
	pids func() []int // of its daemon, as they are now; nil: there is no daemon
}

// work is one kind of work, the same for every entrant.
type work struct {
	name        string // as in Point.Work
	connections int
	size        int // bytes of a message
	names       int
	// only, if not nil, tells which entrants do it.
	only func(way string) bool
	// run does it once, for contest.entrants[i]. It returns an error if anything
	// was lost or wrong; the entrant is taken out of this work then, and the
	// reason becomes an Absent.
	run func(ctx context.Context, i int) (outcome, error)
}

// outcome is what one turn at a work gave.
type outcome struct {
	figures []figure
	// amount is how much was done, in a unit that CPU time is worth to be divided
	// by: GiB or thousands of round trips. The runner measures the CPU time of the
	// machine and of the daemon from begins to the end of the turn, and adds figures
	// "machine CPU" and "daemon CPU" with the unit "s/" + per. Zero: no such figures.
	amount float64
	per    string
}

// figure is one value of a turn.
type figure struct {
	metric, unit string
	lower        bool // is better
	value        float64
	latencies    []float64 // sorted, in unit, for Series.Sample; nil for most
}
