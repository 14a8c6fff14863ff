// Package netns runs functions in other network namespaces than the process's.
//
// A namespace is that of a thread, and the Go runtime moves goroutines from thread
// to thread. So whatever enters a namespace gets a thread of its own, which ends
// with it. The package makes no namespaces and gives them no names.
package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Inside runs f in the network namespace that a descriptor refers to. What f opens
// belongs to it for good; goroutines that f starts do not run in it.
func Inside(netns int, f func()) (err error) {
	OnOwnThread(func() {
		if err = unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("entering a network namespace: %w", err)
			return
		}
		f()
	})
	return err
}

// OnOwnThread runs f on an operating-system thread that ends with it, so that f may
// move it into namespaces that nobody else should ever run in. It is never the
// first thread of the process, which does not end, and whose namespaces /proc/PID
// shows.
func OnOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			OnOwnThread(f) // on another, since this one is held
			return
		}
		f()
	}()
	<-done
}
