package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// fake is a contest of three entrants in which nothing is done. did notes who took
// a turn, and fail, if not nil, says which turn fails.
func fake(did *[]string, fail func(turn int, way, work string) error) *contest {
	c := &contest{group: Sockets, layout: Loopback, entrants: []entrant{{way: "direct"}, {way: "splice"}, {way: "copy"}}}
	turn := 0
	for _, name := range []string{"first", "second"} {
		c.works = append(c.works, work{name: name, connections: 4, run: func(_ context.Context, i int) (outcome, error) {
			way := c.entrants[i].way
			*did = append(*did, way+" "+name)
			turn++
			if fail != nil {
				if err := fail(turn, way, name); err != nil {
					return outcome{}, err
				}
			}
			return outcome{figures: []figure{{metric: "turn", unit: "1", value: float64(turn), latencies: []float64{float64(turn)}}}}, nil
		}})
	}
	return c
}

func fakeRun(rounds int, progress io.Writer) *run {
	r := newRun(Options{Rounds: rounds, Progress: progress}, &Result{})
	r.watch = func() watch { return watch{} }
	return r
}

func TestEveryRoundHasEveryTurnInAnOrderOfItsOwn(t *testing.T) {
	var did []string
	const rounds = 20
	r := fakeRun(rounds, io.Discard)
	if err := r.contest(t.Context(), fake(&did, nil)); err != nil {
		t.Fatal(err)
	}
	if len(did) != 6*(rounds+1) {
		t.Fatalf("%d turns, want 6 in each of %d rounds and once to warm up", len(did), rounds)
	}
	orders := map[string]int{}
	for round := range slices.Chunk(did, 6) {
		for i, part := range [][]string{round[:3], round[3:]} {
			work := []string{"first", "second"}[i]
			if got := slices.Sorted(slices.Values(part)); !slices.Equal(got, []string{"copy " + work, "direct " + work, "splice " + work}) {
				t.Fatalf("turns at %s: %v", work, got)
			}
			orders[strings.ReplaceAll(fmt.Sprint(part), work, "")]++
		}
	}
	// Six orders are possible; that 42 draws give one only has the probability
	// 6^-41.
	if len(orders) < 2 {
		t.Errorf("the order was always %v", orders)
	}
	if len(r.result.Series) != 6 {
		t.Fatalf("%d series, want one of each entrant and work", len(r.result.Series))
	}
	for _, s := range r.result.Series {
		if len(s.Rounds) != rounds || len(s.Sample) != sampleSteps+1 {
			t.Errorf("%s %s has %d rounds and a sample of %d", s.Way, s.Work, len(s.Rounds), len(s.Sample))
		}
		if s.Rounds[0] <= 6 {
			t.Errorf("%s %s: the round that warms up is counted: %v", s.Way, s.Work, s.Rounds)
		}
	}
}

// Values of the same place in two series are of the same round.
func TestRoundsOfSeriesAreAligned(t *testing.T) {
	var did []string
	r := fakeRun(5, io.Discard)
	if err := r.contest(t.Context(), fake(&did, nil)); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.result.Series {
		for round, v := range s.Rounds {
			if got := (int(v) - 1) / 6; got != round+1 {
				t.Errorf("%s %s: value %d is of round %d", s.Way, s.Work, round, got)
			}
		}
	}
}

