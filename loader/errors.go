package loader

import (
	"errors"
	"fmt"
)

// ErrNotSupported is what errors are (errors.Is) that say that this host cannot
// have the shortcut: the kernel, its configuration or a capability. It is always
// wrapped in an UnsupportedError.
var ErrNotSupported = errors.New("not supported")

// UnsupportedError says what this host lacks for the shortcut, and the remedy.
type UnsupportedError struct {
	What   string // what is missing, or what the kernel did wrong
	Remedy string // what to do about it; empty if nothing can be done
	Err    error  // what the kernel said, if it said anything
}

func (e *UnsupportedError) Error() string {
	text := "shortcut not supported: " + e.What
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return text
}

// Is makes every UnsupportedError an ErrNotSupported.
func (e *UnsupportedError) Is(target error) bool { return target == ErrNotSupported }

// Unwrap returns what the kernel said.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// ErrBusy is the error of pairing a socket that is in somebody else's socket map,
// in that of another version of this program, or that has just been taken out
// of ours. Only the last passes, within a second.
var ErrBusy = errors.New("socket in use by another socket map")

// ErrNotPeers is the error of pairing sockets that are not the two ends of one
// connection, or not those of the relay's connections.
var ErrNotPeers = errors.New("sockets not connected to each other")

// ErrGone is the error of a pair whose sockets have closed.
var ErrGone = errors.New("pair gone with its sockets")

// UnsuitableError says why a socket cannot be paired.
type UnsuitableError struct{ Why string }

func (e *UnsuitableError) Error() string { return "unsuitable socket: " + e.Why }

func unsuitable(format string, args ...any) error {
	return &UnsuitableError{fmt.Sprintf(format, args...)}
}
