package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"oneport/epmd"
)

// epmdUsage is what OTP's daemon prints; %d is the default port.
const epmdUsage = `usage: epmd [-d|-debug] [DbgExtra...] [-address List]
            [-port No] [-daemon] [-relaxed_command_check]
       epmd [-d|-debug] [-port No] [-names|-kill|-stop name]

See the Erlang epmd manual page for info about the usage.

Regular options
    -address List
        Let epmd listen only on the comma-separated list of IP
        addresses (and on the loopback interface).
    -port No
        Let epmd listen to another port than default %d
    -d
    -debug
        Enable debugging. This will give a log to
        the standard error stream. It will shorten
        the number of saved used node names to 5.

        If you give more than one debug flag you may
        get more debugging information.
    -daemon
        Start epmd detached (as a daemon)
    -relaxed_command_check
        Allow this instance of epmd to be killed with
        epmd -kill even if there are registered nodes.
        Also allows forced unregister (epmd -stop).
    -systemd
        Wait for socket from systemd. The option makes sense
        when started from .socket unit.

DbgExtra options
    -packet_timeout Seconds
        Set the number of seconds a connection can be
        inactive before epmd times out and closes the
        connection (default 60).

    -delay_accept Seconds
        To simulate a busy server you can insert a
        delay between epmd gets notified about that
        a new connection is requested and when the
        connections gets accepted.

    -delay_write Seconds
        Also a simulation of a busy server. Inserts
        a delay before a reply is sent.

Interactive options
    -names
        List names registered with the currently running epmd
    -kill
        Kill the currently running epmd
        (only allowed if -names show empty database or
        -relaxed_command_check was given when epmd was started).
    -stop Name
        Forcibly unregisters a name with epmd
        (only allowed if -relaxed_command_check was given when 
        epmd was started).
`

// epmdCommand is one run of `oneport epmd`, or of this program by the name
// epmd. Command line, environment, output and exit codes are those of OTP's
// daemon (epmd(1)); the texts of the debugging output are not.
type epmdCommand struct {
	stdout, stderr io.Writer
	environ        func(string) string

	args          []string
	port          uint16
	addresses     []string
	debug         int
	daemon        bool
	systemd       bool
	silent        bool // -started
	relaxed       bool
	packetTimeout time.Duration
	delayAccept   time.Duration
	delayWrite    time.Duration
}

// runEPMD does what the program does when it is called epmd, and returns its
// exit code. The daemon runs until it is killed on request or ctx ends.
func runEPMD(ctx context.Context, args []string, stdout, stderr io.Writer, environ func(string) string) int {
	c := &epmdCommand{
		stdout:        stdout,
		stderr:        stderr,
		environ:       environ,
		args:          args,
		port:          epmd.DefaultPort,
		addresses:     splitAddresses(environ("ERL_EPMD_ADDRESS")),
		relaxed:       environ("ERL_EPMD_RELAXED_COMMAND_CHECK") != "",
		packetTimeout: epmd.DefaultPacketTimeout,
	}
	if port := environ("ERL_EPMD_PORT"); port != "" {
		c.port = uint16(atoi(port))
	}
	action, ok := c.parse()
	if !ok {
		fmt.Fprintf(stderr, epmdUsage, epmd.DefaultPort)
		return 1
	}
	return action(ctx)
}

// parse reads the command line. It returns what is to be done, which for a
// question to a running daemon is known by the last argument, and ok false if
// only the usage can be told.
func (c *epmdCommand) parse() (action func(context.Context) int, ok bool) {
	for args := c.args; len(args) > 0; {
		flag := args[0]
		args = args[1:]
		last := len(args) == 0
		switch flag {
		case "-d", "-debug":
			c.debug++
		case "-daemon":
			c.daemon = true
		case "-relaxed_command_check":
			c.relaxed = true
		case "-systemd":
			c.systemd = true
		case "-names":
			return c.names, last
		case "-started":
			c.silent = true
			return c.names, last
		case "-dump":
			return c.dump, last
		case "-kill":
			return c.kill, last
		case "-stop":
			if len(args) != 1 {
				return nil, false
			}
			return func(ctx context.Context) int { return c.stop(ctx, args[0]) }, true
		default:
			if last || !c.setting(flag, args[0]) {
				return nil, false
			}
			args = args[1:]
		}
	}
	if c.daemon && c.environ(daemonReadyEnv) == "" {
		return c.detach, true
	}
	return c.serve, true
}

// setting applies a flag that has a value.
func (c *epmdCommand) setting(flag, value string) bool {
	number := atoi(value)
	seconds := time.Duration(number) * time.Second
	switch flag {
	case "-address":
		c.addresses = splitAddresses(value)
		return true
	case "-port":
		c.port = uint16(number)
	case "-packet_timeout":
		c.packetTimeout = seconds
	case "-delay_accept":
		c.delayAccept = seconds
	case "-delay_write":
		c.delayWrite = seconds
	default:
		return false
	}
	return number > 0
}

