package door

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"oneport/epmd"
	"oneport/upgrade"
)

// lookupTimeout bounds the one look-up of this host's own full name.
const lookupTimeout = 2 * time.Second

// hosts knows the names of this host.
type hosts struct{ names map[string]bool }

// newHosts collects the hostname, its full form if the resolver has one,
// localhost, and more.
func newHosts(ctx context.Context, more []string) *hosts {
	h := &hosts{names: map[string]bool{"localhost": true}}
	add := func(name string) {
		if name = strings.ToLower(strings.TrimSuffix(name, ".")); name != "" {
			h.names[name] = true
		}
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
		short, _, _ := strings.Cut(name, ".")
		add(short)
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		if full, err := net.DefaultResolver.LookupCNAME(ctx, name); err == nil && strings.HasPrefix(full, short+".") {
			add(full)
		}
	}
	for _, name := range more {
		add(name)
	}
	return h
}

// ours says whether host is a name or an address of this host.
func (h *hosts) ours(host string, local netip.AddrPort) bool {
	if h.names[host] {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && epmd.IsLocal(netip.AddrPortFrom(a, 0), local)
}

// newSelf returns a name for this door that no other has.
func newSelf() string {
	b := make([]byte, 6)
	rand.Read(b) // never fails (crypto/rand)
	return "oneport-" + hex.EncodeToString(b)
}

// directory shows the registry to package upgrade. Its nodes are found by their
// aliases, too, and listed without them.
type directory struct{ door *Door }

func (d directory) Lookup(name string) (upgrade.Node, bool) {
	reg, _, ok := d.door.resolve(name)
	if !ok {
		return upgrade.Node{}, false
	}
	return nodeOf(reg), true
}

func (d directory) Nodes() []upgrade.Node {
	regs := d.door.registry.All()
	nodes := make([]upgrade.Node, len(regs))
	for i, reg := range regs {
		nodes[i] = nodeOf(reg)
	}
	return nodes
}

func nodeOf(reg *epmd.Registration) upgrade.Node {
	return upgrade.Node{Name: reg.Name, Hidden: reg.Type == epmd.Hidden, Highest: reg.Highest, Lowest: reg.Lowest}
}
