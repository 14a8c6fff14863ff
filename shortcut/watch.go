package shortcut

import (
	"context"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"oneport/loader"
)

// When a pair does not gain.
const (
	// minMessages or minBytes in a time between two looks make a pair's traffic
	// worth judging.
	minMessages = 100
	minBytes    = 1 << 20
	// patience is how many such times in a row are enough, in which fewer than
	// one in minShare bytes went short, and fewer than half of the messages. A
	// message that goes long costs little more than without a pair, so that a
	// small part of the bytes, or the calls beside the bulk, are worth it.
	patience = 3
	minShare = 8
	// lookShare is how many times as long as a look took the next one is put
	// off, at least.
	lookShare = 100
	// removal is how long a reader has to take what came the short way, before
	// the pair that is to go is looked at again.
	removal = 30 * time.Second
	// longestRest is the longest that a pair stays out.
	longestRest = time.Hour
	// goodSpell is how long a pair has to last for the next rest to be short again.
	goodSpell = 10 * time.Minute
)

// record is what is known of how a link does.
type record struct {
	last  map[uint64]loader.Counts // by the cookie of the sender
	bad   int                      // times in a row that it went the long way
	since time.Time                // when it was made
	next  time.Time                // when a resting one may come back
	rest  time.Duration            // how long it rests, or rested last
}

func (r *record) begin(now time.Time) { r.bad, r.since = 0, now }

// judge looks at what a pair did since the last time, and returns why it is to
// be taken out, or nothing.
func (r *record) judge(ways []loader.Way) (why string) {
	last := r.last
	r.forget(ways)
	var did loader.Counts
	for _, w := range ways {
		did = did.Plus(minus(w.Counts, last[w.Cookie]))
	}
	bytes := did.LongBytes + did.ShortBytes
	if did.LongMessages+did.ShortMessages < minMessages && bytes < minBytes {
		return ""
	}
	if did.ShortBytes*minShare >= bytes || did.ShortMessages >= did.LongMessages {
		r.bad = 0
		return ""
	}
	if r.bad++; r.bad < patience {
		return ""
	}
	return fmt.Sprintf("it went the long way: %d %% of %d bytes (%s)", did.LongBytes*100/bytes, bytes, Reasons(did.Long))
}

// rested returns how long a pair that is taken out now has to rest.
func (r *record) rested(now time.Time, first time.Duration) time.Duration {
	if r.rest == 0 || now.Sub(r.since) > goodSpell {
		r.rest = first
	} else {
		r.rest = min(2*r.rest, max(longestRest, first))
	}
	return r.rest
}

// forget makes what comes count from here.
func (r *record) forget(ways []loader.Way) {
	r.last = make(map[uint64]loader.Counts, len(ways))
	for _, w := range ways {
		r.last[w.Cookie] = w.Counts
	}
}

func minus(a, b loader.Counts) loader.Counts {
	return loader.Counts{
		ShortMessages: a.ShortMessages - b.ShortMessages, ShortBytes: a.ShortBytes - b.ShortBytes,
		LongMessages: a.LongMessages - b.LongMessages, LongBytes: a.LongBytes - b.LongBytes,
		Long: loader.Reasons{
			Settling: a.Long.Settling - b.Long.Settling, Closing: a.Long.Closing - b.Long.Closing,
			Busy: a.Long.Busy - b.Long.Busy, Full: a.Long.Full - b.Long.Full, Blocks: a.Long.Blocks - b.Long.Blocks,
			Pressure: a.Long.Pressure - b.Long.Pressure, Gone: a.Long.Gone - b.Long.Gone,
		},
	}
}

// watch looks at all pairs from time to time, and for the connections that are
// expected. A look at the pairs is one walk over them. Both take a hundredth of
// the time at most.
func (s *Service) watch() {
	timer := time.NewTimer(s.o.Look)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		if err := s.look(); err != nil {
			s.log.WithError(err).Warn("looking at the pairs of the shortcut")
		}
		s.lookForExpected()
		timer.Reset(max(s.o.Look, lookShare*time.Since(start)))
	}
}

// all returns the links that there are now, by the cookies of their senders.
func (s *Service) all() (links []*link, of map[uint64]*link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of = make(map[uint64]*link)
	for l := range s.links {
		links = append(links, l)
		for _, c := range l.cookies {
			of[c] = l
		}
	}
	return links, of
}

