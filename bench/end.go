package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
)

// EndCommand is the hidden command of oneport that runs End.
const EndCommand = "bench-end"

// end is a process that is one end of connections, and does as it is told. It does
// one thing after the other. What it registers and listens at lasts as long as it.
type end struct {
	child *child
	input io.WriteCloser

	mu      sync.Mutex
	last    int                 // id of the last request
	waiting map[int]chan answer // by id
}

// end starts an end on a side. program is "" or beam, the name that it runs by.
func (w *world) end(s side, program string) (*end, error) {
	path := w.program
	if program != "" {
		path = filepath.Join(w.dir, program)
	}
	e := &end{waiting: make(map[int]chan answer)}
	command := w.command(s, path, EndCommand)
	command.Stdout = &answers{deliver: e.deliver}
	var err error
	if e.input, err = command.StdinPipe(); err != nil {
		return nil, err
	}
	if e.child, err = w.start(command); err != nil {
		_ = e.input.Close()
		return nil, fmt.Errorf("starting an end of connections: %w", err)
	}
	return e, nil
}

// ask has the end do something, and returns what comes of it. What takes longer
// than the context allows is broken off, with all its connections.
func (e *end) ask(ctx context.Context, r request) (answer, error) {
	got := make(chan answer, 1)
	if err := e.tell(&r, got); err != nil {
		return answer{}, err
	}
	select {
	case a := <-got:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-e.child.done:
		return answer{}, fmt.Errorf("an end of connections is over: %w", e.child.ended())
	case <-ctx.Done():
		e.mu.Lock()
		delete(e.waiting, r.ID)
		e.mu.Unlock()
		// If it cannot be told, it is over.
		_ = e.tell(&request{Operation: doAbort}, make(chan answer, 1))
		return answer{}, fmt.Errorf("waiting for %q of an end of connections: %w", r.Operation, context.Cause(ctx))
	}
}

// tell gives a request its number and sends it. The pipe holds far more than what
// anybody waits for.
func (e *end) tell(r *request, got chan answer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	r.ID = e.last
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	e.waiting[r.ID] = got
	if _, err := e.input.Write(append(line, '\n')); err != nil {
		delete(e.waiting, r.ID)
		return fmt.Errorf("telling an end of connections what to do: %w (it wrote: %s)", err, e.child.stderr())
	}
	return nil
}

func (e *end) deliver(a answer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if got := e.waiting[a.ID]; got != nil {
		delete(e.waiting, a.ID)
		got <- a
	}
}
