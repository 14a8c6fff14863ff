package endpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Accepted returns the established connections of this network namespace whose
// own port is port, limit at most. The kernel walks over all sockets of the
// namespace, and tells of these only.
func Accepted(port uint16, limit int) ([]Ends, error) {
	d, err := newDiagnosis()
	if err != nil {
		return nil, err
	}
	defer d.close()
	var found []Ends
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if len(found) == limit {
			break // there may be more of the last answer to come
		}
		if found, err = d.dump(found, family, port, limit); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Ends are the two addresses of a connection as one of its ends sees them, not
// mapped.
type Ends struct{ Local, Remote netip.AddrPort }

// dump appends what Accepted is about, of one family.
func (d *diagnosis) dump(found []Ends, family byte, port uint16, limit int) ([]Ends, error) {
	d.sequence++
	r := request(sockDiagByFamily, netip.AddrPortFrom(netip.Addr{}, port), netip.AddrPort{}, 0)
	r[headerSize] = family
	binary.NativeEndian.PutUint32(r[headerSize+4:], 1<<unix.BPF_TCP_ESTABLISHED)
	binary.NativeEndian.PutUint16(r[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(r[8:], d.sequence)
	if err := unix.Sendto(d.fd, r, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("asking for the sockets of a port: %w", err)
	}
	buffer := make([]byte, 32<<10) // NLMSG_GOODSIZE is less; the kernel fits its answer to it
	for {
		n, _, err := unix.Recvfrom(d.fd, buffer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("waiting for socket diagnosis: %w", err)
		}
		for answer := buffer[:n]; len(answer) > 0; {
			if len(answer) < headerSize {
				return nil, errors.New("socket diagnosis too short")
			}
			size := int(binary.NativeEndian.Uint32(answer))
			if size < headerSize || size > len(answer) {
				return nil, errors.New("socket diagnosis of a wrong length")
			}
			body := answer[headerSize:size]
			switch kind := binary.NativeEndian.Uint16(answer[4:]); {
			case kind == unix.NLMSG_DONE:
				return found, nil
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			case len(body) < answerSize:
				return nil, errors.New("socket diagnosis too short")
			}
			if len(found) == limit {
				return found, nil
			}
			found = append(found, endsOf(body))
			answer = answer[min(len(answer), (size+3)&^3):]
		}
	}
}

// endsOf reads the addresses of an inet_diag_msg.
func endsOf(answer []byte) Ends {
	end := func(port, address []byte) netip.AddrPort {
		n := 4
		if answer[0] == unix.AF_INET6 {
			n = 16
		}
		a, _ := netip.AddrFromSlice(address[:n]) // n is one of the lengths
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
	}
	return Ends{end(answer[4:], answer[8:]), end(answer[6:], answer[24:])}
}
