package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// kind is what is done over a connection between two ends.
type kind byte

const (
	bulk  kind = 1 + iota // stamped bytes
	trips                 // a message and its echo, again and again
	setUp                 // nothing: that it stands is all
	hold                  // nothing, for long
	slow                  // bulk to a reader who sleeps first
)

// direction is where the bytes of bulk and slow go.
type direction byte

const (
	toNode direction = 1 << iota
	toClient
	bothWays = toNode | toClient
)

// header is what the client says first over a connection. The node answers with
// one byte, ready, and begins when the client has sent another, goAhead.
type header struct {
	Kind      kind          `json:"kind"`
	Direction direction     `json:"direction,omitempty"`
	Size      uint32        `json:"size,omitempty"`  // of a message, or of what is written and read at once, in bytes
	Count     uint64        `json:"count,omitempty"` // bytes of each direction, or trips
	Sleep     time.Duration `json:"sleep,omitempty"` // of the reader
	Poll      bool          `json:"poll,omitempty"`  // both ends wait as polling does
	Seed      uint64        `json:"-"`               // of the stream to the node; of that to the client, ^Seed
}

const (
	headerSize  = 64
	headerMagic = "oneport bench 1\n"

	ready   = 'R'
	goAhead = 'G'

	maxSize = 1 << 20 // bytes of a message
)

func (h header) bytes() []byte {
	b := make([]byte, headerSize)
	copy(b, headerMagic)
	b[16], b[17] = byte(h.Kind), byte(h.Direction)
	if h.Poll {
		b[18] = 1
	}
	binary.LittleEndian.PutUint32(b[20:], h.Size)
	binary.LittleEndian.PutUint64(b[24:], h.Count)
	binary.LittleEndian.PutUint64(b[32:], uint64(h.Sleep))
	binary.LittleEndian.PutUint64(b[40:], h.Seed)
	return b
}

// parseHeader reads what bytes writes, and accepts nothing that could not be done.
func parseHeader(b []byte) (header, error) {
	if len(b) != headerSize || string(b[:16]) != headerMagic {
		return header{}, errors.New("no header of a benchmark")
	}
	h := header{
		Kind: kind(b[16]), Direction: direction(b[17]), Poll: b[18] == 1,
		Size:  binary.LittleEndian.Uint32(b[20:]),
		Count: binary.LittleEndian.Uint64(b[24:]),
		Sleep: time.Duration(binary.LittleEndian.Uint64(b[32:])),
		Seed:  binary.LittleEndian.Uint64(b[40:]),
	}
	switch {
	case h.Kind < bulk || h.Kind > slow:
		return header{}, fmt.Errorf("kind %d of work", h.Kind)
	case (h.Kind == bulk || h.Kind == slow) && (h.Direction == 0 || h.Direction > bothWays):
		return header{}, fmt.Errorf("direction %d", h.Direction)
	case (h.Kind == bulk || h.Kind == slow) && (h.Size == 0 || h.Size > chunk || h.Size%stride != 0):
		return header{}, fmt.Errorf("pieces of %d bytes; expected a multiple of %d up to %d", h.Size, stride, chunk)
	case h.Kind == slow && h.Direction == bothWays:
		return header{}, errors.New("two slow readers on one connection")
	case h.Kind == trips && (h.Size == 0 || h.Size > maxSize):
		return header{}, fmt.Errorf("messages of %d bytes; expected 1 to %d", h.Size, maxSize)
	case h.Sleep < 0 || h.Sleep > time.Minute:
		return header{}, fmt.Errorf("a sleep of %v; expected a minute at most", h.Sleep)
	}
	return h, nil
}

// within is how long the work may take.
func (h header) within() time.Duration {
	const least = time.Minute
	switch h.Kind {
	case bulk, slow:
		const slowest = 20e6 // bytes a second
		return least + h.Sleep + time.Duration(float64(h.Count)/slowest*float64(time.Second))
	case trips:
		return least + time.Duration(h.Count)*5*time.Millisecond
	case hold:
		return 10 * time.Minute
	}
	return least
}

// report is what the node says at the end of bulk, slow and trips.
type report struct {
	ok       bool
	received uint64 // bytes
	accepted uint64 // of a slow reader's sender: bytes that it got rid of while the reader slept
	fall     int64  // bytes that MemAvailable fell by meanwhile
	why      string // it is not ok
}

const (
	reportSize = 256
	maxWhy     = reportSize - 27
)

func (r report) bytes() []byte {
	b := make([]byte, reportSize)
	if r.ok {
		b[0] = 1
	}
	binary.LittleEndian.PutUint64(b[1:], r.received)
	binary.LittleEndian.PutUint64(b[9:], r.accepted)
	binary.LittleEndian.PutUint64(b[17:], uint64(r.fall))
	n := copy(b[27:], r.why)
	binary.LittleEndian.PutUint16(b[25:], uint16(n))
	return b
}

func parseReport(b []byte) report {
	n := min(int(binary.LittleEndian.Uint16(b[25:])), maxWhy)
	return report{
		ok: b[0] == 1, received: binary.LittleEndian.Uint64(b[1:]), accepted: binary.LittleEndian.Uint64(b[9:]),
		fall: int64(binary.LittleEndian.Uint64(b[17:])), why: string(b[27 : 27+n]),
	}
}
