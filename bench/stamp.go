package bench

import (
	"encoding/binary"
	"fmt"
)

// stride is the distance between two stamps in a stream, in bytes. Whatever moves
// in the stream moves at least one stamp, unless it is shorter than that; and the
// length tells of the rest. To look at every byte would cost more than some ways do.
const stride = 512

// chunk is how much is written and read at once, in bytes, where there are not too
// many who do it: see pieceOf.
const chunk = 256 << 10

// pieceOf is how much is written and read at once on each of so many connections:
// each has buffers of its own, at both ends.
func pieceOf(connections int) int {
	if connections <= 64 {
		return chunk
	}
	return 16 << 10
}

// stamp is what stands at a multiple of stride of a stream. It depends on the
// stream and on the position.
func stamp(seed, position uint64) uint64 { return (position/stride+1)*0x9e37_79b9_7f4a_7c15 ^ seed }

// filler is a piece of a stream without its stamps.
func filler(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// stampChunk writes the stamps into a chunk that begins at a multiple of stride.
func stampChunk(b []byte, seed, position uint64) {
	i := 0
	for ; i+8 <= len(b); i += stride {
		binary.LittleEndian.PutUint64(b[i:], stamp(seed, position+uint64(i)))
	}
	if i < len(b) {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], stamp(seed, position+uint64(i)))
		copy(b[i:], last[:])
	}
}

// checker looks at the stamps of a stream that comes in pieces.
type checker struct{ seed, position uint64 }

// check looks at the next piece. The error says where the stream is not what was
// sent.
func (c *checker) check(b []byte) error {
	begin, end := c.position, c.position+uint64(len(b))
	c.position = end
	for at := begin - begin%stride; at < end; at += stride {
		want := stamp(c.seed, at)
		if at >= begin && at+8 <= end {
			if binary.LittleEndian.Uint64(b[at-begin:]) != want {
				return wrongAt(at)
			}
			continue
		}
		// It is cut by the edges of the piece.
		var bytes [8]byte
		binary.LittleEndian.PutUint64(bytes[:], want)
		for i := range uint64(8) {
			if p := at + i; p >= begin && p < end && b[p-begin] != bytes[i] {
				return wrongAt(at)
			}
		}
	}
	return nil
}

func wrongAt(position uint64) error {
	return fmt.Errorf("bytes were lost, doubled, swapped or changed before or at position %d of the stream", position)
}
