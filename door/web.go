package door

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"oneport/upgrade"
)

// webIdleTimeout is how long a kept-alive HTTP connection may say nothing.
const webIdleTimeout = 75 * time.Second

// webServer serves the connections that are HTTP and not an upgrade by
// net/http. It is the listener of its own server: what it accepts are
// connections that the door has accepted.
type webServer struct {
	http   *http.Server
	conns  chan *webConn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

// webConn is a connection that net/http owns.
type webConn struct {
	*net.TCPConn
	record *Conn
	once   sync.Once
	closed chan struct{}
}

func (w *webConn) Close() error {
	err := w.TCPConn.Close()
	w.once.Do(func() { close(w.closed) })
	return err
}

// Read, Write and their faster forms count.
func (w *webConn) Read(b []byte) (int, error) {
	n, err := w.TCPConn.Read(b)
	w.record.bytes.ToNode.Add(uint64(n))
	return n, err
}

func (w *webConn) Write(b []byte) (int, error) {
	n, err := w.TCPConn.Write(b)
	w.record.bytes.ToClient.Add(uint64(n))
	return n, err
}

func (w *webConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := w.TCPConn.ReadFrom(r)
	w.record.bytes.ToClient.Add(uint64(n))
	return n, err
}

func (w *webConn) WriteTo(to io.Writer) (int64, error) {
	n, err := w.TCPConn.WriteTo(to)
	w.record.bytes.ToNode.Add(uint64(n))
	return n, err
}

func newWebServer(d *Door, h http.Handler) *webServer {
	return &webServer{
		conns:  make(chan *webConn),
		closed: make(chan struct{}),
		addr:   &net.TCPAddr{},
		http: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: d.o.HeaderTimeout,
			MaxHeaderBytes:    d.o.MaxHeader,
			IdleTimeout:       webIdleTimeout,
			ErrorLog:          log.New(logWriter{d.log}, "", 0),
		},
	}
}

func (w *webServer) serve() { w.http.Serve(w) } // ends with close

// take has net/http serve a connection, and returns when it is over.
func (w *webServer) take(ctx context.Context, c *Conn) {
	c.takes(Identified, Web, "")
	wc := &webConn{TCPConn: c.tcp, record: c, closed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { wc.Close() })
	defer stop()
	select {
	case w.conns <- wc:
		<-wc.closed
	case <-w.closed:
		wc.Close()
	case <-ctx.Done():
		wc.Close()
	}
	c.ends("served")
}

func (w *webServer) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

// Close is called by net/http; see close.
func (w *webServer) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *webServer) Addr() net.Addr { return w.addr }

func (w *webServer) close() { w.http.Close() }

// takeUpgrade serves an upgrade on a connection that net/http has had until
// now. It returns when the connection is over.
func (d *Door) takeUpgrade(conn net.Conn, taken []byte, decision upgrade.Decision) {
	w := conn.(*webConn) // as Accept made it
	defer w.Close()
	c := w.record
	c.tcp.SetDeadline(time.Time{})
	c.web = true
	c.identified(Upgrade)
	c.takes(Identified, "", "")
	c.bytes.ToNode.Store(0) // from here on it is the node's traffic that counts
	c.bytes.ToClient.Store(0)
	d.upgraded(c.ctx, c, decision, taken)
}
