package bench

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestProcessorsAreRead(t *testing.T) {
	var w watch
	w.processors("cpu  100 20 30 400 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	if w.total != 6210*time.Millisecond || w.busy != 1630*time.Millisecond || w.interrupts != 130*time.Millisecond || w.steal != 80*time.Millisecond {
		t.Errorf("%+v", w)
	}
	for _, text := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n"} {
		var w watch
		if w.processors(text); w.total != 0 {
			t.Errorf("%q: %+v", text, w)
		}
	}
}

func TestDisturbance(t *testing.T) {
	for _, tt := range []struct {
		name  string
		s     spent
		took  time.Duration
		other float64
		want  bool
	}{
		{"quiet", spent{total: 20 * time.Second, busy: 10 * time.Second, ours: 9 * time.Second}, time.Second, 0.05, false},
		{"others", spent{total: 20 * time.Second, busy: 10 * time.Second, ours: 7 * time.Second}, time.Second, 0.15, true},
		{"steal", spent{total: 20 * time.Second, steal: 2 * time.Second}, time.Second, 0, true},
		{"too short to tell", spent{total: 20 * time.Second, busy: 10 * time.Second}, time.Millisecond, 0, false},
		{"ours are counted finer", spent{total: 20 * time.Second, busy: 5 * time.Second, ours: 6 * time.Second}, time.Second, 0, false},
	} {
		d, got := tt.s.disturbance(tt.took)
		if got != tt.want || d.Other < tt.other-0.001 || d.Other > tt.other+0.001 {
			t.Errorf("%s: %+v, %v", tt.name, d, got)
		}
	}
}

// What a child of the run does is the run's, while it lives and when it has ended.
func TestWorkOfChildrenIsOurs(t *testing.T) {
	before := newWatch()
	burn := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo; cat")
	in, err := burn.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := burn.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := burn.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	used := cpuTime(burn.Process.Pid)
	if used < time.Millisecond {
		t.Fatalf("a loop has taken %v", used)
	}
	if s := before.until(newWatch()); s.ours < used {
		t.Errorf("%v are ours; the child has used %v", s.ours, used)
	}
	in.Close()
	if err := burn.Wait(); err != nil {
		t.Fatal(err)
	}
	if s := before.until(newWatch()); s.ours < used-time.Millisecond {
		t.Errorf("%v are ours; the child that has ended had used %v", s.ours, used)
	}
}

func TestUsageOfProcesses(t *testing.T) {
	self := func() []int { return []int{os.Getpid()} }
	before := newUsage(self)
	for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
	}
	if got := before.since(newUsage(self)); got < time.Millisecond || got > 10*time.Second {
		t.Errorf("%v of processor time in 20 ms", got)
	}
	if got := newUsage(nil).since(newUsage(nil)); got != 0 {
		t.Errorf("no daemon has used %v", got)
	}
	a := usage{processes: map[int]time.Duration{1: 5, 2: 7}, ended: 10}
	b := usage{processes: map[int]time.Duration{1: 6, 3: 4}, ended: 19}
	if got := a.since(b); got != 1+4+(9-7) {
		t.Errorf("%d, want the rise of 1, all of 3, and of 2 what it did before its end", got)
	}
}

func TestVersionsNameGo(t *testing.T) {
	all := versions(t.Context(), "v9")
	if len(all) < 2 || all[0] != (Version{"oneport", "v9"}) || all[1].Name != "Go" || all[1].Version == "" {
		t.Errorf("%v", all)
	}
	if m := machine(); m.Kernel == "" || m.CPUs < 1 || m.Memory == 0 || m.MaxFiles == 0 {
		t.Errorf("%+v", m)
	}
}
