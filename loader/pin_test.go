package loader_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"oneport/loader"
)

// Who is paired can be read as text, without a capability, as long as the sockets
// live.
func TestPairsCanBeRead(t *testing.T) {
	pins := pinDirectory(t)
	l := load(t, func(o *loader.Options) { o.Pins = pins })
	read := func() (text string) {
		t.Helper()
		var err error
		var without sync.WaitGroup
		without.Go(func() {
			if err = holdOnly(0); err != nil {
				return
			}
			var b []byte
			b, err = os.ReadFile(pins + "/pairs")
			text = string(b)
		})
		without.Wait()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if info, err := os.Stat(pins + "/pairs"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, error %v", info, err)
	}
	if text := read(); text != "" {
		t.Errorf("nothing is paired: %s", text)
	}
	client, node := connect(t, "tcp4")
	client6, node6 := connect(t, "tcp6")
	if _, err := l.Pair(client, node); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Pair(client6, node6); err != nil {
		t.Fatal(err)
	}
	write(t, client, []byte("short"))
	expect(t, node, []byte("short"))
	text := read()
	if n := strings.Count(text, "\n"); n != 4 {
		t.Errorf("%d lines for 4 sockets:\n%s", n, text)
	}
	w := way(t, l, client)
	want := fmt.Sprintf("cookie=%d target=%d kind=direct netns=%d local=%s remote=%s short_messages=1 short_bytes=5 long_messages=0 long_bytes=0 "+
		"settling=0 closing=0 busy=0 full=0 blocks=0 pressure=0 gone=0\n", w.Cookie, w.Target, w.Namespace, w.Local, w.Remote)
	if !strings.Contains(text, want) {
		t.Errorf("no line\n%sin\n%s", want, text)
	}
	const loopback = "[0000:0000:0000:0000:0000:0000:0000:0001]"
	w = way(t, l, node6)
	if want := fmt.Sprintf("local=%[1]s:%[2]d remote=%[1]s:%[3]d ", loopback, w.Local.Port(), w.Remote.Port()); !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
	wantTotals := func(l *loader.Loader) {
		t.Helper()
		totals, err := l.Totals()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := totals[loader.Direct], (loader.Counts{ShortMessages: 1, ShortBytes: 5}); got != want || totals[loader.Through] != (loader.Counts{}) {
			t.Errorf("totals %+v, want one message of the direct pairs", totals)
		}
	}
	wantTotals(l)
	for _, c := range []interface{ Close() error }{client, node, client6, node6} {
		c.Close()
	}
	eventually(t, func() error {
		if text := read(); text != "" {
			return fmt.Errorf("all is closed, and listed:\n%s", text)
		}
		return nil
	})
	// The totals stay, for the next one, whose trial is no part of them.
	wantTotals(load(t, func(o *loader.Options) { o.Pins = pins }))
}
