// Command init is the first process of a virtual machine of vmtest. It mounts
// what programs expect, loads modules, runs the programs of the plan one after
// the other, and ends the machine.
//
// It says how it goes on the second serial line; the first is the kernel's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"oneport/vmtest/plan"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is the first process of a virtual machine, and ends the machine that it runs in; use `make vmtest`")
		os.Exit(2)
	}
	status := byte(plan.ExitFault)
	if err := run(&status); err != nil {
		fmt.Println("init:", err) // on the kernel's console
		status = plan.ExitFault
	}
	fmt.Println("init: ending the machine:", end(status))
	// To return is the kernel's panic, which ends the machine as well.
}

// run follows the plan. What goes wrong with a program is in its event, and
// what goes wrong here in one as well, as far as the line can be opened.
func run(status *byte) error {
	if err := mount(); err != nil {
		return err
	}
	line, err := openLine("/dev/ttyS1")
	if err != nil {
		return err
	}
	r := &reporter{line: line}
	last := plan.Event{Done: true}
	followed := r.follow(status)
	if followed != nil {
		last = plan.Event{Fault: followed.Error()}
	}
	return errors.Join(followed, r.report(last), drain(line))
}

// drain waits until the last byte has left: it would be lost with the machine.
func drain(line *os.File) error {
	return control(line, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRK, 1) })
}

// control calls f with the descriptor of a file, again if a signal of Go's
// scheduler has interrupted it.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var called error
	err = raw.Control(func(fd uintptr) {
		for called = f(int(fd)); called == unix.EINTR; called = f(int(fd)) {
		}
	})
	return errors.Join(err, called)
}

// mount gives programs the file systems of a Debian host.
func mount() error {
	for _, m := range []struct{ fs, target, options string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/run", "mode=755"},
		{"bpf", "/sys/fs/bpf", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.target, m.fs, 0, m.options); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return os.Symlink("/proc/self/fd", "/dev/fd")
}

// openLine opens a serial line that passes bytes as they are.
func openLine(path string) (*os.File, error) {
	line, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the serial line: %w", err)
	}
	err = control(line, func(fd int) error {
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		mode.Oflag &^= unix.OPOST
		return unix.IoctlSetTermios(fd, unix.TCSETS, mode)
	})
	if err != nil {
		return nil, fmt.Errorf("setting the serial line: %w", err)
	}
	return line, nil
}

type reporter struct{ line io.Writer }

func (r *reporter) report(e plan.Event) error {
	b, err := plan.Encode(e)
	if err == nil {
		_, err = r.line.Write(b)
	}
	return err
}

func (r *reporter) follow(status *byte) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("asking for the kernel's release: %w", err)
	}
	if err := r.report(plan.Event{Release: unix.ByteSliceToString(uts.Release[:])}); err != nil {
		return err
	}
	b, err := os.ReadFile(plan.Path)
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	var p plan.Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	for _, module := range p.Modules {
		if err := load(module); err != nil {
			return err
		}
	}
	// As under systemd: a program may raise the first number to the second.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 524288}); err != nil {
		return fmt.Errorf("setting the limit of descriptors: %w", err)
	}
	if err := unix.Sethostname([]byte("vmtest")); err != nil {
		return fmt.Errorf("setting the hostname: %w", err)
	}
	if output, err := exec.Command("/bin/ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("setting lo up: %w: %s", err, output)
	}
	*status = plan.ExitPassed
	tcp, err := newAccount()
	if err != nil {
		return err
	}
	for _, program := range p.Programs {
		if err := r.report(plan.Event{Start: program.Name}); err != nil {
			return err
		}
		ended := r.run(program)
		if ended.Left, err = tcp.left(); err != nil {
			return err
		}
		if ended.Status != 0 || ended.Left != "" {
			*status = plan.ExitFailed
		}
		if err := r.report(plan.Event{End: &ended}); err != nil {
			return err
		}
	}
	return settle()
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return fmt.Errorf("loading a module: %w", err)
	}
	defer f.Close()
	err = control(f, func(fd int) error { return unix.FinitModule(fd, "", 0) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("loading module %s: %w", module, err)
	}
	return nil
}

// run runs a program to its end, and ends what it has left.
func (r *reporter) run(program plan.Program) plan.End {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), program.Timeout)
	defer cancel()
	command := exec.CommandContext(ctx, program.Path, program.Args...)
	command.Dir = program.Dir
	command.Env = []string{"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "ONEPORT_OWN_KERNEL=1"}
	command.Stdout, command.Stderr = r.line, r.line
	command.WaitDelay = time.Second // its children may hold the pipe
	err := command.Start()
	orphans := make(chan struct{})
	if err == nil {
		go func() {
			defer close(orphans)
			adopt(command.Process.Pid)
		}()
		err = command.Wait()
	} else {
		close(orphans)
	}
	if ctx.Err() != nil {
		fmt.Fprintf(r.line, "\ninit: killed after %v\n", program.Timeout)
	} else if command.ProcessState == nil || errors.Is(err, exec.ErrWaitDelay) {
		fmt.Fprintf(r.line, "\ninit: %v\n", err)
	}
	killAll()
	<-orphans
	return plan.End{Status: exitStatus(command.ProcessState), Took: time.Since(begin)}
}

func exitStatus(state *os.ProcessState) int {
	if state == nil {
		return 127 // it did not start, as a shell says it
	}
	if wait, ok := state.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return 128 + int(wait.Signal())
	}
	return state.ExitCode()
}

// adopt collects the processes whose parent has ended before them, as a first
// process does, until the program is over. That one is somebody else's to collect.
func adopt(program int) {
	for {
		var ended unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &ended, unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return // there is nobody left
		}
		pid := processOf(&ended)
		if pid == program {
			return
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// processOf returns si_pid, which lies behind three numbers and their padding.
func processOf(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}

// killAll ends every process but this one, to which all others fall.
func killAll() {
	_ = unix.Kill(-1, unix.SIGKILL) // that there is nobody is no error
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && err != unix.EINTR {
			return
		}
	}
}

// settle lets the kernel do what it has put off, so that it complains before
// the machine ends: sockets are destroyed after a grace period, and namespaces
// by a worker after that, for whose end one cannot wait.
func settle() error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL: membarrier(2) as a wait for a grace period
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return fmt.Errorf("waiting for a grace period: %w", errno)
	}
	time.Sleep(500 * time.Millisecond)
	return nil
}
