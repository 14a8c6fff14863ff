package door

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var source1 = netip.MustParseAddr("192.0.2.1")

func TestAnAnswerIsFollowedByItsConnection(t *testing.T) {
	var l leases
	if _, ok := l.take(source1); ok {
		t.Fatal("a lease out of nothing")
	}
	if err := l.give(t.Context(), source1, "b", minHold); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.take(netip.MustParseAddr("192.0.2.2")); ok {
		t.Fatal("another source took the lease")
	}
	if node, ok := l.take(source1); node != "b" || !ok {
		t.Fatal(node, ok)
	}
	if _, ok := l.take(source1); ok {
		t.Fatal("a lease taken twice")
	}
}

func TestQuestionsForOneNodeDoNotWait(t *testing.T) {
	var l leases
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whoever has to wait fails
	for range 10 {
		if err := l.give(ctx, source1, "b", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if node, ok := l.take(source1); node != "b" || !ok {
			t.Fatal(node, ok)
		}
	}
}

// Each client asks, and connects a moment after its answer; whatever the
// order, it must come to the node that it asked for.
func TestConcurrentClientsOfOneSource(t *testing.T) {
	var l leases
	var clients sync.WaitGroup
	for i := range 200 {
		node := fmt.Sprint("node", i%3)
		clients.Go(func() {
			if err := l.give(t.Context(), source1, node, 20*time.Second); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(time.Duration(i%4) * 100 * time.Microsecond) // its way to the door
			if got, ok := l.take(source1); !ok || got != node {
				t.Errorf("asked for %s, came to %q", node, got)
			}
		})
	}
	clients.Wait()
}

func TestAClientThatNeverConnectsHoldsOthersForALimitedTime(t *testing.T) {
	var l leases
	if err := l.give(t.Context(), source1, "gone", time.Hour); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := l.give(t.Context(), source1, "b", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Fatalf("held for only %v", took)
	}
	if node, _ := l.take(source1); node != "b" {
		t.Fatalf("came to %q: the lease of a client that has gone must not be handed on", node)
	}
	if node, ok := l.take(source1); ok {
		t.Fatalf("a dropped lease, for %s, was still open", node)
	}
}

func TestWaitingQuestionsAreBounded(t *testing.T) {
	var l leases
	if err := l.give(t.Context(), source1, "a", time.Hour); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range maxWaiting {
		waiting.Go(func() {
			if err := l.give(ctx, source1, "b", time.Hour); err != context.Canceled {
				t.Errorf("got %v", err)
			}
		})
	}
	for waits := 0; waits < maxWaiting; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		waits = len(l.sources[source1].waiting)
		l.mu.Unlock()
	}
	if err := l.give(t.Context(), source1, "b", time.Hour); err != errTooManyQuestions {
		t.Fatalf("got %v", err)
	}
	cancel()
	waiting.Wait()
	if n := len(l.sources[source1].waiting); n != 0 {
		t.Fatalf("%d questions left in the queue", n)
	}
	l.expire(source1, l.sources[source1])
	if len(l.sources) != 0 {
		t.Fatal("an expired source is still remembered")
	}
}
