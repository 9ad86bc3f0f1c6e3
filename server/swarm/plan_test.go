package swarm

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const mib = 1 << 20

// tree is a plan as text: a machine's readers follow it, in brackets if they are several.
func tree(parents map[string]string, at string) string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(parents)) {
		if parents[id] == at {
			list = append(list, strings.TrimRight(id+" "+tree(parents, id), " "))
		}
	}
	if len(list) > 1 {
		return "[" + strings.Join(list, " | ") + "]"
	}
	return strings.Join(list, "")
}

// chainOf is the previous plan of a chain.
func chainOf(ids ...string) map[string]string {
	m := map[string]string{}
	for i, id := range ids {
		m[id] = ""
		if i > 0 {
			m[id] = ids[i-1]
		}
	}
	return m
}

func TestWhoReadsFromWhom(t *testing.T) {
	n := func(id string, age int, got int64) *node {
		return &node{id: id, group: id[:1], age: age, got: got * mib, held: got * mib, left: (100 - got) * mib}
	}
	with := func(n *node, change func(*node)) *node { change(n); return n }
	leaf := func(n *node) { n.leaf = true }
	done := func(n *node) { n.done = true }
	for _, tt := range []struct {
		name     string
		nodes    []*node
		previous map[string]string
		want     string
	}{
		{"one reads from the origin", []*node{n("a1", 1, 0)}, nil, "a1"},
		{"those of one rack are one chain", []*node{n("a1", 1, 0), n("a2", 2, 0), n("a3", 3, 0)}, nil, "a1 a2 a3"},
		{"racks that come mixed are one chain that enters each once", []*node{n("a1", 1, 0), n("b1", 2, 0), n("a2", 3, 0), n("b2", 4, 0), n("a3", 5, 0)}, nil, "a1 a2 a3 b1 b2"},
		{"who comes early is put between those of its rack and the next rack", []*node{n("a1", 1, 9), n("b1", 2, 8), n("a2", 3, 0)}, chainOf("a1", "b1"), "a1 a2 b1"},
		{"who comes late reads from the end of the chain", []*node{n("a1", 1, 90), n("b1", 2, 80), n("a2", 3, 0)}, chainOf("a1", "b1"), "a1 b1 a2"},
		{"who comes late reads from the end of its rack's", []*node{n("b1", 1, 90), n("a1", 2, 80), n("a2", 3, 0)}, chainOf("b1", "a1"), "b1 a1 a2"},
		{"one that is done relieves the origin", []*node{with(n("a1", 1, 100), done), n("b1", 2, 80), n("a2", 3, 0)}, chainOf("b1"), "a2 / b1"},
		{"who comes late reads from one of its rack that is done", []*node{with(n("a1", 1, 100), done), with(n("b0", 2, 100), done), n("b1", 3, 80), n("a2", 4, 0)}, map[string]string{"b1": "b0"}, "b1 / a2 / "},
		{"a dead one's reader goes on with the one before", []*node{n("a1", 1, 50), n("a3", 3, 48), n("a4", 4, 47)}, chainOf("a1", "a2", "a3", "a4"), "a1 a3 a4"},
		{"a dead head's reader is the head", []*node{n("a2", 2, 50), n("a3", 3, 48)}, chainOf("a1", "a2", "a3"), "a2 a3"},
		{"a leaf goes to the end, and who read from it on with the one before", []*node{n("a1", 1, 50), with(n("a2", 2, 20), leaf), n("a3", 3, 20)}, chainOf("a1", "a2", "a3"), "a1 a3 a2"},
		{"a suspected one and its reader both go to the end", []*node{n("a1", 1, 50), with(n("a2", 2, 50), leaf), with(n("a3", 3, 20), leaf), n("a4", 4, 45)}, chainOf("a1", "a2", "a3", "a4"), "a1 a4 [a2 | a3]"},
		{"a leaf does not starve behind one that holds less", []*node{n("a1", 1, 90), with(n("a2", 2, 60), leaf), n("a3", 3, 0)}, chainOf("a1", "a2"), "a1 [a2 | a3]"},
		{"a leaf that is almost done does not wait for a chain that has just begun", []*node{with(n("a1", 1, 90), leaf), n("a2", 2, 5)}, chainOf("a2"), "[a1 | a2]"},
		{"a leaf that is ahead waits for the end of the chain", []*node{with(n("a1", 1, 40), leaf), n("a2", 2, 10)}, chainOf("a2"), "a2 a1"},
		{"without anybody else a leaf reads from the origin", []*node{with(n("a1", 1, 50), leaf), with(n("a2", 2, 20), leaf)}, chainOf("a1", "a2"), "[a1 | a2]"},
		{"two chains become one when the end of one holds enough", []*node{n("a1", 1, 50), n("a2", 2, 45), n("a3", 3, 30)}, map[string]string{"a1": "", "a2": "a1", "a3": ""}, "a1 a2 a3"},
		{"two chains stay two while neither holds enough", []*node{n("a1", 1, 50), n("a2", 2, 5), n("a3", 3, 30), n("a4", 4, 9)}, map[string]string{"a1": "", "a2": "a1", "a3": "", "a4": "a3"}, "[a1 a2 | a3 a4]"},
		{"who could not read from another is given a third", []*node{n("a1", 1, 50), n("b1", 2, 45), with(n("a3", 3, 30), func(n *node) { n.avoid = map[string]bool{"a1": true} })}, chainOf("a1", "a3"), "a1 b1 a3"},
		{"who could not read from the only one reads from the origin", []*node{n("a1", 1, 50), n("a2", 2, 45), with(n("a3", 3, 30), func(n *node) { n.avoid = map[string]bool{"a2": true} })}, chainOf("a1", "a2", "a3"), "[a1 a2 | a3]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := arrange(tt.nodes, tt.previous, 16*mib)
			text := tree(got, "")
			for _, x := range tt.nodes {
				if x.done {
					text = tree(got, x.id) + " / " + text
				}
			}
			if strings.TrimPrefix(text, " / ") != tt.want {
				t.Errorf("%s, want %s", text, tt.want)
			}
			again := arrange(tt.nodes, got, 16*mib)
			if !maps.Equal(got, again) {
				t.Errorf("planned again it is %s and was %s", tree(again, ""), text)
			}
		})
	}
}

