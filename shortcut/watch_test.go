package shortcut

import (
	"net/netip"
	"testing"
	"time"

	"oneport/loader"
)

// A pair goes when what it does is long for some looks in a row, and only then.
func TestJudge(t *testing.T) {
	const much = 10 * minBytes
	short := loader.Counts{ShortMessages: 1000, ShortBytes: much}
	long := loader.Counts{LongMessages: 1000, LongBytes: much, Long: loader.Reasons{Full: 10, Busy: 990}}
	calls := loader.Counts{ShortMessages: 2000, ShortBytes: 2000} // beside long bulk
	little := loader.Counts{LongMessages: minMessages - 1, LongBytes: minBytes - 1, Long: loader.Reasons{Busy: minMessages - 1}}
	for _, tt := range []struct {
		name string
		did  []loader.Counts // between the looks
		goes bool
	}{
		{"short", []loader.Counts{short, short, short, short}, false},
		{"long", []loader.Counts{long, long, long}, true},
		{"long, not yet for long", []loader.Counts{long, long}, false},
		{"long with a short time between", []loader.Counts{long, long, short, long, long}, false},
		{"a part is short", []loader.Counts{short.Plus(long), short.Plus(long), short.Plus(long)}, false},
		{"calls beside bulk", []loader.Counts{calls.Plus(long), calls.Plus(long), calls.Plus(long)}, false},
		{"idle", []loader.Counts{little, little, little, little}, false},
		{"long with idle times between", []loader.Counts{long, {}, long, little, long}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := new(record)
			r.begin(time.Now())
			// What was before does not count.
			total := loader.Counts{LongMessages: 1 << 30, LongBytes: 1 << 40}
			r.forget([]loader.Way{{Cookie: 1, Counts: total}})
			why := ""
			for i, did := range tt.did {
				if why != "" {
					t.Fatalf("out after %d looks: %s", i, why)
				}
				total = total.Plus(did)
				why = r.judge([]loader.Way{{Cookie: 1, Counts: total}})
			}
			if (why != "") != tt.goes {
				t.Errorf("why is %q", why)
			}
			if want := "it went the long way: 100 % of 10485760 bytes (990 busy, 10 full)"; tt.name == "long" && why != want {
				t.Errorf("%q, want %q", why, want)
			}
		})
	}
}

// A pair that comes back and goes again rests for longer each time, to a limit,
// and for a short time again after it was good for a while.
func TestRest(t *testing.T) {
	const first = time.Minute
	now := time.Now()
	r := new(record)
	for _, want := range []time.Duration{first, 2 * first, 4 * first, 8 * first, 16 * first, 32 * first, longestRest, longestRest} {
		r.begin(now)
		now = now.Add(time.Second)
		if got := r.rested(now, first); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	r.begin(now)
	if got := r.rested(now.Add(goodSpell+1), first); got != first {
		t.Errorf("%v after a good time, want %v", got, first)
	}
}

func TestAbsent(t *testing.T) {
	var a absent
	now := time.Now()
	key := func(i int) (k [4]byte) { return [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)} }
	for i := range 2 * maxAbsent {
		a.add(netip.AddrFrom4(key(i)), now)
		if len(a.until) > maxAbsent {
			t.Fatalf("%d are remembered", len(a.until))
		}
	}
	last := netip.AddrFrom4(key(2*maxAbsent - 1))
	if !a.has(last, now) || a.has(last, now.Add(absence)) || a.has(netip.AddrFrom4(key(1<<20)), now) {
		t.Error("what is remembered is not what was added, for that long")
	}
}
