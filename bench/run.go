package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// DefaultRounds is how often every way takes its turn at every work.
const DefaultRounds = 7

// turnTime bounds one turn: a way that hangs is taken out of that work, and the
// others go on.
const turnTime = 2 * time.Minute

// Options are the settings of a run. The zero value of each is its default.
type Options struct {
	Rounds  int      // default DefaultRounds
	Only    []string // ways, beside the baselines; empty: all
	Layouts []Layout // default Loopback
	Groups  []Group  // default Sockets
	Short   bool     // for correctness only: little is moved, and the figures mean nothing

	Program string // the path of oneport; default the running program
	Version string // of oneport, as the result will say
	App     string // the folder of the compiled OTP application; default erlang/ebin

	Progress io.Writer // what is being done, as it is done; nil: nowhere
	Terminal bool      // Progress is a terminal: its last line is written over
}

// complete fills in the defaults, and tells what cannot be.
func (o *Options) complete() error {
	o.Rounds = cmp.Or(o.Rounds, DefaultRounds)
	if o.Rounds < 1 {
		return fmt.Errorf("%d rounds: expected 1 or more", o.Rounds)
	}
	if len(o.Layouts) == 0 {
		o.Layouts = []Layout{Loopback}
	}
	if len(o.Groups) == 0 {
		o.Groups = []Group{Sockets}
	}
	known := Ways()
	for _, name := range o.Only {
		if !slices.ContainsFunc(known, func(w Way) bool { return w.Name == name }) {
			return fmt.Errorf("no way is called %q; `oneport bench --list` lists them", name)
		}
	}
	if o.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program: %v", err)
		}
		o.Program = program
	}
	o.App = cmp.Or(o.App, "erlang/ebin")
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return nil
}

// wants tells whether a way of a group takes part.
func (o *Options) wants(g Group, way string) bool {
	return len(o.Only) == 0 || way == g.Baseline() || slices.Contains(o.Only, way)
}

// Run measures. When ctx ends before it is done, or a baseline fails, the result
// holds what was done until then, whole rounds only, beside the error, which is
// that of ctx in the first case. All processes have ended when it returns.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	raiseFileLimit()
	r := newRun(o, &Result{
		Schema: Schema, Began: time.Now().UTC(), Machine: machine(), Versions: versions(ctx, o.Version),
		Settings: Settings{Rounds: o.Rounds, Short: o.Short, Only: o.Only, Layouts: o.Layouts, Groups: o.Groups},
	})
	err := r.all(ctx)
	r.progress.end()
	r.result.Seconds = time.Since(r.result.Began).Seconds()
	r.result.Complete = err == nil
	return r.result, err
}

// run is a run as it stands.
type run struct {
	o        Options
	result   *Result
	progress *progress
	watch    func() watch // of the machine
}

func newRun(o Options, result *Result) *run {
	return &run{o: o, result: result, progress: newProgress(o.Progress, o.Terminal), watch: newWatch}
}

func (r *run) all(ctx context.Context) error {
	for _, layout := range r.o.Layouts {
		for _, group := range r.o.Groups {
			if err := r.group(ctx, layout, group); err != nil {
				return err
			}
		}
	}
	return nil
}

// group measures one group in a world of its own: what was started for another
// one does not disturb it.
func (r *run) group(ctx context.Context, layout Layout, group Group) (err error) {
	if group == EPMD {
		if layout != r.o.Layouts[0] {
			return nil // nodes register on their own host: there is one layout
		}
		layout = Loopback
	}
	r.progress.say("%s %s: starting", layout, group)
	w, err := newWorld(ctx, layout, r.o.Program)
	if err != nil {
		return fmt.Errorf("making the layout %s: %w", layout, err)
	}
	defer func() {
		if closeErr := w.close(); err == nil && closeErr != nil {
			err = fmt.Errorf("closing the layout %s: %w", layout, closeErr)
		}
	}()
	switch group {
	case Sockets:
		return r.sockets(ctx, w)
	case Nodes:
		c, absent, err := nodesContest(ctx, w, r.o.App, r.o.nodes(), r.o.Short)
		return r.measure(ctx, c, absent, err)
	case EPMD:
		c, absent, err := epmdContest(ctx, w, func(way string) bool { return r.o.wants(EPMD, way) }, r.o.Short)
		return r.measure(ctx, c, absent, err)
	}
	return fmt.Errorf("no group is called %q", group)
}

