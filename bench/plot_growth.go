package bench

import (
	"fmt"
	"math"
)

const (
	growthTop   = 44
	growthPanel = 236
	growthMost  = 8 // panels in a picture
)

// growthPictures are one for each layout and axis, with a panel for each figure.
func (ix *index) growthPictures() []picture {
	var all []picture
	for _, over := range []axis{overConnections, overNames} {
		for _, l := range ix.layouts() {
			var curves []curve
			var points []Point
			for _, c := range ix.curves() {
				if c.over == over && c.base.Layout == l && drawn(c.base) && len(curves) < growthMost {
					curves = append(curves, c)
					points = append(points, c.points...)
				}
			}
			if len(curves) == 0 {
				continue
			}
			ways := ix.ways(points)
			title := fmt.Sprintf("Over the number of %s, %s", over, layoutText(l))
			rows := float64((len(curves) + 1) / 2)
			all = append(all, picture{
				name:   fmt.Sprintf("growth-%s-%s", over, l),
				alt:    title,
				height: growthTop + growthPanel*rows + 52,
				draw: func(s *sheet) {
					s.bold(16, 22, sizeTitle, toLeft, title)
					for i, c := range curves {
						ix.growthPanel(s, 74+394*float64(i%2), growthTop+growthPanel*float64(i/2), c)
					}
					s.legend(24, growthTop+growthPanel*rows+12, sheetWidth-10, ways)
				},
			})
		}
	}
	return all
}

// drawn are the figures that are worth a panel; the tables have the others.
func drawn(p Point) bool {
	t := topicOf(p)
	return t != aboutCPU && t != aboutOthers && p.Metric != "p99" && p.Metric != "p99.9"
}

func (ix *index) growthPanel(s *sheet, x, y float64, c curve) {
	ways := ix.ways(c.points)
	var xs, ys []float64
	for _, way := range ways {
		vx, vy := c.values(ix, way)
		xs, ys = append(xs, vx...), append(ys, vy...)
	}
	s.bold(x-58, y+10, sizeHead, toLeft, workText(c.base))
	s.text(x-58, y+27, sizeBody, inkSoft, toLeft, fmt.Sprintf("%s, %s, %s", c.base.Metric, unitText(c.base.Unit), betterText(c.base)))
	up, ok := figureScale(ys)
	across, okX := logScale(xs, 1.3)
	if !ok || !okX {
		s.text(x, y+100, sizeBody, inkSoft, toLeft, "nothing above zero")
		return
	}
	f := frame{x, y + 42, 306, growthPanel - 76, across, up}
	var at []float64
	for v := math.Pow(10, math.Ceil(math.Log10(across.from))); v <= across.to; v *= 10 {
		at = append(at, v)
	}
	s.axes(f, c.base.Unit, at, func(v float64) string { return commas(int64(math.Round(v))) })
	for _, way := range ways {
		vx, vy := c.values(ix, way)
		s.curve(f, way, vx, vy, true)
	}
}
