package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"oneport/vmtest/plan"
)

const (
	memory     = "1536" // MiB, of which the initramfs takes some 100 twice at the start
	processors = "2"
	bootTime   = time.Minute // from QEMU's start to the first event, on a busy machine
	probeTime  = 10 * time.Second
)

// machine is a virtual machine before its start.
type machine struct {
	kernel    kernel
	accel     string // "kvm" or "tcg"
	initramfs []byte
	timeout   time.Duration // of all
	console   io.Writer     // gets a copy of the kernel's console, if not nil
	onEvent   func(plan.Event)
}

// programRun is what a program did in a machine.
type programRun struct {
	name   string
	output []byte
	end    *plan.End // nil if the machine died before
}

// machineRun is what a machine did.
type machineRun struct {
	release  string
	programs []programRun
	console  []byte // what the kernel wrote, without control sequences
	death    string // why the machine did not come to its end; empty if it did
}

// boot runs the machine to its end. Its error is about QEMU; what happened
// inside is in the result.
func (m machine) boot(ctx context.Context) (run machineRun, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "oneport-vmtest-")
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	initrd := filepath.Join(dir, "initramfs")
	if err := os.WriteFile(initrd, m.initramfs, 0o600); err != nil {
		return run, fmt.Errorf("writing the initramfs: %w", err)
	}
	console, consoleEnd, err := os.Pipe()
	if err != nil {
		return run, err
	}
	defer console.Close()
	events, eventsEnd, err := os.Pipe()
	if err != nil {
		return run, errors.Join(err, consoleEnd.Close())
	}
	defer events.Close()
	command := exec.CommandContext(ctx, "qemu-system-x86_64", m.arguments(initrd)...)
	command.ExtraFiles = []*os.File{consoleEnd, eventsEnd} // 3 and 4
	var complaint bytes.Buffer
	command.Stderr = &complaint
	// QEMU ends with the thread that started it, which stays with this function.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = command.Start()
	if err = errors.Join(err, consoleEnd.Close(), eventsEnd.Close()); err != nil {
		return run, fmt.Errorf("starting QEMU: %w; `make deps` installs it", err)
	}
	var text bytes.Buffer
	var readers sync.WaitGroup
	readers.Go(func() {
		sink := io.Writer(&text)
		if m.console != nil {
			sink = io.MultiWriter(&text, m.console)
		}
		_, _ = io.Copy(sink, console) // QEMU's end is the pipe's
	})
	var followed error
	var last plan.Event
	readers.Go(func() { last, followed = m.follow(events, &run) })
	ended := command.Wait()
	readers.Wait()
	run.console = plain(text.Bytes())
	if run.release == "" && complaint.Len() > 0 {
		return run, fmt.Errorf("QEMU: %w: %s", ended, bytes.TrimSpace(complaint.Bytes()))
	}
	run.death = death(ctx, command.ProcessState.ExitCode(), last, followed)
	return run, nil
}

// death says why a machine has not come to its end, or nothing if it has. The
// exit code and the events both tell, and have to agree.
func death(ctx context.Context, code int, last plan.Event, followed error) string {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "did not end in time"
	case ctx.Err() != nil:
		return "was stopped"
	case last.Fault != "":
		return "could not follow the plan: " + last.Fault
	case code != plan.ExitPassed<<1|1 && code != plan.ExitFailed<<1|1:
		return "died: QEMU's exit code is " + strconv.Itoa(code)
	case followed != nil:
		return "said what is not understood: " + followed.Error()
	case !last.Done:
		return "ended before its last event"
	}
	return ""
}

func (m machine) arguments(initrd string) []string {
	accel, processor := m.accel, "max"
	// Warnings and worse come to the console: all that is looked for there.
	parameters := "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off random.trust_cpu=on"
	if accel == "tcg" {
		accel = "tcg,thread=multi"
		// QEMU 7.2 leaves garbage in the flags after CMPXCHG16B, which the
		// kernel's allocator uses where it is there, and dies of at random.
		processor = "max,-cx16"
		// Without it kmalloc_nolock of newer kernels (mm/slub.c), which makes
		// all socket storage in 7.2, works from checked caches only.
		parameters += " slub_debug=F,kmalloc-*"
	}
	return []string{
		"-accel", accel, "-cpu", processor, "-machine", "q35", "-m", memory, "-smp", processors,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-chardev", "file,id=console,path=/proc/self/fd/3", "-serial", "chardev:console",
		"-chardev", "file,id=events,path=/proc/self/fd/4", "-serial", "chardev:events",
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", plan.ExitPort),
		"-kernel", m.kernel.image, "-initrd", initrd,
		"-append", parameters,
	}
}

// follow reads the events' line to its end, and returns the last event.
func (m machine) follow(line io.Reader, run *machineRun) (last plan.Event, err error) {
	reader := bufio.NewReader(line)
	for {
		text, readErr := reader.ReadBytes('\n')
		output, event, decodeErr := plan.Decode(text)
		if n := len(run.programs); n > 0 {
			run.programs[n-1].output = append(run.programs[n-1].output, output...)
		}
		err = errors.Join(err, decodeErr)
		if event != nil {
			last = *event
			switch n := len(run.programs); {
			case event.Release != "":
				run.release = event.Release
			case event.Start != "":
				run.programs = append(run.programs, programRun{name: event.Start})
			case event.End != nil && n > 0:
				run.programs[n-1].end = event.End
			}
			if m.onEvent != nil {
				m.onEvent(*event)
			}
		}
		if readErr != nil {
			if readErr != io.EOF {
				err = errors.Join(err, readErr)
			}
			return last, err
		}
	}
}

// accelerator returns "kvm" if a machine comes to its end with it, else "tcg"
// and why. That /dev/kvm is there says little: it may be a nested one in which
// no Debian kernel starts.
func accelerator(ctx context.Context, k kernel, empty []byte) (accel, reason string, err error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", err.Error(), nil
	}
	if err := f.Close(); err != nil {
		return "", "", err
	}
	run, err := machine{kernel: k, accel: "kvm", initramfs: empty, timeout: probeTime}.boot(ctx)
	switch {
	case ctx.Err() != nil:
		return "", "", ctx.Err()
	case err != nil:
		first, _, _ := strings.Cut(err.Error(), "\n")
		return "tcg", first, nil
	case run.death != "":
		return "tcg", "with KVM a machine " + run.death, nil
	}
	return "kvm", "", nil
}
