package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// testPackage is a package whose tests run in machines.
type testPackage struct {
	path   string // its import path
	dir    string // its sources
	skip   string // tests that cannot run there, as go test's -skip has it
	erlang bool   // whether its tests run Erlang nodes
	binary string
}

// elsewhere are the packages, with all below them, whose tests do not run in
// machines. Any other package of the module does as soon as it has tests.
func elsewhere() map[string]string {
	return map[string]string{
		"oneport/bench":        "measures",
		"oneport/cmd":          "builds programs, and compares with OTP's",
		"oneport/internal/e2e": "runs Erlang nodes",
		"oneport/interop":      "runs Erlang nodes",
		"oneport/vmtest":       "is the runner itself",
	}
}

// needSystem are single tests that run Erlang nodes or a system's programs, in
// packages that run.
func needSystem() map[string]string {
	return map[string]string{
		"oneport/internal/hosts": "Node|EPMD|Root|TestNothingIsLeft|TestKilledTestLeavesNothing",
	}
}

// withErlang are the packages that run whose tests start Erlang nodes.
func withErlang() []string { return []string{"oneport/endpoint", "oneport/shortcut"} }

// listPackages returns the packages with tests among those that patterns name.
func listPackages(ctx context.Context, root string, patterns []string) ([]testPackage, error) {
	const format = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}"
	list, err := output(ctx, root, "go", append([]string{"list", "-f", format}, patterns...)...)
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	var packages []testPackage
	for line := range strings.Lines(string(list)) {
		if path, dir, found := strings.Cut(strings.TrimSpace(line), "\t"); found && !isElsewhere(path) {
			packages = append(packages, testPackage{
				path: path, dir: dir, skip: needSystem()[path], erlang: slices.Contains(withErlang(), path),
			})
		}
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("no package with tests for machines in %s", strings.Join(patterns, " "))
	}
	return packages, nil
}

func isElsewhere(path string) bool {
	for other := range elsewhere() {
		if path == other || strings.HasPrefix(path, other+"/") {
			return true
		}
	}
	return false
}

// build makes each package's tests one static program in dir.
func build(ctx context.Context, dir string, packages []testPackage) error {
	for i, p := range packages {
		packages[i].binary = filepath.Join(dir, strings.ReplaceAll(p.path, "/", "-")+".test")
		if _, err := output(ctx, p.dir, "env", "CGO_ENABLED=0", "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", packages[i].binary, "."); err != nil {
			return fmt.Errorf("building the tests of %s: %w", p.path, err)
		}
	}
	return nil
}

// buildInit makes the first process of machines.
func buildInit(ctx context.Context, root, dir string) (string, error) {
	program := filepath.Join(dir, "init")
	if _, err := output(ctx, root, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./vmtest/init"); err != nil {
		return "", fmt.Errorf("building the machines' init: %w", err)
	}
	return program, nil
}

// testOptions say how tests are run in a machine.
type testOptions struct {
	run     string        // go test's -run
	timeout time.Duration // of one package
}

// grace is what a test program that has run out of time has to say so, before
// it is killed.
const grace = 15 * time.Second

// args are the arguments of a package's tests.
func (o testOptions) args(p testPackage) []string {
	args := []string{"-test.v=test2json", "-test.short", "-test.paniconexit0", "-test.timeout=" + o.timeout.String()}
	if o.run != "" {
		args = append(args, "-test.run="+o.run)
	}
	if p.skip != "" {
		args = append(args, "-test.skip="+p.skip)
	}
	return args
}
