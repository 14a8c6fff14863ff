package main

import (
	"fmt"
	"runtime"

	"oneport/vmtest/plan"

	"golang.org/x/sys/unix"
)

// write writes one byte to an I/O port, to which the thread must have the right.
//
//go:noescape
func write(port uint16, value byte)

// end ends the machine by the device isa-debug-exit, and returns only if it
// could not. There is no /dev/port in kernels for virtual machines.
func end(status byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := unix.Syscall(unix.SYS_IOPERM, plan.ExitPort, 1, 1); errno != 0 {
		return fmt.Errorf("asking for the port: %w", errno)
	}
	write(plan.ExitPort, status)
	return fmt.Errorf("no device at port %#x", plan.ExitPort)
}
