package door

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"oneport/epmd"
)

// MaxAliases is how many aliases a door may have.
const MaxAliases = 1024

// ErrAlias says that an alias cannot be added as it was given.
var ErrAlias = errors.New("adding an alias")

// An Alias is a second name of a node of this host. It is good wherever a
// client names a node, and leads to no other alias.
type Alias struct {
	Name   string // as clients ask; the part of a node's name before the @
	Target string // a node's name as registered, or name@host, its full name
}

// AliasInfo is an alias as the control socket gives it out.
type AliasInfo struct {
	Name       string `json:"alias"`
	Target     string `json:"target"`
	Registered bool   `json:"registered"` // the target is
	Shadowed   bool   `json:"shadowed"`   // a node of the alias's name is registered, and is meant
}

// aliases are the aliases of a door. The zero value is empty.
type aliases struct {
	mu     sync.RWMutex
	byName map[string]string // targets
}

// Validate says whether the alias is well formed. The error wraps ErrAlias.
func (a Alias) Validate() error {
	if why := checkPart(a.Name); why != "" {
		return fmt.Errorf("%w: %q %s; expected what stands before the @ of a node's name", ErrAlias, a.Name, why)
	}
	name, host, full := strings.Cut(a.Target, "@")
	why := checkPart(name)
	if why == "" && full {
		why = checkPart(host)
	}
	switch {
	case why != "":
		return fmt.Errorf("%w: %q %s; expected the name of a registered node, or a full name, as in web@10-0-3-7.internal", ErrAlias, a.Target, why)
	case name == a.Name:
		return fmt.Errorf("%w: %q would lead to itself", ErrAlias, a.Name)
	}
	return nil
}

// checkPart says what is wrong with one side of a node's name, or nothing.
func checkPart(s string) string {
	switch {
	case s == "":
		return "has an empty part"
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == '/' || r == '@' }):
		return "has characters that no node's name has"
	case utf8.RuneCountInString(s) > epmd.MaxName:
		return fmt.Sprintf("is longer than %d characters", epmd.MaxName)
	}
	return ""
}

// AddAlias adds an alias. A target without a host must be registered; one
// that is a full name may come later. A node that is registered by the alias's
// name is meant before the alias. The error wraps ErrAlias.
func (d *Door) AddAlias(a Alias) error {
	if _, ok := d.registry.Lookup(a.Target); !ok && checkPart(a.Target) == "" {
		return fmt.Errorf("%w: no node %q is registered here; see `oneport nodes`, or give the full name, name@host", ErrAlias, a.Target)
	}
	return d.aliases.add(a)
}

// RemoveAlias removes an alias, and says whether there was one. Connections
// that came by it are not touched.
func (d *Door) RemoveAlias(name string) bool {
	d.aliases.mu.Lock()
	defer d.aliases.mu.Unlock()
	_, ok := d.aliases.byName[name]
	delete(d.aliases.byName, name)
	return ok
}

// Aliases returns the aliases, sorted by name.
func (d *Door) Aliases() []AliasInfo {
	d.aliases.mu.RLock()
	defer d.aliases.mu.RUnlock()
	infos := make([]AliasInfo, 0, len(d.aliases.byName))
	for name, target := range d.aliases.byName {
		node, _, _ := strings.Cut(target, "@")
		_, registered := d.registry.Lookup(node)
		_, shadowed := d.registry.Lookup(name)
		infos = append(infos, AliasInfo{Name: name, Target: target, Registered: registered, Shadowed: shadowed})
	}
	slices.SortFunc(infos, func(a, b AliasInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

func (l *aliases) add(a Alias) error {
	if err := a.Validate(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	name, _, _ := strings.Cut(a.Target, "@")
	target, known := l.byName[a.Name]
	switch {
	case known && target == a.Target:
		return nil
	case known:
		return fmt.Errorf("%w: %q leads to %q already; remove it first", ErrAlias, a.Name, target)
	case len(l.byName) >= MaxAliases:
		return fmt.Errorf("%w: there are %d already; remove one first", ErrAlias, MaxAliases)
	}
	if _, ok := l.byName[name]; ok {
		return fmt.Errorf("%w: the target %q is an alias itself; give what that leads to", ErrAlias, name)
	}
	for other, target := range l.byName {
		if node, _, _ := strings.Cut(target, "@"); node == a.Name {
			return fmt.Errorf("%w: the alias %q leads to %q, and an alias leads to no alias", ErrAlias, other, a.Name)
		}
	}
	if l.byName == nil {
		l.byName = make(map[string]string)
	}
	l.byName[a.Name] = a.Target
	return nil
}

// target returns what an alias leads to: a node's name, and its full name if
// that was said.
func (l *aliases) target(alias string) (name, full string, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	target, ok := l.byName[alias]
	if name, _, isFull := strings.Cut(target, "@"); isFull {
		return name, target, ok
	}
	return target, "", ok
}

// resolve finds the node that a client means by a name: the one that is
// registered by it, or else the one that it is an alias of. full is the node's
// full name if the alias says it.
func (d *Door) resolve(name string) (reg *epmd.Registration, full string, ok bool) {
	if reg, ok := d.registry.Lookup(name); ok {
		return reg, "", true
	}
	target, full, ok := d.aliases.target(name)
	if !ok {
		return nil, "", false
	}
	reg, ok = d.registry.Lookup(target)
	return reg, full, ok
}
