package relay

// vessel carries bytes from one socket to another. It is filled, drained until
// it is empty, and filled again. Neither ever waits: both return EAGAIN.
type vessel interface {
	// fill takes what a socket holds, up to the vessel's size, and returns the
	// number of bytes; 0 is the end of the connection's bytes.
	fill(fd int) (int, error)
	// drain writes what it can to a socket and returns the number of bytes.
	drain(fd int) (int, error)
	empty() bool
	// release gives the vessel up, also when it is not empty.
	release()
}
