package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// stream is a stream as send sends it.
func stream(seed, count uint64) []byte {
	var all []byte
	b := filler(chunk)
	for position := uint64(0); position < count; {
		n := min(chunk, count-position)
		stampChunk(b[:n], seed, position)
		all = append(all, b[:n]...)
		position += n
	}
	return all
}

// checkAll is what receive does with a stream that comes in pieces.
func checkAll(seed uint64, got []byte, count int, piece func() int) error {
	c := checker{seed: seed}
	for len(got) > 0 {
		n := min(piece(), len(got))
		if err := c.check(got[:n]); err != nil {
			return err
		}
		got = got[n:]
	}
	if c.position != uint64(count) {
		return fmt.Errorf("%d bytes of %d", c.position, count)
	}
	return nil
}

func TestAStreamIsWholeInWhateverPieces(t *testing.T) {
	for _, count := range []int{1, 7, 8, 9, 511, 512, 513, 520, 4096, chunk, chunk + 3, 2*chunk + 515} {
		sent := stream(42, uint64(count))
		for name, piece := range map[string]func() int{
			"one byte": func() int { return 1 },
			"primes":   func() int { return 509 },
			"segments": func() int { return 1448 },
			"random":   func() int { return 1 + rand.IntN(3000) },
			"whole":    func() int { return count },
		} {
			if err := checkAll(42, sent, count, piece); err != nil {
				t.Errorf("%d bytes, %s: %v", count, name, err)
			}
		}
	}
}

// Whatever happens to a block of a stream is found, wherever it is and however
// it is cut.
func TestAWrongStreamIsFound(t *testing.T) {
	const count = 64<<10 + 100
	sent := stream(42, count)
	other := stream(43, count)
	for _, size := range []int{512, 1000, 1448, 4096, 16 << 10} {
		for _, at := range []int{0, 1, 500, 512, 1448, 10_000, 20_480} {
			for _, tt := range []struct {
				name string
				got  []byte
			}{
				{"lost", slices.Concat(sent[:at], sent[at+size:])},
				{"doubled", slices.Concat(sent[:at+size], sent[at:])},
				{"doubled in place of the next", slices.Concat(sent[:at+size], sent[at:at+size], sent[at+2*size:])},
				{"swapped with the next", slices.Concat(sent[:at], sent[at+size:at+2*size], sent[at:at+size], sent[at+2*size:])},
				{"of another stream", slices.Concat(sent[:at], other[at:at+size], sent[at+size:])},
				{"zeroes", slices.Concat(sent[:at], make([]byte, size), sent[at+size:])},
				{"cut at the end", sent[:count-size]},
			} {
				if bytes.Equal(tt.got, sent) {
					t.Fatalf("%s: nothing is wrong with it", tt.name)
				}
				if err := checkAll(42, tt.got, count, func() int { return 1 + rand.IntN(5000) }); err == nil {
					t.Errorf("%d bytes at %d %s: nothing is found", size, at, tt.name)
				}
			}
		}
	}
	// A few bytes that are lost or doubled move all that follow.
	for _, few := range []int{1, 3, 100} {
		for name, got := range map[string][]byte{
			"lost":    slices.Concat(sent[:1000], sent[1000+few:]),
			"doubled": slices.Concat(sent[:1000], sent[1000-few:]),
		} {
			if err := checkAll(42, got, count, func() int { return 1448 }); err == nil {
				t.Errorf("%d bytes %s: nothing is found", few, name)
			}
		}
	}
}
