package bench

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// document is BENCHMARKS.md as it is written.
type document struct {
	*index
	b    bytes.Buffer
	dir  string // of the pictures, as seen from the document; empty: none are shown
	made []picture
}

// WriteMarkdown writes all that a result has to say. Its pictures are shown from the
// directory pictures, as seen from the document; without one, none are.
func WriteMarkdown(w io.Writer, r *Result, pictures string) error {
	d := &document{index: newIndex(r), dir: pictures}
	if pictures != "" {
		d.made = picturesOf(d.index)
	}
	d.b.WriteString("<!-- Written by `oneport bench --document`. Changes belong in bench/. -->\n\n# Benchmarks\n\n")
	d.text("What each way of serving a connection to an Erlang node costs: measured by `oneport bench`, which wrote this page.")
	d.writeWarnings()
	d.pictures("summary")
	d.writeRun()
	d.writeMarks()
	d.writeVerdict()
	d.writeFigures()
	d.writeSlow()
	d.writeGrowth()
	d.writeAbsent()
	d.writeAll()
	_, err := w.Write(bytes.TrimRight(d.b.Bytes(), "\n"))
	if err == nil {
		_, err = w.Write([]byte("\n"))
	}
	return err
}

func (d *document) heading(level int, text string) {
	fmt.Fprintf(&d.b, "%s %s\n\n", strings.Repeat("#", level), text)
}

func (d *document) text(text string) { fmt.Fprintf(&d.b, "%s\n\n", text) }

func (d *document) item(format string, args ...any) {
	fmt.Fprintf(&d.b, "- %s\n", fmt.Sprintf(format, args...))
}

// table writes rows, the first of which is the header.
func (d *document) table(rows [][]string) {
	for i, row := range rows {
		cells := make([]string, len(row))
		for j, c := range row {
			cells[j] = escapeCell(c)
		}
		fmt.Fprintf(&d.b, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			d.b.WriteString("| --- |" + strings.Repeat(" --: |", len(row)-1) + "\n")
		}
	}
	d.b.WriteString("\n")
}

func escapeCell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}

// pictures shows those whose name begins so.
func (d *document) pictures(prefix string) {
	for _, p := range d.made {
		if strings.HasPrefix(p.name, prefix) {
			fmt.Fprintf(&d.b, "![%s](%s)\n\n", p.alt, path.Join(d.dir, p.name+".svg"))
		}
	}
}

// name is that of a way in a table.
func (d *document) name(way string) string {
	if portraitOf(way).standing == asWarning {
		return "`" + way + "` (unsafe)"
	}
	return "`" + way + "`"
}

// cell is a median with its quartiles, small.
func (d *document) cell(s spread, print func(float64) string) string {
	if s.n == 0 {
		return "-"
	}
	return fmt.Sprintf("%s <sub>%s</sub>", print(s.median), quartiles(s, print))
}

func (d *document) writeWarnings() {
	r := d.result
	if r.Settings.Short {
		d.text("**This was a short run, for correctness only. Its figures mean nothing.**")
	}
	if !r.Complete {
		d.text("**The run was ended early.** What stands here is what was done until then, in whole rounds.")
	}
	if len(r.Series) == 0 {
		d.text("**Nothing was measured.**")
	}
	if n := len(r.Disturbances); n > 0 {
		d.text(fmt.Sprintf("**The run was disturbed**: during %s something else used the machine, see [below](#disturbances).", counted(n, "turn")))
	}
}

