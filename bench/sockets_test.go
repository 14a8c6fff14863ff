package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// openWorld makes a layout for a test.
func openWorld(t *testing.T, layout Layout) *world {
	t.Helper()
	if layout == Veth && os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	w, err := newWorld(t.Context(), layout, program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(w.dir); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", w.dir, err)
		}
	})
	return w
}

// Every way of ours that the user can have does every work, in either layout, and
// all that is sent arrives.
func TestSocketContest(t *testing.T) {
	for _, layout := range []Layout{Loopback, Veth} {
		t.Run(string(layout), func(t *testing.T) {
			w := openWorld(t, layout)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			c, absent, err := socketContest(ctx, w, nil, true)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range absent {
				// What needs no privileges is never absent.
				if os.Geteuid() == 0 && !withoutShortcut(a) || !strings.HasPrefix(a.Way, "shortcut-") {
					t.Errorf("%+v", a)
				} else {
					t.Logf("%+v", a)
				}
			}
			if len(c.entrants)+len(absent) != len(ways()) {
				t.Errorf("%d entrants and %d absent of %d ways", len(c.entrants), len(absent), len(ways()))
			}
			done := make(map[string]bool)
			for _, work := range c.works {
				if layout != Loopback && done[work.name] {
					continue // one of a name is enough
				}
				done[work.name] = true
				for i, e := range c.entrants {
					got, err := work.run(ctx, i)
					if ctx.Err() != nil {
						t.Fatal(context.Cause(ctx))
					}
					if err != nil {
						t.Errorf("%s, %d connections, by %s: %v", work.name, work.connections, e.way, err)
						continue
					}
					checkOutcome(t, fmt.Sprintf("%s by %s", work.title(), e.way), got)
				}
			}
			slow, failed := slowReaders(ctx, c, w)
			if len(slow) != len(c.entrants) {
				t.Errorf("%d slow readers of %d ways: %+v", len(slow), len(c.entrants), failed)
			}
			for _, s := range slow {
				t.Logf("%+v", s)
				if s.Accepted == 0 || s.Accepted > s.Offered {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// withoutShortcut tells whether it is the kernel that has no shortcut.
func withoutShortcut(a Absent) bool {
	return strings.HasPrefix(a.Why, "the shortcut is off: ")
}

func checkOutcome(t *testing.T, what string, got outcome) {
	t.Helper()
	if len(got.figures) == 0 {
		t.Errorf("%s: no figures", what)
	}
	for _, f := range got.figures {
		if f.value <= 0 || f.metric == "" || f.unit == "" || !slices.IsSorted(f.latencies) {
			t.Errorf("%s: %+v", what, f)
		}
		t.Logf("%s: %s %.1f %s", what, f.metric, f.value, f.unit)
	}
}

// A way that is not what it is called takes no part.
func TestAWayThatIsAnotherIsAbsent(t *testing.T) {
	w := openWorld(t, Loopback)
	wrong := doorWay{name: "wrong", flags: []string{"--shortcut=off", "--path=splice"}, client: beam, path: "copy"}
	refused := doorWay{name: "refused", flags: []string{"--shortcut=off", "--path=handover"}, takes: false, client: beam, path: "handover"}
	c, absent, err := socketContest(t.Context(), w, []way{ways()[0], wrong.way(), refused.way()}, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.entrants) != 1 || c.entrants[0].way != "direct" || len(absent) != 2 {
		t.Fatalf("%+v, %+v", c.entrants, absent)
	}
	for i, want := range []string{`it is on the path "splice"`, "--path handover"} {
		if !strings.Contains(absent[i].Why, want) {
			t.Errorf("%+v does not say %q", absent[i], want)
		}
	}
}

// The memory of idle connections is that of a daemon of its own, and nothing of it
// stays.
func TestIdle(t *testing.T) {
	w := openWorld(t, Loopback)
	const n = 200
	for _, x := range ways() {
		if x.name != "direct" && x.name != "splice" {
			continue
		}
		before := w.mark()
		each, held, err := idle(t.Context(), w, x, n)
		t.Logf("%s: %.0f B each, %d held, %v", x.name, each, held, err)
		if err != nil || held != n || (x.name == "splice") != (each.daemon > 0) {
			t.Errorf("%s: %.0f B of the daemon each, %d held, %v", x.name, each.daemon, held, err)
		}
		if w.mark() != before {
			t.Errorf("%d processes are left", w.mark()-before)
		}
	}
}
