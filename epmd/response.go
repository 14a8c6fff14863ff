package epmd

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// First bytes of the responses.
const (
	tagAliveResponse         = 'y'
	tagAliveExtendedResponse = 'v'
	tagPortResponse          = 'w'
	tagHandoverResponse      = 'i'
)

// Answers to KillRequest and StopRequest, whole.
const (
	killAllowed  = "OK"
	killRefused  = "NO"
	stopDone     = "STOPPED"
	stopNotFound = "NOEXIST"
)

// Results, the second byte of a response. Every other value means failure,
// too.
const (
	ResultOK     = 0
	ResultFailed = 1
)

// refusedCreation is what OTP's daemon gives with a refused registration.
const refusedCreation = 99

const (
	// maxListing bounds what is read of a list: 30,000 of the longest names.
	maxListing = 32 << 20
	// maxLine bounds one of its lines, all but the name of which is short.
	maxLine = maxNameBytes + 256
)

// AliveResponse answers an AliveRequest. Extended says which form it has:
// ALIVE2_X_RESP with a creation of 32 bits, which only a node may be sent that
// announced Highest 6 or above, or ALIVE2_RESP with one of 16 bits.
type AliveResponse struct {
	Result   byte
	Creation uint32
	Extended bool
}

// Append appends r to dst. Of a creation that is not Extended only the lower
// 16 bits are sent.
func (r AliveResponse) Append(dst []byte) []byte {
	if r.Extended {
		return binary.BigEndian.AppendUint32(append(dst, tagAliveExtendedResponse, r.Result), r.Creation)
	}
	return binary.BigEndian.AppendUint16(append(dst, tagAliveResponse, r.Result), uint16(r.Creation))
}

// ReadAliveResponse reads exactly one AliveResponse. The error wraps
// ErrMalformed if there is something else.
func ReadAliveResponse(r io.Reader) (AliveResponse, error) {
	var b [6]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return AliveResponse{}, err
	}
	response := AliveResponse{Result: b[1]}
	switch b[0] {
	case tagAliveResponse:
		if _, err := io.ReadFull(r, b[2:4]); err != nil {
			return AliveResponse{}, noEOF(err)
		}
		response.Creation = uint32(binary.BigEndian.Uint16(b[2:]))
	case tagAliveExtendedResponse:
		if _, err := io.ReadFull(r, b[2:6]); err != nil {
			return AliveResponse{}, noEOF(err)
		}
		response.Creation = binary.BigEndian.Uint32(b[2:])
		response.Extended = true
	default:
		return AliveResponse{}, fmt.Errorf("%w: 0x%02x answers no ALIVE2_REQ", ErrMalformed, b[0])
	}
	return response, nil
}

// PortResponse answers a PortRequest. A Node comes only with ResultOK.
type PortResponse struct {
	Result byte
	Node   Node
}

// Append appends r to dst.
func (r PortResponse) Append(dst []byte) []byte {
	dst = append(dst, tagPortResponse, r.Result)
	if r.Result != ResultOK {
		return dst
	}
	return appendNode(dst, &r.Node, r.Node.Port)
}

// ReadPortResponse reads exactly one PortResponse. The error wraps
// ErrMalformed if there is something else.
func ReadPortResponse(r io.Reader) (PortResponse, error) {
	var b [10]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return PortResponse{}, err
	}
	response := PortResponse{Result: b[1]}
	if b[0] != tagPortResponse {
		return PortResponse{}, fmt.Errorf("%w: 0x%02x answers no PORT_PLEASE2_REQ", ErrMalformed, b[0])
	}
	if response.Result != ResultOK {
		return response, nil
	}
	if _, err := io.ReadFull(r, b[:8]); err != nil {
		return PortResponse{}, noEOF(err)
	}
	name, err := readField(r, maxNameBytes)
	if err != nil {
		return PortResponse{}, err
	}
	extra, err := readField(r, MaxExtra)
	if err != nil {
		return PortResponse{}, err
	}
	response.Node = Node{
		Name:     string(name),
		Port:     binary.BigEndian.Uint16(b[0:]),
		Type:     NodeType(b[2]),
		Protocol: b[3],
		Highest:  binary.BigEndian.Uint16(b[4:]),
		Lowest:   binary.BigEndian.Uint16(b[6:]),
		Extra:    extra,
	}
	return response, nil
}

// readField reads a field that is preceded by its 16-bit length, or nil if it
// is empty.
func readField(r io.Reader, limit int) ([]byte, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, noEOF(err)
	}
	size := int(binary.BigEndian.Uint16(length[:]))
	if size == 0 {
		return nil, nil
	}
	if size > limit {
		return nil, fmt.Errorf("%w: field of %d bytes, %d are allowed", ErrMalformed, size, limit)
	}
	field := make([]byte, size)
	if _, err := io.ReadFull(r, field); err != nil {
		return nil, noEOF(err)
	}
	return field, nil
}

// HandoverResponse answers a HandoverRequest. The version of the distribution
// to be spoken comes only with ResultOK; what follows it is the handshake.
type HandoverResponse struct {
	Result  byte
	Version uint16
}

// Append appends r to dst.
func (r HandoverResponse) Append(dst []byte) []byte {
	dst = append(dst, tagHandoverResponse, r.Result)
	if r.Result != ResultOK {
		return dst
	}
	return binary.BigEndian.AppendUint16(dst, r.Version)
}

