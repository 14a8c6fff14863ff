package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// version is the only version of the protocol so far.
const version = 1

const (
	// maxFrame is the length of the longest frame, in bytes.
	maxFrame = 64<<10 - 1
	// maxReason is the length of the longest reason, in bytes.
	maxReason = 255
	// maxName is the length of the longest name, in bytes: that of 255
	// characters in UTF-8.
	maxName = 255 * utf8.UTFMax
	// maxProtocol is the length of the longest protocol's name, in bytes.
	maxProtocol = 255

	fieldHead = 3    // tag and length
	critical  = 0x80 // tags from here on must be understood
)

// First bytes of the frames.
const (
	typeHello   = 'H'
	typeAccept  = 'A'
	typeRefuse  = 'N'
	typeWelcome = 'W'
	typeReject  = 'R'
	typeOffer   = 'O'
	typeCommit  = 'C'
	typeCancel  = 'X'
)

// Tags of the fields.
const (
	tagVersion  = 0x01
	tagName     = 0x02
	tagHost     = 0x03
	tagID       = 0x10
	tagReason   = 0x11
	tagCode     = 0x12
	tagPeer     = 0x20
	tagLocal    = 0x21
	tagProtocol = 0x22
	tagTaken    = 0x23
)

// errMalformed says that bytes are no frame of the protocol.
var errMalformed = errors.New("malformed frame")

// frame is one of hello, accept, refuse, welcome, reject, offer, commit and
// cancel. One packet is one frame.
type frame interface {
	// append appends the frame to dst. It does not check what it is given.
	append(dst []byte) []byte
}

// From the node to the daemon.
type (
	// hello is the first frame: who it is, and the versions it speaks. host is
	// what stands behind the @ of its name; receivers need not say it.
	hello struct {
		versions []byte
		name     string
		host     string
	}
	// accept answers an offer: the node waits for the commit.
	accept struct{ id uint64 }
	// refuse answers an offer: the node has closed the descriptor.
	refuse struct {
		id     uint64
		reason string
	}
)

// From the daemon to the node.
type (
	// welcome answers a hello with the version that is spoken from here on.
	welcome struct{ version byte }
	// reject says why the daemon closes the connection.
	reject struct {
		reason string
		code   rejectCode
	}
	// offer comes with one descriptor. taken holds what was read from it.
	offer struct {
		id          uint64
		name        string
		peer, local netip.AddrPort
		protocol    string
		taken       []byte
	}
	// commit makes the node the owner of a connection that it accepted.
	commit struct{ id uint64 }
	// cancel takes an offer back, whether it was accepted or not.
	cancel struct{ id uint64 }
)

// rejectCode tells a receiver why it is not welcome.
type rejectCode byte

const (
	rejectVersion       rejectCode = 1 + iota // no common version
	rejectNotRegistered                       // there is no such name; try again later
	rejectOwner                               // the name is another user's
	rejectMalformed                           // that was no frame
	rejectTooMany                             // too many connections of this user say nothing
	rejectShuttingDown                        // the daemon is about to end
	rejectOccupied                            // another process is this node's receiver
)

func (f hello) append(dst []byte) []byte {
	dst = appendField(append(dst, typeHello), tagVersion, f.versions)
	dst = appendField(dst, tagName, []byte(f.name))
	if f.host == "" {
		return dst
	}
	return appendField(dst, tagHost, []byte(f.host))
}

func (f accept) append(dst []byte) []byte { return appendID(append(dst, typeAccept), f.id) }

func (f refuse) append(dst []byte) []byte {
	return appendField(appendID(append(dst, typeRefuse), f.id), tagReason, []byte(f.reason))
}

func (f welcome) append(dst []byte) []byte {
	return appendField(append(dst, typeWelcome), tagVersion, []byte{f.version})
}

func (f reject) append(dst []byte) []byte {
	dst = appendField(append(dst, typeReject), tagReason, []byte(f.reason))
	return appendField(dst, tagCode, []byte{byte(f.code)})
}

func (f offer) append(dst []byte) []byte {
	dst = appendID(append(dst, typeOffer), f.id)
	dst = appendField(dst, tagName, []byte(f.name))
	dst = appendAddress(dst, tagPeer, f.peer)
	dst = appendAddress(dst, tagLocal, f.local)
	dst = appendField(dst, tagProtocol, []byte(f.protocol))
	if len(f.taken) == 0 {
		return dst
	}
	return appendField(dst, tagTaken, f.taken)
}

func (f commit) append(dst []byte) []byte { return appendID(append(dst, typeCommit), f.id) }
func (f cancel) append(dst []byte) []byte { return appendID(append(dst, typeCancel), f.id) }

func appendField(dst []byte, tag byte, value []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, tag), uint16(len(value)))
	return append(dst, value...)
}

func appendID(dst []byte, id uint64) []byte {
	return appendField(dst, tagID, binary.BigEndian.AppendUint64(nil, id))
}

// appendAddress appends an address and port. IPv4 addresses are told as such,
// also those mapped into IPv6.
func appendAddress(dst []byte, tag byte, a netip.AddrPort) []byte {
	family, address := byte(6), a.Addr().Unmap()
	if address.Is4() {
		family = 4
	}
	value := binary.BigEndian.AppendUint16([]byte{family}, a.Port())
	return appendField(dst, tag, append(value, address.AsSlice()...))
}