func (d *document) writeRun() {
	r, m := d.result, d.result.Machine
	d.heading(2, "What was measured, and on what")
	rows := [][]string{{"", ""}}
	add := func(key, value string) {
		if value != "" {
			rows = append(rows, []string{key, value})
		}
	}
	add("began", r.Began.UTC().Format("2006-01-02 15:04 UTC"))
	add("took", (time.Duration(r.Seconds) * time.Second).String())
	add("complete", yesNo(r.Complete))
	add("disturbed", yesNo(len(r.Disturbances) > 0))
	add("kernel", m.Kernel)
	add("processor", m.Processor)
	add("processors", fmt.Sprint(m.CPUs))
	add("memory", inBytes(float64(m.Memory)))
	add("virtual machine", m.Virtual)
	add("open files of a process", commas(int64(m.MaxFiles)))
	add("rounds", fmt.Sprint(r.Settings.Rounds))
	add("only these ways", strings.Join(r.Settings.Only, ", "))
	for _, v := range r.Versions {
		add(v.Name, v.Version)
	}
	d.leftTable(rows)
	d.text("The ways take turns within every round, in an order that is drawn anew. Figures are medians over the rounds, with the " +
		"quartiles beside them, small. A ratio is that of two figures of the same round, so that what disturbs the machine for longer " +
		"than a round disturbs both. What arrives is checked; a way that loses or doubles a byte has no figures for that work, and is listed as not measured.")
	d.text("Again on this or another machine, as root (the layout `loopback` alone needs no root):")
	d.text("```\nmake bench                                  # all of it, and this page\noneport bench                               # sockets only, a table in the terminal\n" +
		"oneport bench --json FILE --document DIR    # with the result as JSON and a page like this\noneport bench --go-bench FILE               # lines for benchstat\n```")
	d.heading(3, "The ways")
	rows = [][]string{{"way", "what it is"}}
	what := map[string]string{}
	for _, w := range Ways() {
		what[w.Name] = w.What
	}
	for _, way := range d.ways(d.points) {
		rows = append(rows, []string{d.name(way), what[way]})
	}
	d.leftTable(rows)
	d.text("In the layout `loopback` client and node are in one network namespace, at 127.0.0.1; in `veth` each is in a namespace of " +
		"its own, with an MTU of 1500 between them.")
	d.writeDisturbances()
}

// leftTable is a table of words.
func (d *document) leftTable(rows [][]string) {
	for i, row := range rows {
		cells := make([]string, len(row))
		for j, c := range row {
			cells[j] = escapeCell(c)
		}
		fmt.Fprintf(&d.b, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			d.b.WriteString("|" + strings.Repeat(" --- |", len(row)) + "\n")
		}
	}
	d.b.WriteString("\n")
}

func (d *document) writeDisturbances() {
	const shown = 20
	all := d.result.Disturbances
	if len(all) == 0 {
		return
	}
	d.heading(3, "Disturbances")
	rows := [][]string{{"at", "round", "during", "taken by the hypervisor", "used by others"}}
	for _, x := range all[:min(len(all), shown)] {
		rows = append(rows, []string{x.At.UTC().Format("15:04:05"), fmt.Sprint(x.Round), x.During, percent(x.Steal), percent(x.Other)})
	}
	d.leftTable(rows)
	if len(all) > shown {
		d.text(fmt.Sprintf("And %s more.", commas(int64(len(all)-shown))))
	}
}

func percent(share float64) string { return digits(100*share) + " %" }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// writeSlow writes what piles up before a reader who sleeps.
func (d *document) writeSlow() {
	if len(d.result.Slow) == 0 {
		return
	}
	d.heading(2, "A reader who sleeps")
	d.text("The reader reads nothing for a while, and the sender sends what it can. A way that is safe stops the sender; what it accepted is then " +
		"bounded by buffers. `memory` is what became unavailable on the machine meanwhile.")
	rows := [][]string{{"way", "layout", "offered", "accepted", "memory", "asleep"}}
	unsafe := false
	for _, s := range d.result.Slow {
		unsafe = unsafe || portraitOf(s.Way).standing == asWarning
		rows = append(rows, []string{d.name(s.Way), string(s.Layout), inBytes(float64(s.Offered)), inBytes(float64(s.Accepted)), inBytes(float64(s.Memory)), digits(s.Sleep) + " s"})
	}
	d.table(rows)
	if unsafe {
		d.text("**`sk_skb` is a warning, not an offer.** It moves what arrives to the other socket's queue whether or not that is read, so " +
			"a slow reader costs the host as much memory as its sender cares to send. `oneport` has no such path: its shortcut takes a message " +
			"only while the receiver has room.")
	}
}

func (d *document) writeAbsent() {
	if len(d.result.Absent) == 0 {
		return
	}
	d.heading(2, "Not measured")
	rows := [][]string{{"way", "layout", "group", "why"}}
	for _, a := range d.result.Absent {
		rows = append(rows, []string{d.name(a.Way), layoutOr(a.Layout), groupText(a.Group), a.Why})
	}
	d.leftTable(rows)
}

func layoutOr(l Layout) string {
	if l == "" {
		return "any"
	}
	return string(l)
}
