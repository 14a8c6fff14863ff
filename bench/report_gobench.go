package bench

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"unicode"
)

// WriteGoBench writes a result as lines of Go benchmarks, which benchstat reads: one
// line for each round, with all metrics of a way at one work. Compare ways with
// `benchstat -col /way FILE`, and machines or kernels with `benchstat OLD NEW`.
func WriteGoBench(w io.Writer, r *Result) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "goos: linux\ngoarch: %s\n", architecture(r))
	fmt.Fprintf(&b, "pkg: oneport/bench\ncpu: %s\nkernel: %s\n", oneLine(r.Machine.Processor), oneLine(r.Machine.Kernel))
	if !r.Complete {
		b.WriteString("complete: false\n")
	}
	if r.Settings.Short {
		b.WriteString("short: true\n")
	}
	goBenchUnits(&b, r)
	names, series := benchNames(r)
	for _, name := range names {
		goBenchRounds(&b, name, series[name])
	}
	_, err := w.Write(b.Bytes())
	return err
}

// architecture of the machine of the run: a result may be read on another.
func architecture(r *Result) string {
	for _, v := range r.Versions {
		if _, arch, ok := strings.Cut(v.Version, "linux/"); ok && strings.EqualFold(v.Name, "go") {
			return oneLine(arch)
		}
	}
	return runtime.GOARCH
}

// line makes a text fit for a line of a header.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// goBenchUnits tells benchstat which way is up.
func goBenchUnits(b *bytes.Buffer, r *Result) {
	seen := map[string]bool{}
	for _, s := range r.Series {
		_, unit := goBenchValue(s.Point, 0)
		if seen[unit] {
			continue
		}
		seen[unit] = true
		better := "higher"
		if s.Lower {
			better = "lower"
		}
		fmt.Fprintf(b, "Unit %s better=%s\n", unit, better)
	}
}

// benchNames are the names of benchmarks, in the order of the series, and what
// belongs to each.
func benchNames(r *Result) ([]string, map[string][]Series) {
	var names []string
	series := map[string][]Series{}
	for _, s := range r.Series {
		n := benchName(s, r.Machine.CPUs)
		if series[n] == nil {
			names = append(names, n)
		}
		series[n] = append(series[n], s)
	}
	return names, series
}

// benchName is that of all metrics of one way at one work.
func benchName(s Series, cpus int) string {
	var b strings.Builder
	group := slug(string(s.Group))
	if group == "epmd" {
		group = "EPMD"
	}
	fmt.Fprintf(&b, "Benchmark%s%s/layout=%s/work=%s", strings.ToUpper(group[:1]), group[1:], slug(string(s.Layout)), slug(s.Work))
	for _, d := range []struct {
		key   string
		value int
	}{{"connections", s.Connections}, {"size", s.Size}, {"names", s.Names}} {
		if d.value > 0 {
			fmt.Fprintf(&b, "/%s=%d", d.key, d.value)
		}
	}
	// A name always ends in the number of processors: without it, the number in
	// the name of a way would be taken for that.
	fmt.Fprintf(&b, "/way=%s-%d", slug(s.Way), max(1, cpus))
	return b.String()
}

func slug(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsLetter(c), unicode.IsDigit(c), c == '_', c == '.', c == '-':
			return c
		}
		return '-'
	}, s)
	if s == "" {
		return "none"
	}
	return s
}

func goBenchRounds(b *bytes.Buffer, name string, series []Series) {
	rounds := 0
	for _, s := range series {
		rounds = max(rounds, len(s.Rounds))
	}
	for i := range rounds {
		var fields bytes.Buffer
		seen := map[string]bool{}
		for _, s := range series {
			if i >= len(s.Rounds) || !finite(s.Rounds[i]) {
				continue
			}
			value, unit := goBenchValue(s.Point, s.Rounds[i])
			if !seen[unit] { // a unit is a line's key
				seen[unit] = true
				fmt.Fprintf(&fields, "\t%v %s", value, unit)
			}
		}
		if fields.Len() > 0 {
			fmt.Fprintf(b, "%s\t1%s\n", name, fields.Bytes())
		}
	}
}

// goBenchValue is a value in the units that benchstat scales: ns and MB. All but
// throughput have their metric in the unit, for there are several in a line.
func goBenchValue(p Point, v float64) (float64, string) {
	unit := strings.ReplaceAll(p.Unit, " ", "-")
	switch p.Unit {
	case "MB/s":
		if p.Metric == "throughput" {
			return v, unit
		}
	case "us":
		v, unit = v*1e3, "ns"
	case "ms":
		v, unit = v*1e6, "ns"
	case "1/s":
		unit = "ops/s"
	}
	if strings.HasPrefix(unit, "s/") { // seconds for an amount
		unit = "sec" + unit[1:]
	}
	return v, slug(p.Metric) + "-" + unit
}