// clip cuts a reason down to what a frame can carry.
func clip(reason string) string {
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
}

// parse decodes a frame. It keeps no reference to b. The error wraps
// errMalformed.
func parse(b []byte) (frame, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: no type", errMalformed)
	}
	known := layout(b[0])
	if known == nil {
		return nil, fmt.Errorf("%w: type 0x%02x is unknown", errMalformed, b[0])
	}
	fields, err := cutFields(b[1:], known)
	if err != nil {
		return nil, err
	}
	r := reader{fields: fields}
	f := r.frame(b[0])
	if r.err != nil {
		return nil, r.err
	}
	return f, nil
}

// layout says which fields a type of frame has, or nil if there is no such type.
func layout(kind byte) []byte {
	switch kind {
	case typeHello:
		return []byte{tagVersion, tagName, tagHost}
	case typeAccept, typeCommit, typeCancel:
		return []byte{tagID}
	case typeRefuse:
		return []byte{tagID, tagReason}
	case typeWelcome:
		return []byte{tagVersion}
	case typeReject:
		return []byte{tagReason, tagCode}
	case typeOffer:
		return []byte{tagID, tagName, tagPeer, tagLocal, tagProtocol, tagTaken}
	}
	return nil
}

// cutFields splits b into its fields and drops those that are not known and
// need not be.
func cutFields(b, known []byte) (map[byte][]byte, error) {
	fields := make(map[byte][]byte, len(known))
	var seen [256]bool
	for len(b) > 0 {
		if len(b) < fieldHead {
			return nil, fmt.Errorf("%w: a field is cut short", errMalformed)
		}
		tag, size := b[0], int(binary.BigEndian.Uint16(b[1:]))
		if b = b[fieldHead:]; len(b) < size {
			return nil, fmt.Errorf("%w: field 0x%02x is cut short", errMalformed, tag)
		}
		if seen[tag] {
			return nil, fmt.Errorf("%w: two fields 0x%02x", errMalformed, tag)
		}
		seen[tag] = true
		switch {
		case slices.Contains(known, tag):
			fields[tag] = b[:size]
		case tag >= critical:
			return nil, fmt.Errorf("%w: field 0x%02x is unknown and must not be ignored", errMalformed, tag)
		}
		b = b[size:]
	}
	return fields, nil
}

// reader takes values out of the fields of a frame and keeps the first error.
type reader struct {
	fields map[byte][]byte
	err    error
}

func (r *reader) frame(kind byte) frame {
	switch kind {
	case typeHello:
		return hello{slices.Clone(r.bytes(tagVersion, 1, 255)), r.text(tagName, 1, maxName), r.host()}
	case typeAccept:
		return accept{r.id()}
	case typeRefuse:
		return refuse{r.id(), r.text(tagReason, 0, maxReason)}
	case typeWelcome:
		return welcome{r.byte(tagVersion)}
	case typeReject:
		return reject{r.text(tagReason, 0, maxReason), rejectCode(r.byte(tagCode))}
	case typeOffer:
		return offer{r.id(), r.text(tagName, 1, maxName), r.address(tagPeer), r.address(tagLocal),
			r.text(tagProtocol, 1, maxProtocol), r.taken()}
	case typeCommit:
		return commit{r.id()}
	}
	return cancel{r.id()}
}

// bytes returns a mandatory field of at least low and at most high bytes. After
// an error it returns low bytes.
func (r *reader) bytes(tag byte, low, high int) []byte {
	value, ok := r.fields[tag]
	switch {
	case !ok:
		r.fail("field 0x%02x is missing", tag)
	case len(value) < low || len(value) > high:
		r.fail("field 0x%02x has %d bytes", tag, len(value))
	default:
		return value
	}
	return make([]byte, low)
}

func (r *reader) byte(tag byte) byte { return r.bytes(tag, 1, 1)[0] }

func (r *reader) id() uint64 { return binary.BigEndian.Uint64(r.bytes(tagID, 8, 8)) }

func (r *reader) text(tag byte, low, high int) string {
	value := r.bytes(tag, low, high)
	if !utf8.Valid(value) {
		r.fail("field 0x%02x is not UTF-8", tag)
	}
	return string(value)
}

func (r *reader) address(tag byte) netip.AddrPort {
	const head = 3 // family and port
	value := r.bytes(tag, head, head+16)
	address, ok := netip.AddrFromSlice(value[head:])
	if r.err == nil && (!ok || value[0] == 4 != address.Is4() || value[0] == 6 != address.Is6() || address.Is4In6()) {
		r.fail("field 0x%02x is no address", tag)
	}
	return netip.AddrPortFrom(address, binary.BigEndian.Uint16(value[1:]))
}

// host is text without a space or a control character, since it is shown to
// others.
func (r *reader) host() string {
	if _, ok := r.fields[tagHost]; !ok {
		return ""
	}
	host := r.text(tagHost, 1, maxName)
	if strings.ContainsFunc(host, func(c rune) bool { return c == '@' || c == ' ' || !unicode.IsPrint(c) }) {
		r.fail("field 0x%02x is no host", tagHost)
	}
	return host
}

func (r *reader) taken() []byte {
	if len(r.fields[tagTaken]) == 0 {
		return nil
	}
	return slices.Clone(r.fields[tagTaken])
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
	}
}
