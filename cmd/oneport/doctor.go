package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"oneport/door"
	"oneport/endpoint"
	"oneport/loader"
)

// diagnosis is what `oneport doctor` prints.
type diagnosis struct {
	OK           bool          `json:"ok"` // nothing is missing but what is optional
	Requirements []requirement `json:"requirements"`
}

// requirement is one thing that the host, or who starts the daemon, has to
// provide.
type requirement struct {
	Name     string `json:"name"`
	Met      bool   `json:"met"`
	For      string `json:"for"`              // what it is needed for
	Optional bool   `json:"optional"`         // it works without, less well
	Found    string `json:"found"`            // what is there
	Remedy   string `json:"remedy,omitempty"` // if it is not met
}

// What requirements are for.
const (
	forShortcut = "shortcut"
	forAll      = "all connections"
)

func newDoctor(e *env) *cobra.Command {
	var asJSON bool
	var pins string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host lacks, and what to do about it",
		Long: `Say what this host lacks, and what to do about it.

It looks at the host as the daemon would if it were started in its place: as the
same user, with the same capabilities and limits. The daemon itself says in
` + "`oneport status`" + ` what it has found. Handover and splice need nothing.

To find out how the kernel behaves, it loads the programs of the shortcut and
tries them on connections of its own. Nothing of that stays.

The exit status is 0 if everything is there, and 1 if something is missing that
is not optional.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !filepath.IsAbs(pins) {
				return fmt.Errorf("--pins %q: expected an absolute path on a bpffs, as in %s", pins, loader.Pins)
			}
			d := diagnose(pins)
			if err := printDiagnosis(e, d, asJSON); err != nil {
				return err
			}
			if !d.OK {
				return exitCode(exitFailed)
			}
			return nil
		},
	}
	c.Flags().StringVar(&pins, "pins", loader.Pins, "`DIR` on a bpffs, as it is given to serve")
	jsonFlag(c, &asJSON)
	return c
}

func printDiagnosis(e *env, d diagnosis, asJSON bool) error {
	if asJSON {
		return printJSON(e, d)
	}
	t := newTable(e, "REQUIREMENT", "MET", "FOR", "FOUND", "REMEDY")
	for _, r := range d.Requirements {
		met := "yes"
		switch {
		case !r.Met && r.Optional:
			met = "no (optional)"
		case !r.Met:
			met = "no"
		}
		t.row(r.Name, met, r.For, r.Found, dash(r.Remedy))
	}
	return t.flush()
}

// diagnose looks at every requirement. The last one is how the kernel behaves.
func diagnose(pins string) diagnosis {
	var d diagnosis
	d.add(openFiles())
	d.add(plainTCP())
	for _, r := range endpoint.Requirements() {
		d.add(requirement{
			Name: r.Name, Met: r.Met, For: forShortcut, Found: r.Detail, Remedy: r.Remedy,
			// The nodes of the daemon's own namespace are found without.
			Optional: r.Name == "CAP_SYS_ADMIN",
		})
	}
	missing, mounted := "", true
	for _, r := range loader.Requirements(pins) {
		d.add(requirement{Name: r.Name, Met: r.Met, For: forShortcut, Optional: r.Optional, Found: r.Detail, Remedy: r.Remedy})
		switch {
		case r.Met || r.Optional:
		case r.Name == "bpffs":
			mounted = false // which the trial does not need
		case missing == "":
			missing = r.Name
		}
	}
	r := requirement{Name: "trial", For: forShortcut}
	if missing != "" {
		r.Found, r.Remedy = "not made: "+missing+" is missing", "see "+missing
	} else {
		r.Met, r.Found, r.Remedy = behaves(pins, mounted)
	}
	d.add(r)
	d.OK = true
	for _, r := range d.Requirements {
		d.OK = d.OK && (r.Met || r.Optional)
	}
	return d
}

func (d *diagnosis) add(r requirement) {
	if r.Met {
		r.Remedy = ""
	}
	d.Requirements = append(d.Requirements, r)
}

// openFiles compares the limit of open files with what the default number of
// connections takes when all of them are relayed.
func openFiles() requirement {
	const want = 2*door.DefaultMaxConns + spareFiles
	r := requirement{Name: "open files", For: forAll, Optional: true, Remedy: fmt.Sprintf("LimitNOFILE=%d in the service, or ulimit -Hn %[1]d", want)}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		r.Found = err.Error()
		return r
	}
	// The daemon raises its own limit to the highest that it may.
	r.Met, r.Found = limit.Max >= want, fmt.Sprintf("%d, good for %d connections", limit.Max, maxConnections(limit.Max))
	if limit.Max == unix.RLIM_INFINITY {
		r.Found = "unlimited"
	}
	return r
}

// plainTCP tells whether who asks for TCP gets it. A host can turn it into MPTCP
// behind the back of its programs, and the kernel's socket maps take none of that.
func plainTCP() requirement {
	r := requirement{Name: "MPTCP", For: forShortcut, Remedy: "do not start daemon or nodes by mptcpize, and detach BPF programs from update_socket_protocol"}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.Found = err.Error()
		return r
	}
	defer unix.Close(fd)
	switch protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); {
	case err != nil:
		r.Found = err.Error()
	case protocol != unix.IPPROTO_TCP:
		r.Found = "sockets of TCP are made MPTCP"
	default:
		r.Met, r.Found = true, "not used: sockets of TCP are TCP"
	}
	return r
}

// behaves loads the programs, has them tried, and pins them, in a place of its own
// beside pins if there is a bpffs. All of it is gone when it returns; a signal
// that would end the program waits for that.
func behaves(pins string, mounted bool) (met bool, found, remedy string) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Reset(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	o := loader.Options{}
	if mounted {
		// No dots: a bpffs takes none.
		o.Pins = filepath.Join(filepath.Dir(pins), "oneport-doctor-"+rand.Text())
	}
	l, err := loader.Load(o)
	if err == nil {
		err = l.Close()
		if o.Pins != "" {
			err = errors.Join(err, loader.Unpin(o.Pins))
		}
	}
	if err == nil {
		return true, "passed: order, bound, counted memory, end", ""
	}
	remedy = "see what was found"
	if unsupported := (*loader.UnsupportedError)(nil); errors.As(err, &unsupported) {
		found = unsupported.What
		if unsupported.Err != nil {
			found += ": " + unsupported.Err.Error()
		}
		if unsupported.Remedy != "" {
			remedy = unsupported.Remedy
		}
		return false, found, remedy
	}
	return false, err.Error(), remedy
}
