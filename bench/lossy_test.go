package bench

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// lossy is a proxy that does something to one block of each stream from the node.
type lossy func(w io.Writer, blocks [][]byte) error

// copyWrong passes on what comes, and a part of it by spoil.
func copyWrong(to io.Writer, from io.Reader, spoil lossy) error {
	const block, before = 4096, 600 << 10
	if _, err := io.CopyN(to, from, before); err != nil {
		return err
	}
	var blocks [][]byte
	for range 3 {
		b := make([]byte, block)
		if _, err := io.ReadFull(from, b); err != nil {
			return err
		}
		blocks = append(blocks, b)
	}
	if err := spoil(to, blocks); err != nil {
		return err
	}
	_, err := io.Copy(to, from)
	return err
}

func write(w io.Writer, blocks ...[]byte) error {
	for _, b := range blocks {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// proxy is a way that leads through this process.
func proxy(t *testing.T, name string, spoil lossy) way {
	start := func(_ context.Context, _ *world, to target) (*running, error) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		var all sync.WaitGroup
		all.Go(func() {
			for {
				client, err := l.Accept()
				if err != nil {
					return
				}
				node, err := net.Dial("tcp4", to.tcp.String())
				if err != nil {
					client.Close()
					return
				}
				all.Go(func() { defer node.Close(); io.Copy(node, client) })
				all.Go(func() { defer client.Close(); copyWrong(client, node, spoil) })
			}
		})
		t.Cleanup(func() { l.Close(); all.Wait() })
		return &running{route: route{Network: "tcp", Address: l.Addr().String()}}, nil
	}
	return way{name: name, start: start}
}

// A way that loses, doubles or swaps what goes over it cannot win: it takes no part.
func TestAWayThatSpoilsIsAbsent(t *testing.T) {
	var c *contest
	var absent []Absent
	bad := []way{
		proxy(t, "loses", func(w io.Writer, b [][]byte) error { return write(w, b[0], b[2]) }),
		proxy(t, "doubles", func(w io.Writer, b [][]byte) error { return write(w, b[0], b[1], b[1], b[2]) }),
		proxy(t, "swaps", func(w io.Writer, b [][]byte) error { return write(w, b[1], b[0], b[2]) }),
		proxy(t, "changes", func(w io.Writer, b [][]byte) error { return write(w, b[0], make([]byte, 4096), b[2]) }),
	}
	good := proxy(t, "good", func(w io.Writer, b [][]byte) error { return write(w, b...) })
	w := openWorld(t, Loopback)
	c, absent, err := socketContest(t.Context(), w, append([]way{ways()[0], good}, bad...), true)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.entrants) != 2 || c.entrants[1].way != "good" {
		t.Errorf("%+v take part", c.entrants)
	}
	if len(absent) != len(bad) {
		t.Fatalf("%+v are absent", absent)
	}
	for i, a := range absent {
		if a.Way != bad[i].name || !strings.Contains(a.Why, "lost, doubled, swapped or changed") {
			t.Errorf("%+v", a)
		}
	}
}
