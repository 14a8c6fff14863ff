package bench

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A turn was disturbed if a larger share of the processors' time was lost.
const (
	maxSteal = 0.05
	maxOther = 0.10
)

// minWatch is how long a turn must take for its disturbance to be judged:
// /proc/stat counts in ticks of 10 ms.
const minWatch = 200 * time.Millisecond

// userHZ is the unit of /proc/stat, which is the same on every architecture that
// Go knows.
const userHZ = 100

// watch is the machine at one moment: what its processors have done since it was
// started.
type watch struct {
	total, busy   time.Duration // of all processors; steal and waiting are not busy
	steal         time.Duration
	interrupts    time.Duration // part of busy; the network's, mostly
	ours          map[int]time.Duration
	oursEnded     time.Duration // of children that have ended
	kernelThreads map[int]time.Duration
}

// newWatch looks at the machine. What cannot be read counts as nothing.
func newWatch() watch {
	var w watch
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		w.processors(string(text))
	}
	w.ours, w.kernelThreads = make(map[int]time.Duration), make(map[int]time.Duration)
	parents := parentsOf()
	self := os.Getpid()
	for pid := range parents {
		switch root := ancestor(parents, pid, self); root {
		case self:
			w.ours[pid] = cpuTime(pid)
			w.oursEnded += endedChildren(pid) // of socat's, say: a child for each connection
		case kthreadd:
			w.kernelThreads[pid] = cpuTime(pid)
		}
	}
	return w
}

// processors reads the first line of /proc/stat (proc_stat(5)): cpu user nice
// system idle iowait irq softirq steal; guests are part of user.
func (w *watch) processors(stat string) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return
	}
	var ticks [8]time.Duration
	for i := range ticks {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return
		}
		ticks[i] = time.Duration(n) * time.Second / userHZ
		w.total += ticks[i]
	}
	w.busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]
	w.interrupts = ticks[5] + ticks[6]
	w.steal = ticks[7]
}

// spent is what happened between two moments.
type spent struct {
	total, busy, steal time.Duration
	ours               time.Duration // processes of the run, kernel threads, interrupts
}

func (w watch) until(later watch) spent {
	s := spent{total: later.total - w.total, busy: later.busy - w.busy, steal: later.steal - w.steal}
	s.ours = later.interrupts - w.interrupts
	s.ours += risen(w.ours, later.ours) + risen(w.kernelThreads, later.kernelThreads)
	// A child that has ended brings all its time; what it had before is known.
	ended := later.oursEnded - w.oursEnded
	for pid, had := range w.ours {
		if _, lives := later.ours[pid]; !lives {
			ended -= had
		}
	}
	s.ours += max(ended, 0)
	return s
}

// disturbance tells whether something else had too much of the machine.
func (s spent) disturbance(took time.Duration) (Disturbance, bool) {
	if s.total <= 0 || took < minWatch {
		return Disturbance{}, false
	}
	d := Disturbance{
		Steal: s.steal.Seconds() / s.total.Seconds(),
		Other: max(s.busy-s.ours, 0).Seconds() / s.total.Seconds(),
	}
	return d, d.Steal > maxSteal || d.Other > maxOther
}

// risen is by how much the times of processes have risen, new ones included.
func risen(before, after map[int]time.Duration) time.Duration {
	sum := time.Duration(0)
	for pid, now := range after {
		sum += max(now-before[pid], 0)
	}
	return sum
}

// usage is the CPU time of a daemon's processes, and that of their children that
// have ended.
type usage struct {
	processes map[int]time.Duration
	ended     time.Duration
}

func newUsage(pids func() []int) usage {
	u := usage{processes: make(map[int]time.Duration)}
	if pids == nil {
		return u
	}
	for _, pid := range pids() {
		u.processes[pid] = cpuTime(pid)
		u.ended += endedChildren(pid)
	}
	return u
}

// since is what was used between u and a later usage.
func (u usage) since(later usage) time.Duration {
	ended := later.ended - u.ended
	if ended > 0 {
		for pid, had := range u.processes {
			if _, lives := later.processes[pid]; !lives {
				ended -= had
			}
		}
	}
	return risen(u.processes, later.processes) + max(ended, 0)
}

// cpuTime is what all threads of a process have used, exact to the nanosecond,
// or 0 if there is no such process. The clock's number is made of the process's
// as the kernel makes it (MAKE_PROCESS_CPUCLOCK in include/linux/posix-timers_types.h,
// which clock_getcpuclockid(3) does).
func cpuTime(pid int) time.Duration {
	const cpuClockSched = 2
	var t unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|cpuClockSched), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// kthreadd is the process that all kernel threads are children of.
const kthreadd = 2

// parentsOf returns the parent of every process.
func parentsOf() map[int]int {
	parents := make(map[int]int)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return parents
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields := statFields(pid); len(fields) > 1 {
			if parent, err := strconv.Atoi(fields[1]); err == nil {
				parents[pid] = parent
			}
		}
	}
	return parents
}

// ancestor returns which of self and kthreadd a process comes from, or 0.
func ancestor(parents map[int]int, pid, self int) int {
	for range len(parents) + 1 {
		if pid == self || pid == kthreadd {
			return pid
		}
		parent, ok := parents[pid]
		if !ok || parent == 0 {
			return 0
		}
		pid = parent
	}
	return 0
}

// endedChildren is the time of the children that a process has waited for
// (proc_pid_stat(5): cutime and cstime).
func endedChildren(pid int) time.Duration {
	fields := statFields(pid)
	if len(fields) < 15 {
		return 0
	}
	ticks := int64(0)
	for _, text := range fields[13:15] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ
}

// statFields returns the fields of /proc/PID/stat that follow the name, which may
// have spaces: state, ppid, ...
func statFields(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}
