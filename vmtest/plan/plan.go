// Package plan is what the runner and the first process of its virtual machine
// say to each other: what to run, and how it went.
//
// It knows nothing of QEMU, nor of what the programs are.
package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Path is where the machine finds its Plan, as JSON.
const Path = "/etc/vmtest.json"

// ExitPort is the I/O port of QEMU's device isa-debug-exit, to which the machine
// writes one of the following when it ends.
const ExitPort = 0xf4

// How a machine ended. QEMU exits with twice the value and one: neither with 0,
// as after a reset, nor with 1, as after an error of its own.
const (
	ExitPassed = 0x40 + iota // every program with status 0
	ExitFailed               // some program with another
	ExitFault                // the plan could not be followed
)

// Plan is what a machine does between its start and its end.
type Plan struct {
	Modules  []string // files of kernel modules, in the order of loading
	Programs []Program
}

// Program is one program to run. Programs run one after the other; what one
// leaves running is killed before the next begins.
type Program struct {
	Name    string // what its events call it
	Path    string
	Args    []string
	Dir     string        // its working directory
	Timeout time.Duration // until it is killed
}

// Event is one step of a machine on its way through the plan. Exactly one of
// the fields is set.
type Event struct {
	Release string `json:",omitempty"` // the running kernel's; the first event
	Start   string `json:",omitempty"` // a Program's Name; its output follows
	End     *End   `json:",omitempty"` // of the Program started last
	Fault   string `json:",omitempty"` // the plan could not be followed; the last event
	Done    bool   `json:",omitempty"` // the plan was followed; the last event
}

// End is how a Program ended.
type End struct {
	Status int // its exit status, or 128 and the number of the signal that ended it
	Took   time.Duration
	Left   string `json:",omitempty"` // what TCP holds of it when all of it has ended; empty if nothing
}

// mark begins an event in the stream that the programs' output shares. It is
// ASCII's record separator, which no test prints.
const mark = 0x1e

// Encode returns the event as a line of its own, whatever stands before it in
// the stream.
func Encode(e Event) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return append(append([]byte{mark}, b...), '\n'), nil
}

// Decode looks for an event in a line of the stream. It returns what of the
// line a program has written, and the event, or nil where there is none.
func Decode(line []byte) (output []byte, event *Event, err error) {
	output, encoded, found := bytes.Cut(line, []byte{mark})
	if !found {
		return output, nil, nil
	}
	event = new(Event)
	if err := json.Unmarshal(encoded, event); err != nil {
		return output, nil, fmt.Errorf("decoding an event: %w", err)
	}
	return output, event, nil
}
