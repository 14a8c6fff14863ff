package peek_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"oneport/internal/leak"
	"oneport/internal/peek"
)

func TestMain(m *testing.M) { leak.Main(m) }

// pair returns the two ends of a TCP connection over loopback.
func pair(t *testing.T) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// line cuts a message that ends with a newline.
func line(b []byte) (int, error) { return bytes.IndexByte(b, '\n') + 1, nil }

func TestHeadLeavesEveryByte(t *testing.T) {
	const sent = "first\nsecond"
	for split := 1; split < len(sent); split++ {
		s, c := pair(t)
		s.SetReadDeadline(time.Now().Add(10 * time.Second))
		go func() {
			io.WriteString(c, sent[:split])
			io.WriteString(c, sent[split:])
			c.CloseWrite()
		}()
		var got string
		if err := peek.Head(s, 100, line, func(b []byte) { got = string(b) }); err != nil || got != "first\n" {
			t.Fatalf("split at %d: %q, %v", split, got, err)
		}
		if err := peek.Discard(s, len(got)); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(s); err != nil || string(rest) != "second" {
			t.Fatalf("split at %d: the rest is %q, %v", split, rest, err)
		}
	}
}

func TestHeadSaysWhyNoMessageCame(t *testing.T) {
	refused := errors.New("refused")
	for _, tt := range []struct {
		name  string
		send  string
		close bool
		cut   func([]byte) (int, error)
		want  error
	}{
		{"closed at once", "", true, line, io.EOF},
		{"closed in the middle", "abc", true, line, io.ErrUnexpectedEOF},
		{"too long", "0123456789", false, line, peek.ErrTooLong},
		{"silent", "", false, line, os.ErrDeadlineExceeded},
		{"too slow", "abc", false, line, os.ErrDeadlineExceeded},
		{"refused", "x", false, func([]byte) (int, error) { return 0, refused }, refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := pair(t)
			s.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			io.WriteString(c, tt.send)
			if tt.close {
				c.CloseWrite()
			}
			err := peek.Head(s, 10, tt.cut, func([]byte) { t.Error("a message was found") })
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// The FIN may come long after the last byte, while Head already waits.
func TestHeadNoticesALateClose(t *testing.T) {
	s, c := pair(t)
	s.SetReadDeadline(time.Now().Add(20 * time.Second))
	looked := make(chan struct{}, 16)
	result := make(chan error, 1)
	go func() {
		result <- peek.Head(s, 10, func(b []byte) (int, error) {
			select {
			case looked <- struct{}{}:
			default:
			}
			return line(b)
		}, func([]byte) {})
	}()
	io.WriteString(c, "abc")
	<-looked
	c.CloseWrite()
	if err := <-result; err != io.ErrUnexpectedEOF {
		t.Fatalf("got %v", err)
	}
}
