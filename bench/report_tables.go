package bench

import (
	"fmt"
	"slices"
)

// measure is what a table is about: points of one measure stand in one table.
type measure struct{ metric, unit string }

func measuresOf(points []Point) []measure {
	var found []measure
	for _, p := range points {
		if m := (measure{p.Metric, p.Unit}); !slices.Contains(found, m) {
			found = append(found, m)
		}
	}
	return found
}

func (m measure) in(p Point) bool { return p.Metric == m.metric && p.Unit == m.unit }

// metricText is the measure behind the name of a work.
func metricText(p Point) string {
	return fmt.Sprintf(", %s in %s, %s", p.Metric, unitText(p.Unit), betterText(p))
}

// writeFigures writes the tables of every group and layout.
func (d *document) writeFigures() {
	for _, g := range d.groups() {
		d.heading(2, groupText(g))
		d.text(fmt.Sprintf("The first row of a table is `%s` in its own unit; the others are ratios to it, unless a unit stands beside them. Small: the quartiles.", g.Baseline()))
		for _, l := range d.layouts() {
			if len(d.at(inGroup(g), inLayout(l))) == 0 {
				continue
			}
			d.heading(3, fmt.Sprintf("%s, %s", groupText(g), layoutText(l)))
			d.pictures(fmt.Sprintf("bars-%s-%s", g, l))
			if g == EPMD {
				d.writeRequests(l)
				continue
			}
			points := d.regular(g, l)
			for _, t := range topics {
				of := selected(points, ofTopic(t))
				if t == aboutTrips && len(of) > 0 {
					d.pictures(fmt.Sprintf("latency-%s-%s", g, l))
				}
				for _, m := range measuresOf(of) {
					d.writeMeasure(t, selected(of, m.in))
				}
			}
		}
	}
}

// writeMeasure writes one table: a row for each way, a column for each work.
func (d *document) writeMeasure(t topic, points []Point) {
	first := points[0]
	ways := d.ways(points)
	if len(ways) == 0 {
		return
	}
	d.text(fmt.Sprintf("**%s%s**", t, metricText(first)))
	header := []string{"way"}
	for _, p := range points {
		header = append(header, workText(p))
	}
	rows := [][]string{header}
	for _, way := range ways {
		row := []string{d.name(way)}
		for _, p := range points {
			row = append(row, d.figure(t, p, way))
		}
		rows = append(rows, row)
	}
	d.table(rows)
}

// figure is the cell of a way. CPU time and memory are worth to be known in
// themselves, and have the ratio behind.
func (d *document) figure(t topic, p Point, way string) string {
	value := d.absolute(p, way)
	if value.n == 0 {
		if d.series[seriesKey{p, way}] != nil {
			return "no number"
		}
		return "-"
	}
	print := func(v float64) string { return figureText(p, v) }
	if way == p.Group.Baseline() {
		return d.cell(value, print)
	}
	ratio := d.toBaseline(p, way)
	switch {
	case t == aboutCPU || t == aboutMemory:
		if ratio.n > 0 {
			return fmt.Sprintf("%s, x %s", d.cell(value, print), times(ratio.median))
		}
		return d.cell(value, print)
	case ratio.n > 0:
		return d.cell(ratio, times)
	}
	if p.Unit == "B" {
		return d.cell(value, print)
	}
	return d.cell(value, print) + " " + unitText(p.Unit)
}

// writeRequests writes the table of EPMD, where there are few ways and many works.
func (d *document) writeRequests(l Layout) {
	points := d.at(inGroup(EPMD), inLayout(l))
	for _, m := range measuresOf(points) {
		of := selected(points, m.in)
		ways := d.ways(of)
		d.text(fmt.Sprintf("**%s in %s, %s**; behind it the ratio to `%s`", m.metric, unitText(m.unit), betterText(of[0]), EPMD.Baseline()))
		header := []string{"request"}
		for _, way := range ways {
			header = append(header, d.name(way))
		}
		rows := [][]string{header}
		for _, p := range of {
			row := []string{workText(p)}
			for _, way := range ways {
				row = append(row, d.figure(aboutCPU, p, way))
			}
			rows = append(rows, row)
		}
		d.table(rows)
	}
}

// writeAll writes every median, for those who look for one.
func (d *document) writeAll() {
	if len(d.points) == 0 {
		return
	}
	d.heading(2, "All medians")
	d.text("In the units of each row. The rounds themselves are in the result, as JSON.")
	for _, g := range d.groups() {
		for _, l := range d.layouts() {
			points := d.at(inGroup(g), inLayout(l))
			if len(points) == 0 {
				continue
			}
			ways := d.ways(points)
			fmt.Fprintf(&d.b, "<details><summary>%s, %s</summary>\n\n", groupText(g), layoutText(l))
			header := []string{"work"}
			for _, way := range ways {
				header = append(header, d.name(way))
			}
			rows := [][]string{header}
			for _, p := range points {
				row := []string{fmt.Sprintf("%s: %s, %s", workText(p), p.Metric, unitText(p.Unit))}
				for _, way := range ways {
					row = append(row, d.bare(p, way))
				}
				rows = append(rows, row)
			}
			d.table(rows)
			d.b.WriteString("</details>\n\n")
		}
	}
}

func (d *document) bare(p Point, way string) string {
	s := d.series[seriesKey{p, way}]
	if s == nil {
		return "-"
	}
	if v := spreadOf(s.Rounds); v.n > 0 {
		return figureText(p, v.median)
	}
	return "no number"
}
