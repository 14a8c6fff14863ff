package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	peerBytes    = 16 << 20
	peerPatience = 30 * time.Second
)

// What is sent through each peer that is installed arrives, both ways at once, and
// after one side has said that it sends no more the other one still may.
func TestPeers(t *testing.T) {
	w := openWorld(t, Loopback)
	node := startHashing(t)
	for _, way := range peerWays() {
		t.Run(way.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
			defer cancel()
			running, err := way.start(ctx, w, target{tcp: node})
			if err != nil {
				if strings.Contains(err.Error(), "apt-get install") || way.unsafe && os.Geteuid() != 0 {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			if way.unsafe != (way.name == "sk_skb") {
				t.Errorf("unsafe is %v", way.unsafe)
			}
			// An Erlang VM gives a write up that waits when the other side has
			// said that it sends no more.
			late := way.name == "beam"
			for range 3 {
				if err := exchange(ctx, running.route.Address, late); err != nil {
					t.Fatal(err)
				}
			}
			pids := running.pids()
			if len(pids) == 0 || slices.Contains(pids, 0) {
				t.Errorf("serving processes: %v", pids)
			}
			if way.name == "nginx" && len(pids) < 3 {
				t.Errorf("serving processes: %v, want nginx's master and two workers", pids)
			}
		})
	}
}

// exchange sends random bytes through a peer while it receives others, of which
// each side checks the sum, and half-closes: late is when it has received all.
func exchange(ctx context.Context, address string, late bool) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	sent := make(chan error, 1)
	sum := sha256.New()
	go func() {
		_, err := io.CopyN(io.MultiWriter(conn, sum), random(1), peerBytes)
		if err == nil && !late {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	got := sha256.New()
	n, err := io.CopyN(got, conn, peerBytes)
	if err != nil {
		conn.Close()
		<-sent
		return fmt.Errorf("receiving: %w after %d bytes", err, n)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if late {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
	}
	// The node sends the two sums after our FIN only.
	sums := make([]byte, 2*sha256.Size)
	if _, err := io.ReadFull(conn, sums); err != nil {
		return fmt.Errorf("receiving the sums: %w", err)
	}
	if !bytes.Equal(sums, append(sum.Sum(nil), got.Sum(nil)...)) {
		return fmt.Errorf("other bytes have arrived than were sent")
	}
	if n, err := conn.Read(sums); n != 0 || err != io.EOF {
		return fmt.Errorf("received %d bytes and %v at the end", n, err)
	}
	return nil
}

// startHashing starts a node that sends random bytes while it receives others, and
// the sums of both when it has received all.
func startHashing(t *testing.T) netip.AddrPort {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	t.Cleanup(func() {
		listener.Close()
		<-over
	})
	go func() {
		defer close(over)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go hash(conn)
		}
	}()
	return listener.Addr().(*net.TCPAddr).AddrPort()
}

func hash(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(peerPatience))
	sent := sha256.New()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.CopyN(io.MultiWriter(conn, sent), random(2), peerBytes)
	}()
	received := sha256.New()
	io.Copy(received, conn)
	<-done
	conn.Write(append(received.Sum(nil), sent.Sum(nil)...))
}

func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func TestSocatArguments(t *testing.T) {
	p := place{Address: netip.MustParseAddr("10.88.0.2"), Port: 4000, Target: "10.88.0.2:5000"}
	got := strings.Join(socatArgs(p), " ")
	for _, want := range []string{"TCP4-LISTEN:4000,bind=10.88.0.2,", "TCP4:10.88.0.2:5000,"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

func TestErlangEnvironmentHasNoSettings(t *testing.T) {
	got := erlangEnv([]string{"PATH=/bin", "ERL_FLAGS=-sname x", "ERL_LIBS=/lib", "HOME=/root"}, "/world")
	want := []string{"PATH=/bin", "HOME=/world", "ERL_CRASH_DUMP_SECONDS=0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMissingProgram(t *testing.T) {
	_, err := installed("oneport-has-no-such-peer", "no-such-package")
	if err == nil || !strings.Contains(err.Error(), "apt-get install no-such-package") {
		t.Errorf("got %v", err)
	}
}
