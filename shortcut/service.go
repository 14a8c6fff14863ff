package shortcut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"oneport/endpoint"
	"oneport/loader"
)

// Mode is which connections get a short way.
type Mode string

// The modes.
const (
	// Off gives it to none.
	Off Mode = "off"
	// Auto gives it to those that gain by it: between the network namespaces of
	// this host, and from a node here to a client elsewhere.
	Auto Mode = "auto"
	// All gives it to whatever is safe, and leaves it there, for measuring.
	All Mode = "all"
)

// Modes are all modes, as they are listed to a user.
var Modes = [...]Mode{Auto, Off, All}

// The defaults of Options.
const (
	DefaultLook = time.Second
	DefaultRest = 30 * time.Second
)

// Options are the settings of a Service. The zero value of each is its default.
type Options struct {
	Mode Mode           // default Off
	Pins string         // directory on a bpffs where pairs outlive the daemon; empty: they are forgotten, not ended
	Log  *logrus.Logger // nil: discard

	// Look is the time between two looks at what the pairs do. It is longer if a
	// look takes more than a hundredth of it.
	Look time.Duration
	// Rest is how long a pair that was taken out stays out for the first time.
	Rest time.Duration
}

// Service has the short ways of one daemon. Its methods may be called by several
// goroutines at once.
type Service struct {
	o      Options
	log    *logrus.Logger
	off    string // why there is no short way at all, or empty
	loader *loader.Loader
	finder *endpoint.Finder
	absent absent

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	busy   chan struct{} // places for those that work beside a connection

	waiting atomic.Int32 // tasks that have no place yet

	mu       sync.Mutex
	links    map[*link]struct{}
	expected map[uint16]*expectation // by port
}

const (
	// maxBusy is how many tasks run beside connections at once, and maxWaiting
	// how many wait to.
	maxBusy    = 8
	maxWaiting = 4096
)

// Open makes a Service. It loads the programs, which takes some hundred
// milliseconds and the capabilities that loader.Load and endpoint.New name. Where
// that is not possible, the Service gives no connection a short way, and State
// says why.
func Open(o Options) *Service {
	if o.Mode == "" {
		o.Mode = Off
	}
	if o.Look == 0 {
		o.Look = DefaultLook
	}
	if o.Rest == 0 {
		o.Rest = DefaultRest
	}
	if o.Log == nil {
		o.Log = logrus.New()
		o.Log.SetOutput(io.Discard)
	}
	s := &Service{o: o, log: o.Log, links: make(map[*link]struct{}), expected: make(map[uint16]*expectation), busy: make(chan struct{}, maxBusy)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if o.Mode == Off {
		s.off = "switched off"
		return s
	}
	if err := s.load(); err != nil {
		s.off = err.Error()
		s.log.WithError(err).WithField("mode", string(o.Mode)).Warn("no shortcut in the kernel; connections take the other paths")
		return s
	}
	s.log.WithFields(logrus.Fields{"mode": string(o.Mode), "pins": o.Pins}).Info("shortcut in the kernel")
	s.tasks.Go(s.watch)
	return s
}

// load gets hold of the kernel's programs and of a way to find ends.
func (s *Service) load() (err error) {
	for _, r := range endpoint.Requirements() {
		if !r.Met && r.Name != onlyForNamespaces {
			return fmt.Errorf("%s: %s (%s)", r.Name, r.Detail, r.Remedy)
		}
	}
	if s.finder, err = endpoint.New(endpoint.Options{Log: s.log}); err != nil {
		return err
	}
	if s.loader, err = loader.Load(loader.Options{Pins: s.o.Pins}); err != nil {
		return errors.Join(err, s.finder.Close())
	}
	if err = s.adopt(); err != nil {
		return errors.Join(err, s.loader.Close(), s.finder.Close())
	}
	return nil
}

// onlyForNamespaces is the requirement without which the nodes of this network
// namespace are found still. The Finder says what it cannot find.
const onlyForNamespaces = "CAP_SYS_ADMIN"

// State says what the Service does: its mode, or why it does nothing.
func (s *Service) State() string {
	if s.off != "" {
		return "off: " + s.off
	}
	return "on: " + string(s.o.Mode)
}

// Close ends the Service. Pairs go on, those that are pinned to be found by the
// next one. No other method may be running or be called afterwards.
func (s *Service) Close() error {
	s.cancel()
	s.tasks.Wait()
	if s.off != "" {
		return nil
	}
	return errors.Join(s.finder.Close(), s.loader.Close())
}

// beside runs a task beside its connection, when there is a place for it. It
// returns false, and runs nothing, if too many wait.
func (s *Service) beside(task func(context.Context)) bool {
	if s.waiting.Add(1) > maxWaiting {
		s.waiting.Add(-1)
		return false
	}
	s.tasks.Go(func() {
		select {
		case s.busy <- struct{}{}:
			s.waiting.Add(-1)
			task(s.ctx)
			<-s.busy
		case <-s.ctx.Done():
			s.waiting.Add(-1)
		}
	})
	return true
}
