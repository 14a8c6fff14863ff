package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"oneport/bench"
)

// exitInterrupted is what a shell says of a program that SIGINT has ended.
const exitInterrupted = 130

// allGroups is the value of --group that stands for every group.
const allGroups = "all"

// benchFlags are the command line of bench, as typed.
type benchFlags struct {
	rounds                                int
	only, layouts, groups                 []string
	short, list                           bool
	json, goBench, document, from, erlang string
}

func newBench(e *env) *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure on this machine what each way of serving a connection costs",
		Long: `Measure on this machine what each way of serving a connection costs: direct TCP,
handed over, the shortcut in its forms, splice, copy, and what others take
instead of oneport, as far as they are installed.

The ways take turns within every round, so that whatever disturbs the machine
disturbs all of them; what counts is the ratio to direct TCP (to OTP's own epmd
in the group epmd) in the same round. What arrives is checked. All it starts
are processes, and namespaces without a name, of its own; it stays on this
host, and touches neither a daemon nor nodes that run.

The whole takes the better part of an hour, and wants a machine that has nothing
else to do. Ctrl-C ends it; the rounds that are whole by then are reported.
The layout veth and the shortcut need root; see oneport doctor.`,
		Example: `  oneport bench --only splice,haproxy --rounds 3
  oneport bench --group all --json result.json --document docs
  oneport bench --from result.json --go-bench - | benchstat -col /way -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runBench(c.Context(), e, &f) },
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.IntVar(&f.rounds, "rounds", bench.DefaultRounds, "how often every way takes its turn, `N`; one more warms up")
	fl.StringSliceVar(&f.only, "only", nil, "`WAY,...` to measure beside the one that all are compared with; default all (see --list)")
	fl.StringSliceVar(&f.layouts, "layout", nil, "where client and node are, `loopback|veth` (veth: two network namespaces); default both as root, else loopback (repeatable)")
	fl.StringSliceVar(&f.groups, "group", []string{string(bench.Sockets)}, "what is measured, `sockets|nodes|epmd|all`; nodes and epmd need Erlang/OTP (repeatable)")
	fl.BoolVar(&f.short, "short", false, "move little, to see that everything works: the figures mean nothing")
	fl.StringVar(&f.erlang, "erlang", "erlang/ebin", "`DIR` of the OTP application that `make erlang` makes, for the group nodes")
	fl.StringVar(&f.json, "json", "", "write the result to `FILE` (- is the standard output)")
	fl.StringVar(&f.goBench, "go-bench", "", "write it to `FILE` in the form of Go's benchmarks, for benchstat (- is the standard output)")
	fl.StringVar(&f.document, "document", "", "write BENCHMARKS.md and its pictures to `DIR`")
	fl.StringVar(&f.from, "from", "", "measure nothing, and take the result from `FILE` that --json has written")
	fl.BoolVar(&f.list, "list", false, "list the ways, and measure nothing")
	c.MarkFlagsMutuallyExclusive("from", "list")
	fixed := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	// An error would mean that there is no such flag.
	_ = c.RegisterFlagCompletionFunc("layout", fixed(string(bench.Loopback), string(bench.Veth)))
	_ = c.RegisterFlagCompletionFunc("group", fixed(string(bench.Sockets), string(bench.Nodes), string(bench.EPMD), allGroups))
	_ = c.RegisterFlagCompletionFunc("only", completeWays)
	_ = c.MarkFlagDirname("document")
	_ = c.MarkFlagDirname("erlang")
	_ = c.MarkFlagFilename("from", "json")
	return c
}

// completeWays completes the last of a list of ways.
func completeWays(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before, _ := "", typed
	if i := strings.LastIndexByte(typed, ','); i >= 0 {
		before = typed[:i+1]
	}
	var names []string
	for _, w := range bench.Ways() {
		names = append(names, before+w.Name+"\t"+w.What)
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// runBench measures, and writes what is asked for.
func runBench(ctx context.Context, e *env, f *benchFlags) error {
	if f.list {
		return listWays(e)
	}
	if f.from != "" {
		r, err := readResult(f.from)
		if err != nil {
			return failed(err)
		}
		return failed(writeResult(e, f, r))
	}
	o, err := f.options(e)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := bench.Run(ctx, o)
	if r == nil {
		return err
	}
	interrupted := ctx.Err() != nil
	stop() // from here on a signal ends the program
	if interrupted && len(r.Series) == 0 {
		fmt.Fprintln(e.stderr, "oneport: interrupted before anything was measured; nothing was written")
		return exitCode(exitInterrupted)
	}
	if writeErr := writeResult(e, f, r); writeErr != nil {
		return failed(errors.Join(err, writeErr))
	}
	if n := len(r.Disturbances); n > 0 {
		fmt.Fprintf(e.stderr, "oneport: something else used the machine during %d turns; end that, and measure again\n", n)
	}
	if interrupted {
		fmt.Fprintln(e.stderr, "oneport: interrupted; what is reported are the rounds that were whole")
		return exitCode(exitInterrupted)
	}
	return failed(err)
}

// options checks the flags, and turns them into those of a run.
func (f *benchFlags) options(e *env) (bench.Options, error) {
	o := bench.Options{
		Rounds: f.rounds, Only: f.only, Short: f.short, App: f.erlang, Version: buildVersion().Version,
		Progress: e.stderr,
	}
	if file, ok := e.stderr.(*os.File); ok {
		o.Terminal = isTerminal(file)
	}
	if f.rounds < 1 {
		return o, fmt.Errorf("--rounds %d: expected 1 or more", f.rounds)
	}
	known := bench.Ways()
	for _, name := range f.only {
		if !slices.ContainsFunc(known, func(w bench.Way) bool { return w.Name == name }) {
			return o, fmt.Errorf("--only %s: there is no such way; see `oneport bench --list`", name)
		}
	}
	root := os.Geteuid() == 0
	switch {
	case len(f.layouts) > 0:
		for _, l := range f.layouts {
			layout := bench.Layout(l)
			if layout != bench.Loopback && layout != bench.Veth {
				return o, fmt.Errorf("--layout %s: expected loopback or veth", l)
			}
			if layout == bench.Veth && !root {
				return o, errors.New("--layout veth: making network namespaces needs root; leave it out, or use sudo")
			}
			o.Layouts = appendNew(o.Layouts, layout)
		}
	case root:
		o.Layouts = []bench.Layout{bench.Loopback, bench.Veth}
	default:
		o.Layouts = []bench.Layout{bench.Loopback}
	}
	for _, g := range f.groups {
		switch group := bench.Group(g); {
		case g == allGroups:
			for _, each := range []bench.Group{bench.Sockets, bench.Nodes, bench.EPMD} {
				o.Groups = appendNew(o.Groups, each)
			}
		case group == bench.Sockets || group == bench.Nodes || group == bench.EPMD:
			o.Groups = appendNew(o.Groups, group)
		default:
			return o, fmt.Errorf("--group %s: expected sockets, nodes, epmd or all", g)
		}
	}
	return o, nil
}

// appendNew appends what is not there yet.
func appendNew[T comparable](list []T, x T) []T {
	if slices.Contains(list, x) {
		return list
	}
	return append(list, x)
}

func listWays(e *env) error {
	t := newTable(e, "WAY", "GROUPS", "WHAT")
	for _, w := range bench.Ways() {
		var groups []string
		for _, g := range w.Groups {
			groups = append(groups, string(g))
		}
		what := w.What
		if w.Unsafe {
			what += " (unsafe: measured as a warning)"
		}
		t.row(w.Name, strings.Join(groups, ","), what)
	}
	return t.flush()
}

func readResult(path string) (*bench.Result, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return bench.ReadJSON(file)
}

// writeResult writes the documents that are asked for, and the table for people,
// unless the standard output has something else.
func writeResult(e *env, f *benchFlags, r *bench.Result) error {
	var errs []error
	for _, w := range []struct {
		path  string
		write func(io.Writer, *bench.Result) error
	}{
		{f.json, bench.WriteJSON},
		{f.goBench, bench.WriteGoBench},
	} {
		switch w.path {
		case "":
		case "-":
			errs = append(errs, w.write(e.stdout, r))
		default:
			errs = append(errs, writeFile(w.path, func(out io.Writer) error { return w.write(out, r) }))
		}
	}
	if f.document != "" {
		errs = append(errs, bench.Document(f.document, r))
	}
	if f.json != "-" && f.goBench != "-" {
		errs = append(errs, bench.WriteTable(e.stdout, r))
	}
	return errors.Join(errs...)
}

// writeFile writes a file, and reports also what fails when it is closed.
func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// newBenchProcesses are the commands that bench starts itself with.
func newBenchProcesses(e *env) []*cobra.Command {
	end := &cobra.Command{
		Use: "bench-end", Short: "Be one end of the connections of oneport bench", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return failed(bench.End(c.Context(), os.Stdin, e.stdout)) },
	}
	hold := &cobra.Command{
		Use: "bench-hold ADDRESS", Short: "Hold nodes for oneport bench", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return failed(bench.Hold(c.Context(), args[0], os.Stdin, e.stdout))
		},
	}
	sockmap := &cobra.Command{
		Use: "bench-sockmap LISTEN TARGET", Short: "Relay as textbooks do it, for oneport bench", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return failed(bench.SockmapRelay(c.Context(), args[0], args[1]))
		},
	}
	return []*cobra.Command{end, hold, sockmap}
}
