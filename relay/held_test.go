package relay_test

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"oneport/relay"
)

// A node that was offered the client's connection may still hold a copy of the
// descriptor. A close waits for it; the end of the relay must not.
func TestEndsAreSeenThoughAnotherHoldsTheClient(t *testing.T) {
	for name, test := range map[string]struct {
		ends func(t *testing.T, j *joined)
		sees func(t *testing.T, j *joined)
		want relay.Reason
	}{
		"the node ends": {
			func(t *testing.T, j *joined) { j.node.CloseWrite() },
			func(t *testing.T, j *joined) { expectEOF(t, j.client); j.client.Close(); expectEOF(t, j.node) }, relay.Finished,
		},
		"the client ends": {
			func(t *testing.T, j *joined) { j.client.CloseWrite() },
			func(t *testing.T, j *joined) { expectEOF(t, j.node); j.node.Close(); expectEOF(t, j.client) }, relay.Finished,
		},
		"the node resets": {
			func(t *testing.T, j *joined) { reset(t, j.node) },
			func(t *testing.T, j *joined) { expectReset(t, j.client, nil) }, relay.NodeReset,
		},
		"the client resets": {
			func(t *testing.T, j *joined) { reset(t, j.client) },
			func(t *testing.T, j *joined) { expectReset(t, j.node, nil) }, relay.ClientReset,
		},
		"the relay is cancelled": {
			func(t *testing.T, j *joined) { j.cancel(nil) },
			func(t *testing.T, j *joined) { expectEOF(t, j.client); expectEOF(t, j.node) }, relay.Cancelled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := join(t, "tcp4", relay.Options{})
			hold(t, j.clientSide)
			exchange(t, j.client, j.node)
			test.ends(t, j)
			test.sees(t, j)
			if result := j.result(t); result.Reason != test.want {
				t.Errorf("%+v", result)
			}
		})
	}
}

// hold keeps a descriptor of a connection until the test ends.
func hold(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		held, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { unix.Close(held) })
	}); err != nil {
		t.Fatal(err)
	}
}
