package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// kernelResult is how the tests went on one kernel.
type kernelResult struct {
	kernel   kernel
	packages []packageResult
	took     time.Duration
	faults   []string // of the machine and of the kernel; the packages' are with them
	console  []byte
}

// packageResult is how the tests of one package went.
type packageResult struct {
	path    string
	passed  []string  // tests, without those inside of tests
	failed  int       // the like
	skipped []skipped // as the kernel is too old
	faults  []string  // why the package has not passed; empty if it has
	output  []byte
	took    time.Duration
}

// skipped is a test that was not run, and the sentence by which it said so.
type skipped struct{ test, reason string }

// ok tells whether everything has passed.
func (r kernelResult) ok() bool {
	for _, p := range r.packages {
		if len(p.faults) > 0 {
			return false
		}
	}
	return len(r.faults) == 0
}

// count sums up the packages' tests.
func (r kernelResult) count() (passed, failed, skips int) {
	for _, p := range r.packages {
		passed, failed, skips = passed+len(p.passed), failed+p.failed, skips+len(p.skipped)
	}
	return passed, failed, skips
}

// judge says what the run of a machine means.
func judge(ctx context.Context, k kernel, run machineRun, packages []testPackage, took time.Duration) (kernelResult, error) {
	result := kernelResult{kernel: k, took: took, console: run.console}
	if run.death != "" {
		result.faults = append(result.faults, "the machine "+run.death)
	}
	if run.release != "" && run.release != k.release {
		result.faults = append(result.faults, fmt.Sprintf("the machine runs %s, not %s", run.release, k.release))
	}
	for _, line := range complaints(run.console) {
		result.faults = append(result.faults, "the kernel says: "+line)
	}
	for _, p := range packages {
		r := packageResult{path: p.path, faults: []string{"was not run"}}
		for _, program := range run.programs {
			if program.name == p.path {
				var err error
				if r, err = judgePackage(ctx, k, program); err != nil {
					return result, err
				}
			}
		}
		result.packages = append(result.packages, r)
	}
	return result, nil
}

// testEvent is what `go tool test2json` makes of a test's output
// (https://pkg.go.dev/cmd/test2json).
type testEvent struct{ Action, Test, Output string }

// judgePackage reads what the tests of a package wrote.
func judgePackage(ctx context.Context, k kernel, program programRun) (packageResult, error) {
	r := packageResult{path: program.name}
	command := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", program.name)
	command.Stdin = bytes.NewReader(program.output)
	converted, err := command.Output()
	if err != nil {
		return r, fmt.Errorf("reading the output of %s: %w", program.name, err)
	}
	said := make(map[string]string) // test to output
	var text strings.Builder
	for decoder := json.NewDecoder(bytes.NewReader(converted)); ; {
		var event testEvent
		if err := decoder.Decode(&event); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return r, fmt.Errorf("reading the output of %s: %w", program.name, err)
		}
		text.WriteString(event.Output)
		said[event.Test] += event.Output
		if event.Test == "" {
			continue
		}
		top := !strings.Contains(event.Test, "/")
		switch {
		case event.Action == "skip":
			r.skip(k, event.Test, said[event.Test])
		case event.Action == "pass" && top:
			r.passed = append(r.passed, event.Test)
		case event.Action == "fail" && top:
			r.failed++
			r.faults = append(r.faults, event.Test+" failed")
		}
	}
	r.output = []byte(text.String())
	switch {
	case program.end == nil:
		r.faults = append(r.faults, "did not end")
	case program.end.Status != 0:
		r.faults = append(r.faults, "ended with status "+strconv.Itoa(program.end.Status))
	}
	if program.end != nil {
		r.took = program.end.Took
		if program.end.Left != "" {
			r.faults = append(r.faults, program.end.Left)
		}
	}
	return r, nil
}

var (
	// needsLinux is how a test says that the kernel is too old for it.
	needsLinux = regexp.MustCompile(`needs Linux (\d+)\.(\d+)[^\n]*`)
	// otherProcess is how a test says that it is none, but a program of another.
	otherProcess = regexp.MustCompile(`: run by Test\w+\n`)
)

// skip records a test that was not run. The machines have all that tests need,
// so the only good reason is a kernel older than the feature is documented to
// be; anything else would hide a regression.
func (r *packageResult) skip(k kernel, test, output string) {
	if otherProcess.MatchString(output) {
		return
	}
	needs := needsLinux.FindStringSubmatch(output)
	switch {
	case needs == nil:
		r.faults = append(r.faults, test+" was skipped, and not with the words `needs Linux X.Y`")
	case !older(k.release, needs[1], needs[2]):
		r.faults = append(r.faults, fmt.Sprintf("%s was skipped: %s; this is %s", test, needs[0], k.release))
	default:
		r.skipped = append(r.skipped, skipped{test, needs[0]})
	}
}

// older tells whether a release is before a version. What is no number is 0.
func older(release, major, minor string) bool {
	parts := strings.FieldsFunc(release, func(c rune) bool { return c < '0' || c > '9' })
	number := func(s string) int {
		n, _ := strconv.Atoi(s)
		return n
	}
	if len(parts) < 2 {
		return true
	}
	if number(parts[0]) != number(major) {
		return number(parts[0]) < number(major)
	}
	return number(parts[1]) < number(minor)
}
