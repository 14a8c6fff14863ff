// Package guest is run in machines by the tests of vmtest, to see what the
// runner makes of it.
package guest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestOne does what its working directory is called.
func TestOne(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	switch what := filepath.Base(dir); what {
	case "passes":
	case "fails":
		t.Error("as it should")
	case "skips":
		t.Skip("not today")
	case "needs-future":
		t.Skip("needs Linux 99.0: sockets that read minds")
	case "needs-past":
		t.Skip("needs Linux 2.6: epoll")
	case "hangs":
		time.Sleep(time.Hour)
	case "warns": // the kernel does, for all that can be seen
		tell(t, "/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at net/core/nothing.c:1 nothing+0x0/0x10\n")
	case "hoards":
		hoard(t)
	case "panics":
		tell(t, "/proc/sysrq-trigger", "c")
	default:
		t.Fatalf("%s is not known", what)
	}
}

// hoard leaves bytes in the kernel that no process has any more: their sender has
// closed, and whoever would refuse them cannot say so.
func hoard(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range 4 {
		sender, err := net.Dial("tcp4", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		receiver, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer receiver.Close()
		sender.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := sender.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes taken, error %v", n, err)
		}
	}
	if output, err := exec.Command("ip", "link", "set", "lo", "down").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}

func tell(t *testing.T, path, what string) {
	if err := os.WriteFile(path, []byte(what), 0); err != nil {
		t.Fatal(err)
	}
}
