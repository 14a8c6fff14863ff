package door

import (
	"encoding/binary"
	"errors"

	"oneport/epmd"
	"oneport/upgrade"
)

// errUnknownProtocol says that the first bytes are of no protocol of ours.
var errUnknownProtocol = errors.New("unknown protocol: neither EPMD, HTTP/1.x nor a distribution handshake")

// maxHandshake is the longest first message of a distribution handshake that
// is taken seriously, in bytes, its length not counted: the fixed part of 'N'
// and a node's full name of 255 characters on either side of the @.
const maxHandshake = 1 + 8 + 4 + 2 + 4*(255+1+255)

// cutFirst returns the protocol that b, the first bytes of a connection, is
// in, and how many bytes its first message has. The length
// is 0 while more must come to tell.
//
// One byte is enough to tell HTTP, three tell EPMD from a handshake: both start
// with a 16-bit length, and then EPMD has the kind of request and a handshake
// 'N' (OTP 23 and later) or 'n'. NAMES_REQ is an 'n' too, with a length of 1.
func cutFirst(b []byte) (Protocol, int, error) {
	if c := b[0] | 0x20; c >= 'a' && c <= 'z' {
		return HTTP, upgrade.HeadLength(b), nil
	}
	if len(b) < 3 {
		if int(b[0]) > max(epmd.MaxRequest, maxHandshake)>>8 {
			return Unknown, 0, errUnknownProtocol
		}
		return Unknown, 0, nil
	}
	length, kind := int(binary.BigEndian.Uint16(b)), b[2]
	switch {
	case kind == 'N' || kind == 'n' && length > 1:
		if err := checkHandshake(b, length); err != nil {
			return Unknown, 0, err
		}
		if len(b) < 2+length {
			return Raw, 0, nil
		}
		return Raw, 2 + length, nil
	case length > epmd.MaxRequest || length == 0:
		return Unknown, 0, errUnknownProtocol
	case kind == 'x' || kind == 'z' || kind == 'n' || kind == 'd' || kind == 'k' || kind == 's' || kind == 'h':
		protocol := EPMD
		if kind == 'h' {
			protocol = HandoverRequest
		}
		if len(b) < 2+length {
			return protocol, 0, nil
		}
		return protocol, 2 + length, nil
	}
	return Unknown, 0, errUnknownProtocol
}

// checkHandshake checks the first message of a distribution handshake as far as
// it has come, at least three bytes (ERTS User's Guide, "Distribution
// Protocol", send_name):
//
//	len16 'N' flags64 creation32 nlen16 name
//	len16 'n' version16 flags32 name
func checkHandshake(b []byte, length int) error {
	if length > maxHandshake {
		return errUnknownProtocol
	}
	if b[2] == 'n' {
		if length < 1+2+4+1 {
			return errUnknownProtocol
		}
		return nil
	}
	const fixed = 1 + 8 + 4 + 2
	if length <= fixed {
		return errUnknownProtocol
	}
	// The name may be followed by more: the length leaves room for extensions.
	if len(b) >= 2+fixed && int(binary.BigEndian.Uint16(b[fixed:])) > length-fixed {
		return errUnknownProtocol
	}
	return nil
}
