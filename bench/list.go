package bench

import "slices"

// Way is one way of serving a connection, as it is listed.
type Way struct {
	Name   string  // as in Series.Way
	What   string  // a line for people
	Unsafe bool    // measured as a warning only: it may lose, double or pile up bytes
	Groups []Group // in which it takes part
}

// Ways lists every way that there is, also those that cannot be had here.
func Ways() []Way {
	var all []Way
	for _, w := range slices.Concat(ways(), peerWays()) {
		all = append(all, Way{w.name, w.what, w.unsafe, []Group{Sockets}})
	}
	for _, name := range nodeWays {
		if i := slices.IndexFunc(all, func(w Way) bool { return w.Name == name }); i >= 0 {
			all[i].Groups = append(all[i].Groups, Nodes)
		}
	}
	return append(all, epmdWays...)
}

// sockets are the ways of the group Sockets that take part.
func (o *Options) sockets() []way {
	return slices.DeleteFunc(slices.Concat(ways(), peerWays()), func(w way) bool { return !o.wants(Sockets, w.name) })
}

// nodes are those of the group Nodes.
func (o *Options) nodes() []string {
	return slices.DeleteFunc(slices.Clone(nodeWays), func(name string) bool { return !o.wants(Nodes, name) })
}
