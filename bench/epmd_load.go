package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"oneport/epmd"
)

// epmdSilence bounds how long an answer is waited for.
const epmdSilence = 10 * time.Second

// The first bytes of the answers that mean yes.
var (
	portYes  = []byte{'w', 0} // PORT2_RESP, result 0
	aliveYes = []byte{'v', 0} // ALIVE2_X_RESP, result 0
)

// aliveAnswer is the length of an ALIVE2_X_RESP, after which a node that wants
// to be unregistered closes.
const aliveAnswer = 6

// epmdLoad asks a daemon count questions, each on a connection of its own, conns
// of them at once.
//
// One thread makes the system calls itself, and waits for the answers in the order
// of the questions: on a machine with few processors a client takes them from the
// daemon, and whatever it costs makes daemons seem more alike than they are.
type epmdLoad struct {
	address unix.Sockaddr
	// from is the address that is asked from, or nil: each load has its own where
	// there are many, since the ports that connections of the last minute had are
	// not free yet, and the kernel takes the longer to find one that is.
	from     unix.Sockaddr
	conns    int
	count    int
	question func(i int) []byte
	yes      []byte // how an answer has to begin
	length   int    // of an answer after which the client closes; 0: the daemon does
}

// epmdAnswerMax is more than the answers to the two questions have.
const epmdAnswerMax = 300

// run asks, and returns how long that took.
func (l *epmdLoad) run(ctx context.Context) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	open := make([]int, min(l.conns, l.count)) // descriptors of the questions that are open, by their numbers
	for i := range open {
		open[i] = -1
	}
	defer func() {
		for _, fd := range open {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}()
	answer := make([]byte, epmdAnswerMax)
	if l.length > 0 {
		answer = answer[:l.length]
	}
	began := time.Now()
	for i := range l.count + len(open) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		fd := &open[i%len(open)]
		if *fd >= 0 {
			if err := l.take(*fd, answer); err != nil {
				return 0, err
			}
			_ = unix.Close(*fd)
			*fd = -1
		}
		if i < l.count {
			if err := l.ask(fd, i); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}

// ask connects and sends question i. The descriptor is the caller's to close, also
// after an error.
func (l *epmdLoad) ask(fd *int, i int) (err error) {
	// Blocking: over loopback and veth the connection is there when connect(2)
	// returns, and so is the room for a question.
	*fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket: %w (is the limit of open files too low? see ulimit -n)", err)
	}
	silence := unix.NsecToTimeval(epmdSilence.Nanoseconds())
	if err := unix.SetsockoptTimeval(*fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &silence); err != nil {
		return fmt.Errorf("setting a time limit for an answer: %w", err)
	}
	if l.from != nil {
		err := unix.SetsockoptInt(*fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err = errors.Join(err, unix.Bind(*fd, l.from)); err != nil {
			return fmt.Errorf("binding to an address: %w", err)
		}
	}
	if err := unix.Connect(*fd, l.address); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if _, err := unix.SendmsgN(*fd, l.question(i), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	return nil
}

// take waits for a whole answer: to its length, or the end of the connection.
func (l *epmdLoad) take(fd int, buffer []byte) error {
	got := 0
	for got < len(buffer) {
		n, _, err := unix.Recvfrom(fd, buffer[got:], unix.MSG_WAITALL) // fewer after a signal
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return fmt.Errorf("no answer within %v", epmdSilence)
		case err != nil:
			return fmt.Errorf("reading an answer: %w", err)
		}
		if n == 0 {
			break
		}
		got += n
	}
	switch answer := buffer[:got]; {
	case got == 0:
		return errors.New("the daemon closed the connection without an answer")
	case !bytes.HasPrefix(answer, l.yes) || l.length > 0 && got != l.length:
		return fmt.Errorf("wrong answer %x", answer)
	}
	return nil
}

// portLoad asks for the names of a holder, one after the other.
func portLoad(server netip.AddrPort, conns, count, names int) (*epmdLoad, error) {
	request, err := epmd.AppendRequest(nil, epmd.PortRequest{Name: heldName(0)})
	if err != nil {
		return nil, err
	}
	digits := len(request) - heldDigits
	return &epmdLoad{
		address: sockaddr(server), conns: conns, count: count, yes: portYes,
		question: func(i int) []byte { return renumber(request, digits, i*7919%names) },
	}, nil
}

// aliveLoad registers nodes and closes, each time by another name, since a
// daemon need not have seen yet that the last one has gone. first numbers the
// first one.
func aliveLoad(server netip.AddrPort, conns, count, first int) (*epmdLoad, error) {
	node := epmd.Node{Name: "bench" + heldName(0), Port: heldPort, Type: epmd.Normal, Highest: 6, Lowest: 5}
	request, err := epmd.AppendRequest(nil, epmd.AliveRequest{Node: node})
	if err != nil {
		return nil, err
	}
	digits := len(request) - heldDigits - 2 // the length of the extra data follows
	return &epmdLoad{
		address: sockaddr(server), conns: conns, count: count, yes: aliveYes, length: aliveAnswer,
		question: func(i int) []byte { return renumber(request, digits, first+i) },
	}, nil
}

// Names that are held, and those that come and go, end in a number of so many
// digits.
const (
	heldPrefix = "held"
	heldDigits = 8
	heldPort   = 4711
)

// heldName is the name of the i-th node that is held.
func heldName(i int) string { return fmt.Sprintf("%s%0*d", heldPrefix, heldDigits, i) }

// renumber writes i, in decimal digits, into a request.
func renumber(request []byte, at, i int) []byte {
	field := request[at : at+heldDigits]
	for d := len(field) - 1; d >= 0; d-- {
		field[d] = '0' + byte(i%10)
		i /= 10
	}
	return request
}

// source is the address that the n-th load asks from.
func source(server netip.AddrPort, n int) unix.Sockaddr {
	if !server.Addr().Is4() || !server.Addr().IsLoopback() {
		return nil
	}
	return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 2, byte(1 + n%250)}}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// portArgument is a port on a command line.
func portArgument(port uint16) string { return strconv.Itoa(int(port)) }
