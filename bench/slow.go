package bench

import "context"

// slowReaders measures, of each entrant, what piles up before a reader who sleeps.
// The reader then reads and checks all of it; those of which that fails are returned
// with the reason.
func slowReaders(ctx context.Context, c *contest, w *world) (all []SlowReader, failed []Absent) {
	s := w.sockets
	if s == nil {
		return nil, nil
	}
	a := s.amounts()
	for _, e := range c.entrants {
		got, err := s.turn(ctx, e.way, 1, header{Kind: slow, Direction: s.slowDirection(e.way), Size: chunk, Count: a.slow, Sleep: a.sleep}, false)
		if ctx.Err() != nil {
			return all, failed
		}
		if err != nil {
			failed = append(failed, Absent{w.layout, c.group, e.way, "a reader who sleeps: " + err.Error()})
			continue
		}
		all = append(all, SlowReader{
			Layout: w.layout, Way: e.way, Offered: a.slow, Accepted: got.Accepted, Memory: got.Fall, Sleep: a.sleep.Seconds(),
		})
	}
	return all, failed
}

// slowDirection is that in which a way is what it is called: where there is only one,
// it is the way out of the node.
func (s *sockets) slowDirection(way string) direction {
	if x := s.expected[way]; x != nil && x.outward() {
		return toClient
	}
	return toNode
}
