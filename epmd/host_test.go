package epmd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// roleEnv names the environment variable by which a test starts this binary
// again to play a part in it.
const roleEnv = "ONEPORT_EPMD_TEST_ROLE"

// TestRole is the other process. On its own it does nothing.
func TestRole(t *testing.T) {
	if os.Getenv(roleEnv) == "host" {
		testHostWithTwoNetworks(t)
	}
}

// role starts this binary again.
func role(name string) *exec.Cmd {
	command := exec.Command(os.Args[0], "-test.run=^TestRole$", "-test.v")
	command.Env = append(os.Environ(), roleEnv+"="+name)
	return command
}

func TestIsLocalByTheAddressesAlone(t *testing.T) {
	tests := []struct {
		peer, local string
		want        bool
	}{
		{"127.0.0.1:1", "127.0.0.1:2", true},
		{"127.9.9.9:1", "192.0.2.1:2", true},
		{"[::ffff:127.0.0.1]:1", "[::1]:2", true},
		{"[::1]:1", "[::1]:2", true},
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1:2", true},
		{"[2001:db8::1]:1", "[2001:db8::1]:2", true},
		{"0.0.0.0:1", "0.0.0.0:2", false},
		{"224.0.0.1:1", "224.0.0.1:2", false},
		{"192.0.2.1:1", "192.0.2.2:2", false},
		{"[2001:db8::1]:1", "[2001:db8::2]:2", false},
	}
	for _, test := range tests {
		if got := IsLocal(netip.MustParseAddrPort(test.peer), netip.MustParseAddrPort(test.local)); got != test.want {
			t.Errorf("peer %s at %s: local %t, want %t", test.peer, test.local, got, test.want)
		}
	}
	if IsLocal(netip.AddrPort{}, netip.AddrPort{}) {
		t.Error("an unknown peer is local")
	}
}

// A host is what its network namespace is: the test becomes two of them, with
// a cable between.
func TestHostsAreToldApart(t *testing.T) {
	command := role("host")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

const (
	hereAddress  = "192.0.2.1"
	hereOther    = "198.51.100.1" // another address of the same host
	thereAddress = "192.0.2.2"
)

func testHostWithTwoNetworks(t *testing.T) {
	// Remote peers must not be taken for our own where this is set.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	there := connectHosts(t)
	killed := make(chan struct{}, 1)
	server := &Server{RelaxedCommandCheck: true, Kill: func() { killed <- struct{}{} }}
	address := serve(t, server, hereAddress+":0").Addr

	near := &Client{Addr: address, Timeout: patience, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(hereOther)}}).DialContext}
	register(t, near, newNode)
	if _, err := near.Dump(t.Context()); err != nil {
		t.Errorf("DUMP from another address of the host: %v", err)
	}

	far := &Client{Addr: address, Timeout: patience, DialContext: there}
	if _, err := far.Register(t.Context(), oldNode); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ALIVE2 from another host: error %v, want a close", err)
	}
	if _, err := far.Dump(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("DUMP from another host: error %v, want a close", err)
	}
	if err := far.Kill(t.Context()); !errors.Is(err, ErrRefused) {
		t.Errorf("KILL from another host: error %v, want ErrRefused", err)
	}
	if err := far.Stop(t.Context(), "new"); !errors.Is(err, ErrRefused) {
		t.Errorf("STOP from another host: error %v, want ErrRefused", err)
	}
	wantNames(t, far, "new")
	if got, err := far.Lookup(t.Context(), "new"); err != nil || got.Port != newNode.Port {
		t.Errorf("PORT_PLEASE2 from another host: %+v, %v", got, err)
	}
	if len(killed) > 0 {
		t.Error("another host killed the server")
	}
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// connectHosts gives this network namespace its addresses, makes another one
// at the other end of a cable, and returns how to dial from there. Both
// namespaces end with the process.
func connectHosts(t *testing.T) dialFunc {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	there := newHost(t)
	must(linkUp("lo"))
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here"}, PeerName: "there"}))
	peer, err := netlink.LinkByName("there")
	must(err)
	must(netlink.LinkSetNsPid(peer, there.thread))
	must(linkUp("here", hereAddress, hereOther))
	there.run(func() { err = linkUp("there", thereAddress) })
	must(err)
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		there.run(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) })
		return conn, err
	}
}

// host is a thread with a network namespace of its own.
type host struct {
	thread int
	work   chan func()
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{work: make(chan func())}
	t.Cleanup(func() { close(h.work) })
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		for f := range h.work {
			f()
		}
	}()
	var err error
	h.run(func() {
		h.thread = unix.Gettid()
		err = unix.Unshare(unix.CLONE_NEWNET)
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// run calls f on the thread of h.
func (h *host) run(f func()) {
	done := make(chan struct{})
	h.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// linkUp gives a link its addresses and starts it.
func linkUp(name string, addresses ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		network := &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(24, 32)}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: network}); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}