// sockets measures what takes two programs and the ways between them.
func (r *run) sockets(ctx context.Context, w *world) error {
	c, absent, err := socketContest(ctx, w, r.o.sockets(), r.o.Short)
	if err := r.measure(ctx, c, absent, err); err != nil {
		return err
	}
	r.progress.say("%s %s: a reader who sleeps", c.layout, c.group)
	slow, failed := slowReaders(ctx, c, w)
	r.result.Slow = append(r.result.Slow, slow...)
	r.result.Absent = append(r.result.Absent, failed...)
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.layout != r.o.Layouts[0] {
		return nil // how things grow does not depend on the layout
	}
	return r.growth(ctx, c, w)
}

// measure runs a contest, unless making it has failed.
func (r *run) measure(ctx context.Context, c *contest, absent []Absent, err error) error {
	for _, a := range absent {
		if a.Group == "" || r.o.wants(a.Group, a.Way) {
			r.result.Absent = append(r.result.Absent, a)
		}
	}
	if err != nil {
		return err
	}
	return r.contest(ctx, c)
}

// contest has all entrants take turns: within every round every work, within every
// work every entrant, in an order that is drawn anew. The first round warms up and
// does not count.
func (r *run) contest(ctx context.Context, c *contest) error {
	if len(c.entrants) == 0 || len(c.works) == 0 {
		return nil
	}
	t := newTally(c)
	defer func() { r.result.Series = append(r.result.Series, t.series()...) }()
	for round := range r.o.Rounds + 1 {
		r.progress.round(round, r.o.Rounds, t.turns())
		if err := r.round(ctx, c, t, round); err != nil {
			return err
		}
		if round > 0 {
			t.commit()
		}
	}
	return nil
}

// round is one round of a contest; round 0 warms up.
func (r *run) round(ctx context.Context, c *contest, t *tally, round int) error {
	t.begin()
	for _, work := range c.works {
		for _, i := range t.order(work) {
			way := c.entrants[i].way
			during := fmt.Sprintf("%s %s %s: %s", c.layout, c.group, work.title(), way)
			r.progress.turn(during)
			done, err := r.turn(ctx, c, work, i, round, during)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && way == c.group.Baseline():
				return fmt.Errorf("%s, with which all others are compared: %w", during, err)
			case err != nil:
				t.takeOut(work, i)
				r.result.Absent = append(r.result.Absent, Absent{c.layout, c.group, way, work.title() + ": " + err.Error()})
				r.progress.say("%s is left out from now on: %v", during, err)
				continue
			}
			t.add(work, i, done)
		}
	}
	return nil
}

// turn does a work once, and measures the machine meanwhile.
func (r *run) turn(ctx context.Context, c *contest, work work, i, round int, during string) (outcome, error) {
	turnCtx, cancel := context.WithTimeoutCause(ctx, turnTime, fmt.Errorf("not done within %v", turnTime))
	defer cancel()
	pids := c.entrants[i].pids
	var before watch
	var daemon usage
	var began time.Time
	begin := func() { before, daemon, began = r.watch(), newUsage(pids), time.Now() }
	begin()
	done, err := work.run(context.WithValue(turnCtx, beginKey{}, begin), i)
	took := time.Since(began)
	if err != nil {
		if turnCtx.Err() != nil && ctx.Err() == nil {
			err = errors.Join(context.Cause(turnCtx), err)
		}
		return done, err
	}
	daemonCPU := daemon.since(newUsage(pids))
	spent := before.until(r.watch())
	if d, disturbed := spent.disturbance(took); disturbed && round > 0 {
		d.At, d.Round, d.During = began.UTC(), round, during
		r.result.Disturbances = append(r.result.Disturbances, d)
	}
	if done.amount > 0 {
		done.figures = append(done.figures, figure{metric: "machine CPU", unit: "s/" + done.per, lower: true, value: spent.busy.Seconds() / done.amount})
		if pids != nil {
			done.figures = append(done.figures, figure{metric: "daemon CPU", unit: "s/" + done.per, lower: true, value: daemonCPU.Seconds() / done.amount})
		}
	}
	return done, nil
}

type beginKey struct{}

// begins is called by a work that has prepared itself: from here on the CPU time of
// a turn counts. To open connections costs some ways more than to move bytes.
func begins(ctx context.Context) {
	if begin, ok := ctx.Value(beginKey{}).(func()); ok {
		begin()
	}
}

// title names a work for people.
func (w work) title() string {
	title := w.name
	if w.size > 0 {
		title += fmt.Sprintf(" of %d B", w.size)
	}
	if w.connections > 0 {
		title += fmt.Sprintf(", connections %d", w.connections)
	}
	if w.names > 0 {
		title += fmt.Sprintf(", names %d", w.names)
	}
	return title
}
