package handover

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connectTo is the variable that tells the other process where to connect to.
const connectTo = "ONEPORT_TEST_CONNECT"

// A name has one receiver. Another process of the user does not take it from one
// that is at work; what was restarted does, at once.
func TestANameHasOneReceiver(t *testing.T) {
	for _, test := range []struct {
		name    string
		happens func(d *daemon, first *node)
		yields  bool
	}{
		{"the first is at work", func(*daemon, *node) {}, false},
		{"the first has ended", func(_ *daemon, first *node) { first.conn.Close() }, true},
		{"the node was restarted", func(d *daemon, _ *node) { d.register("b", 0) }, true},
		{"the first does not answer", func(d *daemon, first *node) {
			done := d.offer(first.t, offerOf("b", doorOf(first.t)))
			o, _ := first.offered()
			first.expect(cancel{o.id})
			wantError(first.t, (<-done).err, ErrTimeout)
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := start(t, &Server{AcceptTimeout: 200 * time.Millisecond}, "b")
			first := d.join(t, "b")
			second := d.dialFromElsewhere(t)
			test.happens(d, first)
			second.say(hello{[]byte{version}, "b", ""})
			if !test.yields {
				second.wantReject(rejectOccupied)
				second = first
			} else {
				second.expect(welcome{version})
			}
			done := d.offer(t, offerOf("b", doorOf(t)))
			take(second)
			if got := <-done; got.err != nil {
				t.Error(got.err)
			}
		})
	}
}

// dialFromElsewhere returns a connection that another process has made.
func (d *daemon) dialFromElsewhere(t testing.TB) *node {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	other := exec.Command("/proc/self/exe", "-test.run", "^TestTheOtherProcess$")
	other.Env = append(os.Environ(), connectTo+"="+d.path)
	other.ExtraFiles = []*os.File{f}
	if output, err := other.CombinedOutput(); err != nil {
		t.Fatalf("connecting in another process: %v\n%s", err, output)
	}
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &node{t, c.(*net.UnixConn)}
}

// TestTheOtherProcess is what dialFromElsewhere runs, in a process of its own:
// to the kernel a connection is that of the process that called connect(2).
func TestTheOtherProcess(t *testing.T) {
	path := os.Getenv(connectTo)
	if path == "" {
		t.Skip("run by TestANameHasOneReceiver")
	}
	if err := unix.Connect(3, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
}
