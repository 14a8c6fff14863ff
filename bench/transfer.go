package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// send sends a stream of stamped bytes, in pieces of size, and counts what it got
// rid of.
func send(c net.Conn, seed, count uint64, size int, sent *atomic.Uint64) error {
	b := filler(size)
	for position := uint64(0); position < count; {
		n := min(uint64(size), count-position)
		stampChunk(b[:n], seed, position)
		if _, err := c.Write(b[:n]); err != nil {
			return fmt.Errorf("sending at %d of %d: %w", position, count, err)
		}
		position += n
		sent.Store(position)
	}
	return nil
}

// receive receives that stream, in pieces of size at most, and makes sure that it is
// whole.
func receive(c net.Conn, seed, count uint64, size int) (uint64, error) {
	b := make([]byte, size)
	check := checker{seed: seed}
	for check.position < count {
		n, err := c.Read(b[:min(uint64(size), count-check.position)])
		if err := check.check(b[:n]); err != nil {
			return check.position, err
		}
		if err != nil && check.position < count {
			return check.position, fmt.Errorf("receiving at %d of %d: %w", check.position, count, err)
		}
	}
	return count, nil
}

// echo sends back what comes.
func echo(c net.Conn, h header) error {
	b := make([]byte, h.Size)
	for i := range h.Count {
		if _, err := io.ReadFull(c, b); err != nil {
			return fmt.Errorf("receiving message %d of %d: %w", i, h.Count, err)
		}
		if _, err := c.Write(b); err != nil {
			return fmt.Errorf("sending message %d of %d back: %w", i, h.Count, err)
		}
	}
	return nil
}

// shout sends messages, waits for the echo of each, and returns how long each
// took.
func shout(c net.Conn, h header) ([]time.Duration, error) {
	out, in := make([]byte, h.Size), make([]byte, h.Size)
	for i := range out {
		out[i] = byte(i)
	}
	took := make([]time.Duration, h.Count)
	for i := range took {
		var number [8]byte
		binary.LittleEndian.PutUint64(number[:], stamp(h.Seed, uint64(i)*stride))
		copy(out, number[:])
		begin := time.Now()
		if _, err := c.Write(out); err != nil {
			return nil, fmt.Errorf("sending message %d of %d: %w", i, h.Count, err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			return nil, fmt.Errorf("waiting for the answer to message %d of %d: %w", i, h.Count, err)
		}
		took[i] = time.Since(begin)
		if !bytes.Equal(out, in) {
			return nil, fmt.Errorf("the answer to message %d of %d is another than was sent", i, h.Count)
		}
	}
	return took, nil
}

// strain is what happens while a reader sleeps.
type strain struct {
	accepted uint64
	fall     int64
}

// sendStrained is send to a reader who sleeps first. The pieces are small, so that
// what was got rid of is known well.
func sendStrained(c net.Conn, seed uint64, h header) (strain, error) {
	const piece = 16 << 10
	var s strain
	before, err := memAvailable()
	if err != nil {
		return s, err
	}
	var sent atomic.Uint64
	done := make(chan error, 1)
	go func() { done <- send(c, seed, h.Count, piece, &sent) }()
	// The last moments are the reader's, which may wake a little earlier.
	asleep := time.After(h.Sleep * 9 / 10)
	look := time.NewTicker(max(h.Sleep/50, time.Millisecond))
	defer look.Stop()
	// Also when all is sent, memory may still be filled on its way.
	for over := false; !over; {
		select {
		case <-look.C:
		case <-asleep:
			over = true
		}
		now, err := memAvailable()
		if err == nil {
			s.fall = max(s.fall, before-now)
		}
	}
	s.accepted = sent.Load()
	return s, <-done // which the deadline of the connection bounds
}

// memAvailable is how much memory can be had without swapping, in bytes.
func memAvailable() (int64, error) { return memInfo("MemAvailable") }

// memInfo is a line of /proc/meminfo, in bytes.
func memInfo(key string) (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, key+":")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/meminfo has %q", strings.TrimSpace(line))
		}
		return kb << 10, nil
	}
	return 0, errors.New("/proc/meminfo has no " + key)
}