// It is taken out of that work, and goes on with the others.
func TestAnEntrantThatFailsIsTakenOut(t *testing.T) {
	lost := errors.New("4096 bytes are missing")
	for _, tt := range []struct {
		name string
		turn int // from which on it fails
	}{{"warming up", 1}, {"later", 10}} {
		t.Run(tt.name, func(t *testing.T) {
			var did []string
			r := fakeRun(4, io.Discard)
			err := r.contest(t.Context(), fake(&did, func(turn int, way, work string) error {
				if way == "splice" && work == "second" && turn >= tt.turn {
					return lost
				}
				return nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range r.result.Series {
				if s.Way == "splice" && s.Work == "second" {
					t.Error("there is a series of the work that it has failed at")
				}
				if len(s.Rounds) != 4 {
					t.Errorf("%s %s has %d rounds", s.Way, s.Work, len(s.Rounds))
				}
			}
			if !slices.ContainsFunc(r.result.Series, func(s Series) bool { return s.Way == "splice" && s.Work == "first" }) {
				t.Error("there is no series of the other work")
			}
			if a := r.result.Absent; len(a) != 1 || a[0].Way != "splice" || a[0].Why != "second, connections 4: 4096 bytes are missing" {
				t.Errorf("absent: %v", a)
			}
			failedAt := slices.Index(did, "splice second")
			if tt.turn == 1 && slices.Contains(did[failedAt+1:], "splice second") {
				t.Error("it took a turn at the work that it was taken out of")
			}
		})
	}
}

func TestABaselineThatFailsEndsTheRun(t *testing.T) {
	var did []string
	r := fakeRun(4, io.Discard)
	err := r.contest(t.Context(), fake(&did, func(turn int, way, _ string) error {
		if way == "direct" && turn > 12 {
			return errors.New("broken")
		}
		return nil
	}))
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Fatal(err)
	}
	for _, s := range r.result.Series {
		if len(s.Rounds) != 1 {
			t.Errorf("%s %s: %d rounds, 1 was whole", s.Way, s.Work, len(s.Rounds))
		}
	}
}

func TestTheEndOfTheContextKeepsWholeRounds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var did []string
	r := fakeRun(7, io.Discard)
	err := r.contest(ctx, fake(&did, func(turn int, _, _ string) error {
		if turn == 6*3+4 { // in the third round that counts
			cancel()
			return ctx.Err()
		}
		return nil
	}))
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(r.result.Series) != 6 || len(r.result.Absent) != 0 {
		t.Fatalf("%d series, absent %v", len(r.result.Series), r.result.Absent)
	}
	for _, s := range r.result.Series {
		if len(s.Rounds) != 2 {
			t.Errorf("%s %s: %d rounds, 2 were whole", s.Way, s.Work, len(s.Rounds))
		}
	}
}

// A way that does not do a work has no series of it, and is not taken out.
func TestWorksOfSomeEntrants(t *testing.T) {
	var did []string
	c := fake(&did, nil)
	c.works[0].only = func(way string) bool { return way != "copy" }
	r := fakeRun(2, io.Discard)
	if err := r.contest(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(did, "copy first") || len(r.result.Series) != 5 || len(r.result.Absent) != 0 {
		t.Errorf("%v: %d series, absent %v", did, len(r.result.Series), r.result.Absent)
	}
}

// It counts from when the work begins, and not what prepares it.
func TestProcessorTimeIsDividedByTheAmount(t *testing.T) {
	var spend func()
	c := &contest{group: Sockets, layout: Loopback, entrants: []entrant{{way: "direct"}}, works: []work{{
		name: "bulk", run: func(ctx context.Context, _ int) (outcome, error) {
			spend()
			begins(ctx)
			return outcome{amount: 4, per: "GiB"}, nil
		},
	}}}
	r := fakeRun(1, io.Discard)
	now := watch{}
	spend = func() { now.total, now.busy = now.total+time.Minute, now.busy+time.Minute }
	r.watch = func() watch {
		now.total, now.busy = now.total+4*time.Second, now.busy+2*time.Second
		return now
	}
	if err := r.contest(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if s := r.result.Series; len(s) != 1 || s[0].Metric != "machine CPU" || s[0].Unit != "s/GiB" || s[0].Rounds[0] != 0.5 || !s[0].Lower {
		t.Errorf("%+v", s)
	}
}

func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		name     string
		terminal bool
		lines    int // that stay
		says     string
	}{
		{"a terminal has one line", true, 0, "\rround 2/2 loopback sockets second, connections 4: "},
		{"anything else has a line for each round", false, 3, "warming up loopback sockets first, connections 4: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			var did []string
			r := fakeRun(2, &out)
			r.progress.terminal = tt.terminal
			if err := r.contest(t.Context(), fake(&did, nil)); err != nil {
				t.Fatal(err)
			}
			r.progress.end()
			if got := strings.Count(out.String(), "\n"); got != tt.lines || !strings.Contains(out.String(), tt.says) || !strings.Contains(out.String(), " s left") {
				t.Errorf("%d lines that stay, want %d, and %q in %q", got, tt.lines, tt.says, out.String())
			}
		})
	}
}

func TestSample(t *testing.T) {
	var latencies []float64
	for i := range 201 {
		latencies = append(latencies, float64(200-i))
	}
	got := sample(latencies)
	if len(got) != 101 || got[0] != 0 || got[50] != 100 || got[100] != 200 || got[1] != 2 {
		t.Error(got)
	}
	if got := sample([]float64{3}); got[0] != 3 || got[100] != 3 {
		t.Error(got)
	}
	if sample(nil) != nil {
		t.Error("a sample of nothing")
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		says string
	}{
		{Options{Rounds: -1}, "1 or more"},
		{Options{Only: []string{"teleport"}}, "oneport bench --list"},
	} {
		if _, err := Run(t.Context(), tt.o); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: %v", tt.o, err)
		}
	}
}
