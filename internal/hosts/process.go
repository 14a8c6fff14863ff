package hosts

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deadline bounds every wait that has no context of its own.
const deadline = 60 * time.Second

// poll is the time between two looks at a condition that is waited for.
const poll = 10 * time.Millisecond

// Process is a running command of a host.
type Process struct {
	command *exec.Cmd
	output  output
	done    chan struct{} // closed when the process is over
	err     error         // how it ended, once done is closed
}

// Start starts a command, one that Command has returned, keeps what it writes
// to its standard output and error, and kills it at the end of the test if it
// still runs then. It dies with the test process, too. The output of a failed
// test's processes is logged.
func (h *Host) Start(t testing.TB, command *exec.Cmd) *Process {
	t.Helper()
	p := &Process{command: command, done: make(chan struct{})}
	command.Stdout, command.Stderr = &p.output, &p.output
	// A child of the process that outlives it may hold its output open.
	command.WaitDelay = time.Second
	if command.SysProcAttr == nil {
		command.SysProcAttr = new(unix.SysProcAttr)
	}
	command.SysProcAttr.Pdeathsig = unix.SIGKILL
	started := make(chan error)
	go func() {
		defer close(p.done)
		// That signal is sent when the thread ends that started the process,
		// and threads do end here (see netns.OnOwnThread). So this one waits for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			p.err = command.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("host %s: %v", h.Name, err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("host %s, process %d, %s:\n%s", h.Name, p.Pid(), p.name(), p.Output())
		}
	})
	return p
}

// name is the command line, without the way into the host and into a node.
func (p *Process) name() string {
	line := strings.Join(p.command.Args, " ")
	if _, inner, ok := strings.Cut(line, " -- "); ok {
		line = inner
	}
	return strings.ReplaceAll(line, control, "...")
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Output is what the process has written so far.
func (p *Process) Output() string { return p.output.String() }

// Done is closed when the process is over.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the process. It does nothing if it is over.
func (p *Process) Signal(signal unix.Signal) {
	// The only error left is that of a process that is over.
	_ = p.command.Process.Signal(signal)
}

// Kill ends the process by SIGKILL and waits for its end.
func (p *Process) Kill() {
	p.Signal(unix.SIGKILL)
	<-p.done
}

// Wait waits for the end of the process and returns how it ended: nil for the
// exit code 0, an *exec.ExitError for others, or the error of ctx.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of %s: %w", p.name(), context.Cause(ctx))
	}
}

// WaitOutput waits until the process has written a text, and fails the test if
// it ends without that.
func (p *Process) WaitOutput(t testing.TB, text string) {
	t.Helper()
	waitFor(t, p, fmt.Sprintf("the output %q", text), func() bool { return strings.Contains(p.Output(), text) })
}

// waitFor waits for a condition that a process is to bring about.
func waitFor(t testing.TB, p *Process, what string, condition func() bool) {
	t.Helper()
	end := time.After(deadline)
	for !condition() {
		select {
		case <-p.done:
			// The condition may have come with the end.
			if condition() {
				return
			}
			t.Fatalf("%s ended (%v) before %s; it wrote:\n%s", p.name(), p.err, what, p.Output())
		case <-end:
			t.Fatalf("waiting for %s of %s: nothing after %v", what, p.name(), deadline)
		case <-time.After(poll):
		}
	}
}

// output collects what a process writes.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}
