package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// rest is how long connections are idle before memory is looked at: a relay takes
// two seconds to put aside what has nothing to move.
const rest = 3 * time.Second

// idle holds n connections of a way that were used once, and returns what each
// costs. The way gets a daemon, a node and a client of their own, which end with it,
// so that nothing else has filled their memory. held is how many connections could
// be had; if those are fewer than n, err says why, and the figures are of those.
func idle(ctx context.Context, w *world, x way, n int) (each footprint, held int, err error) {
	before := w.sockets
	defer w.stopSince(w.mark())
	defer func() { w.sockets = before }()
	s, err := newSockets(ctx, w, true)
	if err != nil {
		return each, 0, err
	}
	if err := s.enter(ctx, w, x); err != nil {
		return each, 0, err
	}
	up := s.ways[x.name]
	begin, err := memoryOf(up)
	if err != nil {
		return each, 0, err
	}
	client := s.clients[up.client]
	within, cancel := context.WithTimeoutCause(ctx, openWithin(n)+startTime, errors.New("connecting takes too long"))
	defer cancel()
	opened, err := client.ask(within, request{Operation: doOpen, Route: up.route, Connections: n, Header: header{Kind: hold}})
	if err != nil {
		return each, 0, fmt.Errorf("connecting: %w", err)
	}
	if err := sleep(ctx, rest); err != nil {
		return each, 0, err
	}
	end, err := memoryOf(up)
	if err != nil {
		return each, 0, err
	}
	held = opened.Count
	if held < n {
		err = fmt.Errorf("%d of %d connections: %s", held, n, opened.Note)
	}
	share := func(end, begin float64) float64 { return (end - begin) / float64(held) }
	return footprint{share(end.daemon, begin.daemon), share(end.kernel, begin.kernel), share(end.machine, begin.machine)}, held, err
}

// footprint is what a way has of the machine's memory, in bytes: the daemon's
// resident memory, that of the kernel, for both ends, and what the machine has less
// available, which is both of that and the ends' own.
type footprint struct{ daemon, kernel, machine float64 }

func memoryOf(up *running) (m footprint, err error) {
	if up.pids != nil {
		for _, pid := range up.pids() {
			n, err := resident(pid)
			if err != nil {
				return m, err
			}
			m.daemon += float64(n)
		}
	}
	slab, err := memInfo("Slab")
	if err != nil {
		return m, err
	}
	pages, err := socketPages()
	if err != nil {
		return m, err
	}
	m.kernel = float64(slab + pages*int64(os.Getpagesize()))
	available, err := memAvailable()
	m.machine = -float64(available)
	return m, err
}

// resident is the memory of a process, in bytes.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm has %q", pid, b)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// socketPages is the memory for data of TCP sockets, in pages: of all network
// namespaces, whichever is asked.
func socketPages() (int64, error) {
	const path = "/proc/net/sockstat"
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		for i := 1; i+1 < len(fields); i++ {
			if fields[0] == "TCP:" && fields[i] == "mem" {
				return strconv.ParseInt(fields[i+1], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("%s has no memory of TCP", path)
}
