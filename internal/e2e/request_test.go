package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// granted is the door's answer to an upgrade.
const granted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\nVersion: 6\r\n\r\n"

// requestFor is the request for a node, and what the client says right behind it.
func requestFor(name, first string) string {
	return "CONNECT /erl/" + name + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n" + first
}

// handshakeOf is the first message of a handshake of version 6, with the flags
// that OTP 25 and later demand.
func handshakeOf(full string) string {
	const flags = 0x4_0707_0f94
	b := binary.BigEndian.AppendUint16(nil, uint16(15+len(full)))
	b = binary.BigEndian.AppendUint64(append(b, 'N'), flags)
	b = binary.BigEndian.AppendUint32(b, 4)
	b = binary.BigEndian.AppendUint16(b, uint16(len(full)))
	return string(append(b, full...))
}

// expect reads exactly this.
func expect(c io.Reader, want string) error {
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("read %q, want %q: %w", got[:n], want, err)
	}
	if string(got) != want {
		return fmt.Errorf("read %q, want %q", got, want)
	}
	return nil
}

// abort closes a connection so that nothing of it is left to wait for.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}
