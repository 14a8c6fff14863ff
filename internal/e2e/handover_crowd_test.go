package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"oneport/internal/hosts"
)

// Two hundred clients at once find the one of twenty nodes that they mean, half
// of which take descriptors; nothing of them is left.
func TestTwoHundredClientsAtOnceToTwentyNodes(t *testing.T) {
	const nodes, clients = 20, 200
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta)
	all := make([]*hosts.Node, nodes)
	starts := make([]func(), nodes)
	for i := range all {
		// A handshake that is not finished may last as long as the test.
		small := hosts.Args("+S", "1:1", "-kernel", "net_setuptime", "60")
		kind := alone()
		switch i % 4 {
		case 0:
			kind = withoutListener(d)
		case 2:
			kind = withApplication(d)
		}
		starts[i] = func() { all[i] = beta.Erl(t, fmt.Sprintf("n%d", i), kind, small) }
	}
	together(t, starts...)
	for i := 0; i < nodes; i += 2 {
		d.ready(t, all[i])
	}
	before := descriptors(t, d)
	sockets0 := make([]int, nodes)
	for i, node := range all {
		sockets0[i] = sockets(t, node.Pid())
	}

	conns := make([]net.Conn, clients)
	var running sync.WaitGroup
	for i := range conns {
		running.Go(func() {
			node := all[i%nodes]
			conn, err := alpha.Dial(t.Context(), "tcp", netAddr(beta))
			if err != nil {
				t.Error(err)
				return
			}
			conns[i] = conn
			conn.SetDeadline(time.Now().Add(patience))
			name, _, _ := strings.Cut(node.Name, "@")
			ask, yes := requestFor(name, ""), granted
			if i/nodes%2 == 1 {
				ask, yes = string(binary.BigEndian.AppendUint16(nil, uint16(1+len(name))))+"h"+name, "i\x00\x00\x06"
			}
			if _, err := io.WriteString(conn, ask+handshakeOf(fmt.Sprintf("c%d@alpha.invalid", i))); err != nil {
				t.Error(err)
				return
			}
			if err := expect(conn, yes+"\x00\x03sok"); err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			if got, err := challenger(conn); err != nil || got != node.Name {
				t.Errorf("client %d meets %s, %v; want %s", i, got, err, node.Name)
			}
		})
	}
	running.Wait()
	if !t.Failed() {
		eventually(t, "half of the connections handed over, the others relayed", func() bool {
			paths := map[string]int{}
			for _, c := range d.connections(t) {
				paths[c.Path]++
				var n int
				fmt.Sscanf(c.Node, "n%d", &n)
				if want := map[bool]string{true: "handover", false: "splice"}[n%2 == 0]; c.Path != "" && c.Path != want {
					t.Fatalf("%s: %s (%s), want %s", c.Node, c.Path, c.Why, want)
				}
			}
			return paths["handover"] == clients/2 && paths["splice"] == clients/2
		})
	}
	for _, conn := range conns {
		if conn != nil {
			conn.Close()
		}
	}
	d.noConnections(t)
	eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= before })
	for i, node := range all {
		eventually(t, "the sockets of "+node.Name+" to be as before", func() bool { return sockets(t, node.Pid()) <= sockets0[i] })
	}
}

// challenger reads the challenge of a handshake of version 6 and returns the
// name in it.
func challenger(r io.Reader) (string, error) {
	var size uint16
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		return "", err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	const fixed = 1 + 8 + 4 + 4 + 2
	if len(b) < fixed || b[0] != 'N' {
		return "", fmt.Errorf("the challenge is %q", b)
	}
	return string(b[fixed:]), nil
}
