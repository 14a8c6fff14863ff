package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

const (
	// DefaultHelloTimeout is how long a receiver may take to say who it is.
	DefaultHelloTimeout = 5 * time.Second

	// maxStrangers is how many connections a user may have that have not been
	// welcomed. Those that have been are as many as his registered nodes at
	// most.
	maxStrangers = 256

	// acceptBackoff is the pause after an accept that failed for lack of
	// descriptors or memory.
	acceptBackoff = 100 * time.Millisecond
)

// Server holds the connections of the nodes' receivers and gives descriptors to
// them. Its fields must not change while it serves. All its methods may be
// called at the same time.
type Server struct {
	// Owner tells who may receive for a name; ok is false if it is not
	// registered. User 0 always may. It is asked for each receiver and for
	// each offer, and must not wait long. It is required.
	Owner func(name string) (owner Owner, ok bool)

	// Log takes what happens: receivers that are not welcome as warnings, the
	// comings and goings of others at level info, and at level debug those
	// who came before their node is registered, as all do after a restart of
	// the daemon. Nil discards it.
	Log logrus.FieldLogger

	// AcceptTimeout is how long a node may take to answer an offer. 0 means
	// DefaultAcceptTimeout.
	AcceptTimeout time.Duration

	// HelloTimeout is how long a receiver may take to say who it is. 0 means
	// DefaultHelloTimeout.
	HelloTimeout time.Duration

	mu        sync.Mutex
	receivers map[string]*receiver
	strangers map[uint32]int // connections that are not welcomed yet, by user

	rejected, stray atomic.Uint64
}

// Owner is whose a registered name is.
type Owner struct {
	UID uint32
	// Registration is equal to itself as long as the name stays registered,
	// and to no other.
	Registration any
}

// Stats is what a Server has counted.
type Stats struct {
	Receivers int    // connected and welcomed, now
	Rejected  uint64 // receivers that were told why they are not welcome
	Stray     uint64 // answers to offers that were not open: late, twice, or made up
}

// Stats returns the present numbers.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{len(s.receivers), s.rejected.Load(), s.stray.Load()}
}

// Takes tells whether a receiver of the node is connected.
func (s *Server) Takes(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.receivers[name] != nil
}

// Host returns what the receiver of a node has said that stands behind the @ of
// the node's name. ok is false if no receiver is connected, or this one did not
// say.
func (s *Server) Host(name string) (host string, ok bool) {
	r, err := s.receiverOf(name)
	if err != nil {
		return "", false
	}
	return r.host, r.host != ""
}

// Serve accepts receivers from l, which Listen made, until ctx ends. Then it
// closes l and all connections, and returns nil when the last of them is
// closed. Any other error ends it in the same way.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var served sync.WaitGroup
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		l.Close()
		close(closed)
	})
	// In this order: all know that it ends, and all have ended.
	defer func() {
		cancel()
		<-closed
		served.Wait()
	}()
	for {
		c, err := l.AcceptUnix()
		switch {
		case err == nil:
			served.Go(func() { s.serve(ctx, c) })
		case ctx.Err() != nil:
			return nil
		case scarce(err):
			s.log().WithError(err).Error("accepting receivers is suspended (is the limit of open files too low?)")
			pause(ctx, acceptBackoff)
		default:
			return fmt.Errorf("accepting receivers: %w", err)
		}
	}
}

// scarce tells whether an accept failed for lack of something that may come
// back.
func scarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// serve serves a connection, owns it, and returns when it is closed.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	conn, err := newPackets(c)
	if err != nil {
		c.Close()
		return
	}
	defer conn.close()
	peer, err := conn.peer()
	if err != nil {
		s.log().WithError(err).Warn("asking for a receiver's user")
		return
	}
	log := s.log().WithField("uid", peer.Uid)
	r, err := s.greet(ctx, conn, peer)
	if err != nil {
		if no := (*rejection)(nil); errors.As(err, &no) {
			s.turnAway(conn, no)
			level := logrus.WarnLevel
			if no.code == rejectNotRegistered {
				level = logrus.DebugLevel
			}
			log.WithError(err).Log(level, "rejecting receiver")
		}
		return // those who only look whether somebody listens say nothing
	}
	defer s.leave(r)
	defer context.AfterFunc(ctx, r.end)()
	log = log.WithField("node", r.name)
	log.Info("receiver connected")
	err = r.read(func() { s.stray.Add(1) })
	if errors.Is(err, errMalformed) {
		log.WithError(err).Warn("closing receiver")
		return
	}
	log.Info("receiver disconnected")
}

// rejection is the error that a receiver is told.
type rejection reject

func (r *rejection) Error() string { return r.reason }

func rejectf(code rejectCode, format string, args ...any) error {
	return &rejection{fmt.Sprintf(format, args...), code}
}

