package door

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"oneport/epmd"
)

// askersName is what the door calls itself when it asks a node for its name.
// No host is called so: RFC 6761 reserves the domain. The name is always the
// same, since the node that is asked keeps it as an atom.
const askersName = "oneport-who@oneport.invalid"

// askersFlags are what a node demands of its peer, or has demanded since OTP
// 23: a node that misses one logs it. PUBLISHED is not among them, so the door
// is a hidden node, nor is NAME_ME, which would have the node make names. The
// names are those of kernel's dist.hrl.
const askersFlags uint64 = 1<<2 | // EXTENDED_REFERENCES
	1<<4 | // FUN_TAGS
	1<<7 | // NEW_FUN_TAGS
	1<<8 | // EXTENDED_PIDS_PORTS
	1<<9 | // EXPORT_PTR_TAG
	1<<10 | // BIT_BINARIES
	1<<11 | // NEW_FLOATS
	1<<16 | // UTF8_ATOMS
	1<<17 | // MAP_TAG
	1<<18 | // BIG_CREATION
	handshake23 |
	1<<25 | // UNLINK_ID
	1<<26 | // MANDATORY_25_DIGEST
	1<<34 // V4_NC

// handshake23 says that a challenge may come in the form of version 6.
const handshake23 = 1 << 24

// askersCreation is any creation that a node may have.
const askersCreation = 4

// maxChallenge is the longest message of a node that is read, in bytes: the
// fixed part of a challenge and a full name of 255 characters on either side
// of the @.
const maxChallenge = 1 + 8 + 4 + 4 + 2 + 2*utf8.UTFMax*epmd.MaxName + 1

// exchangeNames says the asker's name to a node and returns the full name that
// the node answers with (ERTS User's Guide, "Distribution Protocol",
// "Distribution Handshake").
func exchangeNames(node io.ReadWriter, version uint16) (string, error) {
	if _, err := node.Write(appendSendName(nil, version)); err != nil {
		return "", handshakeError(err)
	}
	status, err := readMessage(node)
	if err != nil {
		return "", handshakeError(err)
	}
	switch string(status) {
	case "sok", "sok_simultaneous":
	case "snot_allowed":
		return "", errors.New("it takes connections of certain nodes only (net_kernel:allow/1); an alias can say the name")
	default:
		return "", fmt.Errorf("it answers the handshake with the status %.40q", status)
	}
	challenge, err := readMessage(node)
	if err != nil {
		return "", handshakeError(err)
	}
	return parseChallenge(challenge)
}

func appendSendName(dst []byte, version uint16) []byte {
	if version < 6 {
		dst = binary.BigEndian.AppendUint16(dst, 1+2+4+uint16(len(askersName)))
		dst = binary.BigEndian.AppendUint16(append(dst, 'n'), 5)
		dst = binary.BigEndian.AppendUint32(dst, uint32(askersFlags&^handshake23&0xffffffff))
		return append(dst, askersName...)
	}
	dst = binary.BigEndian.AppendUint16(dst, 1+8+4+2+uint16(len(askersName)))
	dst = binary.BigEndian.AppendUint64(append(dst, 'N'), askersFlags)
	dst = binary.BigEndian.AppendUint32(dst, askersCreation)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(askersName)))
	return append(dst, askersName...)
}

// readMessage reads one message of a handshake, without its length.
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > maxChallenge {
		return nil, errNoHandshake
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// errNoHandshake says that what a node answers is no handshake: its
// distribution goes over TLS, for example.
var errNoHandshake = errors.New("it does not answer with a distribution handshake")

// handshakeError says in words for clients how a handshake broke off.
func handshakeError(err error) error {
	switch {
	case errors.Is(err, errNoHandshake):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("it does not answer the handshake in time")
	}
	return errors.New("it breaks the handshake off")
}

// parseChallenge returns the name in a challenge, send_challenge:
//
//	'N' flags64 challenge32 creation32 nlen16 name
//	'n' version16 flags32 challenge32 name
//
// The name comes in Latin-1 (dist_util:send_challenge/2).
func parseChallenge(b []byte) (string, error) {
	const fixed, fixedOld = 1 + 8 + 4 + 4 + 2, 1 + 2 + 4 + 4
	var name []byte
	switch {
	case len(b) > fixed && b[0] == 'N':
		name = b[fixed:]
		n := int(binary.BigEndian.Uint16(b[fixed-2:]))
		if n > len(name) {
			return "", errNoHandshake
		}
		name = name[:n] // more may follow
	case len(b) > fixedOld && b[0] == 'n':
		name = b[fixedOld:]
	}
	full := fromLatin1(name)
	before, after, ok := strings.Cut(full, "@")
	if !ok || checkPart(before) != "" || checkPart(after) != "" {
		return "", errNoHandshake
	}
	return full, nil
}

func fromLatin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}
