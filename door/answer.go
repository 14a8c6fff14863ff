package door

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"time"

	"oneport/epmd"
	"oneport/upgrade"
)

const (
	// answerTimeout bounds the writing of an answer, and lingerTimeout the wait
	// for a refused client to take it and close.
	answerTimeout = 5 * time.Second
	lingerTimeout = time.Second
	// maxLinger is how many bytes of a refused client are read and thrown away.
	maxLinger = 64 << 10
)

// An asker is the protocol in which a client has asked for a node, and gets
// its answer. Nothing else knows in which words yes and no are said.
type asker interface {
	// protocol is what the asker's connections are listed as.
	protocol() Protocol
	// grant says yes. The next byte in either direction is the distribution's.
	grant(c *net.TCPConn, version uint16) error
	// refuse says no, with a status of HTTP and one line for those who can
	// read it.
	refuse(c *net.TCPConn, r *upgrade.Refusal) error
}

type upgradeAsker struct{}

func (upgradeAsker) protocol() Protocol { return Upgrade }

func (upgradeAsker) grant(c *net.TCPConn, version uint16) error {
	_, err := c.Write(upgrade.AppendAccept(nil, version))
	return err
}

func (upgradeAsker) refuse(c *net.TCPConn, r *upgrade.Refusal) error {
	_, err := c.Write(r.Append(nil))
	return err
}

// rawAsker is a stock client that sends its handshake at once. The handshake
// is for the node, and stays unread.
type rawAsker struct{}

func (rawAsker) protocol() Protocol { return Raw }

// grant says nothing: the node answers the handshake itself.
func (rawAsker) grant(*net.TCPConn, uint16) error { return nil }

// refuse answers the handshake with the status that ends it ("Distribution
// Protocol", send_status).
func (rawAsker) refuse(c *net.TCPConn, _ *upgrade.Refusal) error {
	const status = "snot_allowed"
	b := binary.BigEndian.AppendUint16(nil, uint16(len(status)))
	_, err := c.Write(append(b, status...))
	return err
}

// epmdAsker is a client of EPMD that is refused before its request is served.
type epmdAsker struct{ kind byte }

func (epmdAsker) protocol() Protocol { return EPMD }

func (epmdAsker) grant(*net.TCPConn, uint16) error { return nil }

func (a epmdAsker) refuse(c *net.TCPConn, _ *upgrade.Refusal) error {
	var b []byte
	switch a.kind {
	case 'z':
		b = epmd.PortResponse{Result: 1}.Append(nil)
	case 'x':
		b = epmd.AliveResponse{Result: 1, Creation: 99}.Append(nil)
	}
	_, err := c.Write(b)
	return err
}

// mute is a client in whose protocol nothing can be said.
type mute struct{}

func (mute) protocol() Protocol { return Unknown }

func (mute) grant(*net.TCPConn, uint16) error            { return nil }
func (mute) refuse(*net.TCPConn, *upgrade.Refusal) error { return nil }

// askerOf returns the asker of a connection by its first bytes.
func askerOf(p Protocol, head []byte) asker {
	switch p {
	case HTTP, Upgrade:
		return upgradeAsker{}
	case Raw:
		return rawAsker{}
	case HandoverRequest:
		return handoverAsker{}
	case EPMD:
		return epmdAsker{kind: head[2]}
	}
	return mute{}
}

// refuse says no to a connection in its own protocol, and records why.
func (d *Door) refuse(c *Conn, a asker, cause Cause, r *upgrade.Refusal) {
	c.refused(cause, r.Reason)
	c.tcp.SetDeadline(time.Now().Add(answerTimeout))
	if a.refuse(c.tcp, r) == nil {
		linger(c.tcp)
	}
}

// linger lets a refused client read its answer: closing a socket that has
// unread bytes, a request for example that was only peeked at, sends a reset,
// which would overtake the answer.
func linger(c *net.TCPConn) {
	c.SetDeadline(time.Now().Add(lingerTimeout))
	if c.CloseWrite() == nil {
		io.CopyN(io.Discard, c, maxLinger) // ends by the client's close or the deadline
	}
}

// unavailable is the answer where the fault is on this side.
func unavailable(reason string) *upgrade.Refusal {
	return &upgrade.Refusal{Status: http.StatusServiceUnavailable, Reason: reason}
}
