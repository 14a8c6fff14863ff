package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// The process that is an end of connections is told what to do by lines of JSON,
// and answers each by one.

// maxLine is the length of the longest line: that with all latencies of a turn.
const maxLine = 8 << 20

// operation is what an end is told to do.
type operation string

const (
	doListen   operation = "listen"   // accept connections at Address and Path, and serve them
	doRegister operation = "register" // register Name with Port at the door at Address
	doTake     operation = "take"     // take descriptors for Name at the socket Path
	doOpen     operation = "open"     // open Connections by Route with Header
	doRun      operation = "run"      // do what their header says
	doSetUp    operation = "set-up"   // open and close connections: Connections one by one, or for Time
	doClose    operation = "close"    // close all that is open by doOpen
	doAbort    operation = "abort"    // the same at once, whatever is being done
)

// request is a line to an end.
type request struct {
	ID          int            `json:"id"`
	Operation   operation      `json:"operation"`
	Address     netip.AddrPort `json:"address,omitzero"`
	Path        string         `json:"path,omitempty"`
	Name        string         `json:"name,omitempty"`
	Port        uint16         `json:"port,omitempty"`
	Route       route          `json:"route,omitzero"`
	Header      header         `json:"header,omitzero"`
	Connections int            `json:"connections,omitempty"`
	Time        time.Duration  `json:"time,omitempty"`
}

// answer is a line from an end.
type answer struct {
	ID        int              `json:"id"`
	Error     string           `json:"error,omitempty"`
	Addresses []netip.AddrPort `json:"addresses,omitempty"` // of doOpen: its own ends
	Note      string           `json:"note,omitempty"`      // of doOpen: why there are fewer
	Elapsed   time.Duration    `json:"elapsed,omitempty"`   // from the first byte to the last
	Latencies []time.Duration  `json:"latencies,omitempty"` // sorted
	Count     int              `json:"count,omitempty"`     // connections that were opened
	Accepted  uint64           `json:"accepted,omitempty"`  // of slow
	Fall      int64            `json:"fall,omitempty"`      // of slow
}

// readLines calls f with each line of requests, until the end of in.
func readLines(in io.Reader, f func(request) error) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if err := f(r); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading requests: %w", err)
	}
	return nil
}

// answers takes lines of answers apart as they are written to it.
type answers struct {
	line    []byte
	deliver func(answer)
}

// Write keeps the beginning of a line until the rest comes.
func (a *answers) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			a.line = append(a.line, rest...)
			break
		}
		a.line = append(a.line, rest[:end]...)
		rest = rest[end+1:]
		var got answer
		if err := json.Unmarshal(a.line, &got); err != nil {
			return 0, fmt.Errorf("reading an answer: %w", err)
		}
		a.line = a.line[:0]
		a.deliver(got)
	}
	if len(a.line) > maxLine {
		return 0, errors.New("an answer is too long")
	}
	return len(b), nil
}
