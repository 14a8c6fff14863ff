package bench

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"
)

func TestGoBenchIsReadByBenchstat(t *testing.T) {
	r := syntheticResult()
	var b bytes.Buffer
	if err := WriteGoBench(&b, r); err != nil {
		t.Fatal(err)
	}
	rounds := map[string]int{}
	figures := 0
	rd := benchfmt.NewReader(&b, "bench")
	for rd.Scan() {
		switch rec := rd.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Fatal(rec)
		case *benchfmt.Result:
			if got := rec.GetConfig("goarch"); got != "arm64" {
				t.Fatalf("goarch is %q: it is that of the run, not of this machine", got)
			}
			if rec.GetConfig("goos") != "linux" || rec.GetConfig("cpu") != r.Machine.Processor {
				t.Fatal("the header lacks goos or cpu")
			}
			rounds[rec.Name.String()]++
			figures += len(rec.Values)
		}
	}
	if err := rd.Err(); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, s := range r.Series {
		want += len(s.Rounds)
		name := strings.TrimPrefix(benchName(s, 2), "Benchmark")
		if rounds[name] != r.Settings.Rounds {
			t.Fatalf("%s has %d lines, want one for each of %d rounds", name, rounds[name], r.Settings.Rounds)
		}
	}
	if figures != want {
		t.Errorf("%d figures were read, %d written", figures, want)
	}
	if units := rd.Units(); units.GetBetter("p50-ns") != -1 || units.GetBetter("MB/s") != 1 {
		t.Error("benchstat is not told which way is up")
	}
}

func TestGoBenchLines(t *testing.T) {
	p := Point{Layout: Loopback, Group: Sockets, Work: "bulk to node", Connections: 4}
	r := &Result{Machine: Machine{CPUs: 2}, Series: []Series{
		{Point: with(p, "throughput", "MB/s", false), Way: "sk_skb", Rounds: []float64{2500, nan, 2600}},
		{Point: with(p, "machine CPU", "s/GiB", true), Way: "sk_skb", Rounds: []float64{0.5, nan, inf}},
		{Point: with(Point{Layout: Loopback, Group: EPMD, Work: "ALIVE2", Names: 10}, "p99.9", "us", true), Way: "epmd", Rounds: []float64{1.5}},
	}}
	var b bytes.Buffer
	if err := WriteGoBench(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"BenchmarkSockets/layout=loopback/work=bulk-to-node/connections=4/way=sk_skb-2\t1\t2500 MB/s\t0.5 machine-CPU-sec/GiB\n",
		"way=sk_skb-2\t1\t2600 MB/s\n",
		"BenchmarkEPMD/layout=loopback/work=ALIVE2/names=10/way=epmd-2\t1\t1500 p99.9-ns\n",
		"complete: false\n",
		"Unit machine-CPU-sec/GiB better=lower\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Errorf("a round that is no number was written:\n%s", &b)
	}
}
