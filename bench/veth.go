package bench

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"oneport/internal/netns"
)

// The cable of Veth.
const (
	nic = "eth0" // the name of both ends
	mtu = 1500
)

// The addresses of Veth.
var (
	clientAddress = netip.AddrFrom4([4]byte{10, 88, 0, 1})
	hostAddress   = netip.AddrFrom4([4]byte{10, 88, 0, 2})
)

// spaces are the descriptors of the network namespaces of the two sides.
type spaces struct{ fd [2]int }

// newSpaces makes two network namespaces that are joined by a cable.
func newSpaces() (_ *spaces, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("layout %s: network namespaces need root (run as root, or take layout %s)", Veth, Loopback)
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return nil, fmt.Errorf("layout %s: %v (install util-linux)", Veth, err)
	}
	n := &spaces{[2]int{-1, -1}}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for i := range n.fd {
		if n.fd[i], err = newSpace(); err != nil {
			return nil, err
		}
	}
	if err := n.configure(clientSide, func(links *netlink.Handle) error {
		cable := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: nic, MTU: mtu},
			PeerName:  nic, PeerMTU: mtu, PeerNamespace: netlink.NsFd(n.of(hostSide)),
		}
		if err := links.LinkAdd(cable); err != nil {
			return fmt.Errorf("adding a veth link: %w", err)
		}
		return setLinksUp(links, clientAddress)
	}); err != nil {
		return nil, err
	}
	return n, n.configure(hostSide, func(links *netlink.Handle) error { return setLinksUp(links, hostAddress) })
}

// newSpace makes a network namespace and returns the descriptor that holds it.
func newSpace() (fd int, err error) {
	netns.OnOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("making a network namespace: %w (it needs CAP_SYS_ADMIN)", err)
			return
		}
		if fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			err = fmt.Errorf("opening a network namespace: %w", err)
		}
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// setLinksUp sets up the interfaces of a namespace, and gives it its address.
func setLinksUp(links *netlink.Handle, address netip.Addr) error {
	for _, name := range []string{"lo", nic} {
		link, err := links.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if err := links.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting %s up: %w", name, err)
		}
		if name == "lo" {
			continue
		}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(24, 32)}}
		if err := links.AddrAdd(link, a); err != nil {
			return fmt.Errorf("adding the address %s: %w", address, err)
		}
	}
	return nil
}

// configure runs f with a handle on the network of a side.
func (n *spaces) configure(s side, f func(*netlink.Handle) error) error {
	links, err := netlink.NewHandleAt(vnetns.NsHandle(n.of(s)), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer links.Close()
	return f(links)
}

func (n *spaces) of(s side) int { return n.fd[s] }

// path names the namespace of a side for another process.
func (n *spaces) path(s side) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.fd[s]) }

func (n *spaces) close() {
	for i, fd := range n.fd {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		n.fd[i] = -1
	}
}
