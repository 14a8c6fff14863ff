package endpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// One that is not there spoils none of the others.
func TestLookEach(t *testing.T) {
	l := listen(t, "tcp4")
	var ends []Ends
	var cookies []uint64
	for range 3 {
		client, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, local, remote := accept(t, l)
		ends = append(ends, Ends{remote, local}, Ends{local, netip.AddrPortFrom(remote.Addr(), 1)})
		err = control(conn.(syscall.Conn), func(fd int) error { cookies = append(cookies, cookie(t, fd), 0); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []uint64
	LookEach(ends, func(i int, r Record, err error) {
		if i != len(got) || i%2 == 0 && err != nil || i%2 == 1 && !errors.Is(err, unix.ENOENT) {
			t.Errorf("connection %d: %+v, error %v", i, r, err)
		}
		got = append(got, r.Cookie)
	})
	if !slices.Equal(got, cookies) {
		t.Errorf("cookies %d, want %d", got, cookies)
	}
}

func TestLook(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			l := listen(t, network)
			client, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			conn, local, remote := accept(t, l)
			if _, err := io.WriteString(client, "hello"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			var want uint64
			err = control(client.(syscall.Conn), func(fd int) error { want = cookie(t, fd); return nil })
			if err != nil {
				t.Fatal(err)
			}
			var r Record
			until(t, "the client knows that what it sent has arrived", func() bool {
				if r, err = Look(local, remote); err != nil {
					t.Fatal(err)
				}
				return r.Info.Bytes_acked > 0
			})
			if r.State != unix.BPF_TCP_ESTABLISHED || r.Cookie != want || r.UID != uint32(os.Getuid()) || r.Inode == 0 {
				t.Errorf("%+v, want an established one with cookie %d", r, want)
			}
			if r.Info.Bytes_acked != 6 { // with the SYN
				t.Errorf("%d bytes acknowledged, want 6", r.Info.Bytes_acked)
			}
			if r, err := Look(addrPort(l.Addr()), netip.AddrPort{}); err != nil || r.State != unix.BPF_TCP_LISTEN {
				t.Errorf("listener: %+v, error %v", r, err)
			}
			for _, ends := range [][2]netip.AddrPort{
				{local, netip.AddrPort{}}, // it does not listen
				{addrPort(l.Addr()), netip.AddrPortFrom(local.Addr(), 1)},
			} {
				if r, err := Look(ends[0], ends[1]); !errors.Is(err, unix.ENOENT) {
					t.Errorf("%v: %+v, error %v, want %v", ends, r, err, unix.ENOENT)
				}
			}

			if err := Destroy(local, remote); errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("needs Linux 4.5: CONFIG_INET_DIAG_DESTROY")
			} else if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("reading of a connection that was reset: %v", err)
			}
			if err := Destroy(local, remote); !errors.Is(err, unix.ENOENT) {
				t.Errorf("resetting it again: %v, want %v", err, unix.ENOENT)
			}
		})
	}
}

// What the kernel says is about the connection that was asked for, or an error.
func FuzzParseAnswer(f *testing.F) {
	local, remote := netip.MustParseAddrPort("127.0.0.1:4369"), netip.MustParseAddrPort("127.0.0.1:40000")
	answer := make([]byte, answerSize)
	answer[0], answer[1] = unix.AF_INET, unix.BPF_TCP_ESTABLISHED
	binary.BigEndian.PutUint16(answer[4:], local.Port())
	binary.BigEndian.PutUint16(answer[6:], remote.Port())
	copy(answer[8:], local.Addr().AsSlice())
	copy(answer[24:], remote.Addr().AsSlice())
	if _, err := parse(answer, local, remote); err != nil {
		f.Fatal(err)
	}
	f.Add(answer)
	other := bytes.Clone(answer)
	other[4]++ // the port
	f.Add(other)
	attribute := make([]byte, unix.SizeofRtAttr+8)
	binary.NativeEndian.PutUint16(attribute, uint16(len(attribute)))
	binary.NativeEndian.PutUint16(attribute[2:], inetDiagInfo)
	f.Add(append(bytes.Clone(answer), attribute...))
	f.Fuzz(func(t *testing.T, answer []byte) {
		before := bytes.Clone(answer)
		r, err := parse(answer, local, remote)
		if err == nil && (r.State == unix.BPF_TCP_LISTEN || !bytes.Equal(answer[4:6], []byte{0x11, 0x11})) {
			t.Errorf("%x: taken for %+v", answer, r)
		}
		if !bytes.Equal(before, answer) {
			t.Error("the answer has changed")
		}
	})
}
