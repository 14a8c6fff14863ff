// Package guest is run in machines by the tests of vmtest, to see what the
// runner makes of it.
package guest

import (
	"os"
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
	case "panics":
		tell(t, "/proc/sysrq-trigger", "c")
	default:
		t.Fatalf("%s is not known", what)
	}
}

func tell(t *testing.T, path, what string) {
	if err := os.WriteFile(path, []byte(what), 0); err != nil {
		t.Fatal(err)
	}
}
