package bench

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every way between nodes that this machine can have does every work, and what
// arrives is what was sent.
func TestNodesContest(t *testing.T) {
	if _, err := exec.LookPath("erl"); err != nil {
		t.Skip("erl is missing: apt-get install erlang-base")
	}
	app := filepath.Join("..", "erlang", "ebin")
	for _, layout := range []Layout{Loopback, Veth} {
		t.Run(string(layout), func(t *testing.T) {
			w := openWorld(t, layout)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c, absent, err := nodesContest(ctx, w, app, nodeWays, true)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range absent {
				missing := strings.Contains(a.Why, "apt-get install") || strings.Contains(a.Why, "make erlang")
				if !missing && os.Geteuid() == 0 && !withoutShortcut(a) {
					t.Errorf("%+v", a)
				} else {
					t.Logf("%+v", a)
				}
			}
			if len(c.entrants)+len(absent) != len(nodeWays) {
				t.Errorf("%d entrants and %d absent of %d ways", len(c.entrants), len(absent), len(nodeWays))
			}
			for _, work := range c.works {
				for i, e := range c.entrants {
					got, err := work.run(ctx, i)
					if err != nil {
						t.Errorf("%s by %s: %v", work.title(), e.way, err)
						continue
					}
					checkOutcome(t, work.title()+" by "+e.way, got)
				}
			}
		})
	}
}

// A node that has lost the connection which was proved is not measured over another.
func TestAnotherConnectionOfNodesIsNoTurn(t *testing.T) {
	if _, err := exec.LookPath("erl"); err != nil {
		t.Skip("erl is missing: apt-get install erlang-base")
	}
	w := openWorld(t, Loopback)
	e, err := findErlang(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	p, err := startPair(t.Context(), w, e, nodeDoors[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.standing(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.here = netip.AddrPort{}
	if err := p.standing(t.Context()); err == nil || !strings.Contains(err.Error(), "another connection") {
		t.Errorf("got %v", err)
	}
	p.client.child.stop()
	if _, err := p.work(t.Context(), nodeWorks(true)[0]); err == nil || !strings.Contains(err.Error(), "client_direct@") {
		t.Errorf("got %v", err)
	}
}
