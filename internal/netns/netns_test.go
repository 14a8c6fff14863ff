package netns

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"oneport/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// What a function does to its thread touches nobody else, and is never done to the
// thread whose namespaces the process shows.
func TestOnOwnThread(t *testing.T) {
	for range 20 {
		OnOwnThread(func() {
			if unix.Gettid() == unix.Getpid() {
				t.Error("it runs on the first thread")
			}
		})
	}
}

func TestInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	link := func() string {
		name, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return name
	}
	var made string
	fd := -1
	OnOwnThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		var err error
		if fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			t.Error(err)
		}
		made = link()
	})
	if t.Failed() {
		t.FailNow()
	}
	defer unix.Close(fd)
	var inside string
	if err := Inside(fd, func() { inside = link() }); err != nil || inside != made {
		t.Errorf("inside it is %s, %v; want %s", inside, err, made)
	}
	if outside := link(); outside == made {
		t.Error("the caller is in the namespace as well")
	}
	if err := Inside(-1, func() { t.Error("it runs without the namespace") }); err == nil {
		t.Error("no error without a namespace")
	}
}
