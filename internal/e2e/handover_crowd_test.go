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

	"oneport/door"
	"oneport/internal/hosts"
)

// Two hundred clients at once, half of them by the upgrade, half by EPMD's
// request, are connected to the one of twenty nodes that they mean, half of
// which take descriptors; nothing of them is left. (Stock clients that come at
// once: TestEightyPingsAtOnceReachTheRightNodes.)
func TestTwoHundredClientsAtOnceToTwentyNodes(t *testing.T) {
	const nodes, clients = 20, 200
	made := hosts.New(t, "alpha", "beta")
	alpha, beta := made[0], made[1]
	d := serve(t, beta)
	all := make([]*hosts.Node, nodes)
	starts := make([]func(), nodes)
	for i := range all {
		// Two hundred handshakes may take their time here.
		small := hosts.Args("+S", "1:1", "-kernel", "net_setuptime", "60", "-kernel", "dist_auto_connect", "never")
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
	cookie := strings.Trim(all[0].Eval(t, "erlang:get_cookie()"), "'")
	before := descriptors(t, d)
	sockets0 := make([]int, nodes)
	for i, node := range all {
		sockets0[i] = sockets(t, node.Pid())
	}

	conns := make([]net.Conn, clients)
	var running sync.WaitGroup
	for i := range conns {
		running.Go(func() {
			conn, err := joinCrowd(t, clientName(i), protocolOf(i/nodes), alpha, beta, all[i%nodes].Name, cookie)
			if err != nil {
				t.Errorf("client %d, by %s: %v", i, protocolOf(i/nodes), err)
			}
			conns[i] = conn
		})
	}
	running.Wait()
	if t.Failed() {
		t.FailNow()
	}

	// What each connection must look like at the door, by its client's address.
	type record struct {
		node, path string
		protocol   door.Protocol
	}
	want := map[string]record{}
	// And at the nodes: name, and {name, port}, in the order of the names.
	names, peers := make([][]string, nodes), make([][]string, nodes)
	for i, conn := range conns {
		n := i % nodes
		path := "splice"
		if n%2 == 0 {
			path = "handover"
		}
		want[conn.LocalAddr().String()] = record{fmt.Sprintf("n%d", n), path, protocolOf(i / nodes)}
		names[n] = append(names[n], "'"+clientName(i)+"'")
		peers[n] = append(peers[n], fmt.Sprintf("{'%s',%d}", clientName(i), conn.LocalAddr().(*net.TCPAddr).Port))
	}
	eventually(t, "the records of all connections", func() bool {
		listed := d.connections(t)
		whole := len(listed) == clients
		for _, c := range listed {
			if c.Path == "" {
				whole = false
			} else if got := (record{c.Node, c.Path, c.Protocol}); got != want[c.Peer] {
				t.Fatalf("the client at %s: %+v (%s), want %+v", c.Peer, got, c.Why, want[c.Peer])
			}
		}
		return whole
	})
	// The nodes know who is there, and those that take descriptors also from
	// where: the others see the daemon's ports.
	for n, node := range all {
		expression, wants := "lists:sort(nodes(hidden))", names[n]
		if n%2 == 0 {
			expression = `[{Name, Port} || Name <- lists:sort(nodes(hidden)), {ok, Info} <- [net_kernel:node_info(Name)],
				{net_address, {_, Port}, _, _, _} <- [proplists:get_value(address, Info)]]`
			wants = peers[n]
		}
		// A client is ready as soon as it has the node's last word, which the
		// node may not have counted yet.
		want, got := "["+strings.Join(wants, ",")+"]", ""
		eventually(t, "the peers of "+node.Name, func() bool {
			got = strings.Join(strings.Fields(node.Eval(t, expression)), "")
			return strings.Count(got, "@") >= len(wants)
		})
		if got != want {
			t.Errorf("%s is connected to %s, want %s", node.Name, got, want)
		}
	}

	for _, conn := range conns {
		conn.Close()
	}
	d.noConnections(t)
	eventually(t, "the daemon's descriptors to be as before", func() bool { return descriptors(t, d) <= before })
	for i, node := range all {
		eventually(t, "the sockets of "+node.Name+" to be as before", func() bool { return sockets(t, node.Pid()) <= sockets0[i] })
		eventually(t, "the end of all connections of "+node.Name, func() bool { return node.Eval(t, "nodes(connected)") == "[]" })
	}
}

// protocolOf is by what the clients of a round come.
func protocolOf(round int) door.Protocol {
	if round%2 == 0 {
		return door.Upgrade
	}
	return door.HandoverRequest
}

func clientName(i int) string { return fmt.Sprintf("c%03d@alpha.invalid", i) }

// joinCrowd connects to a node of a host, as the node own, until the end of the
// test. The handshake is whole.
func joinCrowd(t *testing.T, own string, protocol door.Protocol, from, to *hosts.Host, node, cookie string) (net.Conn, error) {
	name, _, _ := strings.Cut(node, "@")
	ask, yes := requestFor(name, ""), granted
	if protocol == door.HandoverRequest {
		ask, yes = string(binary.BigEndian.AppendUint16(nil, uint16(1+len(name))))+"h"+name, "i\x00\x00\x06"
	}
	conn, err := from.Dial(t.Context(), "tcp", netAddr(to))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, ask+handshakeOf(own)); err != nil {
		return nil, err
	}
	if err := expect(conn, yes); err != nil {
		return nil, err
	}
	met, challenge, err := readyNode(conn)
	if err != nil {
		return nil, err
	}
	if met != node {
		return nil, fmt.Errorf("meets %s, want %s", met, node)
	}
	return conn, prove(conn, cookie, challenge)
}
