package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	// DefaultAcceptTimeout is how long a node may take to answer an offer.
	DefaultAcceptTimeout = 2 * time.Second

	// MaxTaken is how many bytes that were read from a connection can be
	// offered with it. The rest of a frame has room enough in what is left.
	MaxTaken = 60 << 10

	// commitTimeout bounds the sending of a COMMIT to a receiver that does not
	// read any more, although it has accepted, and cancelTimeout that of a
	// CANCEL. A receiver that takes longer is given up.
	commitTimeout = time.Second
	cancelTimeout = 100 * time.Millisecond
)

// Why a connection was not handed over. The texts are for people who ask why
// a connection goes another way.
var (
	// ErrNoReceiver says that no receiver of the node is connected.
	ErrNoReceiver = errors.New("the node takes no descriptors")
	// ErrTimeout says that the offer was cancelled after AcceptTimeout.
	ErrTimeout = errors.New("the node did not answer the offer in time")
	// ErrResting says that the node was not asked, because it let an offer
	// time out a moment ago and has not answered anything since.
	ErrResting = errors.New("the node did not answer an earlier offer in time")
	// ErrBusy says that the node has as many open offers as are allowed.
	ErrBusy = errors.New("the node has too many offers open")
	// ErrGone says that the receiver's connection ended while it was asked.
	ErrGone = errors.New("the node's receiver has gone")
	// ErrGrant says that Offer.Grant failed. The offer was cancelled.
	ErrGrant = errors.New("answering the client")
)

// RefusedError is a node's own answer to an offer.
type RefusedError struct {
	Reason string // as the node gave it: any UTF-8, at most 255 bytes
}

// Error tells the reason, less what would do harm on a terminal.
func (e *RefusedError) Error() string {
	return "the node refused: " + strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, e.Reason)
}

// Offer is a connection to be handed over.
type Offer struct {
	Name        string         // of the node: what stands before the @
	Conn        *net.TCPConn   // accepted, with every unread byte still in the kernel
	Peer, Local netip.AddrPort // its ends, as the node is told them
	Protocol    string         // what the client came by: "upgrade", "handshake" or "handover"
	Taken       []byte         // what was read from Conn and belongs to the node, at most MaxTaken bytes

	// Grant tells the client yes, in its own protocol. It is called once the
	// node has accepted, and must come to an end within 5 s or so. Nil means
	// that there is nothing to say.
	Grant func() error
}

// Offer gives the connection's descriptor to the node's receiver. It takes
// AcceptTimeout and the time of Grant at most, and a second more if the receiver
// does not read.
//
// Without an error the node owns the connection, and the caller closes its own
// copy, by Close and nothing else: a shutdown(2) would be felt by the node.
//
// With an error the node will not use the connection, and the caller has it as
// before, with other TCP_NODELAY and SO_KEEPALIVE perhaps. granted then tells
// whether Grant was called, so that yes is not said twice. The node may still
// hold a copy for a while: an end of the connection that the client is to see
// must be a shutdown(2). The error wraps one of those above, or is a
// *RefusedError, or the cause of the end of ctx, or tells what was wrong with
// the offer or the sending of it.
func (s *Server) Offer(ctx context.Context, o Offer) (granted bool, err error) {
	r, err := s.receiverOf(o.Name)
	if err != nil {
		return false, err
	}
	if err := o.validate(); err != nil {
		return false, err
	}
	descriptor, err := prepare(o.Conn)
	if err != nil {
		return false, fmt.Errorf("preparing the connection: %w", err)
	}
	id, answer, err := r.open()
	if err != nil {
		return false, err
	}
	f := offer{id, o.Name, o.Peer, o.Local, o.Protocol, o.Taken}
	if err := s.ask(ctx, r, f, descriptor, answer); err != nil {
		return false, err
	}
	if o.Grant != nil {
		if err := o.Grant(); err != nil {
			r.cancel(id)
			return true, fmt.Errorf("%w: %w", ErrGrant, err)
		}
	}
	// Not bound to ctx: the client was told yes.
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer done()
	if err := r.conn.send(ctx, commit{id}, nil); err != nil {
		r.end()
		return true, fmt.Errorf("%w: %v", ErrGone, err)
	}
	return true, nil
}

// validate tells whether a frame can carry the offer.
func (o *Offer) validate() error {
	switch {
	case !o.Peer.IsValid() || !o.Local.IsValid():
		return errors.New("offering a connection without addresses")
	case len(o.Protocol) == 0 || len(o.Protocol) > maxProtocol:
		return fmt.Errorf("offering a connection of protocol %q", o.Protocol)
	case len(o.Taken) > MaxTaken:
		return fmt.Errorf("%d bytes of the connection were read already, an offer has room for %d", len(o.Taken), MaxTaken)
	}
	return nil
}

// ask sends an offer and waits for the answer. After an error the offer is
// closed, and the node knows or will find out.
func (s *Server) ask(ctx context.Context, r *receiver, f offer, descriptor syscall.RawConn, answer <-chan error) error {
	waiting, done := context.WithTimeoutCause(ctx, s.acceptTimeout(), ErrTimeout)
	defer done()
	if err := r.conn.send(waiting, f, descriptor); err != nil {
		r.forget(f.id)
		return r.sendError(waiting, err)
	}
	select {
	case err := <-answer:
		return err
	case <-r.gone:
		return ErrGone
	case <-waiting.Done():
		r.cancel(f.id)
		err := context.Cause(waiting)
		if err == ErrTimeout {
			r.rest()
		}
		return err
	}
}
