package hosts

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	nic = "eth0" // the name of every host's network interface
	mtu = 1500
)

// connect plugs the hosts into a bridge, which has a namespace of its own: as
// with a real switch, nobody's firewall sees what passes it.
func connect(t testing.TB, hosts []*Host) {
	t.Helper()
	spaces, err := newNamespaces("bridge", nil)
	if err != nil {
		t.Fatalf("bridge: %v", err)
	}
	t.Cleanup(spaces.close)
	err = configure(spaces, func(links *netlink.Handle) error {
		off := false
		bridge := &netlink.Bridge{
			LinkAttrs:         netlink.LinkAttrs{Name: "bridge", MTU: mtu},
			MulticastSnooping: &off, // it would need a querier for neighbour discovery
		}
		if err := links.LinkAdd(bridge); err != nil {
			return fmt.Errorf("adding the bridge: %w", err)
		}
		if err := links.LinkSetUp(bridge); err != nil {
			return err
		}
		for _, h := range hosts {
			if err := h.plugIn(links, bridge); err != nil {
				return fmt.Errorf("host %s: %w", h.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if err := configure(h.spaces, h.setUpLinks); err != nil {
			t.Fatalf("host %s: %v", h.Name, err)
		}
	}
}

// configure runs f with a handle on the network of a namespace.
func configure(spaces namespaces, f func(*netlink.Handle) error) error {
	links, err := netlink.NewHandleAt(netns.NsHandle(spaces.net), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer links.Close()
	return f(links)
}

// plugIn leads a cable from the bridge to the host.
func (h *Host) plugIn(links *netlink.Handle, bridge *netlink.Bridge) error {
	cable := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: h.Name, MTU: mtu, MasterIndex: bridge.Index},
		PeerName:      nic,
		PeerMTU:       mtu,
		PeerNamespace: netlink.NsFd(h.spaces.net),
	}
	if err := links.LinkAdd(cable); err != nil {
		return fmt.Errorf("adding a cable: %w", err)
	}
	return links.LinkSetUp(cable)
}

// setUpLinks gives the host its addresses and sets its interfaces up.
func (h *Host) setUpLinks(links *netlink.Handle) error {
	for _, name := range []string{"lo", nic} {
		link, err := links.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if err := links.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting %s up: %w", name, err)
		}
	}
	for _, prefix := range []netip.Prefix{netip.PrefixFrom(h.IPv4, 24), netip.PrefixFrom(h.IPv6, 64)} {
		if err := addAddress(links, prefix); err != nil {
			return err
		}
	}
	return nil
}

// AddAddress gives the host one more address, until the end of the test.
func (h *Host) AddAddress(t testing.TB, address netip.Addr) {
	t.Helper()
	bits := 24
	if address.Is6() {
		bits = 64
	}
	if err := configure(h.spaces, func(links *netlink.Handle) error {
		return addAddress(links, netip.PrefixFrom(address, bits))
	}); err != nil {
		t.Fatalf("host %s: %v", h.Name, err)
	}
}

func addAddress(links *netlink.Handle, prefix netip.Prefix) error {
	link, err := links.LinkByName(nic)
	if err != nil {
		return fmt.Errorf("finding %s: %w", nic, err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if prefix.Addr().Is6() {
		// Usable at once, instead of after a second of looking for a duplicate.
		address.Flags = unix.IFA_F_NODAD
	}
	if err := links.AddrAdd(link, address); err != nil {
		return fmt.Errorf("adding address %s: %w", prefix, err)
	}
	return nil
}

// firewall drops what comes in from outside: all but one TCP port, and what
// belongs to it. It counts what it drops, to be read by `nft list ruleset`.
const firewall = `
table inet firewall {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state established,related accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport %d accept
		counter comment "dropped"
	}
}
`

func (h *Host) raiseFirewall(t testing.TB) {
	t.Helper()
	command := h.Command(t.Context(), "nft", "-f", "-")
	command.Stdin = strings.NewReader(fmt.Sprintf(firewall, Port))
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("host %s: raising the firewall: %v\n%s", h.Name, err, output)
	}
}
