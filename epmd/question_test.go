package epmd

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a node of the fork of 2016 and its daemon said to each other.
const (
	forkAlive    = "\x00\x0e\x78\x98\x81\x4d\x00\x00\x05\x00\x05\x00\x01b\x00\x00"
	forkQuestion = "\x00\x01h"
	forkPath     = "/tmp/erlang.handover.<0.46.0>.sock"
	forkAnswer   = "\x00\x22" + forkPath
)

// registerFork registers b, a node of the fork.
func registerFork(t *testing.T, s *Server) (node *net.TCPConn, b *Registration) {
	t.Helper()
	node = dial(t, serve(t, s))
	write(t, node, forkAlive)
	wantBytes(t, node, "\x79\x00\x00", 4)
	b, ok := s.Registry.Lookup("b")
	if !ok || b.Creation < 1 || b.Creation > 3 {
		t.Fatalf("registered: %v, with creation %d", ok, b.Creation)
	}
	return node, b
}

// wantBytes reads n bytes, which must begin with want.
func wantBytes(t *testing.T, conn net.Conn, want string, n int) {
	t.Helper()
	got := make([]byte, n)
	if _, err := io.ReadFull(conn, got); err != nil || string(got[:len(want)]) != want {
		t.Fatalf("read %q, error %v, want %q", got, err, want)
	}
}

type asking struct {
	answer []byte
	err    error
}

