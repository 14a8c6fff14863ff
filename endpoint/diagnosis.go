package endpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Record is what the kernel tells of a TCP socket.
type Record struct {
	State  uint8 // TCP_ESTABLISHED and so on, linux/tcp_states.h
	UID    uint32
	Inode  uint32 // 0 if no process has it any more
	Cookie uint64 // SO_COOKIE

	// Info is as much of struct tcp_info as the kernel knows.
	Info unix.TCPInfo
}

// Look asks the kernel by netlink (sock_diag(7)) for exactly the socket of this
// network namespace that has these ends; with a zero remote, for the one that
// listens on local. It is one look-up in the kernel's hash table, not a walk over
// all sockets. An IPv4 connection is found also if its socket is an IPv6 one, and
// whether or not its addresses are mapped into IPv6. An address with a zone is not
// found.
//
// The error is unix.ENOENT if there is none, or if the kernel lacks tcp_diag.
func Look(local, remote netip.AddrPort) (Record, error) {
	d, err := newDiagnosis()
	if err != nil {
		return Record{}, err
	}
	defer d.close()
	return d.look(local, remote, true)
}

// LookEach is Look for many connections by one netlink socket, each in less than
// half the time. It calls found with the index of each, and what Look returns.
func LookEach(ends []Ends, found func(i int, r Record, err error)) {
	d, err := newDiagnosis()
	if err == nil {
		defer d.close()
	}
	for i, e := range ends {
		var r Record
		if d != nil {
			r, err = d.look(e.Local, e.Remote, true)
		}
		found(i, r, err)
	}
}

// Destroy resets the connection of this network namespace that has these ends,
// whoever has it. The kernel needs CONFIG_INET_DIAG_DESTROY, and the caller
// CAP_NET_ADMIN.
func Destroy(local, remote netip.AddrPort) error {
	d, err := newDiagnosis()
	if err != nil {
		return err
	}
	defer d.close()
	_, err = d.ask(unix.NLM_F_ACK, request(sockDestroy, local, remote, 0))
	return err
}

// Of linux/sock_diag.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	inetDiagInfo     = 2
	anyCookie        = 1<<64 - 1

	headerSize  = unix.NLMSG_HDRLEN
	requestSize = headerSize + 56 // struct inet_diag_req_v2
	answerSize  = 72              // struct inet_diag_msg
)

// answerTimeout is for a kernel that does not answer. It does so before the
// request's system call has returned.
const answerTimeout = 1 // s

// diagnosis is a netlink socket for one question at a time. It asks in the
// network namespace that it was made in.
type diagnosis struct {
	fd       int
	sequence uint32
}

func newDiagnosis() (*diagnosis, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening socket diagnosis: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTimeout}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("setting up socket diagnosis: %w", err)
	}
	return &diagnosis{fd: fd}, nil
}

func (d *diagnosis) close() { unix.Close(d.fd) }

// look is Look in the socket's namespace. What info is about costs the lock of
// the socket that is asked for.
func (d *diagnosis) look(local, remote netip.AddrPort, info bool) (Record, error) {
	var extensions byte
	if info {
		extensions = 1 << (inetDiagInfo - 1)
	}
	answer, err := d.ask(0, request(sockDiagByFamily, local, remote, extensions))
	if err != nil {
		return Record{}, err
	}
	return parse(answer, local, remote)
}

// parse reads an inet_diag_msg with its attributes, the answer to the question
// for the socket with these ends.
func parse(answer []byte, local, remote netip.AddrPort) (Record, error) {
	if len(answer) < answerSize {
		return Record{}, errors.New("socket diagnosis too short")
	}
	r := Record{
		State:  answer[1],
		Cookie: binary.NativeEndian.Uint64(answer[44:]),
		UID:    binary.NativeEndian.Uint32(answer[64:]),
		Inode:  binary.NativeEndian.Uint32(answer[68:]),
	}
	// Where there is no such connection, the kernel takes who listens there.
	if listens := r.State == unix.BPF_TCP_LISTEN; listens == remote.IsValid() || !listens && !hasEnds(answer, local, remote) {
		return Record{}, unix.ENOENT
	}
	r.Info = tcpInfo(answer[answerSize:])
	return r, nil
}

// ask makes one request and returns what follows the header of the answer, which
// is nothing for an acknowledgement.
func (d *diagnosis) ask(flags uint16, request []byte) ([]byte, error) {
	d.sequence++
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(request[8:], d.sequence)
	if err := unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("asking for a socket: %w", err)
	}
	answer := make([]byte, 1024) // inet_diag_msg, tcp_info, and room
	for {
		n, _, err := unix.Recvfrom(d.fd, answer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("waiting for socket diagnosis: %w", err)
		}
		if n < headerSize {
			return nil, errors.New("socket diagnosis too short")
		}
		if binary.NativeEndian.Uint32(answer[8:]) != d.sequence {
			continue // to a question that was given up
		}
		body := answer[headerSize:n]
		if binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
			return body, nil
		}
		if len(body) < 4 {
			return nil, errors.New("socket diagnosis too short")
		}
		if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
			return nil, unix.Errno(errno)
		}
		return nil, nil
	}
}

// request makes a request with the header left to ask, except for length and
// type. Ports and addresses are big-endian, all else is native.
func request(kind uint16, local, remote netip.AddrPort, extensions byte) []byte {
	b := make([]byte, requestSize)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	r := b[headerSize:]
	source, target := local.Addr().Unmap(), remote.Addr().Unmap()
	r[0], r[1], r[2] = unix.AF_INET, unix.IPPROTO_TCP, extensions
	if source.Is6() {
		r[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(r[4:], 1<<32-1) // any state
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], remote.Port())
	copy(r[12:28], source.AsSlice())
	copy(r[28:44], target.AsSlice())
	binary.NativeEndian.PutUint64(r[48:], anyCookie)
	return b
}

// hasEnds tells whether an inet_diag_msg is about the connection with these
// ends.
func hasEnds(answer []byte, local, remote netip.AddrPort) bool {
	return endsOf(answer) == Ends{unmap(local), unmap(remote)}
}

// unmap returns an IPv4 address that is mapped into IPv6 as itself.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// tcpInfo returns what the attributes (struct rtattr) have of INET_DIAG_INFO.
func tcpInfo(attributes []byte) (info unix.TCPInfo) {
	for len(attributes) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(attributes))
		if size < unix.SizeofRtAttr || size > len(attributes) {
			return info
		}
		if binary.NativeEndian.Uint16(attributes[2:]) == inetDiagInfo {
			copy((*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))[:], attributes[unix.SizeofRtAttr:size])
		}
		attributes = attributes[min(len(attributes), (size+3)&^3):]
	}
	return info
}
