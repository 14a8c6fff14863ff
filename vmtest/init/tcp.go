package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

// account is what the kernel held for TCP when the machine began: nearly
// nothing, since nobody else is there. It shows what programs leave behind
// that has no owner any more and so is missed by every look at processes.
type account struct{ sockets, pages int }

// tcpLine is that of /proc/net/sockstat. Of its numbers these are of all network
// namespaces, and do not count what is in TIME_WAIT.
var tcpLine = regexp.MustCompile(`(?m)^TCP: .* alloc (\d+) mem (\d+)$`)

func newAccount() (account, error) {
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return account{}, fmt.Errorf("asking for TCP's memory: %w", err)
	}
	found := tcpLine.FindSubmatch(b)
	if found == nil {
		return account{}, fmt.Errorf("TCP's memory is not in %q", b)
	}
	var a account
	if a.sockets, err = strconv.Atoi(string(found[1])); err != nil {
		return account{}, err
	}
	a.pages, err = strconv.Atoi(string(found[2]))
	return a, err
}

// patience is how long sockets that have been closed may take to be destroyed.
const patience = 10 * time.Second

// left waits until the kernel holds no more than at the beginning, and says
// what it holds if that does not come.
func (a account) left() (what string, err error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now, err := newAccount()
		switch {
		case err != nil:
			return "", err
		case now.sockets <= a.sockets && now.pages <= a.pages+reserve():
			return "", nil
		case time.Now().After(deadline):
			return fmt.Sprintf("TCP holds %d sockets and %d pages of memory after it, at the machine's start %d and %d",
				now.sockets, now.pages, a.sockets, a.pages), nil
		}
	}
}

// reserve is by how many pages the number may be off: from Linux 6.0 on each
// processor keeps up to a megabyte of the account to itself
// (SK_MEMORY_PCPU_RESERVE of include/net/sock.h).
func reserve() int { return runtime.NumCPU() << 20 / os.Getpagesize() }
