package bench

import (
	"math"
	"strconv"
	"strings"
)

// scale leads figures to a length.
type scale struct {
	from, to float64
	log      bool
}

// share is where v stands between from (0) and to (1).
func (s scale) share(v float64) float64 {
	if s.log {
		return (math.Log(v) - math.Log(s.from)) / (math.Log(s.to) - math.Log(s.from))
	}
	return (v - s.from) / (s.to - s.from)
}

// holds tells whether v can be drawn.
func (s scale) holds(v float64) bool {
	return finite(v) && v >= s.from*(1-1e-9) && v <= s.to*(1+1e-9)
}

// logScale spans what is above zero, and a factor of room at both ends. It reports
// false if there is nothing.
func logScale(values []float64, room float64) (scale, bool) {
	from, to := math.Inf(1), 0.0
	for _, v := range values {
		if finite(v) && v > 0 {
			from, to = min(from, v), max(to, v)
		}
	}
	return scale{from / room, to * room, true}, to > 0
}

// figureScale starts at zero where that leaves the lowest figure to be seen, and is
// logarithmic otherwise.
func figureScale(values []float64) (scale, bool) {
	s, ok := logScale(values, 1.25)
	if ok && s.to/s.from < 30 {
		return scale{0, s.to, false}, true
	}
	return s, ok
}

// ticks are round figures along a scale, at most so many.
func (s scale) ticks(most int, unit string) []float64 {
	if !s.log {
		return linearTicks(s, most, unit)
	}
	base, steps := 10.0, [][]float64{{1, 2, 5}, {1, 3}, {1}}
	if unit == "B" {
		base, steps = 2, [][]float64{{1}}
	}
	for _, each := range steps {
		if t := s.powers(base, 1, each); len(t) <= most {
			return t
		}
	}
	for every := 2; every < 64; every++ {
		if t := s.powers(base, every, []float64{1}); len(t) <= most {
			return t
		}
	}
	return nil
}

func (s scale) powers(base float64, every int, each []float64) []float64 {
	var t []float64
	first := int(math.Floor(math.Log(s.from)/math.Log(base))) - 1
	for k := first; math.Pow(base, float64(k)) <= s.to*(1+1e-9); k++ {
		if k%every != 0 {
			continue
		}
		for _, m := range each {
			if v := m * math.Pow(base, float64(k)); s.holds(v) {
				t = append(t, v)
			}
		}
	}
	return t
}

func linearTicks(s scale, most int, unit string) []float64 {
	whole := 1.0 // what round figures are round in
	for unit == "B" && whole*1024 <= s.to {
		whole *= 1024
	}
	rough := (s.to - s.from) / float64(most) / whole
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*step >= rough {
			step *= m
			break
		}
	}
	step *= whole
	var t []float64
	for v := math.Ceil(s.from/step) * step; v <= s.to*(1+1e-9); v += step {
		t = append(t, v)
	}
	return t
}

// tickText is short: 20k, 1.5 ms, 4 KiB.
func tickText(v float64, unit string) string {
	switch unit {
	case "B":
		for _, u := range []string{"GiB", "MiB", "KiB"} {
			if size := map[string]float64{"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}[u]; v >= size {
				return shortFigure(v/size) + " " + u
			}
		}
		return shortFigure(v) + " B"
	case "us":
		switch {
		case v >= 1e6:
			return shortFigure(v/1e6) + " s"
		case v >= 1e3:
			return shortFigure(v/1e3) + " ms"
		}
		return shortFigure(v) + " µs"
	}
	switch {
	case v >= 1e6:
		return shortFigure(v/1e6) + "M"
	case v >= 1e4:
		return shortFigure(v/1e3) + "k"
	}
	return shortFigure(v)
}

func shortFigure(v float64) string {
	s := strconv.FormatFloat(v, 'f', 4, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// frame is where a chart's curves are, on the sheet.
type frame struct {
	x, y, w, h float64
	across, up scale
}

func (f frame) point(x, y float64) [2]float64 {
	return [2]float64{f.x + f.w*f.across.share(x), f.y + f.h*(1-f.up.share(y))}
}

// axes draws a frame with its ticks. What the ticks across say is given, for they
// are not always figures.
func (s *sheet) axes(f frame, unit string, across []float64, say func(float64) string) {
	for _, v := range f.up.ticks(6, unit) {
		y := f.point(f.across.from, v)[1]
		s.line(f.x, y, f.x+f.w, y, 1, inkGrid)
		s.text(f.x-6, y, sizeBody, inkSoft, toRight, tickText(v, unit))
	}
	for _, v := range across {
		x := f.point(v, f.up.from)[0]
		s.line(x, f.y, x, f.y+f.h, 1, inkGrid)
		s.text(x, f.y+f.h+12, sizeBody, inkSoft, toCenter, say(v))
	}
	s.line(f.x, f.y+f.h, f.x+f.w, f.y+f.h, 1, inkAxis)
	s.line(f.x, f.y, f.x, f.y+f.h, 1, inkAxis)
}

// curve draws a way's points that the frame holds.
func (s *sheet) curve(f frame, way string, x, y []float64, dots bool) {
	p := portraitOf(way)
	var points [][2]float64
	for i := range x {
		if f.across.holds(x[i]) && f.up.holds(y[i]) {
			points = append(points, f.point(x[i], y[i]))
		}
	}
	if len(points) > 1 {
		s.path(points, p.width(), p.color, p.dashed)
	}
	if dots || len(points) == 1 {
		for _, at := range points {
			s.dot(at[0], at[1], p.color, p.dashed)
		}
	}
}
