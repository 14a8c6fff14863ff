package bench

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress tells what is being done: on a terminal in one line that is written
// over, else in a line for each round.
type progress struct {
	w        io.Writer
	terminal bool
	width    int // of the line that stands, on a terminal

	began       time.Time // of the contest
	current     int       // round
	rounds      int
	turns, done int // of the round
	heading     string
}

func newProgress(w io.Writer, terminal bool) *progress {
	return &progress{w: w, terminal: terminal}
}

// say writes a line that stays.
func (p *progress) say(format string, args ...any) {
	p.clear()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// round begins a round of so many turns; round 0 warms up.
func (p *progress) round(round, rounds, turns int) {
	if round == 0 {
		p.began = time.Now()
	}
	p.current, p.rounds, p.turns, p.done = round, rounds, turns, 0
	p.heading = fmt.Sprintf("round %d/%d", round, rounds)
	if round == 0 {
		p.heading = "warming up"
	}
}

// turn begins a turn.
func (p *progress) turn(what string) {
	switch {
	case p.terminal:
		line := p.heading + " " + what + p.left()
		fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(p.width-len(line), 0)))
		p.width = len(line)
	case p.done == 0:
		fmt.Fprintf(p.w, "%s %s%s\n", p.heading, what, p.left())
	}
	p.done++
}

// left estimates how long this contest still takes, once there is something to go
// by: half of the round that warms up.
func (p *progress) left() string {
	turns := p.current*p.turns + p.done
	if p.turns == 0 || turns*2 < p.turns {
		return ""
	}
	all := (p.rounds + 1) * p.turns
	left := time.Since(p.began) * time.Duration(all-turns) / time.Duration(turns)
	if left < time.Minute {
		return fmt.Sprintf("  %d s left", int(left.Seconds())+1)
	}
	return fmt.Sprintf("  %d min left", int(left.Minutes()+0.5))
}

// clear takes the line away that would be written over.
func (p *progress) clear() {
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}

// end leaves the terminal in order.
func (p *progress) end() { p.clear() }
