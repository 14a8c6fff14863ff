package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// The daemons that answer EPMD's requests.
const (
	otpEPMD     = "epmd"    // OTP's own
	oneportEPMD = "oneport" // oneport epmd
	oneportDoor = "door"    // oneport serve
)

// epmdWays are the entrants of the group EPMD.
var epmdWays = []Way{
	{Name: otpEPMD, What: "OTP's own daemon", Groups: []Group{EPMD}},
	{Name: oneportEPMD, What: "oneport epmd, the drop-in for it", Groups: []Group{EPMD}},
	{Name: oneportDoor, What: "oneport serve, which answers the same questions at its door", Groups: []Group{EPMD}},
}

// fdSetSize is how many descriptors OTP's daemon can have: it waits by select(2).
const fdSetSize = 1024

// spareDescriptors are those that a daemon keeps for questions and for itself.
const (
	spareDescriptors    = 256
	spareDescriptorsOTP = 124 // it has few as it is
)

// epmdDaemon is a daemon that is asked.
type epmdDaemon struct {
	name    string
	address netip.AddrPort
	child   *child
	holder  *holder // of the registered nodes
	most    int     // nodes that it can have
	begun   int     // of the nodes that came and went, so that none comes twice
	loads   int     // that it had
}

// epmdContest starts the daemons. They and those who ask are on the host's side,
// since a daemon registers nodes of its own host only.
// wants tells which of them take part.
func epmdContest(ctx context.Context, w *world, wants func(way string) bool, short bool) (*contest, []Absent, error) {
	c := &contest{group: EPMD, layout: w.layout}
	var absent []Absent
	var daemons []*epmdDaemon
	for _, way := range epmdWays {
		if !wants(way.Name) {
			continue
		}
		d, err := startEPMD(ctx, w, way.Name)
		switch {
		case err != nil && way.Name == EPMD.Baseline():
			return nil, absent, err
		case err != nil:
			absent = append(absent, Absent{w.layout, EPMD, way.Name, err.Error()})
			continue
		}
		daemons = append(daemons, d)
		pid := d.child.pid()
		c.entrants = append(c.entrants, entrant{way.Name, func() []int { return []int{pid} }})
	}
	sizes := epmdSizes(short)
	for _, d := range daemons {
		if most := sizes[len(sizes)-1]; d.most < most {
			absent = append(absent, Absent{w.layout, EPMD, d.name, fmt.Sprintf("more than %d names: %s", d.most, d.whyNoMore())})
		}
	}
	for _, names := range epmdPoints(sizes, daemons) {
		for _, conns := range []int{1, 64} {
			c.works = append(c.works, epmdWorks(w, daemons, names, conns, epmdCount(short))...)
		}
		c.works = append(c.works, epmdMemory(daemons, names))
	}
	return c, absent, nil
}

// epmdSizes are the numbers of registered names that are asked for. OTP's daemon
// can be asked by 64 at once with 900 names, and not with 1000.
func epmdSizes(short bool) []int {
	if short {
		return []int{10, 100}
	}
	return []int{10, 100, 900, 9000, 20_000}
}

// epmdCount is how many questions are a turn.
func epmdCount(short bool) int {
	if short {
		return 200
	}
	return 4000
}

