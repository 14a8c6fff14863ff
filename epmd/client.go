package epmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// DefaultTimeout is how long a Client waits for one exchange.
const DefaultTimeout = 10 * time.Second

// Errors of a Client, each of which is the daemon's own answer.
var (
	ErrNoSuchNode = errors.New("no such node")
	ErrRefused    = errors.New("refused by EPMD")
)

// Client asks a daemon. The zero value asks the one of this host. Its methods
// may be called at the same time; each makes its own connection and waits for
// the answer until the context ends or Timeout has passed.
//
// Errors wrap ErrMalformed if the other side does not speak the protocol,
// ErrInvalidNode if a name or node is one that no daemon takes, and those of
// package net.
type Client struct {
	// Addr is the daemon's host:port. Empty means port DefaultPort of
	// 127.0.0.1.
	Addr string

	// Timeout bounds one exchange, connecting included. 0 means
	// DefaultTimeout.
	Timeout time.Duration

	// DialContext makes the connections. Nil means a net.Dialer without
	// keep-alive and MPTCP.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Names asks for all registered names. The daemon of OTP and that of this
// package list the newest first.
func (c *Client) Names(ctx context.Context) (NamesResponse, error) {
	return ask(ctx, c, NamesRequest{}, ReadNamesResponse)
}

// Dump asks for all names, also former ones. A daemon answers this to its own
// host only.
func (c *Client) Dump(ctx context.Context) (DumpResponse, error) {
	return ask(ctx, c, DumpRequest{}, ReadDumpResponse)
}

// Lookup asks for a node. The error wraps ErrNoSuchNode if no such node is
// registered.
func (c *Client) Lookup(ctx context.Context, name string) (Node, error) {
	response, err := ask(ctx, c, PortRequest{name}, ReadPortResponse)
	switch {
	case err != nil:
		return Node{}, err
	case response.Result != ResultOK:
		return Node{}, fmt.Errorf("%w: %q at EPMD %s", ErrNoSuchNode, name, c.addr())
	}
	return response.Node, nil
}

// Kill asks the daemon to end. The error wraps ErrRefused if it does not want
// to: nodes are registered, and it was not started with
// -relaxed_command_check.
func (c *Client) Kill(ctx context.Context) error {
	return c.command(ctx, KillRequest{}, killAllowed)
}

// Stop asks the daemon to unregister a node that may well be alive. The error
// wraps ErrNoSuchNode if there is none, and ErrRefused if the daemon was not
// started with -relaxed_command_check.
func (c *Client) Stop(ctx context.Context, name string) error {
	return c.command(ctx, StopRequest{name}, stopDone)
}

// command makes a request that is answered by a word, which want is if it was
// carried out.
func (c *Client) command(ctx context.Context, r Request, want string) error {
	answer, err := ask(ctx, c, r, func(r io.Reader) ([]byte, error) {
		return io.ReadAll(io.LimitReader(r, 16))
	})
	switch {
	case err != nil:
		return err
	// OTP's daemon sends STOPPED after NOEXIST.
	case bytes.HasPrefix(answer, []byte(stopNotFound)):
		return fmt.Errorf("%w at EPMD %s", ErrNoSuchNode, c.addr())
	case string(answer) == want:
		return nil
	case len(answer) == 0 || string(answer) == killRefused:
		return fmt.Errorf("%w at %s (unregister the nodes first, or start it with -relaxed_command_check)", ErrRefused, c.addr())
	}
	return fmt.Errorf("%w: answer %q", ErrMalformed, answer)
}

// Alive is a registration that lasts until it is closed.
type Alive struct {
	Creation uint32 // 1 to 3 if the node's Highest is below 6
	conn     net.Conn
}

// Close unregisters the node.
func (a *Alive) Close() error { return a.conn.Close() }

// Wait returns when the registration has ended: nil if the daemon ended it,
// an error of package net if the connection broke or Close was called. The
// node should then register again.
func (a *Alive) Wait() error {
	// A daemon sends nothing after its answer.
	_, err := io.Copy(io.Discard, a.conn)
	return err
}

// Register registers a node until Alive.Close. The error wraps ErrNameInUse if
// the daemon refuses it, which hardly has another reason.
func (c *Client) Register(ctx context.Context, node Node) (*Alive, error) {
	conn, response, err := open(ctx, c, AliveRequest{node}, ReadAliveResponse)
	if err != nil {
		return nil, err
	}
	if response.Result != ResultOK {
		conn.Close()
		return nil, fmt.Errorf("%w: %q was refused by EPMD %s", ErrNameInUse, node.Name, c.addr())
	}
	return &Alive{response.Creation, conn}, nil
}

// Handover asks the daemon to give the connection to a node, and returns the
// connection and the distribution version to be spoken on it. It has no
// deadline, and nothing was read from it after the answer. The error wraps
// ErrNoSuchNode if the daemon cannot or does not want to.
func (c *Client) Handover(ctx context.Context, name string) (net.Conn, uint16, error) {
	conn, response, err := open(ctx, c, HandoverRequest{name}, ReadHandoverResponse)
	if err != nil {
		return nil, 0, err
	}
	if response.Result != ResultOK {
		conn.Close()
		return nil, 0, fmt.Errorf("%w: %q was not handed over by EPMD %s", ErrNoSuchNode, name, c.addr())
	}
	return conn, response.Version, nil
}

// ask makes a request and reads its answer.
func ask[T any](ctx context.Context, c *Client, r Request, read func(io.Reader) (T, error)) (T, error) {
	conn, response, err := open(ctx, c, r, read)
	if err == nil {
		conn.Close()
	}
	return response, err
}

// open is ask for a request after which the connection stays open. It is
// closed if there is an error.
func open[T any](ctx context.Context, c *Client, r Request, read func(io.Reader) (T, error)) (net.Conn, T, error) {
	var none T
	request, err := AppendRequest(nil, r)
	if err != nil {
		return nil, none, err
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, none, fmt.Errorf("connecting to EPMD (is it running?): %w", err)
	}
	release := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past()) })
	response, err := exchangeOn(conn, request, read)
	if !release() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, none, fmt.Errorf("asking EPMD %s: %w", c.addr(), err)
	}
	return conn, response, nil
}

func exchangeOn[T any](conn net.Conn, request []byte, read func(io.Reader) (T, error)) (T, error) {
	if _, err := conn.Write(request); err != nil {
		var none T
		return none, err
	}
	response, err := read(conn)
	return response, noEOF(err)
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	if c.DialContext != nil {
		return c.DialContext(ctx, "tcp", c.addr())
	}
	dialer := net.Dialer{KeepAlive: -1}
	dialer.SetMultipathTCP(false)
	return dialer.DialContext(ctx, "tcp", c.addr())
}

func (c *Client) addr() string {
	if c.Addr != "" {
		return c.Addr
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), DefaultPort).String()
}
