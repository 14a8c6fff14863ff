package epmd

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
)

func TestARegisteredNodeHasNoGoroutine(t *testing.T) {
	s := &Server{Registry: new(Registry)}
	c := serve(t, s)
	register(t, c, Node{Name: "first", Port: 1, Type: Normal, Highest: 6, Lowest: 5})
	const nodes = 50
	before := runtime.NumGoroutine()
	for i := range nodes {
		register(t, c, Node{Name: fmt.Sprint("node", i), Port: 1, Type: Normal, Highest: 6, Lowest: 5})
	}
	if s.Registry.Len() != nodes+1 {
		t.Fatalf("%d nodes are registered", s.Registry.Len())
	}
	if more := runtime.NumGoroutine() - before; more > nodes/5 {
		t.Errorf("%d goroutines more for %d nodes", more, nodes)
	}
}

// What a node that is held says, or does, ends it as it would any other.
func TestTheEndOfAHeldNode(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*testing.T, *Client, *Alive)
	}{
		{"close", func(_ *testing.T, _ *Client, a *Alive) { a.Close() }},
		{"stop", func(t *testing.T, c *Client, _ *Alive) {
			if err := c.Stop(t.Context(), "b"); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, events := logtest.NewNullLogger()
			log.SetLevel(logrus.InfoLevel)
			s := &Server{Registry: new(Registry), Log: log, RelaxedCommandCheck: true}
			c := serve(t, s)
			wantNames(t, c) // it serves, and a node is accepted with its request
			alive := register(t, c, Node{Name: "b", Port: 1, Type: Normal, Highest: 6, Lowest: 5})
			r, ok := s.Registry.Lookup("b")
			if !ok || r.held == nil || r.Peer.Port() == 0 || r.Local.String() != c.Addr || r.fd < 0 {
				t.Fatalf("registered %v, %+v", ok, r)
			}
			tt.end(t, c, alive)
			until(t, "it is unregistered", func() bool { return s.Registry.Len() == 0 })
			until(t, "its connection is closed", func() bool { return r.held.over() })
			until(t, "both events are logged", func() bool {
				var said []string
				for _, e := range events.AllEntries() {
					if e.Data["node"] == "b" && e.Data["creation"] == r.Creation && e.Data["peer"] == r.Peer.String() {
						said = append(said, e.Message)
					}
				}
				return fmt.Sprint(said) == fmt.Sprint([]string{nodeRegistered, nodeUnregistered})
			})
		})
	}
}

// Nodes that can be asked, and that is what those of old releases are for, are not
// held.
func TestAnOldNodeIsNotHeld(t *testing.T) {
	s := &Server{Registry: new(Registry)}
	c := serve(t, s)
	register(t, c, Node{Name: "old", Port: 1, Type: Normal, Highest: 5, Lowest: 5})
	if r, ok := s.Registry.Lookup("old"); !ok || r.held != nil || r.question == nil {
		t.Errorf("registered %v, %+v", ok, r)
	}
}

// A node of which only a part of the request has come when it is accepted.
func TestARequestInPartsRegisters(t *testing.T) {
	s := &Server{Registry: new(Registry)}
	c := serve(t, s)
	request, err := AppendRequest(nil, AliveRequest{Node{Name: "parts", Port: 1, Type: Normal, Highest: 6, Lowest: 5}})
	if err != nil {
		t.Fatal(err)
	}
	for split := 1; split < len(request); split += 5 {
		conn := dial(t, c)
		write(t, conn, string(request[:split]))
		time.Sleep(5 * time.Millisecond)
		write(t, conn, string(request[split:]))
		answer := make([]byte, 6)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 'v' || answer[1] != ResultOK {
			t.Fatalf("split at %d: %x, %v", split, answer, err)
		}
		conn.Close()
		until(t, "it is unregistered", func() bool { return s.Registry.Len() == 0 })
	}
}

func TestAcceptorsOf(t *testing.T) {
	for processors, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 8: 4, 64: 4} {
		if got := acceptorsOf(processors); got != want {
			t.Errorf("%d processors: %d, want %d", processors, got, want)
		}
	}
}

// Where several accept, a name is still one node's, and every end is seen.
func TestSeveralAcceptors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	s := &Server{Registry: new(Registry)}
	c := serve(t, s)
	var all sync.WaitGroup
	const clients, rounds = 16, 20
	for i := range clients {
		all.Go(func() {
			name := fmt.Sprint("node", i)
			for round := range rounds {
				alive, err := c.Register(t.Context(), Node{Name: name, Port: uint16(round + 1), Type: Normal, Highest: 6, Lowest: 5})
				if err != nil {
					t.Errorf("%s, round %d: %v", name, round, err)
					return
				}
				if node, err := c.Lookup(t.Context(), name); err != nil || node.Port != uint16(round+1) {
					t.Errorf("%s, round %d: %+v, %v", name, round, node, err)
				}
				if _, err := c.Register(t.Context(), Node{Name: name, Port: 99, Type: Normal, Highest: 6, Lowest: 5}); err == nil {
					t.Errorf("%s is registered twice", name)
				}
				alive.Close()
			}
		})
	}
	all.Wait()
	until(t, "all are unregistered", func() bool { return s.Registry.Len() == 0 })
}
