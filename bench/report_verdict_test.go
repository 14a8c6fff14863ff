package bench

import (
	"strings"
	"testing"
)

func TestLossesAreSaid(t *testing.T) {
	bulk := with(Point{Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false)
	p50 := with(Point{Group: Sockets, Work: "round trip", Connections: 1, Size: 64}, "p50", "us", true)
	for name, c := range map[string]struct {
		p          Point
		way, other string
		ratio      float64
		want       string
	}{
		"less bulk":         {bulk, "splice", "haproxy", 0.8, "Against `haproxy`, loopback: 1 lost, 0 won, 0 within the noise. **Loses** bulk, 0.80 (0.80..0.80)."},
		"more bulk":         {bulk, "splice", "haproxy", 1.2, "**Wins** bulk, 1.20 (1.20..1.20)."},
		"longer":            {p50, "handover", "direct", 1.5, "Against `direct`, loopback: 1 lost, 0 won, 0 within the noise. **Loses** p50 of answers, 1.50"},
		"shorter":           {p50, "shortcut-direct", "beam", 0.5, "**Wins** p50 of answers, 0.50"},
		"not to be told":    {bulk, "handover", "direct", 0.99, "0 lost, 0 won, 1 within the noise. Within the noise: bulk."},
		"nothing to say of": {bulk, "copy", "direct", 0.1, "Nothing of that was measured."},
	} {
		text := section(t, markdown(t, pair(c.p, c.other, c.way, c.ratio)), "## Where it wins, where it loses")
		if !strings.Contains(text, c.want) {
			t.Errorf("%s: %q is not in\n%s", name, c.want, text)
		}
	}
}

func TestNoiseIsNoWin(t *testing.T) {
	p := with(Point{Layout: Loopback, Group: Sockets, Work: "bulk to node", Connections: 1}, "throughput", "MB/s", false)
	for name, c := range map[string]struct {
		rounds []float64
		won    bool
	}{
		"1 between the quartiles": {[]float64{0.9, 1.1, 1.2}, false},
		"all above":               {[]float64{1.1, 1.1, 1.2}, true},
		"hardly above":            {[]float64{1.01, 1.01, 1.01}, false},
		"two rounds":              {[]float64{1.5, 1.5}, false},
	} {
		x := duel{p, "direct", spreadOf(c.rounds)}
		if x.won() != c.won || x.lost() {
			t.Errorf("%s: won %v, lost %v", name, x.won(), x.lost())
		}
	}
}

func TestTheBestPeerIsChosenAtEachWork(t *testing.T) {
	r := syntheticResult()
	for i := range r.Series {
		if s := &r.Series[i]; s.Way == "socat" && s.Work == "bulk to node" && s.Metric == "throughput" {
			for j := range s.Rounds {
				s.Rounds[j] *= 100
			}
		}
	}
	text := section(t, markdown(t, r), "### Sockets: `splice`")
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "- Against the best of haproxy, nginx, socat, beam, loopback") {
			continue
		}
		if !strings.Contains(line, "**Loses** bulk in 3 of 5, worst 0.0") || !strings.Contains(line, "of socat at bulk to node") {
			t.Errorf("the best peer of bulk to node is socat, and the line is %s", line)
		}
		if !strings.Contains(line, "**Wins** bulk in 2 of 5") {
			t.Errorf("the best peer of bulk to client is not socat, and the line is %s", line)
		}
		return
	}
	t.Errorf("there is no line of the best peer in\n%s", text)
}