// pairs returns the links with their pairs in the kernel. A link without one has
// lost its sockets.
func (s *Service) pairs() (map[*link][]loader.Way, error) {
	links, of := s.all()
	if len(links) == 0 {
		return nil, nil
	}
	list, err := s.loader.List()
	if err != nil {
		return nil, err
	}
	ways := make(map[*link][]loader.Way, len(links))
	for _, l := range links {
		ways[l] = nil
	}
	for _, p := range list {
		for _, w := range p.Ways {
			if l := of[w.Cookie]; l != nil {
				ways[l] = append(ways[l], w)
			}
		}
	}
	return ways, nil
}

// look judges every link once, and forgets those that have gone.
func (s *Service) look() error {
	pairs, err := s.pairs()
	if err != nil {
		return err
	}
	now := time.Now()
	for l, ways := range pairs {
		s.mu.Lock()
		switch {
		case l.state == over:
		case ways == nil && l.relayed:
			// Its relay is about to say so.
		case ways == nil:
			l.state = over
			delete(s.links, l)
		case l.state == opened:
			if why := l.judge(ways); why != "" && s.o.Mode != All {
				s.takeOut(l, why)
			}
		case l.state == leaving && now.After(l.next):
			s.takeOut(l, "")
		case l.state == resting && now.After(l.next):
			s.bringBack(l)
		}
		s.mu.Unlock()
	}
	return nil
}

// adopt takes over the pairs that an earlier daemon has made and that live
// without it. The others have lost their relays.
func (s *Service) adopt() error {
	list, err := s.loader.List()
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Kind != loader.Direct {
			continue
		}
		w := p.Ways[0]
		l := &link{
			Connection: Connection{Peer: w.Local, Local: w.Remote},
			made:       made{kind: p.Kind},
			join: func(ctx context.Context, _ made) (made, error) {
				a, b, err := s.finder.Ends(ctx, w.Local, w.Remote)
				if err != nil {
					return made{}, err
				}
				defer a.Close()
				defer b.Close()
				pair, err := s.loader.Pair(a, b)
				return made{pair: pair, kind: loader.Direct}, err
			},
			changed: func(bool, string) {},
		}
		if !w.Open {
			l.state = resting // and comes back at the next look
		}
		for _, w := range p.Ways {
			l.cookies = append(l.cookies, w.Cookie)
		}
		l.begin(time.Now())
		l.forget(p.Ways)
		s.links[l] = struct{}{}
	}
	return nil
}

// takeOut has a pair removed. Service.mu is held.
func (s *Service) takeOut(l *link, why string) {
	if l.state == opened {
		s.log.WithFields(logrus.Fields{"id": l.ID, "peer": l.Peer.String(), "kind": l.kind.String(), "why": why}).Info("shortcut taken out")
	}
	l.state, l.next = leaving, time.Now().Add(removal+time.Second)
	m := l.made
	// If there is no place, the next look but some tries again.
	s.beside(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, removal)
		defer cancel()
		var err error
		if m.pair == nil {
			m, err = l.join(ctx, m) // as it is
		}
		if err == nil {
			if why != "" {
				l.changed(false, why)
			}
			err = m.pair.Remove(ctx)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.log.WithField("id", l.ID).WithError(err).Debug("taking a shortcut out")
			return // until the next look after l.next
		}
		if l.state == leaving {
			now := time.Now()
			l.state, l.made = resting, m
			l.next = now.Add(l.rested(now, s.o.Rest))
		}
	})
}

// bringBack has a pair made again. Service.mu is held.
func (s *Service) bringBack(l *link) {
	before := l.made
	started := s.beside(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, besidePatience)
		defer cancel()
		m, err := l.join(ctx, before)
		if err == nil {
			s.enter(l, m)
			s.log.WithField("id", l.ID).Debug("shortcut again")
			return
		}
		s.mu.Lock()
		if l.state == coming {
			now := time.Now()
			l.state = resting
			l.next = now.Add(l.rested(now, s.o.Rest))
		}
		s.mu.Unlock()
		s.log.WithField("id", l.ID).WithError(err).Debug("no shortcut again")
	})
	if started {
		l.state = coming
	}
}
