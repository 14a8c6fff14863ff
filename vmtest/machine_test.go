package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"oneport/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// prepared is what all machines of these tests have in common.
type prepared struct {
	kernel  kernel
	modules []module
	init    string
	guest   string
}

// workshop builds it once; the kernel is that of `make vmtest`.
type workshop struct {
	once sync.Once
	dir  string
	prepared
}

func (w *workshop) prepare(t *testing.T) prepared {
	t.Helper()
	w.once.Do(func() {
		cache, err := defaultCache()
		if err != nil {
			t.Fatal(err)
		}
		chosen, err := choose("6.1")
		if err != nil {
			t.Fatal(err)
		}
		if w.kernel, err = (fetcher{cache: cache, log: t.Logf}).get(t.Context(), chosen[0]); err != nil {
			t.Fatal(err)
		}
		if w.modules, err = w.kernel.load(t.Context(), wanted()); err != nil {
			t.Fatal(err)
		}
		if w.init, err = buildInit(t.Context(), "..", w.dir); err != nil {
			t.Fatal(err)
		}
		guest := []testPackage{{path: "guest", dir: filepath.Join("testdata", "guest")}}
		if err := build(t.Context(), w.dir, guest); err != nil {
			t.Fatal(err)
		}
		w.guest = guest[0].binary
	})
	if w.guest == "" {
		t.Fatal("an earlier test says why there is no machine")
	}
	return w.prepared
}

// boot runs the guest's test once under each of the names.
func (p prepared) boot(t *testing.T, timeout time.Duration, names ...string) kernelResult {
	t.Helper()
	var packages []testPackage
	for _, name := range names {
		packages = append(packages, testPackage{path: name, binary: p.guest, dir: t.TempDir()})
	}
	initramfs, err := buildInitramfs(t.Context(), p.init, p.modules, packages, testOptions{timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	run, err := machine{kernel: p.kernel, accel: "tcg", initramfs: initramfs, timeout: timeout}.boot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	result, err := judge(t.Context(), p.kernel, run, packages, time.Since(begin))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestMachines boots some, one after the other, since they share what they are
// made of.
func TestMachines(t *testing.T) {
	w := workshop{dir: t.TempDir()}

	t.Run("what passes passes", func(t *testing.T) {
		result := w.prepare(t).boot(t, 2*time.Minute, "passes", "needs-future")
		if !result.ok() {
			t.Fatalf("%q, %+v\n%s", result.faults, result.packages, result.console)
		}
		if passed, failed, skips := result.count(); passed != 1 || failed != 0 || skips != 1 {
			t.Errorf("%d passed, %d failed, %d skipped", passed, failed, skips)
		}
		if reason := result.packages[1].skipped[0].reason; reason != "needs Linux 99.0: sockets that read minds" {
			t.Errorf("the reason of the skip is %q", reason)
		}
	})

	t.Run("every fault is told, and ends nothing but its package", func(t *testing.T) {
		result := w.prepare(t).boot(t, 2*time.Minute, "fails", "skips", "needs-past", "hangs", "warns", "passes")
		want := []string{
			"TestOne failed; ended with status 1",
			"TestOne was skipped, and not with the words `needs Linux X.Y`",
			"TestOne was skipped: needs Linux 2.6: epoll; this is " + result.kernel.release,
			"ended with status 2", // Go's own panic after its time-out
			"",
			"",
		}
		for i, p := range result.packages {
			if got := strings.Join(p.faults, "; "); got != want[i] {
				t.Errorf("%s: %q, want %q\n%s", p.path, got, want[i], p.output)
			}
		}
		if !bytes.Contains(result.packages[3].output, []byte("test timed out after 5s")) {
			t.Errorf("no word of the time-out in\n%s", result.packages[3].output)
		}
		if len(result.faults) != 1 || !strings.Contains(result.faults[0], "WARNING: CPU: 0") {
			t.Errorf("the kernel's warning: %q\n%s", result.faults, result.console)
		}
	})

	t.Run("what TCP holds of a package is told", func(t *testing.T) {
		result := w.prepare(t).boot(t, 2*time.Minute, "passes", "hoards")
		if got := strings.Join(result.packages[0].faults, "; "); got != "" {
			t.Errorf("of a package that holds nothing: %q", got)
		}
		got := strings.Join(result.packages[1].faults, "; ")
		var sockets, pages int
		if _, err := fmt.Sscanf(got, "TCP holds %d sockets and %d pages", &sockets, &pages); err != nil || sockets < 4 || pages < 1000 {
			t.Errorf("of one that leaves four sockets with megabytes: %q\n%s", got, result.packages[1].output)
		}
	})

	t.Run("a panic is shown", func(t *testing.T) {
		result := w.prepare(t).boot(t, 2*time.Minute, "passes", "panics", "fails")
		if result.ok() || len(result.faults) == 0 || !strings.HasPrefix(result.faults[0], "the machine died") {
			t.Errorf("%q", result.faults)
		}
		if !bytes.Contains(result.console, []byte("Kernel panic - not syncing")) {
			t.Errorf("no panic in\n%s", result.console)
		}
		for i, want := range []string{"", "did not end", "was not run"} {
			if got := strings.Join(result.packages[i].faults, "; "); got != want {
				t.Errorf("%s: %q, want %q", result.packages[i].path, got, want)
			}
		}
	})

	t.Run("a machine has its time", func(t *testing.T) {
		result := w.prepare(t).boot(t, 2*time.Second, "hangs")
		if len(result.faults) == 0 || result.faults[0] != "the machine did not end in time" {
			t.Errorf("%q", result.faults)
		}
	})
}
