package swarm

import (
	"cmp"
	"slices"
)

// maxDepth is how many machines there are at most between the origin and one that reads. Each adds the time of a chunk.
const maxDepth = 64

// node is a machine as the planner sees it.
type node struct {
	id    string
	group string
	age   int   // order of joining
	got   int64 // bytes that came, as far as is known
	vague int64 // how many more there may be by now
	held  int64 // bytes that it can serve
	left  int64 // bytes that it needs
	done  bool  // reads no more
	// leaf is true of a machine that nobody is to read from: it is slow, suspected, serves nothing or serves bad bytes.
	leaf bool
	// avoid are machines that this one could not read from.
	avoid map[string]bool
}

// chains is a plan in the making: one chain from the origin through all machines, or several where one would be too deep.
type chains struct {
	nodes  map[string]*node
	slack  int64
	parent map[string]string // of those that read; empty is the origin
	child  map[string]string // the one that reads from a machine and that others read from; done ones read no more
	leaves map[string]int    // how many leaves read from a machine
}

// arrange says for each machine that reads from which other it reads; empty is the origin. Machines that are silent are not
// among the nodes. Edges of the previous plan that still work stay. A machine may be ahead of the one that it reads from by
// slack bytes; it then waits.
func arrange(nodes []*node, previous map[string]string, slack int64) map[string]string {
	c := &chains{nodes: map[string]*node{}, slack: slack, parent: map[string]string{}, child: map[string]string{}, leaves: map[string]int{}}
	for _, n := range nodes {
		c.nodes[n.id] = n
	}
	order := slices.SortedFunc(slices.Values(nodes), func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.got, a.got), cmp.Compare(a.age, b.age))
	})
	var loose, leaves []*node
	for _, n := range order {
		switch p, had := previous[n.id]; {
		case n.done:
		case n.leaf:
			leaves = append(leaves, n)
		case had && c.keeps(n, p):
			c.link(n, p)
		default:
			loose = append(loose, n)
		}
	}
	for _, n := range order {
		if p, ok := c.parent[n.id]; ok && p != "" && c.depth(n.id) > maxDepth {
			c.link(n, "")
		}
	}
	for _, n := range loose {
		c.place(n)
	}
	for _, n := range slices.Backward(order) { // one chain is enough where it can be
		if p, ok := c.parent[n.id]; ok && p == "" {
			c.place(n)
		}
	}
	for _, n := range leaves {
		c.hang(n, previous)
	}
	return c.parent
}

// link has n read from p, and not from whom it read before.
func (c *chains) link(n *node, p string) {
	if old := c.parent[n.id]; old != "" && c.child[old] == n.id {
		delete(c.child, old)
	}
	c.parent[n.id] = p
	if p != "" {
		c.child[p] = n.id
	}
}

// keeps reports whether a machine may go on reading from where it does.
func (c *chains) keeps(n *node, parent string) bool {
	if parent == "" {
		return true
	}
	p := c.nodes[parent]
	return p != nil && c.feeds(p, n) && c.child[parent] == "" && !c.behind(parent, n.id)
}

// feeds reports whether n could read from p.
func (c *chains) feeds(p, n *node) bool {
	return p != n && !p.leaf && p.got+p.vague+n.vague+c.slack >= n.got && !n.avoid[p.id]
}

// behind reports whether the machine id gets its bytes, over any number of others, from above.
func (c *chains) behind(id, above string) bool {
	for i := 0; id != "" && i <= len(c.nodes); i++ {
		if id == above {
			return true
		}
		id = c.parent[id]
	}
	return false
}

// rooted reports whether a machine's bytes are known to come from the origin, or from one that has all.
func (c *chains) rooted(id string) bool {
	for !c.nodes[id].done {
		p, ok := c.parent[id]
		if !ok || p == "" {
			return ok
		}
		id = p
	}
	return true
}

// depth is how many steps a machine is from the origin; one that is done is where bytes begin.
func (c *chains) depth(id string) int {
	d := 0
	for id != "" && !c.nodes[id].done {
		d++
		id = c.parent[id]
	}
	return d
}

