package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"oneport/bench"
)

func TestEveryFlagOfBenchIsNamedByTheHelp(t *testing.T) {
	_, out, _ := oneport(t, "bench", "--help")
	for _, s := range []string{"--rounds N", "--only WAY,...", "--layout loopback|veth", "--group sockets|nodes|epmd|all", "--short", "--erlang DIR",
		"--json FILE", "--go-bench FILE", "--document DIR", "--from FILE", "--list", "Examples:", "benchstat"} {
		if !strings.Contains(out, s) {
			t.Errorf("no %s in\n%s", s, out)
		}
	}
	if _, out, _ := oneport(t, "--help"); strings.Contains(out, "bench-") || !strings.Contains(out, "bench       Measure on this machine") {
		t.Errorf("the processes of bench are not for people:\n%s", out)
	}
}

func TestWrongUseOfBench(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"bench more", 2, "unknown command"},
		{"bench --rounds 0", 2, "1 or more"},
		{"bench --only splice,teleport", 2, "oneport bench --list"},
		{"bench --layout moon", 2, "loopback or veth"},
		{"bench --group none", 2, "sockets, nodes, epmd or all"},
		{"bench --list --from x", 2, "[from list]"},
		{"bench --from " + filepath.Join(dir, "absent"), 1, "no such file"},
		{"bench --from " + text, 1, "oneport: "},
		{"bench-hold", 2, "accepts 1 arg"},
		{"bench-sockmap", 2, "accepts 2 arg"},
	} {
		code, _, errs := oneport(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(errs, tt.says) {
			t.Errorf("%s: %d %q, want %d with %q", tt.args, code, errs, tt.code, tt.says)
		}
	}
}

func TestTheWaysAreListed(t *testing.T) {
	code, out, errs := oneport(t, "bench", "--list")
	if code != 0 || errs != "" {
		t.Fatal(code, errs)
	}
	for _, name := range []string{"direct", "handover", "shortcut-direct", "splice", "copy", "haproxy", "nginx", "sk_skb", "epmd", "door"} {
		if !strings.Contains(out, "\n"+name+" ") {
			t.Errorf("no %s in\n%s", name, out)
		}
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "sk_skb ") && !strings.Contains(line, "unsafe") {
			t.Error("no warning of", line)
		}
	}
	_, out, _ = oneport(t, "__complete", "bench", "--only", "splice,h")
	if !strings.Contains(out, "splice,haproxy\t") {
		t.Errorf("completion of a list of ways: %s", out)
	}
}

// built builds the program: what bench starts is itself.
func built(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "oneport")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// left are what a run leaves behind in the folder of temporary files.
func left(t *testing.T, tmp string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func loadResult(t *testing.T, path string) *bench.Result {
	t.Helper()
	r, err := readResult(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A whole run, of two ways, and the documents that are made of it. What the figures
// are is nothing to assert.
func TestBenchShort(t *testing.T) {
	binary, dir, tmp := built(t), t.TempDir(), t.TempDir()
	result := filepath.Join(dir, "result.json")
	groups := []string{"--group=sockets"}
	_, err := exec.LookPath("epmd")
	if err == nil {
		groups = append(groups, "--group=epmd")
	}
	args := append([]string{"bench", "--short", "--rounds=1", "--layout=loopback", "--only=splice,oneport", "--json=" + result, "--document=" + dir}, groups...)
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	r := loadResult(t, result)
	if !r.Complete || !r.Settings.Short || r.Settings.Rounds != 1 {
		t.Errorf("complete %v, settings %+v", r.Complete, r.Settings)
	}
	seen := map[string]bool{}
	for _, s := range r.Series {
		seen[s.Way+" "+s.Work] = true
		if len(s.Rounds) != 1 {
			t.Errorf("%s %s has %d rounds", s.Way, s.Work, len(s.Rounds))
		}
	}
	want := []string{"direct bulk to node", "splice bulk to node", "splice bulk both ways", "direct round trip", "splice round trip", "splice set-up", "splice set-up beside others", "splice idle"}
	if len(groups) == 2 {
		want = append(want, "epmd PORT_PLEASE2", "oneport PORT_PLEASE2", "epmd ALIVE2", "oneport ALIVE2")
	}
	for _, s := range want {
		if !seen[s] {
			t.Errorf("no series of %s; absent: %v", s, r.Absent)
		}
	}
	if seen["copy bulk to node"] {
		t.Error("copy was measured; it was not asked for")
	}
	if !strings.Contains(out.String(), "splice") || !strings.Contains(errs.String(), "round 1/1 loopback sockets") {
		t.Errorf("printed %s\nsaid %s", &out, &errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "BENCHMARKS.md")); err != nil {
		t.Error(err)
	}
	if files := left(t, tmp); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
	code, lines, _ := oneport(t, "bench", "--from", result, "--go-bench", "-")
	if code != 0 || !strings.Contains(lines, "BenchmarkSockets/") {
		t.Errorf("%d: %s", code, lines)
	}
}

func TestBenchIsInterrupted(t *testing.T) {
	binary := built(t)
	for at, measured := range map[string]bool{"round 2/": true, "warming up": false} {
		t.Run(at, func(t *testing.T) {
			dir, tmp := t.TempDir(), t.TempDir()
			result := filepath.Join(dir, "result.json")
			cmd := exec.CommandContext(t.Context(), binary, "bench", "--short", "--rounds=500", "--layout=loopback", "--only=splice", "--json="+result, "--document="+dir)
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			errs, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			kill := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
			defer kill.Stop()
			var said []string
			for lines := bufio.NewScanner(errs); lines.Scan(); {
				said = append(said, lines.Text())
				if strings.HasPrefix(lines.Text(), at) {
					cmd.Process.Signal(syscall.SIGINT)
				}
			}
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Fatalf("exit code %d, said %q", code, said)
			}
			if files := left(t, tmp); len(files) > 0 {
				t.Errorf("left behind: %v", files)
			}
			if !measured {
				// What an earlier run has written stays.
				if files := left(t, dir); len(files) > 0 {
					t.Errorf("written: %v", files)
				}
				return
			}
			r := loadResult(t, result)
			if r.Complete || len(r.Series) == 0 || slices.ContainsFunc(r.Series, func(s bench.Series) bool { return len(s.Rounds) < 1 }) {
				t.Errorf("complete %v, %d series", r.Complete, len(r.Series))
			}
		})
	}
}
