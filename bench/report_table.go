package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the short of a result for a terminal: for every group and layout
// the ratios to the baseline, what was not measured, and the marks.
func WriteTable(w io.Writer, r *Result) error {
	ix := newIndex(r)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	if len(r.Series) == 0 {
		fmt.Fprintln(t, "Nothing was measured.")
	}
	for _, g := range ix.groups() {
		for _, l := range ix.layouts() {
			points := ix.short(g, l)
			if len(points) == 0 {
				continue
			}
			fmt.Fprintf(t, "%s, %s: ratio to %s\n", groupText(g), layoutText(l), g.Baseline())
			header, units := []string{"WAY"}, []string{""}
			for _, p := range points {
				header = append(header, strings.ToUpper(shortWork(p)))
				units = append(units, p.Metric+", "+unitText(p.Unit))
			}
			row(header...)
			row(units...)
			for _, way := range ix.ways(points) {
				cells := []string{way}
				for _, p := range points {
					cells = append(cells, ix.shortCell(p, way))
				}
				row(cells...)
			}
			fmt.Fprintln(t)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return writeNotes(w, r, ix)
}

// short are the points that tell most, few enough for the width of a terminal.
func (ix *index) short(g Group, l Layout) []Point {
	points := ix.regular(g, l)
	if g == EPMD {
		// The most names that the baseline was measured with.
		points = ix.at(inGroup(g), inLayout(l))
		most := 0
		for _, p := range points {
			if ix.absolute(p, g.Baseline()).n > 0 {
				most = max(most, p.Names)
			}
		}
		return selected(points, ofTopic(aboutRates), func(p Point) bool { return p.Names == most })
	}
	var found []Point
	first := func(n int, conditions ...func(Point) bool) {
		of := selected(points, conditions...)
		found = append(found, of[:min(n, len(of))]...)
	}
	one := func(p Point) bool { return p.Connections <= 1 }
	first(2, ofTopic(aboutBulk), one)
	first(1, ofTopic(aboutTrips), ofMetric("p50"), one)
	first(1, ofTopic(aboutTrips), ofMetric("p99"), one)
	first(1, ofTopic(aboutSetUp), ofMetric("p50"))
	first(1, perGiB, one)
	if g == Nodes {
		first(1, ofTopic(aboutRates))
	}
	return found
}

func shortWork(p Point) string {
	p.Names = 0
	if p.Connections == 1 {
		p.Connections = 0
	}
	return workText(p)
}

func (ix *index) shortCell(p Point, way string) string {
	value, ratio := ix.absolute(p, way), ix.toBaseline(p, way)
	switch {
	case value.n == 0:
		return "-"
	case way == p.Group.Baseline() || ratio.n == 0:
		return "(" + figureText(p, value.median) + ")"
	}
	return times(ratio.median)
}

func writeNotes(w io.Writer, r *Result, ix *index) error {
	var b strings.Builder
	for _, a := range r.Absent {
		fmt.Fprintf(&b, "not measured: %s (%s, %s): %s\n", a.Way, layoutOr(a.Layout), groupText(a.Group), oneLine(a.Why))
	}
	reached := 0
	for _, j := range ix.judge() {
		switch j.state {
		case markReached:
			reached++
		case markMissed:
			fmt.Fprintf(&b, "mark missed: %s (%s): %s\n", plain(j.mark), layoutOr(j.layout), plain(j.figure))
		}
	}
	if reached > 0 {
		fmt.Fprintf(&b, "%s reached.\n", counted(reached, "mark"))
	}
	if n := len(r.Disturbances); n > 0 {
		fmt.Fprintf(&b, "Disturbed: during %s something else used the machine.\n", counted(n, "turn"))
	}
	if !r.Complete {
		b.WriteString("Ended early: these are the whole rounds until then.\n")
	}
	if r.Settings.Short {
		b.WriteString("A short run, for correctness only: the figures mean nothing.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// plain is Markdown without its marks.
func plain(s string) string { return strings.NewReplacer("`", "", "*", "").Replace(s) }
