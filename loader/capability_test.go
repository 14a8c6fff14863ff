package loader_test

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// holdOnly leaves this goroutine, which stays on its thread, with these
// capabilities. The other threads keep theirs: no way of cgo's to change all.
func holdOnly(held uint64) error {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		data[i].Effective = uint32(held >> (32 * i))
		data[i].Permitted = data[i].Effective
	}
	return unix.Capset(&header, &data[0])
}
