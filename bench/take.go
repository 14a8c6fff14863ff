package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// An end is a node that takes descriptors as docs/PROTOCOL.md, "Handover", has it.

// Tags of the protocol's fields.
const (
	tagVersions = 0x01
	tagName     = 0x02
	tagID       = 0x10
	tagReason   = 0x11
	tagTaken    = 0x23
)

// maxOffers is how many offers a door makes at a time.
const maxOffers = 256

// take takes the connections of a node by descriptor, and serves them.
func (p *process) take(r request) error {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	c, err := dialer.DialContext(p.ctx, "unixpacket", r.Path)
	if err != nil {
		return err
	}
	if !p.own(c) {
		return net.ErrClosed
	}
	packet := make([]byte, 1<<16)
	err = c.SetDeadline(time.Now().Add(10 * time.Second))
	if err == nil {
		hello := appendField([]byte{'H'}, tagVersions, []byte{1})
		_, err = c.Write(appendField(hello, tagName, []byte(r.Name)))
	}
	n := 0
	if err == nil {
		n, err = c.Read(packet)
	}
	if err == nil && packet[0] != 'W' {
		err = fmt.Errorf("the door refuses: %s", field(packet[1:n], tagReason))
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		p.disown(c)
		return fmt.Errorf("asking the door for descriptors: %w", err)
	}
	p.running.Go(func() {
		if err := p.takeAll(c.(*net.UnixConn), packet); !errors.Is(err, net.ErrClosed) {
			p.mu.Lock()
			p.failed = fmt.Errorf("taking descriptors of %s: %w", r.Name, err)
			p.mu.Unlock()
		}
		p.disown(c)
	})
	return nil
}

// offer is one that was accepted and is neither committed nor cancelled.
type offer struct {
	file  *os.File
	taken []byte // from the connection, by the door
}

// takeAll accepts every offer until the connection to the door is closed. A door
// that closes it is no failure: its way is over.
func (p *process) takeAll(c *net.UnixConn, packet []byte) error {
	open := make(map[string]offer)
	defer func() {
		for _, o := range open {
			o.file.Close()
		}
	}()
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(packet, oob)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || err == nil && n == 0 {
			return net.ErrClosed
		}
		if err != nil {
			return err
		}
		fields := packet[1:n]
		id := string(field(fields, tagID))
		o, known := open[id]
		switch frame := packet[0]; {
		case frame == 'O' && !known && len(open) < maxOffers:
			file, err := descriptor(oob[:oobn])
			if err != nil {
				return err
			}
			open[id] = offer{file, append([]byte(nil), field(fields, tagTaken)...)}
			if _, err := c.Write(appendField([]byte{'A'}, tagID, []byte(id))); err != nil {
				return err
			}
		case frame == 'C' && known:
			delete(open, id)
			if err := p.commit(o); err != nil {
				return err
			}
		case frame == 'X' && known:
			delete(open, id)
			o.file.Close()
		case frame == 'X': // the answer to it was late
		default:
			return fmt.Errorf("unexpected frame %q of the door", packet[:min(n, 64)])
		}
	}
}

// commit serves a connection that has become the node's.
func (p *process) commit(o offer) error {
	c, err := net.FileConn(o.file)
	o.file.Close() // c has a duplicate
	if err != nil {
		return fmt.Errorf("using a descriptor: %w", err)
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return fmt.Errorf("a descriptor of %T; expected a TCP connection", c)
	}
	// As those that the node accepts itself.
	if err := errors.Join(tcp.SetNoDelay(true), tcp.SetKeepAlive(false)); err != nil {
		c.Close()
		return nil // it has been reset meanwhile
	}
	if len(o.taken) > 0 {
		p.serve(&continued{tcp, o.taken})
		return nil
	}
	p.serve(tcp)
	return nil
}

// continued is a connection of which something was read already.
type continued struct {
	*net.TCPConn
	taken []byte
}

func (c *continued) Read(b []byte) (int, error) {
	if len(c.taken) == 0 {
		return c.TCPConn.Read(b)
	}
	n := copy(b, c.taken)
	c.taken = c.taken[n:]
	return n, nil
}

// descriptor is the one that came with a packet.
func descriptor(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("an offer with %d control messages, %v; expected 1", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("an offer with %d descriptors, %v; expected 1", len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), "offered"), nil
}

// appendField appends a field to a frame.
func appendField(b []byte, tag byte, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, tag), uint16(len(value)))
	return append(b, value...)
}

// field is the value of a field, or nil.
func field(b []byte, tag byte) []byte {
	for len(b) >= 3 {
		n := int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < 3+n {
			return nil
		}
		if b[0] == tag {
			return b[3 : 3+n]
		}
		b = b[3+n:]
	}
	return nil
}
