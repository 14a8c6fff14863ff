package relay_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"oneport/relay"
)

// A way past the relay is asked for before the first byte has moved, and what is
// said of it is the path, as long as it is open.
func TestShortcutIsAskedForFirst(t *testing.T) {
	var mu sync.Mutex
	var told []string
	saw := func(want ...string) bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(told, want)
	}
	asked, answer, stopped := make(chan int), make(chan struct{}), make(chan struct{})
	var changed func(bool, string)
	j := join(t, "tcp4", relay.Options{
		Prefix: []byte("pre"),
		OnPath: func(path relay.Path, why string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, string(path)+" "+why)
		},
		Shortcut: func(_ context.Context, client, node *net.TCPConn, taken int, c func(bool, string)) func() {
			changed = c
			asked <- taken
			<-answer
			changed(true, "")
			return func() { close(stopped) }
		},
	})
	if taken := <-asked; taken != len("pre") {
		t.Errorf("asked with %d bytes taken", taken)
	}
	if _, err := j.client.Write([]byte("fix")); err != nil {
		t.Fatal(err)
	}
	if n := j.counters.ToNode.Load(); n != 0 {
		t.Errorf("%d bytes have moved before the answer", n)
	}
	close(answer)
	if err := receiveText(j.node, "prefix"); err != nil {
		t.Error(err)
	}
	if !saw("splice ", "shortcut ") {
		t.Errorf("told %q", told)
	}
	changed(false, "gains nothing")
	if !saw("splice ", "shortcut ", "splice shortcut: gains nothing") {
		t.Errorf("told %q", told)
	}
	changed(true, "")
	j.client.Close()
	j.node.Close()
	if r := j.result(t); r.Path != relay.Shortcut || r.Why != "" || r.Reason != relay.Finished {
		t.Errorf("%+v", r)
	}
	<-stopped
	changed(false, "too late")
	if !saw("splice ", "shortcut ", "splice shortcut: gains nothing", "shortcut ") {
		t.Errorf("told %q", told)
	}
}

// Who wants another path is not asked for a shortcut.
func TestNoShortcutWhereAnotherPathIsWanted(t *testing.T) {
	for _, best := range []relay.Path{relay.Splice, relay.Copy} {
		j := join(t, "tcp4", relay.Options{
			Only: best,
			Shortcut: func(context.Context, *net.TCPConn, *net.TCPConn, int, func(bool, string)) func() {
				t.Error("asked")
				return func() {}
			},
		})
		j.client.Close()
		j.node.Close()
		if r := j.result(t); r.Path != best {
			t.Errorf("%+v, want %s", r, best)
		}
	}
}

// receiveText reads exactly as many bytes as want has.
func receiveText(conn *net.TCPConn, want string) error {
	b := make([]byte, len(want))
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if string(b) != want {
		return fmt.Errorf("%q, want %q", b, want)
	}
	return nil
}
