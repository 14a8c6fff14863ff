package endpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// capability is one that a Finder needs.
type capability struct {
	name string
	bit  int // linux/capability.h
	what string
}

var (
	sysPtrace = capability{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "kernel.yama.ptrace_scope below 3"}
	sysAdmin  = capability{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, "only for nodes in other network namespaces"}
)

func (c capability) remedy() string {
	return "AmbientCapabilities=" + c.name + " in the service; " + c.what
}

// missing returns the error of not being let do what the capability is for.
func (c capability) missing(err error) error {
	return &MissingError{What: c.name, Remedy: c.remedy(), Err: err}
}

// check tells whether this process has the capability.
func (c capability) check() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("asking for capabilities: %w", err)
	}
	if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
		return errors.New("not held")
	}
	return nil
}

// Requirement is one thing that a Finder needs of the host.
type Requirement struct {
	Name   string
	Met    bool
	Detail string // what was found
	Remedy string // what to do if it is not met
}

// Requirements says what a Finder needs here, and whether it is there: the
// kernel's socket diagnosis, pidfd_getfd, and being let use it. It tries the first
// two, and changes nothing.
func Requirements() []Requirement {
	return []Requirement{
		requirement("socket diagnosis", "works", "a kernel with CONFIG_INET_DIAG, or modprobe tcp_diag", tryDiagnosis()),
		requirement("pidfd_getfd", "works", "Linux 5.6 or later, and no seccomp filter that forbids it", tryDuplicate()),
		requirement("ptrace", "allowed", "kernel.yama.ptrace_scope below 3, which needs a reboot", checkYama(yamaScope)),
		requirement(sysPtrace.name, "held", sysPtrace.remedy(), sysPtrace.check()),
		requirement(sysAdmin.name, "held", sysAdmin.remedy(), sysAdmin.check()),
	}
}

func requirement(name, met, remedy string, err error) Requirement {
	if err != nil {
		return Requirement{Name: name, Detail: err.Error(), Remedy: remedy}
	}
	return Requirement{Name: name, Met: true, Detail: met, Remedy: remedy}
}

// tryDiagnosis looks for a socket that is there.
func tryDiagnosis() error {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer listener.Close()
	_, err = Look(listener.Addr().(*net.TCPAddr).AddrPort(), netip.AddrPort{})
	return err
}

// tryDuplicate takes a duplicate of a descriptor of this process.
func tryDuplicate() error {
	pidfd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// yamaScope says who may take hold of another process, where the kernel has the
// security module Yama.
const yamaScope = "/proc/sys/kernel/yama/ptrace_scope"

// checkYama tells whether the capability is good for anything: the highest
// setting forbids everybody.
func checkYama(path string) error {
	value, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(value)) == "3" {
		return errors.New("kernel.yama.ptrace_scope is 3: forbidden to everyone")
	}
	return nil
}
