package strict

import (
	"slices"
	"strconv"
)

// Kind is what sort of value a node is.
type Kind int

// The kinds.
const (
	KindBad  Kind = iota // it was wrong and has been reported
	KindNull             // nothing was written
	KindText             // a string, quoted or not
	KindInt
	KindFloat
	KindBool
	KindList
	KindMap
)

// Node is one value with its place. Unlike the YAML library's nodes it has no aliases and no tags but !reset, and it
// can be merged.
type Node struct {
	Kind    Kind
	At      Pos
	Text    string // of a scalar, as written
	Reset   bool   // tagged !reset
	ResetAt Pos
	Entries []Entry // of a map, in the order of the file
	Items   []*Node // of a list
	Lost    bool    // the map had a key that does not exist, which was reported and taken out
}

// Entry is one key of a map and its value.
type Entry struct {
	Key   string
	At    Pos
	Value *Node
}

func (k Kind) scalar() bool { return k >= KindNull && k <= KindBool }

// What is how a person would call such a value.
func (k Kind) What() string {
	switch k {
	case KindNull:
		return "empty"
	case KindText:
		return "text"
	case KindInt, KindFloat:
		return "a number"
	case KindBool:
		return "true or false"
	case KindList:
		return "a list"
	case KindMap:
		return "a map"
	}
	return "wrong"
}

func (n *Node) entry(key string) *Entry {
	if n == nil || n.Kind != KindMap {
		return nil
	}
	if i := slices.IndexFunc(n.Entries, func(e Entry) bool { return e.Key == key }); i >= 0 {
		return &n.Entries[i]
	}
	return nil
}

// Get returns the value of a map's key, or nil.
func (n *Node) Get(key string) *Node {
	if e := n.entry(key); e != nil {
		return e.Value
	}
	return nil
}

// Find returns the place of the value at path, whose elements are keys and indexes, and whether it is there. Where it is
// not, the place is that of the nearest thing that should hold it.
func (n *Node) Find(path ...string) (Pos, bool) {
	at := n.At
	for _, p := range path {
		if e := n.entry(p); e != nil {
			n, at = e.Value, e.At
			continue
		}
		i, err := strconv.Atoi(p)
		if err != nil || n.Kind != KindList || i < 0 || i >= len(n.Items) {
			return at, false
		}
		n, at = n.Items[i], n.Items[i].At
	}
	return at, true
}

// Flaw is something that was wrong and has been reported.
type Flaw struct {
	// At is the path of the map or list in which it was.
	At []string
	// Key is the key or index whose value it was; empty for a key that does not exist.
	Key string
}

// Flaws are what was wrong in a map or list, the innermost first.
func (n *Node) Flaws() []Flaw {
	if n == nil {
		return nil
	}
	var own, all []Flaw
	if n.Lost {
		own = append(own, Flaw{})
	}
	within := func(key string, v *Node) {
		for _, f := range v.Flaws() {
			all = append(all, Flaw{append([]string{key}, f.At...), f.Key})
		}
		if v.Kind == KindBad {
			own = append(own, Flaw{Key: key})
		}
	}
	for _, e := range n.Entries {
		within(e.Key, e.Value)
	}
	for i, v := range n.Items {
		within(strconv.Itoa(i), v)
	}
	return append(all, own...)
}

// Equal says whether two nodes say the same, wherever they are.
func (n *Node) Equal(m *Node) bool {
	if n.Kind != m.Kind || n.Text != m.Text || len(n.Entries) != len(m.Entries) || len(n.Items) != len(m.Items) {
		return false
	}
	for _, e := range n.Entries {
		if v := m.Get(e.Key); v == nil || !e.Value.Equal(v) {
			return false
		}
	}
	for i := range n.Items {
		if !n.Items[i].Equal(m.Items[i]) {
			return false
		}
	}
	return true
}
