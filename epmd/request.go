package epmd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// First bytes of the requests' payloads.
const (
	tagAlive    = 'x'
	tagPort     = 'z'
	tagNames    = 'n'
	tagDump     = 'd'
	tagKill     = 'k'
	tagStop     = 's'
	tagHandover = 'h'
)

const (
	// MaxRequest is the length of the longest payload that OTP's daemon takes.
	// The first byte of a request is therefore never above 0x0b.
	MaxRequest = 0x0bf4

	lengthSize     = 2  // of the length before a payload
	aliveFixedSize = 13 // an ALIVE2_REQ without name and extra data
)

// ErrMalformed says that bytes are no message of the protocol.
var ErrMalformed = errors.New("malformed EPMD message")

// Request is one of AliveRequest, PortRequest, NamesRequest, DumpRequest,
// KillRequest, StopRequest and HandoverRequest.
type Request interface {
	appendPayload(dst []byte) ([]byte, error)
}

// AliveRequest is ALIVE2_REQ: it registers a node for as long as the
// connection stays open. It is answered by an AliveResponse.
type AliveRequest struct{ Node }

// PortRequest is PORT_PLEASE2_REQ: it asks for a node by its name and is
// answered by a PortResponse.
type PortRequest struct{ Name string }

// NamesRequest is NAMES_REQ: it asks for all names and is answered by a
// NamesResponse.
type NamesRequest struct{}

// DumpRequest is DUMP_REQ: it asks for all names, also former ones, and is
// answered by a DumpResponse.
type DumpRequest struct{}

// KillRequest is KILL_REQ: it asks the daemon to end. The answer is "OK" or
// "NO".
type KillRequest struct{}

// StopRequest is STOP_REQ: it unregisters a node against its will. The answer
// is "STOPPED" or "NOEXIST", or a close if the daemon does not allow it.
type StopRequest struct{ Name string }

// HandoverRequest asks the daemon to give this very connection to a node. It
// is 'h' and the name, which may end in a NUL. It is answered by a
// HandoverResponse: by the node where it has got the connection, else by the
// daemon.
type HandoverRequest struct{ Name string }

// ParseRequest decodes a payload, which comes without its length. It keeps no
// reference to payload. Where OTP's daemon refuses a request without an answer
// it returns an error that wraps ErrMalformed. It does not judge the name and
// the extra data of an AliveRequest otherwise than that: a daemon refuses
// those by its answer.
func ParseRequest(payload []byte) (Request, error) {
	if len(payload) == 0 {
		return nil, fmt.Errorf("%w: empty request", ErrMalformed)
	}
	if len(payload) > MaxRequest {
		return nil, tooLong(len(payload))
	}
	body := payload[1:]
	switch payload[0] {
	case tagAlive:
		return parseAlive(body)
	case tagPort, tagStop, tagHandover:
		return parseNamed(payload[0], body)
	case tagNames:
		return NamesRequest{}, nil
	case tagDump:
		return DumpRequest{}, nil
	case tagKill:
		return KillRequest{}, nil
	}
	return nil, fmt.Errorf("%w: request 0x%02x is unknown", ErrMalformed, payload[0])
}

// parseNamed decodes a request that is a name and nothing else.
func parseNamed(tag byte, body []byte) (Request, error) {
	name, err := cutName(body)
	if err != nil {
		return nil, err
	}
	switch tag {
	case tagPort:
		return PortRequest{string(name)}, nil
	case tagStop:
		return StopRequest{string(name)}, nil
	}
	return HandoverRequest{string(name)}, nil
}

func parseAlive(body []byte) (Request, error) {
	if len(body)+1 <= aliveFixedSize {
		return nil, fmt.Errorf("%w: ALIVE2_REQ of %d bytes is too short", ErrMalformed, len(body)+1)
	}
	node := Node{
		Port:     binary.BigEndian.Uint16(body[0:]),
		Type:     NodeType(body[2]),
		Protocol: body[3],
		Highest:  binary.BigEndian.Uint16(body[4:]),
		Lowest:   binary.BigEndian.Uint16(body[6:]),
	}
	name, rest, err := cutField(body[8:])
	if err != nil {
		return nil, fmt.Errorf("%w (name of ALIVE2_REQ)", err)
	}
	if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
		return nil, fmt.Errorf("%w: name of ALIVE2_REQ is empty or has a NUL", ErrMalformed)
	}
	// OTP's daemon does not mind bytes after the extra data, so neither do we.
	extra, _, err := cutField(rest)
	if err != nil {
		return nil, fmt.Errorf("%w (extra data of ALIVE2_REQ)", err)
	}
	node.Name = string(name)
	node.Extra = append(node.Extra, extra...)
	return AliveRequest{node}, nil
}