// greet takes the HELLO and welcomes the receiver.
func (s *Server) greet(ctx context.Context, conn *packets, peer *unix.Ucred) (*receiver, error) {
	if !s.admit(peer.Uid) {
		return nil, rejectf(rejectTooMany, "%d connections of uid %d have not said HELLO", maxStrangers, peer.Uid)
	}
	defer s.admitted(peer.Uid)
	said, err := s.hello(ctx, conn)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(said.versions, version) {
		return nil, rejectf(rejectVersion, "versions %d are unknown here, version %d is spoken", said.versions, version)
	}
	owner, ok := s.Owner(said.name)
	switch {
	case !ok:
		return nil, rejectf(rejectNotRegistered, "no node %.200q is registered", said.name)
	case peer.Uid != 0 && peer.Uid != owner.UID:
		return nil, rejectf(rejectOwner, "node %.200q belongs to another user", said.name)
	}
	r := newReceiver(said, peer, owner.Registration, conn)
	if err := s.enter(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

// hello waits for the first frame.
func (s *Server) hello(ctx context.Context, conn *packets) (hello, error) {
	timeout := s.helloTimeout()
	if err := conn.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return hello{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.conn.SetReadDeadline(past()) })
	f, err := conn.receive()
	if !stop() {
		return hello{}, rejectf(rejectShuttingDown, "the daemon is shutting down")
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return hello{}, rejectf(rejectMalformed, "no HELLO within %v", timeout)
	case errors.Is(err, errMalformed):
		return hello{}, rejectf(rejectMalformed, "%v", err)
	case err != nil:
		return hello{}, err
	}
	said, ok := f.(hello)
	if !ok {
		return hello{}, rejectf(rejectMalformed, "%v: a receiver says HELLO first", errMalformed)
	}
	return said, conn.conn.SetReadDeadline(time.Time{})
}

// enter makes r the receiver of its name and welcomes it, unless there is one
// already that is to stay. Its turn to write is held meanwhile, so that no offer
// overtakes the welcome.
func (s *Server) enter(ctx context.Context, r *receiver) error {
	ctx, done := context.WithTimeout(ctx, s.helloTimeout())
	defer done()
	if err := r.conn.take(ctx); err != nil {
		return err
	}
	defer r.conn.release()
	if !s.replace(r) {
		return rejectf(rejectOccupied, "another process receives for node %.200q", r.name)
	}
	if err := r.conn.write(ctx, welcome{version}, nil); err != nil {
		s.leave(r)
		return err
	}
	return nil
}

// replace makes r the receiver of its name and ends the one before, unless
// that is to stay.
func (s *Server) replace(r *receiver) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.receivers[r.name]; old != nil {
		if !old.yields(r) {
			return false
		}
		old.end()
	}
	if s.receivers == nil {
		s.receivers = make(map[string]*receiver)
	}
	s.receivers[r.name] = r
	return true
}

// leave ends a receiver and removes it.
func (s *Server) leave(r *receiver) {
	r.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.receivers[r.name] == r {
		delete(s.receivers, r.name)
	}
}

// turnAway tells a receiver why it is not welcome.
func (s *Server) turnAway(conn *packets, no *rejection) {
	s.rejected.Add(1)
	ctx, done := context.WithTimeout(context.Background(), cancelTimeout)
	defer done()
	// Who does not read it does not want to know.
	_ = conn.send(ctx, reject{clip(no.reason), no.code}, nil)
}

// receiverOf returns the receiver of a node that may receive for it now: the
// name may have come to another user since it connected.
func (s *Server) receiverOf(name string) (*receiver, error) {
	s.mu.Lock()
	r := s.receivers[name]
	s.mu.Unlock()
	if r == nil {
		return nil, ErrNoReceiver
	}
	owner, ok := s.Owner(name)
	if !ok {
		return nil, ErrNoReceiver
	}
	if r.uid != 0 && r.uid != owner.UID {
		s.log().WithFields(logrus.Fields{"node": name, "uid": r.uid}).Warn("closing receiver: the node belongs to another user now")
		r.end()
		return nil, ErrNoReceiver
	}
	return r, nil
}

// admit counts a connection of a user that is not welcomed yet, if he may have
// one more, and admitted takes it back.
func (s *Server) admit(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strangers[uid] >= maxStrangers {
		return false
	}
	if s.strangers == nil {
		s.strangers = make(map[uint32]int)
	}
	s.strangers[uid]++
	return true
}

func (s *Server) admitted(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strangers[uid]--; s.strangers[uid] == 0 {
		delete(s.strangers, uid)
	}
}

func (s *Server) acceptTimeout() time.Duration {
	if s.AcceptTimeout > 0 {
		return s.AcceptTimeout
	}
	return DefaultAcceptTimeout
}

func (s *Server) helloTimeout() time.Duration {
	if s.HelloTimeout > 0 {
		return s.HelloTimeout
	}
	return DefaultHelloTimeout
}

func (s *Server) log() logrus.FieldLogger {
	if s.Log != nil {
		return s.Log
	}
	discard := logrus.New()
	discard.SetOutput(io.Discard)
	discard.SetLevel(logrus.PanicLevel)
	return discard
}
