package sockmap

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oneport/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const patient = 10 * time.Second

// relayed starts a relay to a node that does f with each connection, and returns
// its address. Both end with the test.
func relayed(t *testing.T, f func(*net.TCPConn)) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a sockmap needs root")
	}
	node, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nodeOver := make(chan struct{})
	go func() {
		defer close(nodeOver)
		for {
			conn, err := node.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(patient))
			f(conn.(*net.TCPConn))
			conn.Close()
		}
	}()
	// A port that was free a moment ago.
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- Relay(ctx, address, node.Addr().String()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("the relay: %v", err)
		}
		node.Close()
		<-nodeOver
	})
	for begin := time.Now(); time.Since(begin) < patient; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp4", address)
		if err == nil {
			conn.Close()
			return address
		}
	}
	select {
	case err := <-over:
		over <- err
		t.Fatal(err)
	default:
		t.Fatal("the relay does not listen")
	}
	return ""
}

func dialed(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patient))
	return conn.(*net.TCPConn)
}

// What a client says at once, before its socket is in the map, arrives, whether it
// sends no more after that or goes on.
func TestBytesBeforeTheMap(t *testing.T) {
	address := relayed(t, func(c *net.TCPConn) { io.Copy(c, c) })
	question := bytes.Repeat([]byte("question"), 4000)
	for range 20 {
		for _, ended := range []bool{false, true} {
			c := dialed(t, address)
			if _, err := c.Write(question); err != nil {
				t.Fatal(err)
			}
			if ended {
				c.CloseWrite()
			}
			got := make([]byte, len(question))
			if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, question) {
				t.Fatalf("ended %v: got %d bytes, %v", ended, n, err)
			}
			c.CloseWrite()
			if n, err := c.Read(got); err != io.EOF {
				t.Fatalf("ended %v: got %d bytes, %v", ended, n, err)
			}
		}
	}
}

// A node that speaks first and ends at once, before or after its socket is in the
// map, is heard, and hears what the client says.
func TestNodeThatEndsAtOnce(t *testing.T) {
	greeting := bytes.Repeat([]byte("greeting"), 4000)
	heard := make(chan int64, 1)
	address := relayed(t, func(c *net.TCPConn) {
		c.Write(greeting)
		c.CloseWrite()
		n, _ := io.Copy(io.Discard, c)
		heard <- n
	})
	<-heard // the connection that found the relay listening
	for range 40 {
		c := dialed(t, address)
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, greeting) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
		c.Write([]byte("thanks"))
		c.CloseWrite()
		if n := <-heard; n != 6 {
			t.Fatalf("the node got %d bytes", n)
		}
	}
}

// A node that gives the connection up by force is not taken for one that has ended
// in order.
func TestReset(t *testing.T) {
	address := relayed(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0)
	})
	c := dialed(t, address)
	c.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// The end of the relay resets what is open.
func TestEndOfTheRelay(t *testing.T) {
	var c *net.TCPConn
	t.Run("relay", func(t *testing.T) {
		address := relayed(t, func(c *net.TCPConn) { io.Copy(c, c) })
		conn, err := net.Dial("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		c = conn.(*net.TCPConn)
		c.SetDeadline(time.Now().Add(patient))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
	if c == nil {
		return
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}
