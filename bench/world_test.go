package bench

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAWorldOfTwoNamespaces(t *testing.T) {
	w := openWorld(t, Veth)
	for s, want := range map[side]string{clientSide: "10.88.0.1", hostSide: "10.88.0.2"} {
		out, err := w.command(s, "cat", "/proc/net/fib_trie").Output()
		if err != nil || !strings.Contains(string(out), want) || w.address(s).String() != want {
			t.Errorf("side %d has not got the address %s: %v\n%s", s, want, err, out)
		}
	}
	// From one to the other, and not to this one.
	port, err := w.freePort(hostSide)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.inside(hostSide, func() {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(w.address(hostSide), port).String())
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
	}); err != nil {
		t.Fatal(err)
	}
	address := netip.AddrPortFrom(w.address(hostSide), port).String()
	if err := w.inside(clientSide, func() {
		c, err := net.DialTimeout("tcp4", address, 5*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAWorldThatCannotBe(t *testing.T) {
	if w, err := newWorld(t.Context(), "moon", program); err == nil {
		t.Errorf("there is the layout moon: %+v", w)
	}
	if w, err := newWorld(t.Context(), Loopback, t.TempDir()+"/none"); err == nil {
		t.Errorf("there is a world without a program: %+v", w)
	}
}

// What a child has started ends with it, also where it is not told.
func TestAChildEndsWithAllItsOwn(t *testing.T) {
	w := openWorld(t, Loopback)
	command := w.command(hostSide, "sh", "-c", `sleep 300 & echo $! >grandchild; wait`)
	c, err := w.start(command)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for end := time.Now().Add(10 * time.Second); pid == 0; time.Sleep(poll) {
		b, _ := os.ReadFile(w.dir + "/grandchild")
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		if time.Now().After(end) {
			t.Fatal("there is no grandchild")
		}
	}
	if err := unix.Kill(c.pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.done
	for end := time.Now().Add(10 * time.Second); unix.Kill(pid, 0) == nil; time.Sleep(poll) {
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(b), ") Z ") {
			break // killed, and nobody's to wait for
		}
		if time.Now().After(end) {
			t.Fatalf("process %d outlives the one that has started it", pid)
		}
	}
}

func TestAChildThatEndsIsAnErrorWithItsWords(t *testing.T) {
	w := openWorld(t, Loopback)
	c, err := w.start(w.command(hostSide, "sh", "-c", "echo no such luck >&2; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := w.freePort(hostSide)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.listening(ctx, c, hostSide, port); err == nil || !strings.Contains(err.Error(), "exit status 3: no such luck") {
		t.Errorf("the error is %v", err)
	}
}

func TestTail(t *testing.T) {
	var t4 tail
	for i := range 3000 {
		t4.Write([]byte(strconv.Itoa(i) + "\n"))
	}
	if got := t4.String(); len(got) != maxTail || !strings.HasSuffix(got, "\n2998\n2999\n") {
		t.Errorf("%d bytes end with %q", len(got), got[len(got)-20:])
	}
	t4.Write([]byte(strings.Repeat("x", 2*maxTail)))
	if got := t4.String(); got != strings.Repeat("x", maxTail) {
		t.Errorf("%d bytes are kept of one that is too long", len(got))
	}
}
