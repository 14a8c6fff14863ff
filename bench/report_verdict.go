package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// duel is one way against another at one work, in the same rounds.
type duel struct {
	point   Point
	against string
	ratio   spread
}

// gain is how much better the way is: 2 is twice as good, whichever way is up.
func (x duel) gain() float64 {
	if !x.point.Lower {
		return x.ratio.median
	}
	if x.ratio.median <= 0 {
		return 1
	}
	return 1 / x.ratio.median
}

// noise is by how much a ratio has to differ from 1 to say anything.
const noise = 0.02

// decided tells a difference from noise: both quartiles are on the same side of 1,
// and the median is away from it. Fewer than three rounds have no quartiles.
func (x duel) decided() bool {
	return x.ratio.n >= 3 && (x.ratio.low > 1 || x.ratio.high < 1) && (x.ratio.median > 1+noise || x.ratio.median < 1-noise)
}

func (x duel) lost() bool { return x.decided() && x.gain() < 1 }
func (x duel) won() bool  { return x.decided() && x.gain() > 1 }

// opponent is a way, or at each work the best of several.
type opponent struct {
	name string
	ways []string
}

// writeVerdict says where oneport's ways win and where they lose.
func (d *document) writeVerdict() {
	d.heading(2, "Where it wins, where it loses")
	d.text("Each of oneport's ways against TCP with nothing between and against what one would take instead, losses first. " +
		"A number is the figure of the way divided by the other's in the same round, median and quartiles: of bulk and rates more is better, of " +
		"times and CPU less. Within the noise is what has 1 between its quartiles, or differs from it by less than two hundredths.")
	if d.result.Settings.Short {
		d.text("A short run does not tell.")
		return
	}
	written := false
	for _, g := range d.groups() {
		points := selected(d.at(inGroup(g)), compared)
		ways := d.ways(points)
		for _, way := range ways {
			if portraitOf(way).standing != asOwn || way == "copy" {
				continue
			}
			var lines []string
			for _, o := range opponents(g, ways) {
				for _, l := range d.layouts() {
					if all := d.duels(g, l, way, o); len(all) > 0 {
						lines = append(lines, fmt.Sprintf("Against %s, %s: %s", o.name, layoutText(l), sentences(all, o)))
					}
				}
			}
			if len(lines) == 0 {
				continue
			}
			written = true
			d.heading(3, fmt.Sprintf("%s: `%s`", groupText(g), way))
			for _, l := range lines {
				d.item("%s", l)
			}
			d.b.WriteString("\n")
		}
	}
	if !written {
		d.text("Nothing of that was measured.")
	}
}

// compared are the figures that say whether a way is worth taking.
func compared(p Point) bool {
	t := topicOf(p)
	switch {
	case t == aboutMemory || t == aboutOthers || p.Metric == "p99.9":
		return false
	case t == aboutCPU:
		return perGiB(p)
	case t == aboutRates:
		return p.Group != Sockets // there it says what p50 says
	}
	return true
}

// opponents of oneport's ways in a group.
func opponents(g Group, ways []string) []opponent {
	var all []opponent
	var peers []string
	for _, way := range ways {
		if portraitOf(way).standing == asPeer && way != g.Baseline() {
			peers = append(peers, way)
		}
	}
	base := g.Baseline()
	all = append(all, opponent{"`" + base + "`", []string{base}})
	if len(peers) > 1 {
		all = append(all, opponent{"the best of " + strings.Join(peers, ", "), peers})
	}
	for _, way := range peers {
		all = append(all, opponent{"`" + way + "`", []string{way}})
	}
	return all
}

// duels of a way against an opponent in one layout.
func (d *document) duels(g Group, l Layout, way string, o opponent) []duel {
	points := d.regular(g, l)
	if g == EPMD {
		points = d.at(inGroup(g), inLayout(l))
	}
	var all []duel
	for _, p := range selected(points, compared) {
		other := d.best(p, o.ways...)
		if r := d.ratio(p, way, other); r.n > 0 {
			all = append(all, duel{p, other, r})
		}
	}
	return all
}

// sentences say what was lost, what was won and what is within the noise.
func sentences(all []duel, o opponent) string {
	var names, lost, won, even []string
	by := map[string][]duel{}
	for _, x := range all {
		name := category(x.point)
		if by[name] == nil {
			names = append(names, name)
		}
		by[name] = append(by[name], x)
	}
	losses, wins := 0, 0
	for _, name := range names {
		of := by[name]
		slices.SortStableFunc(of, func(a, b duel) int { return cmp.Compare(a.gain(), b.gain()) })
		l, w := filter(of, duel.lost), filter(of, duel.won)
		losses, wins = losses+len(l), wins+len(w)
		if len(l) > 0 {
			lost = append(lost, fmt.Sprintf("%s%s, %s", name, outOf(len(l), len(of)), worst(l, len(of), o)))
		}
		if len(w) > 0 {
			won = append(won, fmt.Sprintf("%s%s, %s", name, outOf(len(w), len(of)), span(w)))
		}
		if n := len(of) - len(l) - len(w); n > 0 {
			even = append(even, name+outOf(n, len(of)))
		}
	}
	text := fmt.Sprintf("%d lost, %d won, %d within the noise.", losses, wins, len(all)-losses-wins)
	for _, part := range []struct {
		what  string
		parts []string
	}{{"**Loses** ", lost}, {"**Wins** ", won}, {"Within the noise: ", even}} {
		if len(part.parts) > 0 {
			text += " " + part.what + strings.Join(part.parts, "; ") + "."
		}
	}
	return text
}

func filter(all []duel, keep func(duel) bool) []duel {
	return slices.DeleteFunc(slices.Clone(all), func(x duel) bool { return !keep(x) })
}

// worst names the greatest loss; the first of the duels is that.
func worst(losses []duel, of int, o opponent) string {
	x := losses[0]
	text := fmt.Sprintf("%s (%s)", times(x.ratio.median), quartiles(x.ratio, times))
	if len(o.ways) > 1 {
		text += " of " + x.against
	}
	if of > 1 {
		text += " at " + workText(x.point)
	}
	if len(losses) > 1 {
		text = "worst " + text
	}
	return text
}

// span is from the least to the greatest of some ratios; with one, its quartiles.
func span(all []duel) string {
	least, most := all[0].ratio.median, all[0].ratio.median
	for _, x := range all {
		least, most = min(least, x.ratio.median), max(most, x.ratio.median)
	}
	if len(all) == 1 {
		return fmt.Sprintf("%s (%s)", times(least), quartiles(all[0].ratio, times))
	}
	return times(least) + " to " + times(most)
}

// outOf says how many works of a category are meant.
func outOf(n, all int) string {
	if all == 1 {
		return ""
	}
	return fmt.Sprintf(" in %d of %d", n, all)
}

// category is what some works have in common.
func category(p Point) string {
	switch topicOf(p) {
	case aboutBulk:
		return "bulk"
	case aboutTrips:
		return p.Metric + " of answers"
	case aboutSetUp:
		if p.Unit == "1/s" {
			return "set-ups per second"
		}
		return p.Metric + " of the set-up"
	case aboutCPU:
		return "CPU time per GiB"
	case aboutRates:
		if p.Group == EPMD {
			return p.Work
		}
		return "rate"
	}
	return p.Metric
}
