// Package hosts makes hosts out of Linux namespaces, for end-to-end tests.
//
// A host has its own network, behind a firewall that lets one TCP port in, its
// own hostname and its own idea of everybody's names. It runs commands and
// Erlang nodes, and a test can dial and listen inside it. The package knows
// nothing of oneport: it is the world that oneport is put into.
//
// Nothing of a host has a name outside of it. Its namespaces are held by
// descriptors of the test process and its processes are killed with that
// process, so that nothing is left even by a test that was killed itself.
package hosts

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oneport/internal/netns"
)

// Port is the TCP port that every host's firewall lets in.
const Port = 4369

// domain is the domain of all hosts. RFC 6761 reserves its top level.
const domain = "oneport.test"

// Host is one host. Its methods may be used by several goroutines at once.
type Host struct {
	Name string     // its hostname, without a dot
	FQDN string     // its name for nodes with long names
	IPv4 netip.Addr // its address in 10.9.0.0/24
	IPv6 netip.Addr // its address in fd09::/64
	Dir  string     // a directory of its own, the working directory of its commands

	cookie string // the cookie of all nodes that are not given another
	spaces namespaces
}

// New makes hosts with the given names, each a hostname without a dot, joined
// by one Ethernet segment. They, and all that runs in them, are gone after the
// test. New needs root, and skips the test without it.
func New(t testing.TB, names ...string) []*Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if err := removeStale(); err != nil {
		t.Fatal(err)
	}
	made := make([]*Host, len(names))
	cookie := rand.Text()
	for i, name := range names {
		made[i] = &Host{
			Name:   name,
			FQDN:   name + "." + domain,
			IPv4:   netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}),
			IPv6:   netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x09, 15: byte(i + 1)}),
			cookie: cookie,
		}
	}
	for _, h := range made {
		h.make(t, made)
	}
	connect(t, made)
	for _, h := range made {
		h.raiseFirewall(t)
	}
	return made
}

// make gives a host its directory and its namespaces. All hosts are known to
// it by name.
func (h *Host) make(t testing.TB, all []*Host) {
	t.Helper()
	var err error
	if h.Dir, err = os.MkdirTemp("", dirPrefix(os.Getpid())+h.Name+"-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(h.Dir); err != nil {
			t.Error(err)
		}
	})
	var table strings.Builder
	table.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, other := range all {
		fmt.Fprintf(&table, "%s %s %s\n", other.IPv4, other.FQDN, other.Name)
		fmt.Fprintf(&table, "%s %s %s\n", other.IPv6, other.FQDN, other.Name)
	}
	files := map[string]string{
		"/etc/hosts":         table.String(),
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	}
	mounts := make(map[string]string, len(files))
	for target, content := range files {
		source := filepath.Join(h.Dir, filepath.Base(target))
		if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		mounts[target] = source
	}
	if h.spaces, err = newNamespaces(h.Name, mounts); err != nil {
		t.Fatalf("host %s: %v", h.Name, err)
	}
	t.Cleanup(h.spaces.close)
}

// Command is exec.CommandContext inside the host. The command starts in the
// host's Dir. One that is to run for longer is started by Start, which looks
// after its end.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// nsenter becomes the command, without a fork, so that the process which is
	// started is the one that is killed.
	return exec.CommandContext(ctx, "nsenter", append([]string{
		"--net=" + h.spaces.path(h.spaces.net),
		"--uts=" + h.spaces.path(h.spaces.uts),
		"--mount=" + h.spaces.path(h.spaces.mount),
		"--wdns=" + h.Dir,
		"--", name,
	}, args...)...)
}

// Dial opens a connection from inside the host. The address is an IP address
// with a port: the test process does not share the host's names.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialing inside %s: %w", h.Name, err)
	}
	if inErr := netns.Inside(h.spaces.net, func() {
		var dialer net.Dialer
		dialer.SetMultipathTCP(false)
		conn, err = dialer.DialContext(ctx, network, address)
	}); inErr != nil {
		return nil, inErr
	}
	return conn, err
}

// Listen listens inside the host, at an IP address with a port. The listener's
// connections belong to the host as well.
func (h *Host) Listen(ctx context.Context, network, address string) (listener net.Listener, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("listening inside %s: %w", h.Name, err)
	}
	if inErr := netns.Inside(h.spaces.net, func() {
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		listener, err = config.Listen(ctx, network, address)
	}); inErr != nil {
		return nil, inErr
	}
	return listener, err
}

// dirPrefix is how the names of the directories begin that a process makes.
func dirPrefix(pid int) string { return fmt.Sprintf("oneport-host-%d-", pid) }

// removeStale removes the directories of test processes that were killed.
func removeStale() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), "oneport-host-*-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		field := strings.Split(filepath.Base(dir), "-")[2]
		pid, err := strconv.Atoi(field)
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
