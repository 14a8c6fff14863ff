package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long the trial waits for anything. All of it happens inside
// this host's kernel, in microseconds.
const patience = 5 * time.Second

// try finds out by loopback connections whether this kernel's shortcut does what
// everything relies on, whatever its version says: bytes stay in order, they are
// counted against the receiver's memory, which bounds them, and the end of a
// stream comes behind them.
func (l *Loader) try() error {
	t := &trial{loader: &Loader{trying: true, options: l.options, objects: l.objects, staged: l.staged, routed: l.routed}}
	defer t.close()
	// The connections are quiet, so that nothing has to settle.
	t.loader.options.Settle = 0
	t.loader.options.Limit = trialLimit
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"counting and order", t.order},
		{"bound and end", t.bound},
		{"outward", t.outward},
	} {
		err := step.run()
		// That passes, and says nothing about the kernel.
		for until := time.Now().Add(patience); err == errPressure && time.Now().Before(until); err = step.run() {
			time.Sleep(patience / 50)
		}
		if err == errPressure {
			return &UnsupportedError{What: "a trial while the memory of TCP is scarce", Remedy: "start again when less of it is in use, or raise net.ipv4.tcp_mem"}
		}
		if err != nil {
			return &UnsupportedError{What: release() + " fails the trial of " + step.name, Remedy: "use another kernel; report this", Err: err}
		}
	}
	return nil
}

const trialLimit = 4096

// errPressure says that a message took the long way for want of memory.
var errPressure = errors.New("the memory of TCP is scarce")

type trial struct {
	loader *Loader
	conns  []net.Conn
}

func (t *trial) close() {
	for _, c := range t.conns {
		c.Close()
	}
}

// connect returns the two ends of a connection.
func (t *trial) connect() (a, b *net.TCPConn, err error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // which Go's listeners speak by default
	listening, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	listener := listening.(*net.TCPListener)
	defer listener.Close()
	deadline := time.Now().Add(patience)
	if err := listener.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	dialed, err := (&net.Dialer{Deadline: deadline, KeepAlive: -1}).Dial("tcp4", listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	t.conns = append(t.conns, dialed)
	accepted, err := listener.AcceptTCP()
	if err != nil {
		return nil, nil, err
	}
	t.conns = append(t.conns, accepted)
	return dialed.(*net.TCPConn), accepted, errors.Join(dialed.SetDeadline(deadline), accepted.SetDeadline(deadline))
}

// order sends one message the short way, which must be counted to the byte, and
// two more that must take the long way, and all be read in order.
func (t *trial) order() error {
	a, b, err := t.connect()
	if err != nil {
		return err
	}
	if _, err := t.loader.Pair(a, b); err != nil {
		return err
	}
	var sent []byte
	for i, size := range []int{1000, trialLimit, 500} {
		message := bytes.Repeat([]byte{byte('a' + i)}, size)
		if _, err := a.Write(message); err != nil {
			return err
		}
		sent = append(sent, message...)
		if i > 0 {
			continue
		}
		if err := t.counted(a, b, size); err != nil {
			return err
		}
	}
	if err := expect(b, sent); err != nil {
		return err
	}
	c, err := t.counts(a)
	if err != nil {
		return err
	}
	if c.Long.Pressure > 0 {
		return errPressure
	}
	if c.ShortMessages != 1 || c.Long.Full != 1 || c.Long.Busy != 1 {
		return fmt.Errorf("expected one message short, one full, one busy: %+v", c)
	}
	return nil
}

// bound writes as much as is taken while nobody reads, and then ends the stream.
func (t *trial) bound() error {
	a, b, err := t.connect()
	if err != nil {
		return err
	}
	if err := errors.Join(a.SetWriteBuffer(16<<10), b.SetReadBuffer(16<<10)); err != nil {
		return err
	}
	if _, err := t.loader.Pair(a, b); err != nil {
		return err
	}
	raw, err := a.SyscallConn()
	if err != nil {
		return err
	}
	// Many times what the two buffers hold.
	const most = 4 << 20
	var sent []byte
	message := make([]byte, 100) // small enough for the smallest buffer
	for full := false; !full; {
		for i := range message {
			message[i] = byte((len(sent) + i) % 251)
		}
		var n int
		var failed error
		if err := raw.Control(func(fd uintptr) { n, failed = unix.Write(int(fd), message) }); err != nil {
			return err
		}
		switch {
		case failed == unix.EAGAIN:
			full = true
		case failed != nil:
			return failed
		default:
			sent = append(sent, message[:n]...)
		}
		if len(sent) > most {
			return fmt.Errorf("%d bytes are taken for a reader that does not read", len(sent))
		}
	}
	c, err := t.counts(a)
	if err != nil {
		return err
	}
	if c.ShortBytes == 0 && c.Long.Pressure > 0 {
		return errPressure
	}
	if c.ShortBytes == 0 || c.ShortBytes > trialLimit {
		return fmt.Errorf("%d bytes went the short way where %d may wait", c.ShortBytes, trialLimit)
	}
	if err := a.CloseWrite(); err != nil {
		return err
	}
	if err := expect(b, sent); err != nil {
		return err
	}
	if n, err := b.Read(message); err != io.EOF {
		return fmt.Errorf("after the last byte: %d bytes, error %v", n, err)
	}
	return nil
}

// outward sends from a node to a client past the two sockets of a relay, and from
// the relay to the node.
func (t *trial) outward() error {
	client, c, err := t.connect()
	if err != nil {
		return err
	}
	n, node, err := t.connect()
	if err != nil {
		return err
	}
	if _, err := t.loader.PairOutward(node, Relay{Client: c, Node: n}); err != nil {
		return err
	}
	message := bytes.Repeat([]byte("0123456789"), 100)
	if _, err := node.Write(message); err != nil {
		return err
	}
	if err := expect(client, message); err != nil {
		return err
	}
	if _, err := n.Write(message); err != nil {
		return err
	}
	if err := t.counted(n, node, len(message)); err != nil {
		return err
	}
	return expect(node, message)
}

// counted makes sure that the n bytes which from has sent to to, and which were
// not read yet, have gone the short way and are counted as what they are.
func (t *trial) counted(from, to *net.TCPConn, n int) error {
	charged, err := charged(to)
	if err != nil || charged == n {
		return err
	}
	if c, err := t.counts(from); err == nil && c.Long.Pressure > 0 {
		return errPressure
	}
	return fmt.Errorf("%d bytes are counted as %d", n, charged)
}

// counts are those of the messages that a socket sent.
func (t *trial) counts(conn *net.TCPConn) (Counts, error) {
	list, err := t.loader.List()
	if err != nil {
		return Counts{}, err
	}
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	for _, s := range list {
		for _, w := range s.Ways {
			if w.Local == local && w.Remote == remote {
				return w.Counts, nil
			}
		}
	}
	return Counts{}, ErrGone
}

// expect reads len(want) bytes, which must be want.
func expect(r io.Reader, want []byte) error {
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil {
		return fmt.Errorf("after %d bytes of %d: %w", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("bytes out of order")
	}
	return nil
}

// charged returns the bytes counted against the receive side of a socket.
func charged(conn *net.TCPConn) (n int, err error) {
	err = control(conn, func(fd int32) error {
		// SK_MEMINFO_RMEM_ALLOC is the first of nine numbers.
		info, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MEMINFO)
		n = info
		return err
	})
	return n, err
}