// atoi is that of C: it takes the number at the beginning, or 0.
func atoi(s string) int {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[0] == '-' || s[0] == '+')) {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

func splitAddresses(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// serve runs the daemon in this process.
func (c *epmdCommand) serve(ctx context.Context) int {
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	log, closeLog := c.logger()
	defer closeLog()
	log.Info("epmd running")

	parent := c.parent()
	defer parent.Close()
	raiseFileLimit()
	listeners, err := c.listen(ctx, log)
	var refused *addressError
	if errors.As(err, &refused) && errors.Is(err, unix.EADDRINUSE) {
		log.Infof("there is already a epmd running at port %d on ipaddr %s", c.port, refused.address)
		parent.report(nil)
		return 0
	}
	parent.report(err)
	if err != nil {
		log.Error(err)
		return 1
	}
	server := &epmd.Server{
		Registry:            new(epmd.Registry),
		Log:                 log,
		Port:                c.port,
		PacketTimeout:       c.packetTimeout,
		RelaxedCommandCheck: c.relaxed,
		DelayAccept:         c.delayAccept,
		DelayWrite:          c.delayWrite,
		Kill:                kill,
	}
	if c.systemd {
		if err := notifySystemd(c.environ("NOTIFY_SOCKET")); err != nil {
			log.WithError(err).Warn("notifying systemd")
		}
	}
	return serveAll(ctx, kill, server, listeners)
}

// serveAll serves on all listeners until ctx ends, or one of them fails. Its
// result is an exit code.
func serveAll(ctx context.Context, cancel context.CancelFunc, server *epmd.Server, listeners []net.Listener) int {
	var running sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		running.Go(func() {
			defer cancel()
			if err := server.Serve(ctx, l); err != nil {
				failed <- err
			}
		})
	}
	running.Wait()
	select {
	case err := <-failed:
		server.Log.Error(err)
		return 1
	default:
		return 0
	}
}

// listen opens the sockets of the daemon, or takes those of systemd.
func (c *epmdCommand) listen(ctx context.Context, log logrus.FieldLogger) ([]net.Listener, error) {
	if c.systemd {
		return systemdListeners(c.environ)
	}
	wanted, err := listenAddresses(c.addresses)
	if err != nil {
		return nil, err
	}
	var listeners []net.Listener
	for _, w := range wanted {
		l, err := listenTCP(ctx, netip.AddrPortFrom(w.address, c.port))
		switch {
		case err == nil:
			listeners = append(listeners, l)
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT):
			// A host without IPv6, for example.
		case w.optional && !errors.Is(err, unix.EADDRINUSE):
			log.Warn(&addressError{w.address, err})
		default:
			closeAll(listeners)
			return nil, &addressError{w.address, err}
		}
	}
	if len(listeners) == 0 {
		return nil, errors.New("unable to bind any address")
	}
	return listeners, nil
}

// listenAddress is one to listen on. Without an optional one the daemon runs
// all the same.
type listenAddress struct {
	address  netip.Addr
	optional bool
}

// listenAddresses returns all addresses if list is empty, else the loopback
// addresses and those listed. Where an unspecified address is listed, it
// stands for all of its family.
func listenAddresses(list []string) ([]listenAddress, error) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	if len(list) == 0 {
		return []listenAddress{{address: any4}, {address: any6}}, nil
	}
	wanted := []listenAddress{
		{netip.AddrFrom4([4]byte{127, 0, 0, 1}), true},
		{netip.IPv6Loopback(), true},
	}
	everywhere := make(map[bool]bool) // by whether IPv4
	seen := make(map[netip.Addr]bool)
	for _, text := range list {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("cannot parse IP address %q", text)
		}
		if address.IsUnspecified() {
			everywhere[address.Is4()] = true
		}
		if !address.IsLoopback() && !seen[address] {
			seen[address] = true
			wanted = append(wanted, listenAddress{address: address})
		}
	}
	kept := wanted[:0]
	for _, w := range wanted {
		if w.address.IsUnspecified() || !everywhere[w.address.Is4()] {
			kept = append(kept, w)
		}
	}
	return kept, nil
}

// listenTCP listens for one family only and without MPTCP, and leaves the
// accepted sockets as the kernel makes them.
func listenTCP(ctx context.Context, address netip.AddrPort) (net.Listener, error) {
	network := "tcp6"
	if address.Addr().Is4() {
		network = "tcp4"
	}
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	return config.Listen(ctx, network, address.String())
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// addressError says which address could not be listened on, in the words of
// OTP's daemon.
type addressError struct {
	address netip.Addr
	err     error
}

func (e *addressError) Error() string {
	// The errno alone: the address is said already.
	var errno syscall.Errno
	if errors.As(e.err, &errno) {
		return fmt.Sprintf("failed to bind on ipaddr %s: %v", e.address, errno)
	}
	return fmt.Sprintf("failed to bind on ipaddr %s: %v", e.address, e.err)
}

func (e *addressError) Unwrap() error { return e.err }

// raiseFileLimit allows as many open files as the kernel and our privileges
// do: each node costs one. A limit that cannot be raised stays as it is.
func raiseFileLimit() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	most := limit
	if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && n > limit.Max {
			most.Max = n
		}
	}
	most.Cur = most.Max
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &most) != nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}