// epmdPoints are the sizes, and for a daemon that can have no more than somewhat
// below one of them, what it can have.
func epmdPoints(sizes []int, daemons []*epmdDaemon) []int {
	points := slices.Clone(sizes)
	for i, size := range sizes[1:] {
		for _, d := range daemons {
			if below := sizes[i]; d.most < size && d.most > below+below/2 {
				points = append(points, d.most)
			}
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}

// hasNames tells which daemons can have so many names.
func hasNames(daemons []*epmdDaemon, names int) func(way string) bool {
	return func(way string) bool {
		return slices.ContainsFunc(daemons, func(d *epmdDaemon) bool { return d.name == way && d.most >= names })
	}
}

// epmdMemory weighs a daemon with so many names.
func epmdMemory(daemons []*epmdDaemon, names int) work {
	return work{name: "registered", names: names, only: hasNames(daemons, names), run: func(ctx context.Context, i int) (outcome, error) {
		d := daemons[i]
		if err := d.holder.hold(ctx, names); err != nil {
			return outcome{}, err
		}
		n, err := resident(d.child.pid())
		return outcome{figures: []figure{{metric: "daemon memory", unit: "B", lower: true, value: float64(n)}}}, err
	}}
}

// epmdWorks are the two questions with so many names, and so many who ask at once.
func epmdWorks(w *world, daemons []*epmdDaemon, names, conns, count int) []work {
	only := hasNames(daemons, names)
	turn := func(load func(*epmdDaemon) (*epmdLoad, error)) func(context.Context, int) (outcome, error) {
		return func(ctx context.Context, i int) (outcome, error) {
			d := daemons[i]
			if err := d.holder.hold(ctx, names); err != nil {
				return outcome{}, err
			}
			l, err := load(d)
			if err != nil {
				return outcome{}, err
			}
			l.from = source(d.address, d.loads)
			d.loads++
			begins(ctx)
			var took time.Duration
			inErr := w.inside(hostSide, func() { took, err = l.run(ctx) })
			if err := errors.Join(inErr, err); err != nil {
				return outcome{}, err
			}
			return outcome{
				figures: []figure{{metric: "rate", unit: "1/s", value: float64(count) / took.Seconds()}},
				amount:  float64(count) / 1000, per: "1000 requests",
			}, nil
		}
	}
	return []work{
		{name: "PORT_PLEASE2", connections: conns, names: names, only: only, run: turn(func(d *epmdDaemon) (*epmdLoad, error) {
			return portLoad(d.address, conns, count, names)
		})},
		{name: "ALIVE2", connections: conns, names: names, only: only, run: turn(func(d *epmdDaemon) (*epmdLoad, error) {
			first := d.begun
			d.begun += count
			return aliveLoad(d.address, conns, count, first)
		})},
	}
}

// startEPMD starts one of the daemons, without a node.
func startEPMD(ctx context.Context, w *world, name string) (*epmdDaemon, error) {
	port, err := w.freePort(hostSide)
	if err != nil {
		return nil, err
	}
	// Registrations come from the daemon's own host.
	d := &epmdDaemon{name: name, address: netip.AddrPortFrom(w.address(hostSide), port), most: int(min(maxFiles(), 1<<30)) - spareDescriptors}
	var command *exec.Cmd
	switch name {
	case otpEPMD:
		path, err := exec.LookPath("epmd")
		if err != nil {
			return nil, fmt.Errorf("epmd is missing, with which all others are compared: apt-get install erlang-base, or have it in the PATH")
		}
		d.most = min(d.most, fdSetSize-spareDescriptorsOTP)
		command = w.command(hostSide, path, "-address", d.address.Addr().String(), "-port", portArgument(port))
	case oneportEPMD:
		command = w.command(hostSide, w.program, "epmd", "-address", d.address.Addr().String(), "-port", portArgument(port))
	case oneportDoor:
		d.most = doorMost()
		command = doorCommand(w, d.address, name)
	}
	if d.child, err = w.start(command); err != nil {
		return nil, err
	}
	if err := w.listening(ctx, d.child, hostSide, port); err != nil {
		return nil, err
	}
	d.holder, err = startHolder(w, d.address)
	return d, err
}

// doorMost is how many nodes a door can have: it takes every connection for one
// that may be relayed, and so has two descriptors. Some it keeps for itself.
func doorMost() int { return int(min(maxFiles(), 1<<30))/2 - 2*spareDescriptors }

// doorCommand is a door that does nothing but what its connections ask for.
func doorCommand(w *world, address netip.AddrPort, name string) *exec.Cmd {
	return w.command(hostSide, w.program, "serve", "--listen", address.String(), "--shortcut", "off", "--node-socket=",
		"--control", filepath.Join(w.dir, name+".control"), "--log-level", "error", "--drain", "0s")
}

// whyNoMore says what keeps a daemon from having more nodes.
func (d *epmdDaemon) whyNoMore() string {
	switch files := maxFiles(); d.name {
	case otpEPMD:
		return fmt.Sprintf("it waits by select(2), which knows %d descriptors, one for each name", fdSetSize)
	case oneportDoor:
		return fmt.Sprintf("the limit is %d open files, of which a door counts two for a connection; raise it by ulimit -Hn", files)
	default:
		return fmt.Sprintf("the limit is %d open files, one for each name; raise it by ulimit -Hn", files)
	}
}