// world is a plan that machines join and leave, and fall behind in.
type world struct {
	*rand.Rand
	nodes []*node
	plan  map[string]string
	age   int
}

func (w *world) join(racks int, got int64) {
	w.age++
	w.nodes = append(w.nodes, &node{id: fmt.Sprint("m", w.age), group: fmt.Sprint("rack", w.IntN(racks)), age: w.age, got: got, held: got, left: 2048*mib - got})
}

// check demands what holds of every plan.
func (w *world) check(t *testing.T, before map[string]string) {
	t.Helper()
	const slack = 16 * mib
	w.plan = arrange(w.nodes, before, slack)
	byID := map[string]*node{}
	readers := map[string]int{}
	for _, n := range w.nodes {
		byID[n.id] = n
	}
	regular := 0
	for _, n := range w.nodes {
		p, reads := w.plan[n.id]
		if reads == n.done {
			t.Fatalf("%s is done: %v, and has a source: %v", n.id, n.done, reads)
		}
		if !reads {
			continue
		}
		if !n.leaf {
			regular++
		}
		if p == "" {
			continue
		}
		from := byID[p]
		switch {
		case from == nil:
			t.Fatalf("%s reads from %s, which is not there", n.id, p)
		case from.leaf:
			t.Fatalf("%s reads from the leaf %s", n.id, p)
		case !n.leaf && from.got+slack < n.got:
			t.Fatalf("%s with %d reads from %s with %d", n.id, n.got, p, from.got)
		}
		if !n.leaf {
			readers[p]++
		}
		depth := 1
		for at := p; at != "" && !byID[at].done; at = w.plan[at] {
			if depth++; depth > maxDepth+1 {
				t.Fatalf("%s is too deep, or there is a cycle: %s", n.id, tree(w.plan, ""))
			}
		}
	}
	for id, n := range readers {
		if n > 1 {
			t.Fatalf("%d chains read from %s: %s", n, id, tree(w.plan, ""))
		}
	}
}

// heads is how many machines read from the origin.
func (w *world) heads() int {
	n := 0
	for _, p := range w.plan {
		if p == "" {
			n++
		}
	}
	return n
}

// entries is how many copies enter each rack.
func (w *world) entries() map[string]int {
	byID, into := map[string]*node{}, map[string]int{}
	for _, n := range w.nodes {
		byID[n.id] = n
	}
	for id, p := range w.plan {
		if p == "" || byID[p].group != byID[id].group {
			into[byID[id].group]++
		}
	}
	return into
}

func TestMachinesThatComeTogetherAreOneCopyOnEachUplink(t *testing.T) {
	for seed := range uint64(30) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 1))}
		racks := 1 + w.IntN(8)
		size := 1 + w.IntN(200)
		for len(w.nodes) < size {
			for range 1 + w.IntN(5) {
				w.join(racks, w.Int64N(8*mib))
			}
			before := w.plan
			had := len(before)
			w.check(t, before)
			moved := 0
			for id, p := range before {
				if w.plan[id] != p {
					moved++
				}
			}
			if came := len(w.plan) - had; moved > came {
				t.Fatalf("seed %d: %d machines came and %d others were moved", seed, came, moved)
			}
		}
		heads := (len(w.nodes) + maxDepth - 1) / maxDepth
		if w.heads() > heads+1 || heads == 1 && w.heads() != 1 {
			t.Errorf("seed %d: %d machines, and %d read from the origin", seed, len(w.nodes), w.heads())
		}
		for rack, n := range w.entries() {
			if n > 2*w.heads()-1 {
				t.Errorf("seed %d: %d copies of %d machines enter %s, with %d chains", seed, n, len(w.nodes), rack, w.heads())
			}
		}
	}
}

func TestNoCycleNoStarvingWhateverHappens(t *testing.T) {
	for seed := range uint64(20) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 2))}
		for range 60 {
			switch w.IntN(6) {
			case 0, 1:
				for range w.IntN(12) {
					w.join(4, 0)
				}
			case 2:
				w.nodes = slices.DeleteFunc(w.nodes, func(*node) bool { return w.IntN(8) == 0 })
			case 3:
				for _, n := range w.nodes {
					n.leaf = n.leaf && w.IntN(3) > 0 || w.IntN(12) == 0
				}
			case 4:
				for _, n := range w.nodes {
					if w.IntN(15) == 0 {
						n.got = 0 // it began anew
					}
				}
			}
			for _, n := range w.nodes {
				if n.got += w.Int64N(60 * mib); n.got >= 2048*mib {
					n.got, n.done = 2048*mib, true
				}
				n.held, n.left = n.got, 2048*mib-n.got
			}
			if w.IntN(20) == 0 {
				w.plan = nil // the server was started anew
			}
			w.check(t, w.plan)
			again := arrange(w.nodes, w.plan, 16*mib)
			if !maps.Equal(again, w.plan) {
				t.Fatalf("seed %d: planned again without a change, it is\n%s\nand was\n%s", seed, tree(again, ""), tree(w.plan, ""))
			}
		}
	}
}
