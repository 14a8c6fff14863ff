package interop

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"oneport/internal/hosts"
)

// report is what one run has found.
type report struct {
	releases []release
	pairs    []pair
	apps     []app
}

// markdown is the report as docs/COMPATIBILITY.md.
func (r report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# What works together

Written by `+"`make interop`"+`, from what that run has shown on Linux %s; do not edit.

## Releases of Erlang/OTP

Every release with every other one, on two hosts behind a firewall that lets TCP %d in, each node in the files of the Debian
that packages it. The application is compiled by the release's own compiler.

`, kernel(), hosts.Port)
	table(&b, []string{"OTP", "version", "Debian", "takes connections by descriptor"}, func(row func(...string)) {
		for _, release := range r.releases {
			row(release.number, release.version, release.suite(), map[bool]string{true: "yes", false: "no"}[release.receives()])
		}
	})
	fmt.Fprint(&b, `
OTP 23 has no way to close a descriptor that came from another process. There a node with the carrier has a TCP listener
always, and the application does nothing but say so in the log.

In each pair below the first release connects to the second. `+"`splice` and `handover`"+` are the ways that the bytes took. In each
cell: a ping, 10 MiB each way with an MD5 sum, and the end of the connection as the other node sees it. *Stock* is a node with
nothing installed, *application* one that has started `+"`oneport`"+`, *carrier* one with `+"`-proto_dist oneport`"+` and thus no listener,
`+"`h`"+` a carrier that asks by EPMD's handover. Where it says *100 times*, a hundred reconnects have also left no socket open in either VM
or the daemon. Nodes that are killed with connections open were seen to go down by all others.

`)
	header := []string{"from → to"}
	for _, w := range ways {
		title := w.title
		if w.reconnects {
			title += ", 100 times"
		}
		header = append(header, title)
	}
	var silent []string
	table(&b, header, func(row func(...string)) {
		for _, p := range r.pairs {
			if !p.direct {
				silent = append(silent, p.from+" → "+p.to)
				continue
			}
			row(append([]string{p.from + " → " + p.to}, p.ways...)...)
		}
	})
	if silent != nil {
		fmt.Fprintf(&b, "\nThese do not connect without oneport either, being too far apart for OTP itself: %s.\n", strings.Join(silent, ", "))
	}
	fmt.Fprint(&b, `
## Applications

Each on hosts of its own, behind the same firewall, with Debian's packages as they are. ejabberd got a cookie, and the
directory under /run that systemd makes for it.

`)
	table(&b, []string{"application", "version", "shown"}, func(row func(...string)) {
		for _, a := range r.apps {
			row(a.name, a.version, a.shown)
		}
	})
	return b.Bytes()
}

// table writes a table, the rows of which rows adds.
func table(b *bytes.Buffer, header []string, rows func(row func(cells ...string))) {
	row := func(cells ...string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }
	row(header...)
	row(strings.Split(strings.Repeat("---,", len(header)-1)+"---", ",")...)
	rows(row)
}

// kernel is the release of the kernel, as uname(1) says it, without what its
// builder has added.
func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "of an unknown release"
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(text)), "-")
	return version
}
