package epmd

import (
	"net"
	"net/netip"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// heldSocket is the connection of a node that an acceptor holds: a descriptor, and
// neither a goroutine nor a net.Conn, which cost more than all the rest of a
// registration. The acceptor waits for its end, and closes it.
type heldSocket struct {
	mu sync.Mutex
	fd int // -1: closed
}

// over tells whether it cannot be the connection of a live node any more.
func (h *heldSocket) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fd < 0 || !quiet(h.fd)
}

// end lets the acceptor find that it is over.
func (h *heldSocket) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 {
		_ = unix.Shutdown(h.fd, unix.SHUT_RD)
	}
}

// giveUp returns the descriptor, which is the caller's to close.
func (h *heldSocket) giveUp() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	fd := h.fd
	h.fd = -1
	return fd
}

// registerHeld is Register for a connection that an acceptor holds.
func (r *Registry) registerHeld(node Node, fd int, peer, local netip.AddrPort) (*Registration, error) {
	entry := newRegistration(node)
	entry.held, entry.fd = &heldSocket{fd: fd}, fd
	entry.Peer, entry.Local = peer, local
	if err := r.enter(entry); err != nil {
		return nil, err
	}
	return entry, nil
}

// answerAlive registers the node of an ALIVE2_REQ that has arrived whole and alone,
// and holds its connection. It does nothing and returns false where there is more
// to it: for nodes that can be asked, and those that are refused.
func (a *acceptor) answerAlive(fd int, from unix.Sockaddr, frame []byte) bool {
	request, err := parseAlive(frame[lengthSize+1:])
	if err != nil {
		return false
	}
	node := request.(AliveRequest).Node
	if node.Highest < version6 {
		return false
	}
	to, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	peer, local := socketAddress(from), socketAddress(to)
	if !a.isLocal(peer, local) {
		return false
	}
	registered, err := a.Registry.registerHeld(node, fd, peer, local)
	if err != nil {
		return false
	}
	_, err = unix.Read(fd, frame)
	if err == nil {
		_, err = send(fd, AliveResponse{ResultOK, registered.Creation, true}.Append(nil), 0)
	}
	if err != nil {
		a.note(registered, nodeLost, err)
		a.release(registered)
		return true
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)}
	if err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		logger(a.Log).WithError(err).Error("waiting for the end of a node's connection")
		a.release(registered)
		return true
	}
	a.held[int32(fd)] = registered
	a.note(registered, nodeRegistered, nil)
	return true
}

// ended unregisters the node whose connection has something to say, if that is its
// end, and tells whether it was.
func (a *acceptor) ended(fd int32) bool {
	registered := a.held[fd]
	if registered == nil || !registered.held.over() {
		return false
	}
	delete(a.held, fd)
	a.release(registered)
	a.note(registered, nodeUnregistered, nil)
	return true
}

// releaseEnded looks for nodes that have gone and not been seen yet, and tells
// whether there was one.
func (a *acceptor) releaseEnded() bool {
	events := make([]unix.EpollEvent, acceptBatch)
	n, err := unix.EpollWait(a.epoll, events, 0)
	if err != nil {
		return false
	}
	found := false
	for _, e := range events[:n] {
		found = a.ended(e.Fd) || found
	}
	return found
}

// release unregisters a node, and then closes its connection: the registry looks at
// connections of those that it has.
func (a *acceptor) release(registered *Registration) {
	a.Registry.Unregister(registered)
	fd := registered.held.giveUp()
	if !hasBytes(fd) {
		_ = unix.Close(fd)
		return
	}
	// It has said what no node says. A close would be a reset now; see closeAnswered.
	_ = unix.EpollCtl(a.epoll, unix.EPOLL_CTL_DEL, fd, nil) // of the descriptor, which is doubled
	if c, err := tcpConn(fd); err == nil {
		a.served.Go(func() { _ = closeAnswered(c) })
	}
}

// hasBytes tells whether a socket has bytes that were not read.
func hasBytes(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n > 0
}

// releaseAll is for the end of the server.
func (a *acceptor) releaseAll() {
	for fd, registered := range a.held {
		delete(a.held, fd)
		a.release(registered)
		a.note(registered, nodeUnregistered, nil)
	}
}

// socketAddress is an address of the kernel's, as an IPv4 address where that is
// what it is.
func socketAddress(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		address := netip.AddrFrom16(s.Addr)
		if s.ZoneId != 0 {
			address = address.WithZone(zoneName(int(s.ZoneId)))
		}
		return unmap(netip.AddrPortFrom(address, uint16(s.Port)))
	}
	return netip.AddrPort{}
}

// zoneName is how package net calls the zone of a link-local address.
func zoneName(index int) string {
	if link, err := net.InterfaceByIndex(index); err == nil {
		return link.Name
	}
	return strconv.Itoa(index)
}
