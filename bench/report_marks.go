package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// judgement is how one mark was met in one layout.
type judgement struct {
	mark   string
	layout Layout
	state  markState
	figure string // with its quartiles, and at which work
}

type markState string

const (
	markReached   markState = "reached"
	markMissed    markState = "missed"
	markUnknown   markState = "not measured"
	markNotJudged markState = "not judged" // of a short run
)

// mark is a figure that a way has to reach, against others in the same rounds.
// The work that it does worst at decides.
type mark struct {
	what   string
	group  Group
	way    string
	works  func(Point) bool
	others []string // it is compared with the best of them at each work
	limit  float64
	atMost bool // the ratio; otherwise it is at least limit
}

// best of some ways at a point, by its median; empty: none was measured.
func (ix *index) best(p Point, ways ...string) string {
	found, top := "", 0.0
	for _, way := range ways {
		s := ix.absolute(p, way)
		if s.n > 0 && (found == "" || (s.median > top) != p.Lower) {
			found, top = way, s.median
		}
	}
	return found
}

// marks are what the project demands of itself.
func marks() []mark {
	is := func(t topic, metric string) func(Point) bool {
		return func(p Point) bool { return topicOf(p) == t && p.Metric == metric }
	}
	sequential := func(p Point) bool { return p.Work == "set-up" && p.Names == 0 && p.Metric == "p50" }
	request := func(name string) func(Point) bool {
		return func(p Point) bool {
			return p.Unit == "1/s" && p.Connections == 64 && strings.Contains(p.Work, name)
		}
	}
	all := []mark{
		{"handover: bulk at least 0.98 of direct", Sockets, "handover", is(aboutBulk, "throughput"), []string{"direct"}, 0.98, false},
		{"handover: p50 at most 1.03 of direct", Sockets, "handover", is(aboutTrips, "p50"), []string{"direct"}, 1.03, true},
		{"handover: set-up to the first byte at most 1.5 of HAProxy's", Sockets, "handover", sequential, []string{"haproxy"}, 1.5, true},
		{"splice: bulk at least that of the better of HAProxy and nginx", Sockets, "splice", is(aboutBulk, "throughput"), []string{"haproxy", "nginx"}, 1, false},
		{"splice: CPU per GiB at most that of the better of HAProxy and nginx", Sockets, "splice", perGiB, []string{"haproxy", "nginx"}, 1, true},
	}
	for _, way := range []string{"oneport", "door"} {
		for _, name := range []string{"PORT_PLEASE2", "ALIVE2"} {
			all = append(all, mark{fmt.Sprintf("EPMD, `%s`: %s with 64 connections at least 1.5 of OTP's epmd", way, name),
				EPMD, way, request(name), []string{"epmd"}, 1.5, false})
		}
	}
	return all
}

// judge says of every mark whether it was reached.
func (ix *index) judge() []judgement {
	var all []judgement
	for _, m := range marks() {
		all = append(all, ix.inLayouts(m.group, func(l Layout) judgement { return ix.judgeRatio(m, l) })...)
	}
	for _, way := range []string{"oneport", "door"} {
		for _, name := range []string{"PORT_PLEASE2", "ALIVE2"} {
			all = append(all, ix.inLayouts(EPMD, func(l Layout) judgement { return ix.judgeFlat(way, name, l) })...)
		}
	}
	all = append(all, ix.inLayouts(Sockets, ix.judgeIdle)...)
	if ix.result.Settings.Short {
		for i := range all {
			if all[i].state != markUnknown {
				all[i].state = markNotJudged
			}
		}
	}
	return all
}

// inLayouts judges in each layout that a group has; if it has none, once.
func (ix *index) inLayouts(g Group, judge func(Layout) judgement) []judgement {
	var all []judgement
	for _, l := range ix.layouts() {
		if len(ix.at(inGroup(g), inLayout(l))) > 0 {
			all = append(all, judge(l))
		}
	}
	if len(all) == 0 {
		all = append(all, judge(""))
	}
	return all
}

func (ix *index) judgeRatio(m mark, l Layout) judgement {
	j := judgement{mark: m.what, layout: l, state: markUnknown}
	points := ix.regular(m.group, l)
	if m.group == EPMD {
		points = ix.at(inGroup(m.group), inLayout(l))
	}
	worst, good, judged := 0.0, 0, 0
	for _, p := range selected(points, m.works) {
		other := ix.best(p, m.others...)
		r := ix.ratio(p, m.way, other)
		if r.n == 0 {
			continue
		}
		margin := r.median / m.limit
		if m.atMost {
			margin = m.limit / max(r.median, 1e-9)
		}
		if margin >= 1 {
			good++
		}
		if judged == 0 || margin < worst {
			worst = margin
			j.figure = fmt.Sprintf("%s of `%s` (%s) at %s", exact(r.median), other, quartiles(r, exact), workText(p))
			if c := ix.ratio(p, control, other); c.n > 0 && other == m.group.Baseline() {
				j.figure += fmt.Sprintf(", where `%s` has %s (%s)", control, exact(c.median), quartiles(c, exact))
			}
		}
		judged++
	}
	if judged == 0 {
		missing := m.others
		if !slices.ContainsFunc(selected(points, m.works), func(p Point) bool { return ix.absolute(p, m.way).n > 0 }) {
			missing = []string{m.way}
		}
		j.figure = ix.whyNot(missing, m.group, l)
		return j
	}
	if judged > 1 {
		j.figure += fmt.Sprintf(", the worst of %d works; reached at %d", judged, good)
	}
	j.state = markMissed
	if good == judged {
		j.state = markReached
	}
	return j
}

