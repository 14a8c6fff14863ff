package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"oneport/endpoint"
	"oneport/epmd"
	"oneport/handover"
	"oneport/relay"
	"oneport/upgrade"
)

// Handover is the path of a connection whose descriptor the node has.
const Handover relay.Path = "handover"

// minPrune is how many connections may have been handed over before those that
// have ended are looked for, unless somebody asks earlier.
const minPrune = 1024

// handed is a connection that a node has been given. The daemon has no
// descriptor of it any more: the kernel is asked for it by its ends.
type handed struct {
	*Conn
	// The kernel's counters of the connection when the node got it: what was
	// said before was between the client and the daemon.
	received, sent uint64
}

// receivers gives connections to the nodes that take descriptors.
type receivers struct {
	server   *handover.Server
	fork     handover.Fork     // for nodes of the OTP fork of 2016
	listener *net.UnixListener // nil: no node can
}

func (d *Door) openReceivers() error {
	d.receivers.server = &handover.Server{Owner: d.ownerOf, Log: d.log}
	if d.o.NodeSocket == "" {
		return nil
	}
	l, err := handover.Listen(d.o.NodeSocket)
	d.receivers.listener = l
	return err
}

// ownerOf says which user a registered name belongs to: the one whose process
// registered it, unless an operator has said whose it is.
func (d *Door) ownerOf(name string) (owner handover.Owner, ok bool) {
	reg, ok := d.registry.Lookup(name)
	if !ok {
		return handover.Owner{}, false
	}
	owner.Registration = reg
	if owner.UID, ok = d.o.Own[name]; ok {
		return owner, true
	}
	uid, err := d.owners.of(reg)
	if err != nil {
		// Nobody but root then, who may always.
		d.log.WithError(err).WithField("node", name).Warn("finding the owner of a node")
	}
	owner.UID = uid
	return owner, true
}

// hand offers a connection to its node. done says that there is nothing more to
// do: the node has it, or the client has gone. Otherwise why says why the node
// does not have it, and granted whether the client was told yes already.
func (d *Door) hand(ctx context.Context, c *Conn, reg *epmd.Registration, a asker, taken []byte) (done, granted bool, why string) {
	h := &handed{Conn: c}
	granted, err := d.receivers.server.Offer(ctx, handover.Offer{
		Name: reg.Name, Conn: c.tcp, Peer: c.peer, Local: c.local, Protocol: string(a.protocol()), Taken: taken,
		Grant: func() error {
			err := d.grant(c, a, reg.Highest)
			h.received, h.sent = traffic(c.tcp)
			h.received -= min(h.received, uint64(len(taken)))
			return err
		},
	})
	if !errors.Is(err, handover.ErrNoReceiver) {
		d.countHandover("v1", err)
	}
	switch {
	case errors.Is(err, handover.ErrGrant):
		c.ends("closed by the client")
		c.tcp.CloseWrite() // the node may still hold a copy
		return true, granted, ""
	case err != nil:
		return false, granted, err.Error()
	}
	d.handedOver(h)
	return true, true, ""
}

// handToFork gives a connection to a node of the OTP fork of 2016, which says
// yes to the client itself.
func (d *Door) handToFork(ctx context.Context, c *Conn, reg *epmd.Registration) bool {
	owner, ok := d.ownerOf(reg.Name)
	if !ok {
		return false
	}
	h := &handed{Conn: c}
	h.received, h.sent = traffic(c.tcp)
	err := d.receivers.fork.Offer(ctx, handover.ForkNode{UID: owner.UID, Ask: reg.Ask}, c.tcp)
	if errors.Is(err, epmd.ErrNoAnswer) {
		return false // an old node, but none of the fork
	}
	d.countHandover("2016", err)
	if err != nil {
		d.log.WithField("id", c.id).WithField("node", reg.Name).WithError(err).Warn("handing over to a node of the 2016 fork")
		return false
	}
	d.handedOver(h)
	return true
}

// grant says yes to a client.
func (d *Door) grant(c *Conn, a asker, version uint16) error {
	c.tcp.SetWriteDeadline(time.Now().Add(answerTimeout))
	defer c.tcp.SetDeadline(time.Time{})
	return a.grant(c.tcp, version)
}

// traffic returns how many bytes of a connection have been read from it, and
// written to it.
func traffic(tcp *net.TCPConn) (received, sent uint64) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, 0
	}
	raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		unread, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		if err != nil {
			return
		}
		unacked, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		if err != nil {
			return
		}
		received, sent = info.Bytes_received-min(info.Bytes_received, uint64(unread)), info.Bytes_acked+uint64(unacked)
	})
	return received, sent
}

