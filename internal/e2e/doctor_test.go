package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oneport/internal/hosts"
)

// finding is one requirement as `oneport doctor --json` prints it.
type finding struct {
	Name, Found, Remedy string
	Met, Optional       bool
}

// doctor runs `oneport doctor` on a host, with pins in a directory and started by
// another command, and returns its exit status and what it found by name. The
// table that it prints for people must say the same.
func doctor(t *testing.T, h *hosts.Host, pins string, within ...string) (status int, found map[string]finding) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line := append(within, program, "doctor", "--pins", pins)
	var printed struct {
		OK           bool
		Requirements []finding
	}
	var errs bytes.Buffer
	command := run(ctx, h, append(slices.Clone(line), "--json"))
	command.Stderr = &errs
	output, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, err = exit.ExitCode(), nil
	}
	if err == nil {
		err = json.Unmarshal(output, &printed)
	}
	if err != nil || errs.Len() > 0 {
		t.Fatalf("%v: %s\n%s", err, &errs, output)
	}
	if printed.OK != (status == 0) {
		t.Errorf("exit status %d, and ok is %v", status, printed.OK)
	}
	table, err := run(ctx, h, line).Output()
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	found = make(map[string]finding)
	for _, f := range printed.Requirements {
		found[f.Name] = f
		if f.Met == (f.Remedy != "") {
			t.Errorf("a remedy is for what is not met: %+v", f)
		}
		if !strings.Contains(string(table), f.Found) || !strings.Contains(string(table), f.Remedy) {
			t.Errorf("%+v is not in the table:\n%s", f, table)
		}
	}
	return status, found
}

// missing are the names of what is not met and has to be.
func missing(found map[string]finding) (names []string) {
	for _, f := range found {
		if !f.Met && !f.Optional {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return names
}

// pinned returns what is on a bpffs of a host, beside the kernel's own files.
func pinned(t *testing.T, h *hosts.Host, fs string) string {
	t.Helper()
	output, err := h.Command(t.Context(), "find", fs, "-mindepth", "1", "-not", "-name", "*.debug").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

// With exactly the capabilities that docs/OPERATING.md names nothing is missing.
// Without one of them the doctor says which, and what to do. It leaves nothing,
// also beside a daemon whose pins are in the same place.
func TestDoctorNamesTheMissingCapability(t *testing.T) {
	beta := hosts.New(t, "beta")[0]
	flags := short(t, beta, "auto")
	pins := flags[3]
	all := []string{"bpf", "perfmon", "net_admin", "sys_ptrace"}
	holding := func(held []string) []string {
		set := "-all"
		for _, c := range held {
			set += ",+" + c
		}
		return []string{"setpriv", "--bounding-set=" + set, "--"}
	}
	status, found := doctor(t, beta, pins, holding(all)...)
	if names := missing(found); status != 0 || names != nil {
		t.Errorf("with all capabilities: exit status %d, missing %q", status, names)
	}
	if f := found["CAP_SYS_ADMIN"]; f.Met || !f.Optional {
		t.Errorf("%+v, want it to be optional and not met", f)
	}
	if f := found["trial"]; !strings.Contains(f.Found, "passed") {
		t.Errorf("%+v", f)
	}
	for i, capability := range all {
		t.Run(capability, func(t *testing.T) {
			name := "CAP_" + strings.ToUpper(capability)
			status, found := doctor(t, beta, pins, holding(slices.Delete(slices.Clone(all), i, i+1))...)
			want := []string{name, "trial"} // which is not made then
			if capability == "sys_ptrace" {
				want = want[:1] // the programs do not need it
			}
			if names := missing(found); status != 1 || !slices.Equal(names, want) {
				t.Errorf("exit status %d, missing %q, want %q", status, names, want)
			}
			if f := found[name]; !strings.Contains(f.Remedy, "AmbientCapabilities="+name) {
				t.Errorf("%+v", f)
			}
		})
	}
	if left := pinned(t, beta, filepath.Dir(pins)); left != "" {
		t.Errorf("it has left pins:\n%s", left)
	}

	d := serve(t, beta, flags...)
	before := pinned(t, beta, filepath.Dir(pins))
	if status, found := doctor(t, beta, pins); status != 0 {
		t.Errorf("beside a daemon: missing %q", missing(found))
	}
	if after := pinned(t, beta, filepath.Dir(pins)); after != before || before == "" {
		t.Errorf("pins of the daemon before:\n%s\nand after:\n%s", before, after)
	}
	if state := d.status(t).Shortcut; state != "on: auto" {
		t.Errorf("the daemon says %q", state)
	}
}

// What is no capability: no bpffs, and a low limit of open files, which is enough
// for fewer connections.
func TestDoctorNamesWhatIsMissing(t *testing.T) {
	beta := hosts.New(t, "beta")[0]
	pins := filepath.Join(beta.Dir, "nowhere", "oneport")
	status, found := doctor(t, beta, pins, "prlimit", "--nofile=1024")
	if names := missing(found); status != 1 || !slices.Equal(names, []string{"bpffs"}) {
		t.Errorf("exit status %d, missing %q", status, names)
	}
	if f := found["bpffs"]; f.Remedy != "mount -t bpf bpf "+filepath.Dir(pins) {
		t.Errorf("%+v", f)
	}
	if f := found["open files"]; f.Met || f.Found != "1024, good for 384 connections" {
		t.Errorf("%+v", f)
	}
	for _, name := range []string{"MPTCP", "socket diagnosis", "pidfd_getfd", "ptrace", "kernel", "BTF", "trial"} {
		if f, ok := found[name]; !ok || !f.Met {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