// tail is the end of the chain behind a machine, and how many steps it is away.
func (c *chains) tail(id string) (end string, steps int) {
	for c.child[id] != "" {
		id = c.child[id]
		steps++
	}
	return id, steps
}

// place finds a source for the beginning of a chain: one of its own group that nobody reads from; else one of its group
// whose reader is of another group, and goes on reading from the chain's end; else one of another group; else the origin.
func (c *chains) place(n *node) {
	_, steps := c.tail(n.id)
	var best *node
	for _, p := range c.nodes {
		if c.child[p.id] != "" || !c.feeds(p, n) || !c.rooted(p.id) || c.behind(p.id, n.id) || c.depth(p.id)+1+steps > maxDepth {
			continue
		}
		if best == nil || c.better(p, best, n) {
			best = p
		}
	}
	if best != nil && best.group == n.group {
		c.link(n, best.id)
		return
	}
	if c.insert(n) {
		return
	}
	if best != nil {
		c.link(n, best.id)
	} else {
		c.link(n, "")
	}
}

// better reports whether n should rather read from a than from b: from its own group, from who holds more, and then from who
// came last, which is the end of a chain.
func (c *chains) better(a, b, n *node) bool {
	if near := a.group == n.group; near != (b.group == n.group) {
		return near
	}
	return cmp.Or(cmp.Compare(a.held, b.held), cmp.Compare(a.age, b.age)) > 0
}

// insert puts a chain between two machines of which the first is of the chain's group and the second is not.
func (c *chains) insert(n *node) bool {
	end, steps := c.tail(n.id)
	last := c.nodes[end]
	var best *node
	for _, p := range c.nodes {
		r := c.nodes[c.child[p.id]]
		if r == nil || p.group != n.group || r.group == n.group || !c.feeds(p, n) || !c.feeds(last, r) || !c.rooted(p.id) || c.behind(p.id, n.id) {
			continue
		}
		if _, more := c.tail(r.id); c.depth(p.id)+1+steps+1+more > maxDepth {
			continue
		}
		if best == nil || p.age > best.age {
			best = p
		}
	}
	if best == nil {
		return false
	}
	r := c.nodes[c.child[best.id]]
	c.link(n, best.id)
	c.parent[r.id], c.child[end] = end, r.id
	return true
}

// hang finds a source for a leaf: one that feeds nobody whom others wait for, with few leaves, of its own group.
func (c *chains) hang(n *node, previous map[string]string) {
	old := previous[n.id]
	free := func(p *node) bool {
		return p != nil && p != n && !p.leaf && !n.avoid[p.id] && c.child[p.id] == "" && c.depth(p.id) < maxDepth+1
	}
	var best, busy *node
	for _, p := range c.nodes {
		if free(p) && (best == nil || c.fitter(p, best, n)) {
			best = p
		}
		if p != n && c.child[p.id] != "" && c.feeds(p, n) && (busy == nil || p.got < busy.got || p.got == busy.got && p.age > busy.age) {
			busy = p
		}
	}
	if best != nil && !c.feeds(best, n) && n.got-best.got > n.left { // it would wait for longer than it takes: rather one that feeds another too, or the origin
		best = busy
	}
	if p := c.nodes[old]; best != nil && free(p) && c.feeds(p, n) && (c.leaves[old] <= c.leaves[best.id] || !c.feeds(best, n)) {
		best = p // it stays unless another has fewer
	}
	if p := c.nodes[old]; p != nil && c.feeds(p, n) && (best == nil || !c.feeds(best, n)) {
		best = p // who reads from the same machine holds too little yet
	}
	if best == nil {
		c.leaf(n, "")
	} else {
		c.leaf(n, best.id)
	}
}

func (c *chains) leaf(n *node, p string) {
	c.parent[n.id] = p
	if p != "" {
		c.leaves[p]++
	}
}

// fitter reports whether the leaf n should rather read from a than from b.
func (c *chains) fitter(a, b, n *node) bool {
	if can := c.feeds(a, n); can != c.feeds(b, n) {
		return can
	}
	if !c.feeds(a, n) && a.got != b.got {
		return a.got > b.got
	}
	if x, y := c.leaves[a.id], c.leaves[b.id]; x != y {
		return x < y
	}
	return c.better(a, b, n)
}
