package bench

import (
	"fmt"
	"math"
	"slices"
)

const (
	latencyTop   = 44
	latencyPanel = 250 // with its title and ticks
)

// latencyPictures show the distribution of single times: for each work oneport's
// ways on the left and the others on the right, in one scale.
func (ix *index) latencyPictures() []picture {
	var all []picture
	for _, g := range ix.groups() {
		for _, l := range ix.layouts() {
			points := ix.sampled(g, l)
			if len(points) == 0 {
				continue
			}
			ways := ix.sampledWays(points)
			title := fmt.Sprintf("%s, %s: how long it takes", groupText(g), layoutText(l))
			all = append(all, picture{
				name:   fmt.Sprintf("latency-%s-%s", g, l),
				alt:    title + ", by share of the answers",
				height: latencyTop + latencyPanel*float64(len(points)) + 52,
				draw: func(s *sheet) {
					s.bold(16, 22, sizeTitle, toLeft, title)
					for i, p := range points {
						ix.latencyRow(s, latencyTop+latencyPanel*float64(i), p, ways)
					}
					s.legend(24, latencyTop+latencyPanel*float64(len(points))+12, sheetWidth-10, ways)
				},
			})
		}
	}
	return all
}

// sampled are the works whose distribution is drawn: an answer with one connection
// and with the most, and the set-up.
func (ix *index) sampled(g Group, l Layout) []Point {
	var with []Point
	for _, p := range ix.regular(g, l) {
		if len(ix.sampledWays([]Point{p})) > 0 {
			with = append(with, p)
		}
	}
	var found []Point
	add := func(p Point) {
		if !slices.ContainsFunc(found, func(q Point) bool { return workText(p) == workText(q) }) {
			found = append(found, p)
		}
	}
	if answers := selected(with, ofTopic(aboutTrips)); len(answers) > 0 {
		add(answers[0])
		add(slices.MaxFunc(answers, func(a, b Point) int { return a.Connections - b.Connections }))
	}
	if setUps := selected(with, ofTopic(aboutSetUp)); len(setUps) > 0 {
		add(setUps[0])
	}
	return found
}

func (ix *index) sampledWays(points []Point) []string {
	return slices.DeleteFunc(ix.ways(points), func(way string) bool {
		return !slices.ContainsFunc(points, func(p Point) bool {
			s := ix.series[seriesKey{p, way}]
			return s != nil && len(s.Sample) > 1
		})
	})
}

// nines stretches the tail: half, 90 % and 99 % are equally far apart, or so.
func nines(q float64) float64 { return -math.Log10(1 - q) }

func (ix *index) latencyRow(s *sheet, y float64, p Point, ways []string) {
	curves := map[string][2][]float64{}
	var values []float64
	for _, way := range ways {
		series := ix.series[seriesKey{p, way}]
		if series == nil {
			continue
		}
		var xs, ys []float64
		for i, v := range series.Sample {
			// The highest of all has no place where each nine has the same room.
			if q := float64(i) / float64(len(series.Sample)-1); q < 0.995 {
				xs, ys = append(xs, nines(q)), append(ys, v)
			}
		}
		curves[way] = [2][]float64{xs, ys}
		values = append(values, ys...)
	}
	up, ok := logScale(values, 1.15)
	if !ok {
		return
	}
	s.bold(16, y+10, sizeHead, toLeft, workText(p))
	for side, heading := range []string{"oneport", "others, and splice"} {
		f := frame{66 + 388*float64(side), y + 26, 318, latencyPanel - 62, scale{0, 2, false}, up}
		s.text(f.x+f.w, y+12, sizeBody, inkSoft, toRight, heading)
		s.axes(f, p.Unit, []float64{0, nines(0.5), nines(0.75), 1, nines(0.95), nines(0.98), 2}, func(v float64) string {
			return shortFigure(math.Round(1000*(1-math.Pow(10, -v)))/10) + " %"
		})
		for _, way := range ways {
			k := portraitOf(way).standing
			left := k == asOwn || k == asReference
			right := k != asOwn && way != "unix" || way == "splice"
			if side == 0 && left || side == 1 && right {
				c := curves[way]
				s.curve(f, way, c[0], c[1], false)
			}
		}
	}
}
