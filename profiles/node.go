package profiles

import (
	"slices"
	"strconv"
)

type kind int

const (
	kindBad  kind = iota // it was wrong and has been reported
	kindNull             // nothing was written
	kindText             // a string, quoted or not
	kindInt
	kindFloat
	kindBool
	kindList
	kindMap
)

// node is one value with its place. Unlike the YAML library's nodes it has no aliases and no tags but !reset, and it
// can be merged.
type node struct {
	kind    kind
	at      pos
	text    string // of a scalar, as written
	reset   bool   // tagged !reset
	resetAt pos
	entries []entry // of a map, in the order of the file
	items   []*node // of a list
}

type entry struct {
	key   string
	at    pos
	value *node
}

func (k kind) scalar() bool { return k >= kindNull && k <= kindBool }

// what is how a person would call such a value.
func (k kind) what() string {
	switch k {
	case kindNull:
		return "empty"
	case kindText:
		return "text"
	case kindInt, kindFloat:
		return "a number"
	case kindBool:
		return "true or false"
	case kindList:
		return "a list"
	case kindMap:
		return "a map"
	}
	return "wrong"
}

func (n *node) entry(key string) *entry {
	if n == nil || n.kind != kindMap {
		return nil
	}
	if i := slices.IndexFunc(n.entries, func(e entry) bool { return e.key == key }); i >= 0 {
		return &n.entries[i]
	}
	return nil
}

func (n *node) get(key string) *node {
	if e := n.entry(key); e != nil {
		return e.value
	}
	return nil
}

// find returns the place of the value at path, whose elements are keys and indexes, and whether it is there. Where it is
// not, the place is that of the nearest thing that should hold it.
func (n *node) find(path ...string) (pos, bool) {
	at := n.at
	for _, p := range path {
		if e := n.entry(p); e != nil {
			n, at = e.value, e.at
			continue
		}
		i, err := strconv.Atoi(p)
		if err != nil || n.kind != kindList || i < 0 || i >= len(n.items) {
			return at, false
		}
		n, at = n.items[i], n.items[i].at
	}
	return at, true
}

// equal says whether two nodes say the same, wherever they are.
func (n *node) equal(m *node) bool {
	if n.kind != m.kind || n.text != m.text || len(n.entries) != len(m.entries) || len(n.items) != len(m.items) {
		return false
	}
	for _, e := range n.entries {
		if v := m.get(e.key); v == nil || !e.value.equal(v) {
			return false
		}
	}
	for i := range n.items {
		if !n.items[i].equal(m.items[i]) {
			return false
		}
	}
	return true
}
