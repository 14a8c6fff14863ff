package bench

import (
	"bufio"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// spoken is an End in this process.
type spoken struct {
	t       *testing.T
	in      *io.PipeWriter
	answers *bufio.Scanner
	ended   chan error
}

func speak(t *testing.T) *spoken {
	in, toEnd := io.Pipe()
	fromEnd, out := io.Pipe()
	s := &spoken{t, toEnd, bufio.NewScanner(fromEnd), make(chan error, 1)}
	go func() {
		s.ended <- End(t.Context(), in, out)
		out.Close()
	}()
	t.Cleanup(func() { toEnd.Close(); fromEnd.Close() })
	return s
}

func (s *spoken) tell(r request) {
	s.t.Helper()
	line, err := json.Marshal(r)
	if err == nil {
		_, err = s.in.Write(append(line, '\n'))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *spoken) hear() (a answer) {
	s.t.Helper()
	if !s.answers.Scan() {
		s.t.Fatalf("no answer: %v", s.answers.Err())
	}
	if err := json.Unmarshal(s.answers.Bytes(), &a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *spoken) over() error {
	s.in.Close()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(10 * time.Second):
		s.t.Fatal("it does not end")
		return nil
	}
}

// node starts a node and returns a route to it.
func node(t *testing.T) (*spoken, route) {
	n := speak(t)
	w := &world{layout: Loopback}
	port, err := w.freePort(hostSide)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(w.address(hostSide), port)
	n.tell(request{ID: 1, Operation: doListen, Address: at})
	if a := n.hear(); a.ID != 1 || a.Error != "" {
		t.Fatalf("%+v", a)
	}
	return n, route{Network: "tcp", Address: at.String()}
}

func TestEndDoesWhatItIsTold(t *testing.T) {
	n, to := node(t)
	c := speak(t)
	c.tell(request{ID: 1, Operation: doOpen, Route: to, Connections: 3, Header: header{Kind: trips, Size: 100, Count: 10}})
	c.tell(request{ID: 2, Operation: doRun})
	c.tell(request{ID: 3, Operation: doClose})
	c.tell(request{ID: 4, Operation: doRun})
	c.tell(request{ID: 5, Operation: "dance"})
	if a := c.hear(); a.ID != 1 || a.Error != "" || a.Count != 3 || len(a.Addresses) != 3 {
		t.Errorf("open: %+v", a)
	}
	if a := c.hear(); a.ID != 2 || a.Error != "" || len(a.Latencies) != 30 {
		t.Errorf("run: %+v", a)
	}
	if a := c.hear(); a.ID != 3 || a.Error != "" {
		t.Errorf("close: %+v", a)
	}
	if a := c.hear(); a.ID != 4 || !strings.Contains(a.Error, "no connection is open") {
		t.Errorf("run without connections: %+v", a)
	}
	if a := c.hear(); a.ID != 5 || !strings.Contains(a.Error, "dance") {
		t.Errorf("what it cannot do: %+v", a)
	}
	if err := c.over(); err != nil {
		t.Error(err)
	}
	if err := n.over(); err != nil {
		t.Error(err)
	}
}

// What takes long is broken off, and the next thing is done.
func TestEndIsToldToBreakOff(t *testing.T) {
	n, to := node(t)
	c := speak(t)
	c.tell(request{ID: 1, Operation: doOpen, Route: to, Connections: 1, Header: header{Kind: slow, Direction: toNode, Size: chunk, Count: 1 << 40, Sleep: time.Second}})
	c.tell(request{ID: 2, Operation: doRun})
	if a := c.hear(); a.Error != "" {
		t.Fatal(a.Error)
	}
	c.tell(request{ID: 3, Operation: doAbort})
	if a := c.hear(); a.ID != 2 || a.Error == "" {
		t.Errorf("what was broken off: %+v", a)
	}
	if a := c.hear(); a.ID != 3 || a.Error != "" {
		t.Errorf("abort: %+v", a)
	}
	c.tell(request{ID: 4, Operation: doSetUp, Route: to, Connections: 2})
	if a := c.hear(); a.ID != 4 || a.Error != "" || a.Count != 2 {
		t.Errorf("set-up: %+v", a)
	}
	if err := c.over(); err != nil {
		t.Error(err)
	}
	if err := n.over(); err != nil {
		t.Error(err)
	}
}

func TestEndRefusesWhatIsNoRequest(t *testing.T) {
	c := speak(t)
	if _, err := c.in.Write([]byte("nonsense\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.over(); err == nil {
		t.Error("no error")
	}
}

// Answers come in whatever pieces the pipe makes of them.
func TestAnswersInPieces(t *testing.T) {
	const text = `{"id":1}` + "\n" + `{"id":2,"error":"x"}` + "\n" + `{"id":3}` + "\n"
	for size := 1; size <= len(text); size++ {
		var got []int
		a := &answers{deliver: func(a answer) { got = append(got, a.ID) }}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := a.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if len(got) != 3 || got[0] != 1 || got[2] != 3 {
			t.Errorf("in pieces of %d: %v", size, got)
		}
	}
	if _, err := (&answers{}).Write([]byte("nonsense\n")); err == nil {
		t.Error("nonsense is an answer")
	}
}
