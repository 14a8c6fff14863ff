package door

import (
	"errors"
	"net"
	"os"
	"testing"

	"oneport/epmd"
)

// The kernel is asked for the owner of a registration once, and not for that of
// another one of the name.
func TestTheOwnerOfARegistration(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var registry epmd.Registry
	register := func() (node net.Conn, reg *epmd.Registration) {
		t.Helper()
		node, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { node.Close() })
		alive, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { alive.Close() })
		reg, err = registry.Register(epmd.Node{Name: "b", Type: epmd.Normal, Highest: 6, Lowest: 5}, alive.(*net.TCPConn))
		if err != nil {
			t.Fatal(err)
		}
		return node, reg
	}
	want := uint32(os.Getuid())

	var o owners
	node, first := register()
	if uid, err := o.of(first); uid != want || err != nil {
		t.Fatalf("uid %d, error %v, want %d", uid, err, want)
	}
	node.Close()
	if uid, err := o.of(first); uid != want || err != nil {
		t.Errorf("asked again: uid %d, error %v", uid, err)
	}

	// A socket without an owner is not taken for root's.
	registry.Unregister(first)
	node, closed := register()
	node.Close()
	if uid, err := o.of(closed); !errors.Is(err, errNodeClosed) {
		t.Errorf("of a closed connection: uid %d, error %v", uid, err)
	}

	registry.Unregister(closed)
	_, last := register()
	o.forgetAt = len(o.uids)
	if uid, err := o.of(last); uid != want || err != nil {
		t.Errorf("of the next registration: uid %d, error %v", uid, err)
	}
	if _, kept := o.uids[first]; kept || len(o.uids) != 1 {
		t.Errorf("%d owners are kept", len(o.uids))
	}
}
