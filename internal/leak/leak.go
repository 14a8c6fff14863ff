// Package leak fails a test run that leaves a descriptor or a goroutine behind.
//
// It compares what the process holds before and after, and names what is new:
// a descriptor by its number and target, a goroutine by its stack. It knows
// nothing of what is tested, and no list of exceptions grows in it: whatever
// the Go runtime opens lazily is made to exist before the first look.
package leak

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long descriptors and goroutines may take to go away after
// the last test: closing is often somebody else's next step.
const patience = 5 * time.Second

// interval is the time between two looks.
const interval = 10 * time.Millisecond

// Main runs the tests of m and ends the process with their exit code, or with
// 1 if they passed and left a descriptor or a goroutine behind. It is meant to
// be the whole of a package's TestMain:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
func Main(m *testing.M) {
	before := look()
	code := m.Run()
	if code == 0 && !settled(before, os.Stderr) {
		code = 1
	}
	os.Exit(code)
}

// Check does for one test, by its Cleanup, what Main does for a package. Call
// it first, so that its look comes after every other clean-up. It cannot tell
// tests apart that run at the same time, so it has no place in a parallel one.
func Check(t testing.TB) {
	t.Helper()
	before := look()
	t.Cleanup(func() {
		var report bytes.Buffer
		if !settled(before, &report) {
			t.Error(report.String())
		}
	})
}

// state is what a process holds at one moment.
type state struct {
	descriptors map[int]string    // number to link target
	goroutines  map[string]string // id to stack
}

// look reads the current state. The poller's own descriptors, which the
// runtime opens with the first pollable file, are open afterwards.
func look() state {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	return state{descriptors(), goroutines()}
}

// settled waits until nothing is left that before does not hold. When its
// patience ends first, it reports to w what is left, and returns false.
func settled(before state, w io.Writer) bool {
	// A collection would close what was dropped without Close, which is the
	// very leak looked for.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	deadline := time.Now().Add(patience)
	for {
		now := look()
		now.subtract(before)
		if len(now.descriptors) == 0 && len(now.goroutines) == 0 {
			return true
		}
		// The exception: package net keeps the pipes of its splices until then.
		if now.onlyPipes() {
			runtime.GC()
		}
		if time.Now().After(deadline) {
			now.report(w)
			return false
		}
		time.Sleep(interval)
	}
}

// subtract removes from s what before holds as well.
func (s state) subtract(before state) {
	for fd, target := range before.descriptors {
		if s.descriptors[fd] == target {
			delete(s.descriptors, fd)
		}
	}
	for id := range before.goroutines {
		delete(s.goroutines, id)
	}
}

// onlyPipes tells whether pipes are all that s holds.
func (s state) onlyPipes() bool {
	for _, target := range s.descriptors {
		if !strings.HasPrefix(target, "pipe:") {
			return false
		}
	}
	return len(s.goroutines) == 0
}

func (s state) report(w io.Writer) {
	for fd, target := range s.descriptors {
		fmt.Fprintf(w, "leak: descriptor %d: %s\n", fd, target)
	}
	for _, stack := range s.goroutines {
		fmt.Fprintf(w, "leak: %s\n\n", stack)
	}
}

// descriptors lists the open descriptors of the process.
func descriptors() map[int]string {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		panic(fmt.Sprintf("leak: reading %s: %v (is /proc mounted?)", dir, err))
	}
	open := make(map[int]string, len(entries))
	for _, entry := range entries {
		// The listing's own descriptor is among them, and closed by now.
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue
		}
		if fd, err := strconv.Atoi(entry.Name()); err == nil {
			open[fd] = target
		}
	}
	return open
}

// goroutines lists the stacks of all goroutines but those that belong to
// package testing and to the runtime.
func goroutines() map[string]string {
	stacks := make([]byte, 1<<16)
	for {
		n := runtime.Stack(stacks, true)
		if n < len(stacks) {
			stacks = stacks[:n]
			break
		}
		stacks = make([]byte, 2*len(stacks))
	}
	running := make(map[string]string)
	for i, stack := range strings.Split(strings.TrimSpace(string(stacks)), "\n\n") {
		// The first is the caller.
		if i == 0 || harnessOwned(stack) {
			continue
		}
		header, _, _ := strings.Cut(stack, " [")
		running[header] = stack
	}
	return running
}

// harnessOwned tells whether a goroutine belongs to package testing, to its
// fuzzer or to the signal delivery, which once started never ends.
func harnessOwned(stack string) bool {
	if strings.Contains(stack, "\nos/signal.loop(") {
		return true
	}
	_, creator, ok := strings.Cut(stack, "\ncreated by ")
	return ok && (strings.HasPrefix(creator, "testing.") || strings.HasPrefix(creator, "internal/fuzz."))
}
