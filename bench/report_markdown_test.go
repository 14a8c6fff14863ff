package bench

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func markdown(t *testing.T, r *Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteMarkdown(&b, r, "bench"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// section is the text below a heading, up to the next of its level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, after, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	before, _, _ := strings.Cut(after, "\n"+level+" ")
	return before
}

// cells of the rows of all tables in a text, by the first cell of the row.
func cells(text string) map[string][]string {
	rows := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "| ") {
			row := strings.Split(strings.Trim(line, "| "), " | ")
			rows[row[0]] = row
		}
	}
	return rows
}

func TestEverySeriesIsInTheDocument(t *testing.T) {
	r := syntheticResult()
	text := markdown(t, r)
	all := section(t, text, "## All medians")
	for _, s := range r.Series {
		name := fmt.Sprintf("<details><summary>%s, %s</summary>", groupText(s.Group), layoutText(s.Layout))
		_, block, ok := strings.Cut(all, name)
		if !ok {
			t.Fatalf("there is no %s", name)
		}
		block, _, _ = strings.Cut(block, "</details>")
		rows := cells(block)
		row := rows[fmt.Sprintf("%s: %s, %s", workText(s.Point), s.Metric, unitText(s.Unit))]
		want := figureText(s.Point, spreadOf(s.Rounds).median)
		at := -1
		for i, way := range rows["work"] {
			if strings.HasPrefix(way, "`"+s.Way+"`") {
				at = i
			}
		}
		if at < 0 || at >= len(row) || row[at] != want {
			t.Fatalf("%+v of %s has %q, want %q in the column of the way", s.Point, s.Way, row, want)
		}
	}
}

func TestRatiosInTheTables(t *testing.T) {
	r := syntheticResult()
	find(r, "direct", "bulk to client", "throughput", 1).Rounds = []float64{1000, 2000, 4000}
	find(r, "splice", "bulk to client", "throughput", 1).Rounds = []float64{500, 1000, 2000}
	// The last table with a way is what cells keeps, so that only the first is given.
	first, _, _ := strings.Cut(section(t, markdown(t, r), "### Sockets, loopback"), "**Request")
	rows := cells(first)
	if got := rows["`splice`"][2]; got != "0.50 <sub>0.50..0.50</sub>" {
		t.Errorf("the ratio of splice is %q", got)
	}
	if got := rows["`direct`"][2]; got != "2,000 <sub>1,500..3,000</sub>" {
		t.Errorf("the baseline is %q", got)
	}
}

func TestDocumentSaysWhatWasRun(t *testing.T) {
	text := markdown(t, syntheticResult())
	for _, want := range []string{
		"| kernel | 6.1.0-30-amd64 |", "| processor | AMD EPYC 7B13 |", "| memory | 8.00 GiB |", "| began | 2026-03-04 05:06 UTC |",
		"| took | 39m5s |", "| rounds | 7 |", "| complete | yes |", "| disturbed | no |", "| haproxy | 2.6.12 |", "make bench", "oneport bench",
		`the pipe \| in this reason is escaped`, "**`sk_skb` is a warning, not an offer.**", "`sk_skb` (unsafe)", "![", "(bench/summary.svg)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the document", want)
		}
	}
	for _, never := range []string{"NaN", "Inf", "%!", "<nil>"} {
		if strings.Contains(text, never) {
			t.Errorf("%q is in the document", never)
		}
	}
}

func TestGrowthInTheDocument(t *testing.T) {
	growth := section(t, markdown(t, syntheticResult()), "## Growth")
	_, trip, _ := strings.Cut(growth, "round trip of 64 B, p50")
	row := cells(strings.SplitN(trip, "**", 3)[1])["`splice`"]
	if len(row) != 8 {
		t.Fatalf("the row of splice is %q", row)
	}
	if row[6] < "0.98" || row[6] > "1.02" {
		t.Errorf("the slope of what is proportional is %q", row[6])
	}
}

func TestPoorResultsAreSaidToBe(t *testing.T) {
	p := with(Point{Layout: Loopback, Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false)
	many := make([]Disturbance, 30)
	for i := range many {
		many[i] = Disturbance{At: time.Unix(int64(i), 0), Round: 3, During: "splice: bulk", Steal: 0.125}
	}
	for name, c := range map[string]struct {
		r    Result
		want []string
	}{
		"empty":      {Result{}, []string{"Nothing was measured", "ended early", "| complete | no |"}},
		"short":      {Result{Complete: true, Settings: Settings{Short: true}}, []string{"figures mean nothing"}},
		"incomplete": {Result{Series: []Series{{Point: p, Way: "direct", Rounds: []float64{1}}}}, []string{"ended early"}},
		"disturbed": {Result{Disturbances: many}, []string{"during 30 turns something else", "12.5 %",
			"And 10 more.", "| disturbed | yes |"}},
		"no baseline":          {Result{Series: []Series{{Point: p, Way: "splice", Rounds: []float64{1234, 1234}}}}, []string{"1,230 <sub>1,230..1,230</sub> MB/s"}},
		"no number":            {Result{Series: []Series{{Point: p, Way: "splice", Rounds: []float64{nan}}}}, []string{"no number"}},
		"no rounds":            {Result{Series: []Series{{Point: p, Way: "splice"}}}, []string{"no number"}},
		"baseline of zeros":    {Result{Series: []Series{{Point: p, Way: "direct", Rounds: []float64{0, 0}}, {Point: p, Way: "splice", Rounds: []float64{7, 7}}}}, []string{"7.00 <sub>7.00..7.00</sub> MB/s"}},
		"infinite":             {Result{Series: []Series{{Point: p, Way: "direct", Rounds: []float64{inf}}, {Point: p, Way: "splice", Rounds: []float64{-inf}}}}, []string{"no number"}},
		"a way nobody knows":   {Result{Series: []Series{{Point: p, Way: "carrier pigeon", Rounds: []float64{1}}}}, []string{"`carrier pigeon`"}},
		"a layout nobody does": {Result{Series: []Series{{Point: Point{Layout: "moon", Group: "tides", Work: "ebb", Metric: "m", Unit: "x"}, Way: "direct", Rounds: []float64{1}}}}, []string{"moon", "tides", "ebb"}},
		"sample of one":        {Result{Series: []Series{{Point: with(p, "p50", "us", true), Way: "direct", Rounds: []float64{1}, Sample: []float64{5}}}}, []string{"direct"}},
		"sample of nothing":    {Result{Series: []Series{{Point: with(p, "p50", "us", true), Way: "direct", Rounds: []float64{1}, Sample: make([]float64, 101)}}}, []string{"direct"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := markdown(t, &c.r)
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in\n%s", want, text)
				}
			}
			for _, p := range picturesOf(newIndex(&c.r)) {
				if _, err := p.svg(); err != nil {
					t.Error(err)
				}
			}
			var b bytes.Buffer
			if err := WriteTable(&b, &c.r); err != nil {
				t.Error(err)
			}
			if err := WriteGoBench(&b, &c.r); err != nil {
				t.Error(err)
			}
		})
	}
}