// cutField splits b after a field that is preceded by its 16-bit length.
func cutField(b []byte) (field, rest []byte, err error) {
	if len(b) < lengthSize {
		return nil, nil, fmt.Errorf("%w: no length", ErrMalformed)
	}
	size := int(binary.BigEndian.Uint16(b))
	if b = b[lengthSize:]; size > len(b) {
		return nil, nil, fmt.Errorf("%w: length %d, only %d bytes follow", ErrMalformed, size, len(b))
	}
	return b[:size], b[size:], nil
}

// cutName takes the name that a request ends in, without the NUL of a C
// string that old clients send with it.
func cutName(body []byte) ([]byte, error) {
	name := bytes.TrimSuffix(body, []byte{0})
	if err := validateName(string(name)); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return name, nil
}

func tooLong(size int) error {
	return fmt.Errorf("%w: request of %d bytes, %d are allowed", ErrMalformed, size, MaxRequest)
}

// AppendRequest appends r with its length to dst. The error wraps
// ErrInvalidNode if r names a node that no daemon takes.
func AppendRequest(dst []byte, r Request) ([]byte, error) {
	start := len(dst)
	dst, err := r.appendPayload(append(dst, 0, 0))
	if err != nil {
		return dst[:start], err
	}
	binary.BigEndian.PutUint16(dst[start:], uint16(len(dst)-start-lengthSize))
	return dst, nil
}

// ReadRequest reads exactly one request from r, and not a byte after it. The
// error is io.EOF if r ends before the first byte, and io.ErrUnexpectedEOF if
// it ends later; it wraps ErrMalformed if what was read is no request. A
// length above MaxRequest is refused before anything that follows it is read.
func ReadRequest(r io.Reader) (Request, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(length[:]))
	if size > MaxRequest {
		return nil, tooLong(size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, noEOF(err)
	}
	return ParseRequest(payload)
}

// noEOF makes an end inside of a message an unexpected one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r AliveRequest) appendPayload(dst []byte) ([]byte, error) {
	if err := r.validate(); err != nil {
		return dst, err
	}
	dst = append(dst, tagAlive)
	return appendNode(dst, &r.Node, r.Port), nil
}

// appendNode appends what ALIVE2_REQ and PORT2_RESP have in common.
func appendNode(dst []byte, n *Node, port uint16) []byte {
	dst = binary.BigEndian.AppendUint16(dst, port)
	dst = append(dst, byte(n.Type), n.Protocol)
	dst = binary.BigEndian.AppendUint16(dst, n.Highest)
	dst = binary.BigEndian.AppendUint16(dst, n.Lowest)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(n.Name)))
	dst = append(dst, n.Name...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(n.Extra)))
	return append(dst, n.Extra...)
}

func (r PortRequest) appendPayload(dst []byte) ([]byte, error) {
	return appendName(dst, tagPort, r.Name)
}

func (r StopRequest) appendPayload(dst []byte) ([]byte, error) {
	return appendName(dst, tagStop, r.Name)
}

func (r HandoverRequest) appendPayload(dst []byte) ([]byte, error) {
	return appendName(dst, tagHandover, r.Name)
}

func appendName(dst []byte, tag byte, name string) ([]byte, error) {
	if err := validateName(name); err != nil {
		return dst, err
	}
	return append(append(dst, tag), name...), nil
}

func (NamesRequest) appendPayload(dst []byte) ([]byte, error) { return append(dst, tagNames), nil }
func (DumpRequest) appendPayload(dst []byte) ([]byte, error)  { return append(dst, tagDump), nil }
func (KillRequest) appendPayload(dst []byte) ([]byte, error)  { return append(dst, tagKill), nil }
