package bench

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long a child may take to end by itself.
const grace = 3 * time.Second

// child is a process of the world. It has a process group of its own, which ends
// with it.
type child struct {
	command *exec.Cmd
	words   tail
	done    chan struct{} // closed when the process is over
	err     error         // how it ended, once done is closed

	mu   sync.Mutex
	over bool // its number may be another's
}

// start starts a command. It is killed when the world is closed, or when this
// process dies. What it writes to its standard error is kept, its end, for errors.
//
// A command whose Stdout is a writer writes to that until done is closed; one with a
// StdoutPipe may lose what it wrote last.
func (w *world) start(command *exec.Cmd) (*child, error) {
	c := &child{command: command, done: make(chan struct{})}
	if command.Stderr == nil {
		command.Stderr = &c.words
	} else {
		command.Stderr = io.MultiWriter(command.Stderr, &c.words)
	}
	// A process that outlives it may hold its output open.
	command.WaitDelay = time.Second
	if command.SysProcAttr == nil {
		command.SysProcAttr = new(unix.SysProcAttr)
	}
	command.SysProcAttr.Pdeathsig = unix.SIGKILL
	// What is typed at a terminal is for this process, which ends its children.
	command.SysProcAttr.Setpgid = true

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errors.New("starting a process in a layout that is closed")
	}
	started := make(chan error)
	go c.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.name(), err)
	}
	w.children = append(w.children, c)
	return c, nil
}

// run starts the process, says so, and stays until its end: the signal of
// Pdeathsig is sent when the thread ends that started the process, and threads do
// end here (netns.OnOwnThread).
func (c *child) run(started chan<- error) {
	defer close(c.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.command.Start()
	started <- err
	if err != nil {
		return
	}
	// Until it is waited for, its number is that of its group and of no other.
	for unix.Waitid(unix.P_PID, c.pid(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	c.mu.Lock()
	c.over = true
	_ = unix.Kill(-c.pid(), unix.SIGKILL)
	c.mu.Unlock()
	c.err = c.command.Wait()
}

// name is the program, without the way into a namespace.
func (c *child) name() string {
	line := c.command.Args
	if i := slices.Index(line, "--"); i >= 0 && i+1 < len(line) {
		line = line[i+1:]
	}
	return filepath.Base(line[0])
}

// pid is the number of the process.
func (c *child) pid() int { return c.command.Process.Pid }

// stderr is what it wrote to its standard error, the last 4 KB.
func (c *child) stderr() string { return strings.TrimSpace(c.words.String()) }

// ended is how it ended, and its words. It is called when it has.
func (c *child) ended() error {
	how := "exit status 0"
	if c.err != nil {
		how = c.err.Error()
	}
	if words := c.stderr(); words != "" {
		how += ": " + words
	}
	return errors.New(how)
}

// signal sends a signal to the process and to all of its group.
func (c *child) signal(s unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = unix.Kill(-c.pid(), s) // it may just be ending
	}
}

// stop ends the process, by force if it has to be, and waits for its end.
func (c *child) stop() {
	c.signal(unix.SIGTERM)
	select {
	case <-c.done:
		return
	case <-time.After(grace):
	}
	c.signal(unix.SIGKILL)
	<-c.done
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

const maxTail = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b[max(0, len(b)-maxTail):]...)
	if n := len(t.end) - maxTail; n > 0 {
		t.end = append(t.end[:0], t.end[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end)
}
