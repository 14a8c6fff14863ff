package bench

import (
	"fmt"
	"slices"
)

// The measures of a picture of bars.
const (
	barsTop    = 92 // above the first row
	barsRow    = 24
	barsBottom = 34
	barsLabels = 128 // the names of the ways
	barsFigure = 46  // the ratio at the end of a row
	barsGap    = 14
)

// bars draws, for some points, how every way compares with the baseline: to the
// left of the line is less than that, to the right more.
func (ix *index) bars(name, title string, points []Point, ways []string) picture {
	return picture{
		name:   name,
		alt:    title,
		height: barsTop + barsRow*float64(len(ways)) + barsBottom,
		draw: func(s *sheet) {
			s.bold(16, 22, sizeTitle, toLeft, title)
			for i, way := range ways {
				y := barsTop + barsRow*(float64(i)+0.5)
				if i%2 == 0 {
					s.rect(10, y-barsRow/2, sheetWidth-20, barsRow, rgb(0xf5f5f5))
				}
				switch portraitOf(way).standing {
				case asOwn:
					s.bold(barsLabels, y, sizeBody, toRight, way)
				case asWarning:
					s.text(barsLabels, y, sizeBody, inkText, toRight, way+" (unsafe)")
				default:
					s.text(barsLabels, y, sizeBody, inkText, toRight, way)
				}
			}
			s.text(barsLabels, barsTop+barsRow*float64(len(ways))+12, sizeBody, inkSoft, toRight, "ratio, log scale")
			room := float64(sheetWidth-barsLabels-barsGap) / float64(len(points))
			for i, p := range points {
				ix.barPanel(s, barsLabels+barsGap+room*float64(i), room-barsGap, p, ways)
			}
		},
	}
}

// barPanel draws the bars of one point.
func (ix *index) barPanel(s *sheet, x, width float64, p Point, ways []string) {
	values := []float64{0.5, 2} // so that a hundredth does not look like a half
	for _, way := range ways {
		r := ix.toBaseline(p, way)
		if r.n > 0 {
			values = append(values, r.low, r.high)
		}
	}
	across, _ := logScale(values, 1.06)
	bottom := barsTop + barsRow*float64(len(ways))
	f := frame{x, barsTop, width - barsFigure, bottom - barsTop, across, scale{0, 1, false}}
	base := p.Group.Baseline()
	s.bold(x, 48, sizeHead, toLeft, panelTitle(p))
	s.text(x, 65, sizeBody, inkSoft, toLeft, panelMeasure(p))
	s.text(x, 81, sizeBody, inkSoft, toLeft, fmt.Sprintf("%s: %s", base, withUnit(p, ix.absolute(p, base))))
	for _, v := range across.ticks(5, "") {
		at := f.point(v, 0)[0]
		s.line(at, f.y, at, bottom, 1, inkGrid)
		s.text(at, bottom+12, sizeBody, inkSoft, toCenter, shortFigure(v))
	}
	one := f.point(1, 0)[0]
	for i, way := range ways {
		y := barsTop + barsRow*(float64(i)+0.5)
		r := ix.toBaseline(p, way)
		if r.n == 0 || r.median <= 0 {
			s.text(x+width, y, sizeBody, inkSoft, toRight, "-")
			continue
		}
		at := f.point(r.median, 0)[0]
		s.rect(min(one, at), y-7, max(at-one, one-at, 1.5), 14, portraitOf(way).color)
		if r.low > 0 {
			s.line(f.point(r.low, 0)[0], y, f.point(r.high, 0)[0], y, 1.2, inkText)
		}
		s.text(x+width, y, sizeBody, inkText, toRight, times(r.median))
	}
	s.line(one, f.y, one, bottom+2, 1.5, inkText)
}

// panelTitle is the name of a work where there is little room.
func panelTitle(p Point) string {
	if p.Connections == 1 {
		p.Connections = 0
	}
	if topicOf(p) == aboutCPU {
		return "CPU: " + workText(p)
	}
	return workText(p)
}

func panelMeasure(p Point) string {
	if topicOf(p) == aboutCPU {
		return "s/GiB, " + betterText(p)
	}
	return p.Metric + ", " + betterText(p)
}

func withUnit(p Point, s spread) string {
	switch {
	case s.n == 0:
		return "not measured"
	case p.Unit == "B":
		return inBytes(s.median)
	}
	return digits(s.median) + " " + unitText(p.Unit)
}

// telling are the three points of a group that say most.
func (ix *index) telling(g Group, l Layout) []Point {
	points := selected(ix.regular(g, l), func(p Point) bool { return p.Connections <= 1 })
	var found []Point
	add := func(of []Point) {
		// One that has its baseline, or no ratio could be drawn.
		i := slices.IndexFunc(of, func(p Point) bool { return ix.absolute(p, g.Baseline()).n > 0 })
		if i >= 0 && len(found) < 3 {
			found = append(found, of[i])
		}
	}
	add(selected(points, ofTopic(aboutBulk)))
	add(selected(points, ofTopic(aboutTrips), ofMetric("p50")))
	if g == Sockets {
		add(selected(points, perGiB))
	}
	add(selected(points, ofTopic(aboutRates)))
	return found
}

// barPictures are one for each layout of the sockets and the nodes, and the summary
// for the README: what one would choose from, and how much is noise, in the layout that
// is more like two hosts.
func (ix *index) barPictures() []picture {
	var all []picture
	for _, g := range []Group{Sockets, Nodes} {
		for _, l := range ix.layouts() {
			points := ix.telling(g, l)
			ways := slices.DeleteFunc(ix.ways(points), func(way string) bool { return way == g.Baseline() })
			if len(points) == 0 || len(ways) == 0 {
				continue
			}
			title := fmt.Sprintf("%s, %s: relative to direct TCP", groupText(g), layoutText(l))
			all = append(all, ix.bars(fmt.Sprintf("bars-%s-%s", g, l), title, points, ways))
		}
	}
	for _, l := range []Layout{Veth, Loopback} {
		points := ix.telling(Sockets, l)
		ways := slices.DeleteFunc(ix.ways(points), func(way string) bool {
			k := portraitOf(way).standing
			return k != asOwn && k != asPeer && way != control
		})
		if len(points) > 0 && len(ways) > 0 {
			title := fmt.Sprintf("What each way costs, relative to direct TCP (%s)", layoutText(l))
			return append(all, ix.bars("summary", title, points, ways))
		}
	}
	return all
}
