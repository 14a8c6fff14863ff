package main

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startCapabilities are those that only the start needs: to bring the shortcut
// into the kernel (package loader).
const startCapabilities uint64 = 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON

// dropStartCapabilities gives up startCapabilities for good, in all threads. A
// program that is linked with C cannot do that; the release is not.
func dropStartCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 32 capabilities each
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("asking for capabilities: %w", err)
	}
	for i := range data {
		keep := ^uint32(startCapabilities >> (32 * i))
		// What leaves the inheritable set leaves the ambient one.
		data[i].Effective &= keep
		data[i].Permitted &= keep
		data[i].Inheritable &= keep
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 && !errors.Is(errno, syscall.ENOTSUP) {
		return fmt.Errorf("dropping capabilities: %w", errno)
	}
	return nil
}
