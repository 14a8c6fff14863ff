package bench

import (
	"bytes"
	"strings"
	"testing"
)

// pair is a result with two ways at one point, of which the baseline has ones.
func pair(p Point, other, way string, ratio float64) *Result {
	p.Layout = Loopback
	return &Result{Complete: true, Series: []Series{
		{Point: p, Way: other, Rounds: []float64{1, 1, 1}},
		{Point: p, Way: way, Rounds: []float64{ratio, ratio, ratio}},
	}}
}

func TestMarks(t *testing.T) {
	bulk := with(Point{Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false)
	p50 := with(Point{Group: Sockets, Work: "round trip", Connections: 1, Size: 64}, "p50", "us", true)
	setUp := with(Point{Group: Sockets, Work: "set-up", Connections: 1}, "p50", "us", true)
	perGiB := with(bulk, "machine CPU", "s/GiB", true)
	please := with(Point{Group: EPMD, Work: "PORT_PLEASE2", Connections: 64, Names: 10}, "rate", "1/s", false)
	alive := please
	alive.Work = "ALIVE2"
	for _, c := range []struct {
		mark       string // how it begins
		p          Point
		way, other string
		ratio      float64
		want       markState
	}{
		{"handover: bulk", bulk, "handover", "direct", 0.98, markReached},
		{"handover: bulk", bulk, "handover", "direct", 0.9799, markMissed},
		{"handover: bulk", bulk, "splice", "direct", 2, markUnknown},
		{"handover: p50", p50, "handover", "direct", 1.03, markReached},
		{"handover: p50", p50, "handover", "direct", 1.0301, markMissed},
		{"handover: p50", p50, "handover", "haproxy", 0.5, markUnknown},
		{"handover: set-up", setUp, "handover", "haproxy", 1.5, markReached},
		{"handover: set-up", setUp, "handover", "haproxy", 1.51, markMissed},
		{"splice: bulk", bulk, "splice", "haproxy", 1, markReached},
		{"splice: bulk", bulk, "splice", "nginx", 0.99, markMissed},
		{"splice: CPU", perGiB, "splice", "haproxy", 1, markReached},
		{"splice: CPU", perGiB, "splice", "haproxy", 1.01, markMissed},
		{"EPMD, `oneport`: PORT_PLEASE2 with", please, "oneport", "epmd", 1.5, markReached},
		{"EPMD, `oneport`: PORT_PLEASE2 with", please, "oneport", "epmd", 1.49, markMissed},
		{"EPMD, `door`: ALIVE2 with", alive, "door", "epmd", 1.6, markReached},
		{"EPMD, `door`: PORT_PLEASE2 with", alive, "door", "epmd", 1.6, markUnknown},
	} {
		got := judged(t, pair(c.p, c.other, c.way, c.ratio), c.mark)
		if got.state != c.want {
			t.Errorf("%s, %v of %s: %s (%s), want %s", c.mark, c.ratio, c.other, got.state, got.figure, c.want)
		}
	}
}

func judged(t *testing.T, r *Result, mark string) judgement {
	t.Helper()
	for _, j := range newIndex(r).judge() {
		if strings.HasPrefix(j.mark, mark) {
			return j
		}
	}
	t.Fatalf("there is no mark %q", mark)
	return judgement{}
}

func TestTheWorstWorkDecides(t *testing.T) {
	r := pair(with(Point{Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false), "direct", "handover", 1)
	worse := pair(with(Point{Group: Sockets, Work: "bulk to client", Connections: 1}, "throughput", "MB/s", false), "direct", "handover", 0.5)
	r.Series = append(r.Series, worse.Series...)
	j := judged(t, r, "handover: bulk")
	if j.state != markMissed || !strings.Contains(j.figure, "0.500 of `direct` (0.500..0.500) at bulk to client") || !strings.Contains(j.figure, "the worst of 2 works; reached at 1") {
		t.Errorf("%s: %s", j.state, j.figure)
	}
}

// A mark against direct TCP shows how well that equals itself.
func TestControlBesideAMark(t *testing.T) {
	p := with(Point{Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false)
	r := pair(p, "direct", "handover", 0.9)
	r.Series = append(r.Series, pair(p, "direct", control, 0.8).Series[1:]...)
	if j := judged(t, r, "handover: bulk"); !strings.HasSuffix(j.figure, "where `direct-again` has 0.800 (0.800..0.800)") {
		t.Error(j.figure)
	}
	r = pair(p, "haproxy", "splice", 0.9)
	r.Series = append(r.Series, pair(p, "haproxy", control, 2).Series[1:]...)
	if j := judged(t, r, "splice: bulk"); strings.Contains(j.figure, control) {
		t.Error(j.figure)
	}
}

func TestSpliceIsComparedWithTheBetterPeer(t *testing.T) {
	p := with(Point{Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false)
	r := pair(p, "haproxy", "splice", 1.2)
	p.Layout = Loopback
	r.Series = append(r.Series, Series{Point: p, Way: "nginx", Rounds: []float64{1.3, 1.3, 1.3}})
	if j := judged(t, r, "splice: bulk"); j.state != markMissed || !strings.Contains(j.figure, "nginx") {
		t.Errorf("%s: %s", j.state, j.figure)
	}
}

func TestFlatness(t *testing.T) {
	for name, c := range map[string]struct {
		rates map[int]float64 // by names
		want  markState
	}{
		"flat":            {map[int]float64{10: 100, 20000: 91}, markReached},
		"falls":           {map[int]float64{10: 100, 20000: 89}, markMissed},
		"not far enough":  {map[int]float64{10: 100, 10000: 100}, markUnknown},
		"falls before":    {map[int]float64{10: 100, 1000: 50}, markMissed},
		"one size":        {map[int]float64{20000: 100}, markUnknown},
		"never measured":  {nil, markUnknown},
		"rises, of names": {map[int]float64{20000: 300, 10: 100, 100: 1}, markReached},
	} {
		r := &Result{}
		for names, rate := range c.rates {
			p := with(Point{Layout: Loopback, Group: EPMD, Work: "ALIVE2", Connections: 64, Names: names}, "rate", "1/s", false)
			r.Series = append(r.Series, Series{Point: p, Way: "door", Rounds: []float64{rate, rate}})
		}
		if j := judged(t, r, "EPMD, `door`: ALIVE2 flat"); j.state != c.want {
			t.Errorf("%s: %s (%s), want %s", name, j.state, j.figure, c.want)
		}
	}
}

func TestIdleMemory(t *testing.T) {
	for name, c := range map[string]struct {
		connections int
		bytes       float64
		want        markState
	}{
		"at the limit":    {10000, 12288, markReached},
		"above it":        {10000, 12289, markMissed},
		"too few of them": {5000, 100, markUnknown},
		"few, and above":  {5000, 99999, markMissed},
	} {
		p := with(Point{Layout: Veth, Group: Sockets, Work: "idle", Connections: c.connections}, "daemon memory", "B", true)
		r := &Result{Series: []Series{{Point: p, Way: "splice", Rounds: []float64{c.bytes}}}}
		if j := judged(t, r, "splice: at most 12 KiB"); j.state != c.want {
			t.Errorf("%s: %s (%s), want %s", name, j.state, j.figure, c.want)
		}
	}
}

func TestMissedMarksAreSaid(t *testing.T) {
	p := with(Point{Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false)
	r := pair(p, "direct", "handover", 0.5)
	text := section(t, markdown(t, r), "## The marks")
	if !strings.Contains(text, "0 reached, 1 missed") || !strings.Contains(text, "| handover: bulk at least 0.98 of direct | loopback | **missed** | 0.500 of `direct`") {
		t.Errorf("the missed mark is not said:\n%s", text)
	}
	var b bytes.Buffer
	if err := WriteTable(&b, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "mark missed: handover: bulk") {
		t.Errorf("the missed mark is not in\n%s", &b)
	}
	r.Settings.Short = true
	text = section(t, markdown(t, r), "## The marks")
	if strings.Contains(text, "**missed**") || !strings.Contains(text, "not judged") {
		t.Errorf("a short run was judged:\n%s", text)
	}
}

func TestAMarkWithoutItsWaySaysWhy(t *testing.T) {
	r := pair(with(Point{Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false), "direct", "splice", 1)
	r.Absent = []Absent{{Way: "splice", Why: "something later"}, {Way: "nginx", Why: "nginx is missing"}}
	if j := judged(t, r, "splice: bulk"); j.state != markUnknown || j.figure != "`nginx`: nginx is missing" {
		t.Errorf("%s: %s", j.state, j.figure)
	}
	r.Absent = []Absent{{Way: "handover", Group: Sockets, Why: "the node took nothing"}}
	if j := judged(t, r, "handover: bulk"); j.state != markUnknown || !strings.Contains(j.figure, "the node took nothing") {
		t.Errorf("%s: %s", j.state, j.figure)
	}
}
