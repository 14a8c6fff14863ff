package loader_test

import (
	"encoding/binary"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// craft returns the ends of a loopback connection whose first bytes have the
// sequence numbers a and b: it is made by TCP_REPAIR, without a handshake.
func craft(t *testing.T, a, b uint32) (first, second *net.TCPConn) {
	t.Helper()
	var fds [2]int
	var addresses [2]unix.Sockaddr
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		check(err)
		check(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1))
		check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		addresses[i], err = unix.Getsockname(fd)
		check(err)
		fds[i] = fd
	}
	const receiveQueue, sendQueue = 1, 2
	for i, fd := range fds {
		sends, receives := a, b
		if i == 1 {
			sends, receives = b, a
		}
		check(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR_QUEUE, sendQueue))
		check(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_QUEUE_SEQ, int(int32(sends))))
		check(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR_QUEUE, receiveQueue))
		check(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_QUEUE_SEQ, int(int32(receives))))
		check(unix.Connect(fd, addresses[1-i]))
		// struct tcp_repair_window: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
		var window []byte
		for _, v := range []uint32{receives, 60000, 60000, 60000, receives} {
			window = binary.NativeEndian.AppendUint32(window, v)
		}
		check(unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_REPAIR_WINDOW, string(window)))
	}
	var conns [2]*net.TCPConn
	for i, fd := range fds {
		const offWithoutProbe = -1
		check(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, offWithoutProbe))
		f := file(fd)
		conn, err := net.FileConn(f)
		check(err)
		f.Close()
		t.Cleanup(func() { conn.Close() })
		conns[i] = conn.(*net.TCPConn)
	}
	return conns[0], conns[1]
}

func file(fd int) *os.File { return os.NewFile(uintptr(fd), "socket") }
