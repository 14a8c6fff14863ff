package endpoint

import "errors"

// ErrNotFound is the error of looking for a connection that has no end on this
// host, as far as the network namespaces of its Erlang VMs go.
var ErrNotFound = errors.New("no such connection on this host")

// ErrNotBEAM is the error of looking for a socket that no Erlang VM of this host
// has.
var ErrNotBEAM = errors.New("no Erlang VM has this socket")

// ErrClosed is the error of using a Finder after Close.
var ErrClosed = errors.New("finder of endpoints closed")

// UnsuitableError says why the socket that was found is not taken, although a
// BEAM has it.
type UnsuitableError struct{ Why string }

func (e *UnsuitableError) Error() string { return "unsuitable socket: " + e.Why }

// MissingError says what this process lacks, so that it cannot tell who has a
// socket, or cannot take it.
type MissingError struct {
	What   string // the capability
	Remedy string
	Err    error // what the kernel said
}

func (e *MissingError) Error() string {
	return e.What + " missing: " + e.Err.Error() + " (" + e.Remedy + ")"
}

// Unwrap returns what the kernel said.
func (e *MissingError) Unwrap() error { return e.Err }
