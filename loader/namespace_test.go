package loader_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// acrossNamespaces returns the ends of a connection between two new network
// namespaces, over a veth pair.
func acrossNamespaces(t testing.TB) (client, node *net.TCPConn) {
	t.Helper()
	type result struct {
		listener *net.TCPListener
		err      error
	}
	pid := make(chan int)
	wired := make(chan struct{})
	made := make(chan result, 1)
	go func() {
		// Never unlocked: the thread, and its namespace, end with the goroutine.
		// The namespace lives on with its sockets.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			close(pid)
			made <- result{err: err}
			return
		}
		pid <- unix.Gettid()
		<-wired
		if err := up("nodes", "10.99.0.2/24"); err != nil {
			made <- result{err: err}
			return
		}
		listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(10, 99, 0, 2)})
		made <- result{listener, err}
	}()
	type dialed struct {
		conn net.Conn
		err  error
	}
	connected := make(chan dialed, 1)
	go func() {
		runtime.LockOSThread()
		connected <- func() (d dialed) {
			other, ok := <-pid
			if !ok {
				return dialed{nil, (<-made).err}
			}
			defer func() {
				if d.err != nil && d.conn != nil {
					d.conn.Close()
				}
			}()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				close(wired)
				return dialed{err: err}
			}
			err := netlink.LinkAdd(&netlink.Veth{
				LinkAttrs:     netlink.LinkAttrs{Name: "clients"},
				PeerName:      "nodes",
				PeerNamespace: netlink.NsPid(other),
			})
			close(wired)
			if err == nil {
				err = up("clients", "10.99.0.1/24")
			}
			if err != nil {
				return dialed{err: err}
			}
			r := <-made
			if r.err != nil {
				return dialed{err: r.err}
			}
			defer r.listener.Close()
			d.conn, d.err = net.DialTimeout("tcp4", r.listener.Addr().String(), 10*time.Second)
			if d.err == nil {
				var accepted net.Conn
				if accepted, d.err = r.listener.Accept(); d.err == nil {
					node = accepted.(*net.TCPConn)
				}
			}
			return d
		}()
	}()
	d := <-connected
	if d.err != nil {
		t.Fatal(d.err)
	}
	client = d.conn.(*net.TCPConn)
	t.Cleanup(func() {
		client.Close()
		node.Close()
	})
	return client, node
}

func up(name, address string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}
