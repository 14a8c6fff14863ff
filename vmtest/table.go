package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// way is a path of a connection's bytes, and the test that shows that it works
// at all, in the package whose tests show that it works well.
type way struct{ name, shownBy, test string }

// ways returns the ways in the order in which the daemon prefers them, under
// the names that it gives them.
func ways() []way {
	return []way{
		{"handover", "oneport/handover", "TestAConnectionGoesToItsNode"},
		{"shortcut", "oneport/loader", "TestStreamsArriveWhole"},
		{"splice", "oneport/relay", "TestSplicedBytesDoNotEnterTheProcess"},
	}
}

// available says whether a kernel has a path: yes, or why it is off.
func (p way) available(r kernelResult) string {
	for _, pkg := range r.packages {
		if pkg.path != p.shownBy {
			continue
		}
		skip := slices.IndexFunc(pkg.skipped, func(s skipped) bool { return s.test == p.test })
		switch {
		case len(pkg.faults) > 0:
			return "**fails**"
		case skip >= 0:
			return "off: " + pkg.skipped[skip].reason
		case !slices.Contains(pkg.passed, p.test):
			continue
		case len(pkg.skipped) == 0:
			return "yes"
		}
		return "in part: " + pkg.skipped[0].reason
	}
	return "not tested"
}

// writeTable writes docs/KERNELS.md.
func writeTable(w io.Writer, results []kernelResult) error {
	var text strings.Builder
	text.WriteString("# Kernels\n\n" +
		"Written by `make vmtest KERNELS=all TABLE=docs/KERNELS.md`; do not edit. Each line is a boot of that kernel in a virtual\n" +
		"machine (x86-64, two processors), in which the packages' tests ran. A run passes only if the kernel's log has no BUG,\n" +
		"WARNING, oops, sanitizer report or stall in it, and if TCP holds no socket and no memory when a package's tests have ended.\n\n")
	tested := slices.DeleteFunc(ways(), func(p way) bool {
		return !slices.ContainsFunc(results, func(r kernelResult) bool { return p.available(r) != "not tested" })
	})
	header, rule := "| Linux | Debian package |", "| --- | --- |"
	for _, p := range tested {
		header += " " + p.name + " |"
		rule += " --- |"
	}
	text.WriteString(header + " tests passed | skipped | kernel's log |\n" + rule + " --- | --- | --- |\n")
	for _, r := range results {
		fmt.Fprintf(&text, "| %s | %s |", r.kernel.release, r.kernel.version)
		for _, p := range tested {
			fmt.Fprintf(&text, " %s |", p.available(r))
		}
		passed, failed, skips := r.count()
		log := "clean"
		if len(r.faults) > 0 {
			log = "**" + r.faults[0] + "**"
		}
		fmt.Fprintf(&text, " %d of %d | %d | %s |\n", passed, passed+failed, skips, log)
	}
	text.WriteString("\nPackages and their tests:\n\n")
	for _, pkg := range results[0].packages {
		fmt.Fprintf(&text, "- `%s`: %d\n", strings.TrimPrefix(pkg.path, "oneport/"), len(pkg.passed)+pkg.failed+len(pkg.skipped))
	}
	for _, r := range results {
		for _, pkg := range r.packages {
			writeSkipped(&text, r.kernel.release, pkg)
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// writeSkipped names the tests of a package that were skipped, by their reasons.
// Many with one reason are counted.
func writeSkipped(text *strings.Builder, release string, pkg packageResult) {
	const few = 3
	var reasons []string
	tests := make(map[string][]string)
	for _, s := range pkg.skipped {
		if tests[s.reason] == nil {
			reasons = append(reasons, s.reason)
		}
		tests[s.reason] = append(tests[s.reason], "`"+s.test+"`")
	}
	for _, reason := range reasons {
		list := strings.Join(tests[reason], ", ")
		if n := len(tests[reason]); n > few {
			list = fmt.Sprintf("%d tests", n)
		}
		fmt.Fprintf(text, "- %s: skipped of `%s`: %s: %s\n", release, strings.TrimPrefix(pkg.path, "oneport/"), list, reason)
	}
}
