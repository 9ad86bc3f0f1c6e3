package profiles

import (
	"reflect"
	"slices"
)

// merger lays a profile over the one that it extends.
type merger struct{ *collector }

// onto returns child merged over parent, neither of which it changes: maps are merged, lists are appended without what is
// there already, scalars are replaced. !reset on a value drops what was inherited.
func (m merger) onto(parent, child *node, path string) *node {
	switch {
	case child.reset || parent == nil:
		return m.fresh(child, path, parent != nil)
	case child.kind == kindBad || parent.kind == kindBad || parent.kind == kindNull || parent.kind != child.kind:
		return child
	case child.kind == kindMap:
		return m.maps(parent, child, path)
	case child.kind == kindList:
		return m.lists(parent, child, path)
	}
	return child
}

func (m merger) maps(parent, child *node, path string) *node {
	out := &node{kind: kindMap, at: child.at, entries: slices.Clone(parent.entries)}
	for _, e := range child.entries {
		at := slices.IndexFunc(out.entries, func(p entry) bool { return p.key == e.key })
		if at < 0 {
			out.entries = append(out.entries, entry{e.key, e.at, m.fresh(e.value, join(path, e.key), false)})
			continue
		}
		out.entries[at] = entry{e.key, e.at, m.onto(out.entries[at].value, e.value, join(path, e.key))}
	}
	out.dropNulls()
	return out
}

// dropNulls takes out the entries that !reset has left without a value.
func (n *node) dropNulls() {
	n.entries = slices.DeleteFunc(n.entries, func(e entry) bool { return e.value.kind == kindNull })
}

func (m merger) lists(parent, child *node, path string) *node {
	out := &node{kind: kindList, at: child.at, items: slices.Clone(parent.items)}
	for _, item := range child.items {
		at := slices.IndexFunc(out.items, item.equal)
		switch {
		case item.reset && at >= 0:
			out.items = slices.Delete(out.items, at, at+1)
		case item.reset:
			m.nothingToReset(item, path, out.items)
		case at < 0:
			out.items = append(out.items, item)
		}
	}
	return out
}

func (m merger) nothingToReset(item *node, path string, there []*node) {
	var texts []string
	for _, t := range there {
		if t.kind == kindText {
			texts = append(texts, t.text)
		}
	}
	if item.kind != kindText {
		m.add(item.resetAt, path, "%s inherits no such item, so !reset takes nothing out", path)
		return
	}
	m.add(item.resetAt, path, "%s inherits no %s, so !reset takes nothing out%s", path, clip(item.text), didYouMean(item.text, texts))
}

// fresh returns a value that nothing is inherited under, with lists freed of what is there twice.
func (m merger) fresh(n *node, path string, inherited bool) *node {
	switch n.kind {
	case kindMap:
		out := &node{kind: kindMap, at: n.at}
		for _, e := range n.entries {
			out.entries = append(out.entries, entry{e.key, e.at, m.fresh(e.value, join(path, e.key), inherited)})
		}
		out.dropNulls()
		return out
	case kindList:
		return m.lists(&node{kind: kindList, at: n.at}, n, path)
	}
	return n
}

// withoutOwn takes out of an ancestor's profile what is not inherited, such as its name.
func withoutOwn(n *node) *node {
	out := *n
	out.entries = slices.DeleteFunc(slices.Clone(n.entries), func(e entry) bool {
		return slices.ContainsFunc(fieldsOf(reflect.TypeFor[Profile]()), func(f field) bool {
			return f.key == e.key && f.tag.Get("inherit") == "no"
		})
	})
	return &out
}
