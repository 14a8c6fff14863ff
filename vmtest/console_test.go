package main

import (
	"slices"
	"testing"
)

func TestComplaintsOfTheKernelAreFound(t *testing.T) {
	for _, line := range []string{
		"[    8.716202] WARNING: CPU: 0 PID: 138 at arch/x86/kernel/traps.c:1120 exc_debug_kernel+0xca/0x160",
		"[    8.716202] WARNING: net/ipv4/af_inet.c:162 at inet_sock_destruct+0x1a0/0x1c0, CPU#1: swapper/1/0",
		"[    8.716202][  T138] WARNING: possible circular locking dependency detected",
		"[   30.010586] BUG: kernel NULL pointer dereference, address: 0000000000000008",
		"[   30.010586] BUG: KASAN: slab-use-after-free in sk_psock_destroy+0x10/0x20",
		"[   30.010586] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [relay.test:99]",
		"[   30.010586] kernel BUG at net/core/skbuff.c:100!",
		"[   30.010586] Oops: double fault: 0000 [#1] PREEMPT SMP NOPTI",
		"[   30.010586] general protection fault, probably for non-canonical address 0xdead000000000108",
		"[   30.010586] UBSAN: array-index-out-of-bounds in net/core/filter.c:1:2",
		"[   30.010586] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
		"[   30.010586] rcu: INFO: rcu_sched self-detected stall on CPU",
		"[   30.010586] INFO: task relay.test:99 blocked for more than 120 seconds.",
		"[   30.010586] unregister_netdevice: waiting for lo to become free. Usage count = 2",
		"\x1b[0m[   30.019818] Kernel panic - not syncing: Fatal exception in interrupt\r",
	} {
		if len(complaints([]byte("before\n"+line+"\nafter\n"))) != 1 {
			t.Errorf("not found: %q", line)
		}
	}
}

func TestAdviceOfTheKernelIsNoComplaint(t *testing.T) {
	console := []byte("[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on\n" +
		"[    0.2] ACPI: [Firmware Bug]: BIOS _OSI(Linux) query ignored\n" +
		"[    0.3] mtrr: your CPUs had inconsistent fixed MTRR settings\n" +
		"init: a program says BUG: here\n")
	if found := complaints(console); len(found) > 0 {
		t.Errorf("found %q", slices.Collect(slices.Values(found)))
	}
}
