package bench

import (
	"cmp"
	"fmt"
	"slices"
)

// curve is one figure over the number of connections, or of names.
type curve struct {
	base   Point // the points without that number
	over   axis
	points []Point // in ascending order
}

type axis string

const (
	overConnections axis = "connections"
	overNames       axis = "names"
)

func (a axis) of(p Point) int {
	if a == overNames {
		return p.Names
	}
	return p.Connections
}

func (a axis) without(p Point) Point {
	if a == overNames {
		p.Names = 0
	} else {
		p.Connections = 0
	}
	return p
}

// curves are what was measured over two decades at least, with a point in each or
// so. What spans less tells nothing of growth.
func (ix *index) curves() []curve {
	var curves []curve
	for _, over := range []axis{overConnections, overNames} {
		at := map[Point]int{}
		var found []curve
		for _, p := range ix.points {
			if over.of(p) == 0 {
				continue
			}
			base := over.without(p)
			i, ok := at[base]
			if !ok {
				i = len(found)
				at[base] = i
				found = append(found, curve{base: base, over: over})
			}
			found[i].points = append(found[i].points, p)
		}
		for _, c := range found {
			slices.SortFunc(c.points, func(a, b Point) int { return cmp.Compare(over.of(a), over.of(b)) })
			if n := len(c.points); n >= 3 && over.of(c.points[n-1]) >= 100*over.of(c.points[0]) {
				curves = append(curves, c)
			}
		}
	}
	return curves
}

// values are the medians of a way along a curve, and the numbers they stand over.
func (c curve) values(ix *index, way string) (x, y []float64) {
	for _, p := range c.points {
		if s := ix.absolute(p, way); s.n > 0 {
			x, y = append(x, float64(c.over.of(p))), append(y, s.median)
		}
	}
	return x, y
}

// slope of a way along a curve.
func (c curve) slope(ix *index, way string) slope { return slopeOf(c.values(ix, way)) }

// regular are the points of a group and layout that stand in its tables: not those
// that only a few ways were measured at to see growth, which have tables there.
func (ix *index) regular(g Group, l Layout) []Point {
	all := ix.at(inGroup(g), inLayout(l))
	growing := map[Point]bool{}
	for _, c := range ix.curves() {
		for _, p := range c.points {
			growing[p] = true
		}
	}
	ways := len(ix.ways(all))
	return selected(all, func(p Point) bool {
		return !growing[p] || few(p) && p.Names == 0 && 2*len(ix.ways([]Point{p})) >= ways
	})
}

// writeGrowth writes a table for each curve.
func (d *document) writeGrowth() {
	curves := d.curves()
	if len(curves) == 0 {
		return
	}
	d.heading(2, "Growth")
	d.text("Medians over the number of connections or of names. `slope` is the exponent of the power that fits best: " +
		"0 stays as it is, 1 grows as the number does, -1 falls as the number grows. `ends` is the last figure divided by the first.")
	d.pictures("growth")
	for _, c := range curves {
		d.text(fmt.Sprintf("**%s: %s%s, over %s (%s)**", groupText(c.base.Group), workText(c.base), metricText(c.base), c.over, layoutText(c.base.Layout)))
		header := []string{"way"}
		for _, p := range c.points {
			header = append(header, commas(int64(c.over.of(p))))
		}
		rows := [][]string{append(header, "slope", "ends")}
		for _, way := range d.ways(c.points) {
			row := []string{d.name(way)}
			for _, p := range c.points {
				row = append(row, d.cell(d.absolute(p, way), func(v float64) string { return figureText(p, v) }))
			}
			if s := c.slope(d.index, way); s.n >= 3 {
				row = append(row, fmt.Sprintf("%.2f", s.exponent), times(s.ends))
			} else {
				row = append(row, "-", "-")
			}
			rows = append(rows, row)
		}
		d.table(rows)
	}
}
