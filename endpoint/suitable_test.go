package endpoint

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Only plain connections of a BEAM are taken, and the error says why not.
func TestUnsuitableSockets(t *testing.T) {
	h, f := world(t), finder(t)
	beam := program(t, "beam.smp")
	for _, c := range []struct {
		name, program string
		protocol      int
		prepare       func(t *testing.T, fd int)
		want          string // of an UnsuitableError
		is            error  // or another
	}{
		{"a good one", beam, unix.IPPROTO_TCP, nonblocking, "", nil},
		{"blocking", beam, unix.IPPROTO_TCP, func(*testing.T, int) {}, "it is blocking", nil},
		{"MPTCP", beam, unix.IPPROTO_MPTCP, nonblocking, "its protocol is 262", nil},
		{"TLS in the kernel", beam, unix.IPPROTO_TCP, func(t *testing.T, fd int) {
			nonblocking(t, fd)
			if err := unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_ULP, "tls"); err != nil {
				unix.Close(fd)
				t.Skipf("no TLS in this kernel: %v", err)
			}
		}, `the kernel runs "tls"`, nil},
		{"half closed", beam, unix.IPPROTO_TCP, func(t *testing.T, fd int) {
			nonblocking(t, fd)
			if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
		}, "not established", nil},
		{"another program's", program(t, "beam"), unix.IPPROTO_TCP, nonblocking, "", ErrNotBEAM},
	} {
		t.Run(c.name, func(t *testing.T) {
			if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, c.protocol); err != nil {
				t.Skipf("not in this kernel: %v", err)
			} else {
				unix.Close(fd)
			}
			a, b, local, remote := pair(t, unix.AF_INET, c.protocol, ipv4())
			defer unix.Close(b)
			c.prepare(t, a)
			p := hold(t, h, exec.Command(c.program), a)
			s, err := f.End(t.Context(), local, remote)
			if err == nil {
				defer s.Close()
			}
			var unsuitable *UnsuitableError
			switch {
			case c.want != "":
				if !errors.As(err, &unsuitable) || !strings.Contains(unsuitable.Why, c.want) {
					t.Errorf("error %v, want one with %q", err, c.want)
				}
			case !errors.Is(err, c.is):
				t.Errorf("error %v, want %v", err, c.is)
			case err == nil && s.PID != p.Pid():
				t.Errorf("found process %d, want %d", s.PID, p.Pid())
			}
		})
	}
}

func nonblocking(t *testing.T, fd int) {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
}

// A connection that waits in the queue of its listener is nobody's yet.
func TestAConnectionThatIsNotAccepted(t *testing.T) {
	f := finder(t)
	l := listen(t, "tcp4")
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var unsuitable *UnsuitableError
	if _, err := f.End(t.Context(), addrPort(l.Addr()), addrPort(conn.LocalAddr())); !errors.As(err, &unsuitable) {
		t.Errorf("error %v, want one of an unsuitable socket", err)
	}
}

// A duplicate leaves the socket as it is, and can be closed at any time.
func TestADuplicate(t *testing.T) {
	h, f := world(t), finder(t)
	l := listen(t, "tcp4")
	start(t, h, erl(connects(l, "")))
	_, local, remote := accept(t, l)
	s, err := f.End(t.Context(), local, remote)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(uintptr) bool { return true }); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("waiting to read: %v, want %v", err, errors.ErrUnsupported)
	}
	if err := raw.Write(func(uintptr) bool { return true }); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("waiting to write: %v, want %v", err, errors.ErrUnsupported)
	}
	err = control(s, func(fd int) error {
		descriptor, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && descriptor&unix.FD_CLOEXEC == 0 {
			t.Error("a child would inherit it")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if raw.Control(func(uintptr) { t.Error("control of a closed duplicate") }) == nil || s.Close() == nil {
		t.Error("a closed duplicate is not closed")
	}
}