// askAside asks a node while the test plays it.
func askAside(t *testing.T, b *Registration) <-chan asking {
	done := make(chan asking, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	go func() {
		answer, err := b.Ask(ctx, []byte("h"))
		done <- asking{answer, err}
	}()
	return done
}

// taken waits until the daemon has read all that a node has sent.
func taken(t *testing.T, b *Registration) {
	t.Helper()
	until(t, "the daemon has read everything", func() bool { return unread(t, b.alive) == 0 })
}

// unread returns how many received bytes the kernel holds.
func unread(t *testing.T, c *net.TCPConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	// Closed is not unread.
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}

func TestANodeOfTheForkIsAsked(t *testing.T) {
	s := &Server{Registry: new(Registry)}
	node, b := registerFork(t, s)
	for split := range len(forkAnswer) {
		asked := askAside(t, b)
		wantBytes(t, node, forkQuestion, 3)
		write(t, node, forkAnswer[:split])
		taken(t, b)
		write(t, node, forkAnswer[split:])
		if got := <-asked; got.err != nil || string(got.answer) != forkPath {
			t.Fatalf("split after %d bytes: answer %q, error %v", split, got.answer, got.err)
		}
	}
	if _, ok := s.Registry.Lookup("b"); !ok {
		t.Error("the node is not registered any more")
	}
}

func TestASilentNodeStaysRegistered(t *testing.T) {
	s := &Server{Registry: new(Registry)}
	node, b := registerFork(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.Ask(ctx, []byte("h")); err != ErrNoAnswer {
		t.Fatalf("error %v", err)
	}
	if _, err := b.Ask(t.Context(), []byte("h")); err != ErrNoAnswer {
		t.Fatalf("asked again, which has no end: error %v", err)
	}
	wantBytes(t, node, forkQuestion, 3) // once

	// An answer that comes late, and in pieces, is nobody's.
	for _, part := range []string{forkAnswer[:1], forkAnswer[1:9], forkAnswer[9:]} {
		write(t, node, part)
		taken(t, b)
	}
	until(t, "the node can be asked again", func() bool { return !b.question.expected() })
	asked := askAside(t, b)
	wantBytes(t, node, forkQuestion, 3)
	write(t, node, "\x00\x02/x")
	if got := <-asked; got.err != nil || string(got.answer) != "/x" {
		t.Errorf("answer %q, error %v", got.answer, got.err)
	}
	if _, ok := s.Registry.Lookup("b"); !ok {
		t.Error("the node is not registered any more")
	}
}

func TestOnlyAnAnswerMayCome(t *testing.T) {
	tests := []struct {
		name   string
		asked  bool
		sent   string
		answer string
	}{
		{"unasked", false, forkAnswer, ""},
		{"more than the answer", true, "\x00\x01/more", "/"},
		{"too long an answer", true, "\x0b\xf5", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &Server{Registry: new(Registry)}
			node, b := registerFork(t, s)
			var asked <-chan asking
			if test.asked {
				asked = askAside(t, b)
				wantBytes(t, node, forkQuestion, 3)
			}
			write(t, node, test.sent)
			<-b.Gone()
			if !test.asked {
				return
			}
			// With the answer and the end at once, either may be seen.
			if got := <-asked; got.err == nil && (test.answer == "" || string(got.answer) != test.answer) {
				t.Errorf("answer %q", got.answer)
			}
		})
	}
}

func TestANodeThatGoesAwayDoesNotAnswer(t *testing.T) {
	node, b := registerFork(t, &Server{Registry: new(Registry)})
	asked := askAside(t, b)
	wantBytes(t, node, forkQuestion, 3)
	if got, err := b.Ask(t.Context(), []byte("h")); err == nil {
		t.Errorf("asked twice at once: answer %q", got)
	}
	write(t, node, forkAnswer[:7])
	node.Close()
	if got := <-asked; got.err == nil {
		t.Errorf("answer %q of a node that has gone", got.answer)
	}
	<-b.Gone()
}

func TestNodesThatAreNotAsked(t *testing.T) {
	s := &Server{Registry: new(Registry)}
	c := serve(t, s)
	register(t, c, Node{Name: "new", Port: 1, Type: Normal, Highest: 6, Lowest: 5})
	b, _ := s.Registry.Lookup("new")
	if _, err := b.Ask(t.Context(), []byte("h")); err != ErrNoAnswer {
		t.Errorf("a node of OTP 23: error %v", err)
	}
	alone, err := s.Registry.Register(Node{Name: "alone", Highest: 5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Ask(t.Context(), []byte("h")); err != ErrNoAnswer {
		t.Errorf("a node without a connection: error %v", err)
	}
}

// A question before the answer to ALIVE2_REQ would be taken for that answer. It
// waits.
func TestANodeIsNotAskedBeforeItIsAnswered(t *testing.T) {
	for _, test := range []struct {
		name     string
		delay    time.Duration
		patience time.Duration
		want     error
	}{
		{"in time", 100 * time.Millisecond, time.Minute, nil},
		{"too late", time.Hour, 50 * time.Millisecond, context.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Server{Registry: new(Registry), DelayWrite: test.delay}
			node := dial(t, serve(t, s))
			write(t, node, forkAlive)
			until(t, "the node is registered", func() bool { return s.Registry.Len() == 1 })
			b, _ := s.Registry.Lookup("b")
			ctx, cancel := context.WithTimeout(t.Context(), test.patience)
			defer cancel()
			asked := make(chan error, 1)
			go func() {
				_, err := b.Ask(ctx, []byte("h"))
				asked <- err
			}()
			if test.want == nil {
				wantBytes(t, node, "\x79\x00\x00", 4)
				wantBytes(t, node, forkQuestion, len(forkQuestion))
				write(t, node, forkAnswer)
			}
			if err := <-asked; !errors.Is(err, test.want) || errors.Is(err, ErrNoAnswer) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

// The unread answer of a live node is not taken for the end of a dead one.
func TestANameIsNotLostByAnAnswer(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	node := dial(t, &Client{Addr: l.Addr().String()})
	alive, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	var registry Registry
	b, err := registry.Register(Node{Name: "b", Highest: 5}, alive.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.question.open(); err != nil {
		t.Fatal(err)
	}
	write(t, node, forkAnswer)
	until(t, "the answer is there", func() bool { return unread(t, b.alive) == len(forkAnswer) })
	if _, err := registry.Register(Node{Name: "b"}, nil); !errors.Is(err, ErrNameInUse) {
		t.Fatalf("the name of a live node was given away: error %v", err)
	}
	node.Close()
	until(t, "the name is free", func() bool {
		_, err := registry.Register(Node{Name: "b"}, nil)
		return err == nil
	})
}
