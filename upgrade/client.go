package upgrade

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"oneport/internal/peek"
)

const (
	maxAnswerHead = 8 << 10 // bytes
	maxReason     = 1 << 10 // bytes of an answer's body that are read
	// answerTimeout bounds the wait for an answer where the context does not.
	answerTimeout = 10 * time.Second
)

// ErrNotHTTP says that what listens there does not speak HTTP: an EPMD alone,
// for example, which closes a connection that it does not understand.
var ErrNotHTTP = errors.New("no HTTP answer")

// A Client connects to nodes through doors.
type Client struct {
	Dialer net.Dialer
	Method string   // CONNECT if empty; GET for intermediaries that refuse it
	Via    []string // the doors that the request came through, this one last
}

// Dial connects to addr, a door's "host:port", and asks it for the node name at
// host. It returns a connection on which the next byte is the distribution's,
// and the version of the distribution protocol that the node speaks.
//
// The error is a *Refusal if the door said no, and ErrNotHTTP if no HTTP came.
func (c *Client) Dial(ctx context.Context, addr, name, host string) (*net.TCPConn, uint16, error) {
	d := c.Dialer
	d.SetMultipathTCP(false)
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, 0, err
	}
	conn := nc.(*net.TCPConn)
	version, err := c.ask(ctx, conn, name, host)
	if err != nil {
		conn.Close()
		return nil, 0, err
	}
	return conn, version, nil
}

func (c *Client) ask(ctx context.Context, conn *net.TCPConn, name, host string) (uint16, error) {
	deadline, ok := ctx.Deadline()
	if limit := time.Now().Add(answerTimeout); !ok || deadline.After(limit) {
		deadline = limit
	}
	conn.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()

	method := c.Method
	if method == "" {
		method = http.MethodConnect
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	var req bytes.Buffer
	fmt.Fprintf(&req, "%s %s/%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", method, Root, url.PathEscape(name), host, Protocol)
	for _, v := range c.Via {
		fmt.Fprintf(&req, "Via: 1.1 %s\r\n", v)
	}
	req.WriteString("\r\n")
	if _, err := conn.Write(req.Bytes()); err != nil {
		return 0, err
	}

	var head []byte
	err := peek.Head(conn, maxAnswerHead, cutAnswer, func(b []byte) { head = bytes.Clone(b) })
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return 0, ErrNotHTTP
	case err != nil:
		return 0, err
	}
	if err := peek.Discard(conn, len(head)); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if err != nil {
		return 0, ErrNotHTTP
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return 0, &Refusal{Status: resp.StatusCode, Reason: reason(conn, resp)}
	}
	if !hasToken(resp.Header["Upgrade"], Protocol) {
		return 0, fmt.Errorf("answer 101 to another protocol, %q; expected %s", resp.Header.Get("Upgrade"), Protocol)
	}
	version, err := strconv.ParseUint(resp.Header.Get("Version"), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("answer 101 with Version %q; expected a number", resp.Header.Get("Version"))
	}
	conn.SetDeadline(time.Time{})
	return uint16(version), nil
}

// cutAnswer finds the end of a response head, and notices at once what is none.
func cutAnswer(b []byte) (int, error) {
	const start = "HTTP/1."
	if n := min(len(b), len(start)); string(b[:n]) != start[:n] {
		return 0, ErrNotHTTP
	}
	return HeadLength(b), nil
}

// reason returns the first line of a refusal's body.
func reason(conn *net.TCPConn, resp *http.Response) string {
	n := int64(maxReason)
	if resp.ContentLength >= 0 {
		n = min(n, resp.ContentLength)
	}
	body, _ := io.ReadAll(io.LimitReader(conn, n)) // what came is what there is to say
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if line = strings.TrimSpace(line); line == "" {
		line = http.StatusText(resp.StatusCode)
	}
	return line
}
