package e2e

import (
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"io"
)

// The client's side of the distribution handshake, by ERTS User's Guide,
// "Distribution Protocol", version 6: two hundred clients need no two hundred
// nodes.

// readyNode reads the first answers to handshakeOf: the node's status, which
// must be ok, and its challenge. It returns the name that is in that.
func readyNode(r io.Reader) (name string, challenge uint32, err error) {
	if err := expect(r, "\x00\x03sok"); err != nil {
		return "", 0, err
	}
	message, err := readMessage(r)
	if err != nil {
		return "", 0, err
	}
	const fixed = 1 + 8 + 4 + 4 + 2 // tag, flags, challenge, creation, length of the name
	if len(message) < fixed || message[0] != 'N' {
		return "", 0, fmt.Errorf("the challenge is %q", message)
	}
	return string(message[fixed:]), binary.BigEndian.Uint32(message[9:]), nil
}

// prove answers a node's challenge by a cookie, and has the node prove that it
// knows the cookie, too. Then the connection is up.
func prove(conn io.ReadWriter, cookie string, challenge uint32) error {
	const own = 0x6f6e6570
	digest := digestOf(cookie, challenge)
	reply := binary.BigEndian.AppendUint32([]byte{0, 21, 'r'}, own)
	if _, err := conn.Write(append(reply, digest[:]...)); err != nil {
		return err
	}
	digest = digestOf(cookie, own)
	return expect(conn, "\x00\x11a"+string(digest[:]))
}

func digestOf(cookie string, challenge uint32) [md5.Size]byte {
	return md5.Sum(fmt.Appendf(nil, "%s%d", cookie, challenge))
}

// readMessage reads one message of a handshake.
func readMessage(r io.Reader) ([]byte, error) {
	var size uint16
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	message := make([]byte, size)
	_, err := io.ReadFull(r, message)
	return message, err
}
