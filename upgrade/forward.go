package upgrade

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// maxHops is how many doors a forwarded request may pass.
const maxHops = 4

// A Pattern names other hosts that requests may be forwarded to, and the port
// of their doors.
type Pattern struct {
	Host string // in lower case; * stands for any run of characters, ? for one
	Port uint16
}

// ParsePattern reads HOST[:PORT], where HOST is a name or an address, an IPv6
// address with a port in brackets, and may hold * and ?. The port is 4369 if
// not given.
func ParsePattern(s string) (Pattern, error) {
	host, port := s, "4369"
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil {
		host = bare
	} else if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Pattern{}, fmt.Errorf("pattern %q: the port must be a number from 1 to 65535", s)
	}
	p := Pattern{Host: strings.ToLower(host), Port: uint16(n)}
	if a, err := netip.ParseAddr(host); err == nil {
		p.Host = a.Unmap().String() // as hostOf spells it
	} else if host == "" || strings.ContainsAny(host, "/:@[]\\ ") {
		return Pattern{}, fmt.Errorf("pattern %q: expected HOST or HOST:PORT, where HOST may hold * and ?", s)
	}
	return p, nil
}

// Match says whether the pattern allows a host, given in lower case.
func (p Pattern) Match(host string) bool {
	ok, err := path.Match(p.Host, host)
	return err == nil && ok
}

func (p Pattern) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// hops returns the doors that a request has come through, by its Via header
// (RFC 9110 section 7.6.3).
func hops(r *http.Request) []string {
	var hops []string
	for _, v := range r.Header["Via"] {
		for h := range strings.SplitSeq(v, ",") {
			if f := strings.Fields(h); len(f) >= 2 {
				hops = append(hops, f[1])
			}
		}
	}
	return hops
}

// CheckHops refuses a request that has already come through the door self, or
// through too many doors: two doors that forward to each other must not send a
// request round and round. Its error is a *Refusal.
func CheckHops(hops []string, self string) error {
	doors := 0
	for _, h := range hops {
		if h == self {
			return refuse(http.StatusMisdirectedRequest, "forwarding in a circle: the request has been at this door before")
		}
		if strings.HasPrefix(h, "oneport-") {
			doors++
		}
	}
	if doors >= maxHops {
		return refuse(http.StatusMisdirectedRequest, fmt.Sprintf("forwarded through %d doors already", doors))
	}
	return nil
}
