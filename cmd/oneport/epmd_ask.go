package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"oneport/epmd"
)

// maxStopName is how long the name may be that -stop takes, in bytes.
const maxStopName = 1000

// askTimeout bounds a question to the running daemon. Unlike OTP's, ours does
// not wait forever for one that hangs.
const askTimeout = time.Minute

// names prints what the running daemon answers to NAMES_REQ; -started prints
// nothing and only tells by the exit code that it runs.
func (c *epmdCommand) names(ctx context.Context) int { return c.list(ctx, epmd.NamesRequest{}) }

// dump prints what the running daemon answers to DUMP_REQ.
func (c *epmdCommand) dump(ctx context.Context) int { return c.list(ctx, epmd.DumpRequest{}) }

func (c *epmdCommand) list(ctx context.Context, request epmd.Request) int {
	conn, ok := c.ask(ctx, request)
	if !ok {
		return 1
	}
	defer conn.Close()
	out := c.stdout
	if c.silent {
		out = io.Discard
	}
	var port [4]byte
	if _, err := io.ReadFull(conn, port[:]); err != nil {
		fmt.Fprint(out, "epmd: no response from local epmd\n")
		return 1
	}
	fmt.Fprintf(out, "epmd: up and running on port %d with data:\n", int32(be32(port)))
	// Scripts get the daemon's own lines. OTP's does not tell either when
	// they were cut off.
	_, _ = io.Copy(out, conn)
	return 0
}

func be32(b [4]byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// kill asks the running daemon to end.
func (c *epmdCommand) kill(ctx context.Context) int {
	answer, code := c.word(ctx, epmd.KillRequest{}, len("OK"))
	switch {
	case code != 0:
		return code
	case answer == "OK":
		fmt.Fprintln(c.stdout, "Killed")
		return 0
	}
	fmt.Fprintln(c.stdout, "Killing not allowed - living nodes in database.")
	return 1
}

// stop asks the running daemon to unregister a name.
func (c *epmdCommand) stop(ctx context.Context, name string) int {
	if len(name) > maxStopName {
		fmt.Fprint(c.stdout, "epmd: Name too long!")
		return 1
	}
	answer, code := c.word(ctx, epmd.StopRequest{Name: name}, len("STOPPED"))
	if code != 0 {
		return code
	}
	fmt.Fprintln(c.stdout, answer)
	return 0
}

// word makes a request that is answered by size bytes. The code is 0 if they
// came.
func (c *epmdCommand) word(ctx context.Context, request epmd.Request, size int) (answer string, code int) {
	conn, ok := c.ask(ctx, request)
	if !ok {
		return "", 1
	}
	defer conn.Close()
	b := make([]byte, size)
	_, err := io.ReadFull(conn, b)
	switch {
	case err == nil:
		return string(b), 0
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		// OTP's shows nothing of a part either.
		fmt.Fprint(c.stdout, "epmd: local epmd responded with <>\n")
	default:
		fmt.Fprint(c.stdout, "epmd: failed to read answer from local epmd\n")
	}
	return "", 1
}

// ask sends a request to the running daemon. If it could not, it has said so.
func (c *epmdCommand) ask(ctx context.Context, request epmd.Request) (net.Conn, bool) {
	message, err := epmd.AppendRequest(nil, request)
	if err != nil {
		fmt.Fprintf(c.stdout, "epmd: %v\n", err)
		return nil, false
	}
	conn, err := c.connect(ctx)
	if err != nil {
		if !c.silent {
			fmt.Fprintln(c.stderr, "epmd: Cannot connect to local epmd")
		}
		return nil, false
	}
	err = conn.SetDeadline(time.Now().Add(askTimeout))
	if err == nil {
		_, err = conn.Write(message)
	}
	if err != nil {
		fmt.Fprint(c.stdout, "epmd: Can't write to epmd\n")
		conn.Close()
		return nil, false
	}
	return conn, true
}

// connect tries both loopback addresses, as OTP's does.
func (c *epmdCommand) connect(ctx context.Context) (conn net.Conn, err error) {
	dialer := net.Dialer{KeepAlive: -1, Timeout: askTimeout}
	dialer.SetMultipathTCP(false)
	for _, host := range []string{"::1", "127.0.0.1"} {
		conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(c.port)))
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}
