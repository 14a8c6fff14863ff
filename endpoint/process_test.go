package endpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oneport/internal/hosts"
)

// A process that gets the number of one that has ended is not taken for it.
func TestAReusedProcessNumber(t *testing.T) {
	h, f := world(t), finder(t)
	beam := program(t, "beam.smp")
	a, peer, local, remote := pair(t, unix.AF_INET, unix.IPPROTO_TCP, ipv4())
	defer unix.Close(peer)
	nonblocking(t, a)
	old := hold(t, h, exec.Command(beam), a)
	s, err := f.End(t.Context(), local, remote)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	former, err := openProcess(old.Pid()) // as it was known
	if err != nil {
		t.Fatal(err)
	}
	defer former.close()
	old.Kill()

	for _, c := range []struct {
		program string
		want    error
	}{{beam, nil}, {program(t, "other"), ErrNotBEAM}} {
		a, peer, local, remote := pair(t, unix.AF_INET, unix.IPPROTO_TCP, ipv4())
		defer unix.Close(peer)
		nonblocking(t, a)
		want := cookie(t, a)
		p := holdAs(t, h, old.Pid(), c.program, a)
		if err := former.check(); !errors.Is(err, errNoBEAM) {
			t.Errorf("the former process is still one: %v", err)
		}
		if fd, err := former.duplicate(3); !errors.Is(err, unix.ESRCH) {
			t.Errorf("descriptor %d is taken of another process, error %v", fd, err)
		}
		s, err := f.End(t.Context(), local, remote)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, c.want) || err == nil && (s.PID != old.Pid() || s.Cookie != want) {
			t.Errorf("%+v, error %v, want error %v", s, err, c.want)
		}
		p.Kill()
		until(t, "the number is free", func() bool { return errors.Is(unix.Kill(old.Pid(), 0), unix.ESRCH) })
	}
}

// holdAs is hold in a process with this number. The shell that is returned, and
// the process with it, ends by Kill.
func holdAs(t *testing.T, h *hosts.Host, pid int, program string, descriptor int) *hosts.Process {
	t.Helper()
	defer unix.Close(descriptor)
	// The kernel gives out numbers in their order, to others as well.
	for range 500 {
		file := os.NewFile(uintptr(mustDup(t, descriptor)), "held")
		command := exec.Command("sh", "-c", `
			echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
			setpriv --pdeathsig KILL "$2" &
			exec 3>&-
			echo "[$!]"
			wait`, "sh", strconv.Itoa(pid), program)
		command.ExtraFiles = []*os.File{file}
		command.Env = append(os.Environ(), childVariable+"=hold")
		p := h.Start(t, command)
		file.Close()
		p.WaitOutput(t, "]")
		if strings.Contains(p.Output(), fmt.Sprintf("[%d]", pid)) {
			p.WaitOutput(t, "ready")
			return p
		}
		p.Kill()
	}
	t.Skipf("number %d was not to be had again", pid)
	return nil
}

