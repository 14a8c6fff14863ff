package endpoint

import (
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The connections of a port are told by both families, those whose IPv4
// addresses are mapped among them, and no others.
func TestAccepted(t *testing.T) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if closed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0) }); closed != nil {
			return closed
		}
		return err
	}}
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := addrPort(l.Addr()).Port()
	other := listen(t, "tcp4")
	var want []Ends
	for _, to := range []struct {
		network, host string
		l             net.Listener
	}{{"tcp4", "127.0.0.1", l}, {"tcp6", "::1", l}, {"tcp4", "127.0.0.1", l}, {"tcp4", "127.0.0.1", other}} {
		a := netip.AddrPortFrom(netip.MustParseAddr(to.host), addrPort(to.l.Addr()).Port())
		client, err := net.Dial(to.network, a.String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_, remote, local := accept(t, to.l)
		if to.l == l {
			want = append(want, Ends{unmap(local), unmap(remote)})
		}
	}
	got, err := Accepted(port, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for _, e := range want {
		if !slices.Contains(got, e) {
			t.Errorf("%v is not in %v", e, got)
		}
	}
	if got, err := Accepted(port, 2); err != nil || len(got) != 2 {
		t.Errorf("two of them are %v, %v", got, err)
	}
	l.Close()
	if got, err := Accepted(1, 10); err != nil || len(got) != 0 {
		t.Errorf("of a port that nobody has: %v, %v", got, err)
	}
}
