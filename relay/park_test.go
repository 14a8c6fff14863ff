package relay_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"oneport/relay"
)

// A relay that has had nothing to move for a while has no goroutine. Whatever
// comes then is moved, or seen, as ever.
func TestIdleRelaysHoldNoGoroutines(t *testing.T) {
	tests := []struct {
		name string
		// then happens while nobody waits but for the descriptor.
		then func(t *testing.T, j *joined)
		want relay.Reason
	}{
		{"bytes", func(t *testing.T, j *joined) {
			exchange(t, j.client, j.node)
			const size = 1 << 20
			sent := make(chan error, 2)
			go func() { sent <- send(j.client, 1, size) }()
			go func() { sent <- send(j.node, 2, size) }()
			if err := errors.Join(receive(j.node, 1, size), receive(j.client, 2, size), <-sent, <-sent); err != nil {
				t.Fatal(err)
			}
			j.client.CloseWrite()
			j.node.CloseWrite()
		}, relay.Finished},
		{"the end of one direction, then bytes of the other", func(t *testing.T, j *joined) {
			j.client.CloseWrite()
			expectEOF(t, j.node)
			if err := errors.Join(send(j.node, 2, 1000), receive(j.client, 2, 1000)); err != nil {
				t.Fatal(err)
			}
			j.node.CloseWrite()
			expectEOF(t, j.client)
		}, relay.Finished},
		{"a reset by the client", func(t *testing.T, j *joined) {
			reset(t, j.client)
			expectReset(t, j.node, nil)
		}, relay.ClientReset},
		{"a reset by the node", func(t *testing.T, j *joined) {
			reset(t, j.node)
			expectReset(t, j.client, nil)
		}, relay.NodeReset},
		{"a reset, though another holds the client", func(t *testing.T, j *joined) {
			hold(t, j.clientSide)
			reset(t, j.node)
			expectReset(t, j.client, nil)
		}, relay.NodeReset},
		{"the end of the context", func(t *testing.T, j *joined) {
			j.cancel(nil)
			expectEOF(t, j.client)
			expectEOF(t, j.node)
		}, relay.Cancelled},
	}
	relays := make([]*joined, len(tests))
	for i := range tests {
		relays[i] = join(t, "tcp4", relay.Options{})
		exchange(t, relays[i].client, relays[i].node)
	}
	for twice := range 2 { // what is woken is parked again
		waitUntil(t, "the relays to be parked", func() bool { return !directionsRun() })
		if twice == 0 {
			for _, j := range relays {
				exchange(t, j.client, j.node)
			}
		}
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := relays[i]
			test.then(t, j)
			if result := j.result(t); result.Reason != test.want {
				t.Errorf("%+v", result)
			}
		})
	}
}

// directionsRun says whether any goroutine moves bytes, or waits for some.
func directionsRun() bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "relay.(*direction).run")
}

// The one who starts a relay need not wait for it.
func TestStartTellsTheEndOnce(t *testing.T) {
	client, clientSide := connect(t, "tcp4")
	nodeSide, node := connect(t, "tcp4")
	defer client.Close()
	defer node.Close()
	ended := make(chan relay.Result, 2)
	relay.Start(context.Background(), clientSide, nodeSide, relay.Options{}, func(r relay.Result) { ended <- r })
	exchange(t, client, node)
	if len(ended) != 0 {
		t.Fatal("the end was told while the relay ran")
	}
	reset(t, client)
	expectReset(t, node, nil)
	if r := <-ended; r.Reason != relay.ClientReset {
		t.Errorf("%+v", r)
	}
	if err := clientSide.SetDeadline(time.Now()); err == nil {
		t.Error("the client's side is open after the end")
	}
	select {
	case r := <-ended:
		t.Errorf("told again: %+v", r)
	case <-time.After(10 * time.Millisecond):
	}
}
