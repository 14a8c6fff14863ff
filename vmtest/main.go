// Command vmtest runs the project's tests on other kernels: it boots each in
// QEMU with an initramfs made of the packages' test programs, and says how they
// went and what the kernel said.
//
// It knows nothing of what the tests test. The tests' words count: one that is
// skipped has to say `needs Linux X.Y`, and that has to be true.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	passed, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(2)
	case !passed:
		os.Exit(1)
	}
}

// runner runs tests on kernels.
type runner struct {
	options testOptions
	fetch   fetcher
	verbose bool
	out     io.Writer
	accel   string // found with the first kernel
}

// run is the command. It returns whether all tests passed on all kernels.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (passed bool, err error) {
	flags := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var names []string
	for _, s := range allSeries() {
		names = append(names, s.name)
	}
	kernels := flags.String("kernels", "6.1,6.12", "`series` of kernels, of "+strings.Join(names, ", ")+"; or all")
	table := flags.String("table", "", "write the table of the results to this `file`")
	r := runner{out: stdout}
	flags.StringVar(&r.options.run, "run", "", "run the tests that match this `regexp` only")
	flags.DurationVar(&r.options.timeout, "timeout", 4*time.Minute, "of the tests of one package on one kernel")
	flags.BoolVar(&r.verbose, "v", false, "print the tests' output, and the kernel's while it runs")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	chosen, err := choose(*kernels)
	if err != nil {
		return false, err
	}
	patterns := flags.Args()
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	dir, err := os.MkdirTemp("", "oneport-vmtest-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	packages, err := listPackages(ctx, ".", patterns)
	if err != nil {
		return false, err
	}
	if err := build(ctx, dir, packages); err != nil {
		return false, err
	}
	init, err := buildInit(ctx, ".", dir)
	if err != nil {
		return false, err
	}
	if r.fetch.cache, err = defaultCache(); err != nil {
		return false, err
	}
	r.fetch.log = func(format string, args ...any) { fmt.Fprintf(stdout, format+"\n", args...) }
	var results []kernelResult
	passed = true
	for _, s := range chosen {
		result, err := r.onKernel(ctx, s, init, packages)
		if err != nil {
			return false, err
		}
		r.print(result)
		results = append(results, result)
		passed = passed && result.ok()
	}
	if *table != "" {
		var text bytes.Buffer
		if err := writeTable(&text, results); err != nil {
			return false, err
		}
		if err := os.WriteFile(*table, text.Bytes(), 0o644); err != nil {
			return false, fmt.Errorf("writing the table: %w", err)
		}
	}
	return passed, nil
}

// choose returns the series with the given names, in the order of allSeries.
func choose(names string) ([]series, error) {
	if names == "all" {
		return allSeries(), nil
	}
	asked := make(map[string]bool)
	for name := range strings.SplitSeq(names, ",") {
		asked[name] = true
	}
	var chosen []series
	for _, s := range allSeries() {
		if asked[s.name] {
			chosen = append(chosen, s)
			delete(asked, s.name)
		}
	}
	for name := range asked {
		return nil, fmt.Errorf("kernel series %q is not known; see -help", name)
	}
	return chosen, nil
}

// onKernel boots one kernel and runs the packages' tests on it.
func (r *runner) onKernel(ctx context.Context, s series, init string, packages []testPackage) (kernelResult, error) {
	k, err := r.fetch.get(ctx, s)
	if err != nil {
		return kernelResult{}, err
	}
	modules, err := k.load(ctx, wanted())
	if err != nil {
		return kernelResult{}, err
	}
	if r.accel == "" {
		empty, err := buildInitramfs(ctx, init, modules, nil, r.options)
		if err != nil {
			return kernelResult{}, err
		}
		var reason string
		if r.accel, reason, err = accelerator(ctx, k, empty); err != nil {
			return kernelResult{}, err
		}
		if reason != "" {
			fmt.Fprintf(r.out, "QEMU runs without KVM: %s\n", reason)
		}
	}
	initramfs, err := buildInitramfs(ctx, init, modules, packages, r.options)
	if err != nil {
		return kernelResult{}, err
	}
	fmt.Fprintf(r.out, "Linux %s, package version %s, %s\n", k.release, k.version, r.accel)
	m := machine{
		kernel: k, accel: r.accel, initramfs: initramfs,
		timeout: bootTime + time.Duration(len(packages))*(r.options.timeout+grace),
	}
	if r.verbose {
		m.console = r.out
	}
	begin := time.Now()
	ran, err := m.boot(ctx)
	if err != nil {
		return kernelResult{}, err
	}
	if ctx.Err() != nil {
		return kernelResult{}, ctx.Err()
	}
	return judge(ctx, k, ran, packages, time.Since(begin))
}

// print says how the tests went on a kernel, and all about what did not pass.
func (r *runner) print(result kernelResult) {
	for _, p := range result.packages {
		word := "ok"
		if len(p.faults) > 0 {
			word = "FAIL"
		}
		fmt.Fprintf(r.out, "  %-4s %-24s %3d passed", word, p.path, len(p.passed))
		if len(p.skipped) > 0 {
			fmt.Fprintf(r.out, ", %d skipped", len(p.skipped))
		}
		fmt.Fprintf(r.out, "  %.1fs\n", p.took.Seconds())
		if r.verbose || len(p.faults) > 0 {
			fmt.Fprintf(r.out, "%s", p.output)
		}
		for _, fault := range p.faults {
			fmt.Fprintf(r.out, "  FAIL %s: %s\n", p.path, fault)
		}
	}
	if len(result.faults) > 0 && !r.verbose {
		fmt.Fprintf(r.out, "the kernel's console:\n%s\n", result.console)
	}
	for _, fault := range result.faults {
		fmt.Fprintf(r.out, "  FAIL %s\n", fault)
	}
	passed, failed, skips := result.count()
	fmt.Fprintf(r.out, "Linux %s: %d passed, %d failed, %d skipped, in %.0fs\n", result.kernel.release, passed, failed, skips, result.took.Seconds())
}