// flatness is what remains of a rate that is called flat.
const flatness = 0.9

func (ix *index) judgeFlat(way, name string, l Layout) judgement {
	j := judgement{mark: fmt.Sprintf("EPMD, `%s`: %s flat to 20,000 names (at least %v of the rate with the fewest)", way, name, flatness), layout: l, state: markUnknown}
	var points []Point
	for _, p := range ix.at(inGroup(EPMD), inLayout(l)) {
		if p.Unit == "1/s" && p.Connections == 64 && strings.Contains(p.Work, name) && ix.absolute(p, way).n > 0 {
			points = append(points, p)
		}
	}
	slices.SortFunc(points, func(a, b Point) int { return a.Names - b.Names })
	if len(points) < 2 {
		j.figure = ix.whyNot([]string{way}, EPMD, l)
		return j
	}
	first, last := points[0], points[len(points)-1]
	r := spreadOf(ratios(ix.rounds(last, way), ix.rounds(first, way)))
	if r.n == 0 {
		j.figure = "no number"
		return j
	}
	j.figure = fmt.Sprintf("%s (%s) with %s of the rate with %s", exact(r.median), quartiles(r, exact), counted(last.Names, "name"), counted(first.Names, "name"))
	switch {
	case r.median < flatness:
		j.state = markMissed
	case last.Names < 20000:
		j.figure += "; more were not measured"
	default:
		j.state = markReached
	}
	return j
}

// judgeIdle looks at the memory of the daemon for each idle relayed connection.
func (ix *index) judgeIdle(l Layout) judgement {
	const limit = 12 << 10
	j := judgement{mark: "splice: at most 12 KiB of daemon memory for each of 10,000 idle connections", layout: l, state: markUnknown}
	var at Point
	for _, p := range ix.at(inGroup(Sockets), inLayout(l), ofTopic(aboutMemory)) {
		if strings.Contains(p.Metric, "daemon") && p.Connections > at.Connections && ix.absolute(p, "splice").n > 0 {
			at = p
		}
	}
	s := ix.absolute(at, "splice")
	if s.n == 0 {
		j.figure = ix.whyNot([]string{"splice"}, Sockets, l)
		return j
	}
	j.figure = fmt.Sprintf("%s (%s) with %s", inBytes(s.median), quartiles(s, inBytes), counted(at.Connections, "connection"))
	switch {
	case s.median > limit:
		j.state = markMissed
	case at.Connections < 10000:
		j.figure += "; more were not measured"
	default:
		j.state = markReached
	}
	return j
}

// whyNot is why some ways have no figures.
func (ix *index) whyNot(ways []string, g Group, l Layout) string {
	var why []string
	for _, a := range ix.result.Absent {
		if slices.Contains(ways, a.Way) && (a.Group == "" || a.Group == g) && (a.Layout == "" || a.Layout == l) {
			why = append(why, "`"+a.Way+"`: "+a.Why)
		}
	}
	if len(why) == 0 {
		return fmt.Sprintf("no such figures of `%s` in this run", strings.Join(ways, "`, `"))
	}
	return strings.Join(why, "; ")
}

// exact prints a ratio so that one that misses a mark by little is not rounded to it.
func exact(v float64) string {
	if v < 9.9995 {
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	return digits(v)
}

func (d *document) writeMarks() {
	all := d.judge()
	d.heading(2, "The marks")
	numbers := map[markState]int{}
	for _, j := range all {
		numbers[j.state]++
	}
	d.text(fmt.Sprintf("What the project demands of itself: %d reached, %d missed, %d not measured, by the medians of the ratios. Where a mark is about "+
		"several works, the worst of them decides.", numbers[markReached], numbers[markMissed], numbers[markUnknown]))
	rows := [][]string{{"mark", "layout", "", "figure (quartiles)"}}
	for _, j := range all {
		state := string(j.state)
		if j.state == markMissed {
			state = "**missed**"
		}
		rows = append(rows, []string{j.mark, layoutOr(j.layout), state, j.figure})
	}
	d.leftTable(rows)
}