func mustDup(t *testing.T, fd int) int {
	t.Helper()
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWhichProgramsAreBEAMs(t *testing.T) {
	for program, want := range map[string]bool{
		"/usr/lib/erlang/erts-13.1.5/bin/beam.smp":           true,
		"/app/erts-15.2/bin/beam.smp":                        true,
		"/app/releases/old/erts-14.0/bin/beam.smp (deleted)": true,
		"/usr/lib/erlang/erts-13.1.5/bin/beam.debug.smp":     true,
		"/usr/lib/erlang/erts-13.1.5/bin/beam.emu.smp":       true,
		"/usr/lib/erlang/erts-13.1.5/bin/erl_child_setup":    false,
		"/usr/lib/erlang/erts-13.1.5/bin/epmd":               false,
		"/home/joe/beam.smp/other":                           false,
		"/usr/bin/xbeam.smp":                                 false,
		"/usr/bin/beam.smp.sh":                               false,
		"":                                                   false,
	} {
		if got := isBEAM(program); got != want {
			t.Errorf("%q: %v", program, got)
		}
	}
}

// The numbers that are looked at first: those that were used last, and the lowest
// that were free. What is found is put in its place.
func TestLikelyDescriptors(t *testing.T) {
	var p process
	p.table.Store(&table{{0, 0}, {1, 0}, {3, 33}, {4, 44}, {7, 77}})
	free := []int{2, 5, 6, 8, 9, 10, 11, 12}
	if got := p.likely(); !slices.Equal(got, free) {
		t.Errorf("%d, want %d", got, free)
	}
	p.note(5, 55)
	p.note(7, 78)
	p.note(20, 200)
	p.note(5, 56)
	want := table{{0, 0}, {1, 0}, {3, 33}, {4, 44}, {5, 56}, {7, 78}, {20, 200}}
	if got := *p.table.Load(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := p.likely(), []int{5, 7, 20, 2, 6, 8, 9, 10, 11, 12, 13}; !slices.Equal(got, want) {
		t.Errorf("%d, want %d", got, want)
	}
	for n := 100; n < 100+recent+1; n++ {
		p.note(n, uint32(n))
	}
	got := p.likely()[:recent]
	slices.Sort(got)
	if want := []int{101, 102, 103, 104, 105, 106, 107, 108}; !slices.Equal(got, want) {
		t.Errorf("%d, want %d", got, want)
	}
}

// What a process's table held is remembered, and not believed: /proc/PID/fd and
// /proc/PID/fdinfo tell the same.
func TestSearchingAProcess(t *testing.T) {
	h := world(t)
	a, peer, _, _ := pair(t, unix.AF_INET, unix.IPPROTO_TCP, ipv4())
	defer unix.Close(peer)
	var status unix.Stat_t
	if err := unix.Fstat(a, &status); err != nil {
		t.Fatal(err)
	}
	inode := uint32(status.Ino)
	p, err := openProcess(hold(t, h, exec.Command(program(t, "beam.smp")), a).Pid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, ok := p.remembered(inode); ok {
		t.Error("remembered before it was seen")
	}
	if number, ok := p.guess(1); ok {
		t.Errorf("descriptor %d for no socket", number)
	}
	if number, ok := p.guess(inode); number != 3 || !ok {
		t.Errorf("guessed: descriptor %d, %v, want 3", number, ok)
	}
	if number, ok := p.remembered(inode); number != 3 || !ok {
		t.Errorf("remembered after a guess: descriptor %d, %v, want 3", number, ok)
	}
	p.table.Store(nil)
	for range 2 {
		if number, ok, err := p.search(t.Context(), inode); number != 3 || !ok || err != nil {
			t.Errorf("descriptor %d, %v, error %v, want 3", number, ok, err)
		}
		if number, ok := p.remembered(inode); number != 3 || !ok {
			t.Errorf("remembered: descriptor %d, %v, want 3", number, ok)
		}
	}
	if number, ok, err := p.search(t.Context(), 1); ok || err != nil {
		t.Errorf("descriptor %d for no socket, error %v", number, err)
	}
	for _, d := range *p.table.Load() {
		if (d.number == 3) != (d.inode == inode) {
			t.Errorf("descriptor %d is said to be socket %d", d.number, d.inode)
		}
	}

	t.Run("fdinfo", func(t *testing.T) {
		needInodes(t)
		dir, err := os.Open(procPath(p.pid, "fdinfo"))
		if err != nil {
			t.Fatal(err)
		}
		d := &descriptors{dir, false}
		defer d.close()
		if got := d.inode(3); got != inode {
			t.Errorf("fdinfo tells inode %d, want %d", got, inode)
		}
		if got := d.inode(1000); got != 0 {
			t.Errorf("fdinfo tells inode %d of no descriptor", got)
		}
	})
}

// needInodes skips a test that relies on /proc/PID/fdinfo alone.
func needInodes(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/fdinfo/0")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\nino:\t") {
		t.Skip("needs Linux 5.14: inodes in fdinfo, without which CAP_DAC_READ_SEARCH is needed too")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("socket:[4711]")
	f.Add("pos:\t0\nflags:\t02\nmnt_id:\t9\nino:\t4711\nscm_fds: 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		if inode := parseLink(text); inode != 0 && !strings.Contains(text, strconv.Itoa(int(inode))) {
			t.Errorf("link %q: inode %d", text, inode)
		}
		if inode := parseInfo(text); inode != 0 && !strings.Contains(text, strconv.Itoa(int(inode))) {
			t.Errorf("text %q: inode %d", text, inode)
		}
	})
}
