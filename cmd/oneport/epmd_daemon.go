package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

const (
	// daemonReadyEnv tells a detached daemon, and none but it, on which
	// descriptor its parent waits.
	daemonReadyEnv = "ONEPORT_EPMD_READY_FD"

	// daemonReadyFD is where exec.Cmd puts the first of its ExtraFiles.
	daemonReadyFD = 3

	// detachTimeout is how long a daemon may take until it listens.
	detachTimeout = 10 * time.Second

	// The first byte of what a daemon tells its parent; after daemonFailed
	// comes the reason.
	daemonReady  = '+'
	daemonFailed = '-'

	// systemdFirstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
	systemdFirstFD = 3
)

// detach starts this program again as a daemon, since a Go program cannot
// fork. It returns 0 once the daemon listens, or found another one doing so:
// the caller, mostly erl, connects next.
func (c *epmdCommand) detach(ctx context.Context) int {
	if err := c.startDaemon(ctx); err != nil {
		fmt.Fprintf(c.stderr, "epmd: %v\n", err)
		return 1
	}
	return 0
}

func (c *epmdCommand) startDaemon(ctx context.Context) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if err := dropInherited(); err != nil {
		return fmt.Errorf("closing inherited descriptors: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// The name makes the daemon's command line that of OTP's, and makes main
	// call runEPMD however it was called itself.
	daemon := &exec.Cmd{
		Path:        executable,
		Args:        append([]string{"epmd"}, c.args...),
		Env:         append(os.Environ(), fmt.Sprintf("%s=%d", daemonReadyEnv, daemonReadyFD)),
		Dir:         "/",
		ExtraFiles:  []*os.File{w},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = daemon.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	defer daemon.Process.Release()
	interrupt := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer interrupt()
	if err := r.SetReadDeadline(time.Now().Add(detachTimeout)); err != nil {
		return err
	}
	report, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case err != nil:
		return fmt.Errorf("waiting for the daemon: %w", err)
	case len(report) == 0:
		return errors.New("the daemon ended before it listened")
	case report[0] != daemonReady:
		return errors.New(string(report[1:]))
	}
	return nil
}

// dropInherited keeps the descriptors from the daemon that we were started
// with: whoever waits for the end of a pipe of ours would wait for the
// daemon's.
func dropInherited() error {
	err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Linux 5.10 does not know the flag.
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			// An error means that it is closed: that of ReadDir is.
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
		}
	}
	return nil
}

// waitingParent is the process that waits for a daemon to listen, or nobody.
type waitingParent struct{ pipe *os.File }

// parent returns who waits for this process, and makes it a daemon if somebody
// does.
func (c *epmdCommand) parent() waitingParent {
	fd, err := strconv.Atoi(c.environ(daemonReadyEnv))
	if err != nil || !c.daemon {
		return waitingParent{}
	}
	os.Unsetenv(daemonReadyEnv)
	unix.CloseOnExec(fd)
	signal.Ignore(syscall.SIGHUP)
	return waitingParent{os.NewFile(uintptr(fd), "parent")}
}

// report tells that a daemon listens, this one or another, or why not.
func (p waitingParent) report(err error) {
	if p.pipe == nil {
		return
	}
	text := []byte{daemonReady}
	if err != nil {
		text = append([]byte{daemonFailed}, err.Error()...)
	}
	// A parent that is gone does not want to know.
	_, _ = p.pipe.Write(text)
	p.pipe.Close()
}

// Close lets the parent go on; without a report it knows that there is none.
func (p waitingParent) Close() error {
	if p.pipe == nil {
		return nil
	}
	return p.pipe.Close()
}

// logger returns the log of the daemon, which goes to standard error or, when
// it is detached, to syslog, and a function that closes it.
func (c *epmdCommand) logger() (*logrus.Logger, func() error) {
	log := logrus.New()
	log.SetLevel(min(logrus.WarnLevel+logrus.Level(c.debug), logrus.TraceLevel))
	log.SetOutput(c.stderr)
	log.SetFormatter(epmdFormatter{stamped: true})
	if !c.daemon {
		return log, func() error { return nil }
	}
	writer, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_ERR, "epmd")
	if err != nil {
		// No syslog runs: OTP's daemon is silent then, too.
		log.SetOutput(io.Discard)
		return log, func() error { return nil }
	}
	log.SetOutput(writer)
	log.SetFormatter(epmdFormatter{})
	return log, writer.Close
}

// epmdFormatter writes lines of the form that OTP's daemon writes.
type epmdFormatter struct {
	stamped bool // begin with the name and the time, which syslog adds itself
}

// Format implements logrus.Formatter.
func (f epmdFormatter) Format(entry *logrus.Entry) ([]byte, error) {
	var line []byte
	if f.stamped {
		line = fmt.Appendf(line, "epmd: %s: ", entry.Time.Format(time.ANSIC))
	}
	line = append(line, entry.Message...)
	for _, key := range slices.Sorted(maps.Keys(entry.Data)) {
		line = fmt.Appendf(line, " %s=%v", key, entry.Data[key])
	}
	return append(line, "\r\n"...), nil
}

// systemdListeners returns the sockets that systemd gave us (sd_listen_fds(3)).
func systemdListeners(environ func(string) string) ([]net.Listener, error) {
	n, err := strconv.Atoi(environ("LISTEN_FDS"))
	if err != nil || n <= 0 || environ("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, errors.New("systemd provides no sockets")
	}
	var listeners []net.Listener
	for fd := systemdFirstFD; fd < systemdFirstFD+n; fd++ {
		f := os.NewFile(uintptr(fd), "systemd")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			closeAll(listeners)
			return nil, fmt.Errorf("taking socket %d from systemd: %w", fd, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// notifySystemd says that the daemon is ready (sd_notify(3)). An empty socket
// means that nobody wants to know.
func notifySystemd(socket string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "READY=1\nSTATUS=Processing port mapping requests...\nMAINPID=%d", os.Getpid())
	return err
}
