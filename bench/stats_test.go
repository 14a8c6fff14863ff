package bench

import (
	"math"
	"testing"
)

var (
	nan = math.NaN()
	inf = math.Inf(1)
)

// near compares floats of tests; two that are no numbers are the same.
func near(a, b float64) bool {
	return math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) < 1e-9
}

func TestSpread(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   spread
	}{
		"none":               {nil, spread{}},
		"no number":          {[]float64{nan, inf}, spread{}},
		"one":                {[]float64{3}, spread{1, 3, 3, 3}},
		"two":                {[]float64{4, 2}, spread{2, 2.5, 3, 3.5}},
		"odd, not in order":  {[]float64{5, 1, 4, 2, 3}, spread{5, 2, 3, 4}},
		"even":               {[]float64{1, 2, 3, 4}, spread{4, 1.75, 2.5, 3.25}},
		"a bad round":        {[]float64{1, 1, 1, 1, 1, 1, 1000}, spread{7, 1, 1, 1}},
		"some are no number": {[]float64{nan, 1, 2, -inf, 3}, spread{3, 1.5, 2, 2.5}},
	} {
		got := spreadOf(c.values)
		if got.n != c.want.n || !near(got.low, c.want.low) || !near(got.median, c.want.median) || !near(got.high, c.want.high) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestSpreadLeavesTheRoundsAsTheyAre(t *testing.T) {
	rounds := []float64{3, 1, 2}
	spreadOf(rounds)
	if rounds[0] != 3 || rounds[1] != 1 {
		t.Errorf("the rounds were sorted in place: %v", rounds)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	for name, c := range map[string]struct{ way, other, want []float64 }{
		"each by its own":      {[]float64{1, 4, 9}, []float64{1, 2, 3}, []float64{1, 2, 3}},
		"other is shorter":     {[]float64{1, 4, 9}, []float64{1, 2}, []float64{1, 2}},
		"way is shorter":       {[]float64{1}, []float64{1, 2}, []float64{1}},
		"other is zero":        {[]float64{1, 2}, []float64{0, 1}, []float64{nan, 2}},
		"other is below zero":  {[]float64{1}, []float64{-1}, []float64{nan}},
		"no number":            {[]float64{nan, 1, inf}, []float64{1, nan, 1}, []float64{nan, nan, nan}},
		"other is absent":      {[]float64{1}, nil, nil},
		"way is below nothing": {[]float64{-1}, []float64{2}, []float64{-0.5}},
	} {
		got := ratios(c.way, c.other)
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
			continue
		}
		for i := range got {
			if !near(got[i], c.want[i]) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	}
}

// A disturbance that hits a whole round cancels out, which it would not if the
// medians were divided.
func TestRatioIsNotThatOfTheMedians(t *testing.T) {
	direct := []float64{100, 10, 100, 10}
	way := []float64{50, 5, 50, 5}
	if r := spreadOf(ratios(way, direct)); r.low != 0.5 || r.median != 0.5 || r.high != 0.5 {
		t.Errorf("%+v, want 0.5 throughout", r)
	}
}

func TestSlope(t *testing.T) {
	for name, c := range map[string]struct {
		x, y []float64
		want slope
	}{
		"flat":                 {[]float64{1, 10, 100}, []float64{7, 7, 7}, slope{3, 0, 1}},
		"proportional":         {[]float64{1, 10, 100}, []float64{2, 20, 200}, slope{3, 1, 100}},
		"square":               {[]float64{1, 2, 4}, []float64{3, 12, 48}, slope{3, 2, 16}},
		"falling":              {[]float64{10, 1000}, []float64{100, 1}, slope{2, -1, 0.01}},
		"one size":             {[]float64{10}, []float64{5}, slope{}},
		"the same size twice":  {[]float64{10, 10}, []float64{5, 6}, slope{}},
		"nothing":              {nil, nil, slope{}},
		"zero and no number":   {[]float64{1, 10, 100, 1000}, []float64{2, 0, nan, 2000}, slope{2, 1, 1000}},
		"fewer figures":        {[]float64{1, 10, 100}, []float64{1, 10}, slope{2, 1, 10}},
		"all are below nought": {[]float64{1, 10}, []float64{-1, -2}, slope{}},
	} {
		got := slopeOf(c.x, c.y)
		if got.n != c.want.n || !near(got.exponent, c.want.exponent) || !near(got.ends, c.want.ends) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
