package epmd

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// mustRegister registers a node without a connection.
func mustRegister(t *testing.T, r *Registry, name string, highest uint16) *Registration {
	t.Helper()
	registered, err := r.Register(Node{Name: name, Port: 1, Type: Normal, Highest: highest, Lowest: 5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return registered
}

func TestRegistryListsTheNewestFirst(t *testing.T) {
	var r Registry
	entries := make(map[string]*Registration)
	for _, name := range []string{"a", "b", "c", "d"} {
		entries[name] = mustRegister(t, &r, name, 6)
	}
	if !r.Unregister(entries["b"]) {
		t.Error("b was not registered")
	}
	mustRegister(t, &r, "b", 6)
	var names []string
	for _, entry := range r.All() {
		names = append(names, entry.Name)
	}
	if want := []string{"b", "d", "c", "a"}; !reflect.DeepEqual(names, want) || r.Len() != len(want) {
		t.Errorf("%d names %v, want %v", r.Len(), names, want)
	}
	if entry, ok := r.Lookup("c"); !ok || entry != entries["c"] {
		t.Errorf("found %v, %t for c", entry, ok)
	}
	if entry, ok := r.Lookup("e"); ok {
		t.Errorf("found %v for e", entry)
	}
}

func TestRegistryHoldsANameOnce(t *testing.T) {
	var r Registry
	first := mustRegister(t, &r, "a", 6)
	if _, err := r.Register(Node{Name: "a"}, nil); !errors.Is(err, ErrNameInUse) {
		t.Errorf("second registration: error %v, want ErrNameInUse", err)
	}
	if !r.Unregister(first) || r.Unregister(first) {
		t.Error("a name is not unregistered just once")
	}
	select {
	case <-first.Gone():
	default:
		t.Error("an unregistered node is not gone")
	}
	second := mustRegister(t, &r, "a", 6)
	if r.Unregister(first) {
		t.Error("an old registration unregistered its successor")
	}
	if entry, ok := r.Lookup("a"); !ok || entry != second {
		t.Errorf("found %v, %t for a", entry, ok)
	}
}

func TestRegistryRefusesInvalidNodes(t *testing.T) {
	nodes := map[string]Node{
		"empty name":             {},
		"NUL":                    {Name: "a\x00"},
		"not UTF-8":              {Name: "\xff"},
		"surrogate":              {Name: "\xed\xa0\x80"},
		"name of 256 characters": {Name: longName + "a"},
		"extra data too long":    {Name: "a", Extra: make([]byte, MaxExtra+1)},
	}
	var r Registry
	for what, node := range nodes {
		if _, err := r.Register(node, nil); !errors.Is(err, ErrInvalidNode) {
			t.Errorf("%s: error %v, want ErrInvalidNode", what, err)
		}
	}
	if _, err := r.Register(Node{Name: longName, Extra: make([]byte, MaxExtra)}, nil); err != nil {
		t.Errorf("the longest name and extra data: %v", err)
	}
}

// A node takes only the creations of its generation, and never the same one
// twice in a row.
func TestCreations(t *testing.T) {
	var r Registry
	last := make(map[uint16]uint32)
	for i := range 20 {
		for _, highest := range []uint16{0, 5, 6, 7} {
			entry := mustRegister(t, &r, fmt.Sprint("node of version ", highest), highest)
			if old := highest < 6; old && (entry.Creation < 1 || entry.Creation > 3) || !old && entry.Creation < 4 {
				t.Errorf("creation %d for a node of version %d", entry.Creation, highest)
			}
			if i > 0 && entry.Creation == last[highest] {
				t.Errorf("creation %d twice for a node of version %d", entry.Creation, highest)
			}
			last[highest] = entry.Creation
			r.Unregister(entry)
		}
	}
}

func TestCreationWrapsAround(t *testing.T) {
	entry := &Registration{Node: Node{Highest: 6}, counter: 1<<32 - 1}
	if creation := entry.nextCreation(); creation != 4 {
		t.Errorf("creation after the highest one is %d, want 4", creation)
	}
}

// The memory of former names is bounded, and a name that fell out of it gets
// another creation all the same.
func TestFormerNamesAreBounded(t *testing.T) {
	var r Registry
	var last *Registration
	for range 5 {
		last = mustRegister(t, &r, "restarts often", 6)
		r.Unregister(last)
	}
	for i := range maxFormer + 10 {
		r.Unregister(mustRegister(t, &r, fmt.Sprint("other", i), 6))
	}
	former := r.formerNames()
	if len(former) != maxFormer || len(r.formerByName) != maxFormer {
		t.Errorf("%d former names are kept, want %d", len(former), maxFormer)
	}
	if oldest := former[0].Name; oldest != "other10" {
		t.Errorf("the oldest former name is %q", oldest)
	}
	if again := mustRegister(t, &r, "restarts often", 6); again.Creation <= last.Creation {
		t.Errorf("creation %d after %d", again.Creation, last.Creation)
	}
}

func TestNodeTypeString(t *testing.T) {
	all := fmt.Sprint(Normal, Hidden, NodeType(7))
	if want := "normal hidden type 7"; !strings.EqualFold(all, want) {
		t.Errorf("types are named %q, want %q", all, want)
	}
}
