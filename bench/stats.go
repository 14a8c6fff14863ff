package bench

import (
	"math"
	"slices"
)

// spread is what stands for the values of several rounds: the median, and the
// quartiles around it, which one bad round does not move.
type spread struct {
	n                 int // values that counted; zero: the rest means nothing
	low, median, high float64
}

// spreadOf leaves out values that are no numbers.
func spreadOf(values []float64) spread {
	var v []float64
	for _, x := range values {
		if finite(x) {
			v = append(v, x)
		}
	}
	if len(v) == 0 {
		return spread{}
	}
	slices.Sort(v)
	return spread{len(v), between(v, 0.25), between(v, 0.5), between(v, 0.75)}
}

// between is the quantile q of sorted values, interpolated between its neighbours.
func between(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// ratios divides what a way reached by what the other did in the same round. A
// round in which either has no number, or the other none above zero, gives NaN.
func ratios(way, other []float64) []float64 {
	n := min(len(way), len(other))
	r := make([]float64, n)
	for i := range n {
		r[i] = math.NaN()
		if finite(way[i]) && finite(other[i]) && other[i] > 0 {
			r[i] = way[i] / other[i]
		}
	}
	return r
}

// slope is how a figure grows.
type slope struct {
	n        int     // sizes it was fitted to
	exponent float64 // 0: it stays; 1: it grows as the size does
	ends     float64 // the last divided by the first
}

// slopeOf fits y = c * x^exponent by least squares of the logarithms. What is not
// above zero has none, and is left out. Without two different sizes there is no
// slope, and n is zero. The sizes are in ascending order.
func slopeOf(x, y []float64) slope {
	var lx, ly []float64
	for i := range min(len(x), len(y)) {
		if finite(x[i]) && finite(y[i]) && x[i] > 0 && y[i] > 0 {
			lx, ly = append(lx, math.Log(x[i])), append(ly, math.Log(y[i]))
		}
	}
	if len(lx) < 2 {
		return slope{}
	}
	mx, my := average(lx), average(ly)
	var xy, xx float64
	for i := range lx {
		xy += (lx[i] - mx) * (ly[i] - my)
		xx += (lx[i] - mx) * (lx[i] - mx)
	}
	if xx == 0 {
		return slope{}
	}
	return slope{len(lx), xy / xx, math.Exp(ly[len(ly)-1] - ly[0])}
}

func average(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