// ReadHandoverResponse reads exactly one HandoverResponse. The error wraps
// ErrMalformed if there is something else.
func ReadHandoverResponse(r io.Reader) (HandoverResponse, error) {
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return HandoverResponse{}, err
	}
	response := HandoverResponse{Result: b[1]}
	if b[0] != tagHandoverResponse {
		return HandoverResponse{}, fmt.Errorf("%w: 0x%02x answers no handover request", ErrMalformed, b[0])
	}
	if response.Result == ResultOK {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return HandoverResponse{}, noEOF(err)
		}
		response.Version = binary.BigEndian.Uint16(b[:])
	}
	return response, nil
}

// Name is one line of a NamesResponse.
type Name struct {
	Name string
	Port uint16
}

// NamesResponse answers a NamesRequest: the port of the daemon itself and the
// registered names.
type NamesResponse struct {
	Port  uint32
	Names []Name
}

// Append appends r to dst.
func (r NamesResponse) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, r.Port)
	for _, n := range r.Names {
		dst = appendNameLine(dst, n.Name, n.Port)
	}
	return dst
}

// appendNameLine appends the line that people's scripts parse.
func appendNameLine(dst []byte, name string, port uint16) []byte {
	dst = append(append(dst, "name "...), name...)
	dst = strconv.AppendUint(append(dst, " at port "...), uint64(port), 10)
	return append(dst, '\n')
}

// ReadNamesResponse reads a NamesResponse, which ends where r ends. The error
// wraps ErrMalformed if there is something else.
func ReadNamesResponse(r io.Reader) (NamesResponse, error) {
	var response NamesResponse
	port, err := readListing(r, func(line string) error {
		rest, ok := strings.CutPrefix(line, "name ")
		name, number, found := cutLast(rest, " at port ")
		port, err := strconv.ParseUint(number, 10, 16)
		if !ok || !found || err != nil {
			return fmt.Errorf("%w: line %q lists no name", ErrMalformed, line)
		}
		response.Names = append(response.Names, Name{name, uint16(port)})
		return nil
	})
	response.Port = port
	return response, err
}

// DumpEntry is one line of a DumpResponse.
type DumpEntry struct {
	Name string
	Port uint16
	FD   int  // descriptor of its connection in the daemon
	Old  bool // no longer registered; the descriptor is somebody else's now
}

// DumpResponse answers a DumpRequest: the port of the daemon itself and the
// names that are or were registered.
type DumpResponse struct {
	Port    uint32
	Entries []DumpEntry
}

// Append appends r to dst. Each line ends in LF and NUL, as those of OTP's
// daemon do.
func (r DumpResponse) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, r.Port)
	for _, e := range r.Entries {
		dst = e.appendLine(dst)
	}
	return dst
}

func (e DumpEntry) appendLine(dst []byte) []byte {
	if e.Old {
		return fmt.Appendf(dst, "old/unused name <%s>, port = %d, fd = %d \n\x00", e.Name, e.Port, e.FD)
	}
	return fmt.Appendf(dst, "active name     <%s> at port %d, fd = %d\n\x00", e.Name, e.Port, e.FD)
}

// ReadDumpResponse reads a DumpResponse, which ends where r ends. The error
// wraps ErrMalformed if there is something else.
func ReadDumpResponse(r io.Reader) (DumpResponse, error) {
	var response DumpResponse
	port, err := readListing(r, func(line string) error {
		entry, err := parseDumpLine(strings.TrimPrefix(line, "\x00"))
		if err == nil {
			response.Entries = append(response.Entries, entry)
		}
		return err
	})
	response.Port = port
	return response, err
}

func parseDumpLine(line string) (DumpEntry, error) {
	malformed := fmt.Errorf("%w: line %q dumps no name", ErrMalformed, line)
	rest, active := strings.CutPrefix(line, "active name     <")
	middle := "> at port "
	if !active {
		var old bool
		if rest, old = strings.CutPrefix(line, "old/unused name <"); !old {
			return DumpEntry{}, malformed
		}
		middle = ">, port = "
	}
	name, numbers, found := cutLast(rest, middle)
	first, second, both := strings.Cut(strings.TrimSuffix(numbers, " "), ", fd = ")
	port, err := strconv.ParseUint(first, 10, 16)
	fd, fdErr := strconv.ParseInt(second, 10, 32)
	if !found || !both || err != nil || fdErr != nil {
		return DumpEntry{}, malformed
	}
	return DumpEntry{Name: name, Port: uint16(port), FD: int(fd), Old: !active}, nil
}

// cutLast is strings.Cut at the last separator: a name may contain it.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// readListing reads the daemon's port and then calls line for each line. A
// last line without a line feed was cut off.
func readListing(r io.Reader, line func(string) error) (uint32, error) {
	limited := &io.LimitedReader{R: r, N: maxListing}
	reader := bufio.NewReaderSize(limited, maxLine)
	var port [4]byte
	if _, err := io.ReadFull(reader, port[:]); err != nil {
		return 0, err
	}
	for {
		text, err := reader.ReadSlice('\n')
		switch {
		case err == nil:
			if err := line(string(text[:len(text)-1])); err != nil {
				return 0, err
			}
		case err == bufio.ErrBufferFull:
			return 0, fmt.Errorf("%w: line of more than %d bytes in a list", ErrMalformed, maxLine)
		case err != io.EOF:
			return 0, err
		case limited.N == 0:
			return 0, fmt.Errorf("%w: list of more than %d bytes", ErrMalformed, maxListing)
		case len(text) == 0 || string(text) == "\x00":
			return binary.BigEndian.Uint32(port[:]), nil
		default:
			return 0, io.ErrUnexpectedEOF
		}
	}
}
