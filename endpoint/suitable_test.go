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
				t.Skipf("needs Linux 6.1: TLS in the kernel: %v", err)
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
				t.Skipf("needs Linux 6.1: MPTCP, which Debian's 5.10 was built without: %v", err)
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
	a, peer, local, remote := pair(t, unix.AF_INET, unix.IPPROTO_TCP, ipv4())
	defer unix.Close(peer)
	nonblocking(t, a)
	hold(t, h, exec.Command(program(t, "beam.smp")), a)
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

// What is remembered of a process is not believed: its descriptors may be others
// by now.
func TestADescriptorThatIsAnotherOneByNow(t *testing.T) {
	h, f := world(t), finder(t)
	a, peerOfA, local, remote := pair(t, unix.AF_INET, unix.IPPROTO_TCP, ipv4())
	defer unix.Close(peerOfA)
	b, peerOfB, _, _ := pair(t, unix.AF_INET, unix.IPPROTO_TCP, ipv4())
	defer unix.Close(peerOfB)
	nonblocking(t, a)
	nonblocking(t, b)
	want := cookie(t, a)
	p := hold(t, h, exec.Command(program(t, "beam.smp")), a, b)
	find := func() {
		t.Helper()
		s, err := f.End(t.Context(), local, remote, p.Pid())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := cookieOf(t, s); got != want {
			t.Errorf("a socket with cookie %d, want %d", got, want)
		}
	}
	find()
	v, err := f.machines.view(nil) // with who is known
	if err != nil {
		t.Fatal(err)
	}
	known, err := v.find(local, remote)
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range v.processes {
		if process.pid == p.Pid() {
			process.table.Store(&table{{3, 0}, {4, known.Inode}})
		}
	}
	find()

	s, err := f.End(t.Context(), local, remote)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for what, other := range map[string]func(*end){
		"inode":   func(e *end) { e.Inode++ },
		"cookie":  func(e *end) { e.Cookie++ },
		"address": func(e *end) { e.remote = e.local },
	} {
		e := known
		other(&e)
		if err := control(s, func(fd int) error { return verify(fd, e) }); !errors.Is(err, errStale) {
			t.Errorf("another %s: %v, want %v", what, err, errStale)
		}
	}
	if err := control(s, func(fd int) error { return verify(fd, known) }); err != nil {
		t.Error(err)
	}
}
