package epmd

import (
	"net"
	"net/netip"
)

// IsLocal tells whether the peer of a connection is on this host: its address
// is a loopback address, the same as the local one, or another one of the
// host's own. IPv4 addresses may be mapped into IPv6. An address that is not
// valid is never local.
//
// It asks the kernel's routing table for that one address, and only where the
// two addresses do not tell; nothing is sent, and nothing is remembered.
func IsLocal(peer, local netip.AddrPort) bool {
	address := peer.Addr().Unmap()
	if !address.IsValid() || address.IsUnspecified() || address.IsMulticast() {
		return false
	}
	return address.IsLoopback() || address == local.Addr().Unmap() || isOwn(address)
}

// isOwn tells whether an address belongs to this host. To reach an address of
// its own, and only then, the kernel chooses that very address as the source.
// (Binding to it would prove nothing where net.ipv4.ip_nonlocal_bind is set.)
func isOwn(address netip.Addr) bool {
	// Any port will do: a UDP socket that is connected sends nothing.
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, 9)))
	if err != nil {
		return false // no route
	}
	defer c.Close()
	source, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && source.AddrPort().Addr().Unmap() == address
}