// countHandover counts an offer by its result, in words that can be counted.
func (d *Door) countHandover(protocol string, err error) {
	result := "accepted"
	var refused *handover.RefusedError
	switch {
	case err == nil:
	case errors.As(err, &refused):
		result = "refused"
	case errors.Is(err, handover.ErrTimeout), errors.Is(err, handover.ErrResting):
		result = "timed out"
	default:
		result = "failed"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stats.handovers == nil {
		d.stats.handovers = map[string]uint64{}
	}
	d.stats.handovers[protocol+" "+result]++
}

// handedOver moves the record of a connection to those that are followed by
// asking the kernel.
func (d *Door) handedOver(h *handed) {
	h.takes(HandedOver, Handover, "")
	d.mu.Lock()
	d.handed[h.id] = h
	full := len(d.handed) >= d.pruneAt
	d.mu.Unlock()
	if full {
		d.followHanded()
	}
	d.shorten(h)
}

// followHanded asks the kernel for every connection that was handed over, and
// forgets those that have ended.
func (d *Door) followHanded() []Info {
	d.mu.Lock()
	all := make([]*handed, 0, len(d.handed))
	for _, h := range d.handed {
		all = append(all, h)
	}
	d.mu.Unlock()
	ends := make([]endpoint.Ends, len(all))
	for i, h := range all {
		ends[i] = endpoint.Ends{Local: h.local, Remote: h.peer}
	}
	infos := []Info{}
	var ended []*handed
	endpoint.LookEach(ends, func(i int, s endpoint.Record, err error) {
		h := all[i]
		switch {
		case err == nil && s.Inode != 0: // 0: the last descriptor is closed, the kernel says goodbye
			infos = append(infos, h.follow(s))
		case err == nil || errors.Is(err, unix.ENOENT):
			ended = append(ended, h)
		default:
			infos = append(infos, h.info()) // not known better
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range ended {
		delete(d.handed, h.id)
	}
	d.pruneAt = max(minPrune, 2*len(d.handed))
	return infos
}

// follow brings the record up to what the kernel tells.
func (h *handed) follow(s endpoint.Record) Info {
	h.bytes.ToNode.Store(s.Info.Bytes_received - min(s.Info.Bytes_received, h.received))
	h.bytes.ToClient.Store(s.Info.Bytes_acked - min(s.Info.Bytes_acked, h.sent))
	i := h.info()
	i.TCP = &TCPInfo{State: tcpStates[min(int(s.State), len(tcpStates)-1)], Retransmits: s.Info.Total_retrans, RoundTripUs: s.Info.Rtt}
	return i
}

// tcpStates are the kernel's (linux/tcp_states.h), in the words of ss(8).
var tcpStates = [...]string{"unknown", "estab", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait",
	"close", "close-wait", "last-ack", "listen", "closing", "syn-recv"}

// dropHanded resets a connection that was handed over.
func (d *Door) dropHanded(h *handed) error {
	if err := endpoint.Destroy(h.local, h.peer); err != nil {
		return fmt.Errorf("ending connection %d, which its node has: %w (the kernel needs CONFIG_INET_DIAG_DESTROY, the daemon CAP_NET_ADMIN)", h.id, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.handed, h.id)
	return nil
}

// handedWhere returns the connections that were handed over and match.
func (d *Door) handedWhere(match func(*handed) bool) []*handed {
	d.mu.Lock()
	defer d.mu.Unlock()
	var some []*handed
	for _, h := range d.handed {
		if match(h) {
			some = append(some, h)
		}
	}
	return some
}

// handoverAsker is a client of the 2016 fork: EPMD's HANDOVER_REQ.
type handoverAsker struct{}

func (handoverAsker) protocol() Protocol { return HandoverRequest }

func (handoverAsker) grant(c *net.TCPConn, version uint16) error {
	_, err := c.Write(epmd.HandoverResponse{Version: version}.Append(nil))
	return err
}

func (handoverAsker) refuse(c *net.TCPConn, _ *upgrade.Refusal) error {
	_, err := c.Write(epmd.HandoverResponse{Result: epmd.ResultFailed}.Append(nil))
	return err
}

// sortInfos puts the oldest connection first.
func sortInfos(infos []Info) {
	slices.SortFunc(infos, func(a, b Info) int { return int(a.ID) - int(b.ID) })
}
