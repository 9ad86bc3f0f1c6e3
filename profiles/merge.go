package profiles

import (
	"reflect"
	"slices"

	"imgbuild/profiles/strict"
)

// merger lays a profile over the one that it extends.
type merger struct{ *strict.Collector }

// onto returns child merged over parent, neither of which it changes: maps are merged, lists are appended without what is
// there already, scalars are replaced. !reset on a value drops what was inherited.
func (m merger) onto(parent, child *strict.Node, path string) *strict.Node {
	switch {
	case child.Reset || parent == nil:
		return m.fresh(child, path, parent != nil)
	case child.Kind == strict.KindBad || parent.Kind == strict.KindBad || parent.Kind == strict.KindNull || parent.Kind != child.Kind:
		return child
	case child.Kind == strict.KindMap:
		return m.maps(parent, child, path)
	case child.Kind == strict.KindList:
		return m.lists(parent, child, path)
	}
	return child
}

func (m merger) maps(parent, child *strict.Node, path string) *strict.Node {
	out := &strict.Node{Kind: strict.KindMap, At: child.At, Entries: slices.Clone(parent.Entries), Lost: parent.Lost || child.Lost}
	for _, e := range child.Entries {
		at := slices.IndexFunc(out.Entries, func(p strict.Entry) bool { return p.Key == e.Key })
		if at < 0 {
			out.Entries = append(out.Entries, strict.Entry{Key: e.Key, At: e.At, Value: m.fresh(e.Value, strict.Join(path, e.Key), false)})
			continue
		}
		out.Entries[at] = strict.Entry{Key: e.Key, At: e.At, Value: m.onto(out.Entries[at].Value, e.Value, strict.Join(path, e.Key))}
	}
	dropNulls(out)
	return out
}

// dropNulls takes out the entries that !reset has left without a value.
func dropNulls(n *strict.Node) {
	n.Entries = slices.DeleteFunc(n.Entries, func(e strict.Entry) bool { return e.Value.Kind == strict.KindNull })
}

func (m merger) lists(parent, child *strict.Node, path string) *strict.Node {
	out := &strict.Node{Kind: strict.KindList, At: child.At, Items: slices.Clone(parent.Items)}
	for _, item := range child.Items {
		at := slices.IndexFunc(out.Items, item.Equal)
		switch {
		case item.Reset && at >= 0:
			out.Items = slices.Delete(out.Items, at, at+1)
		case item.Reset:
			m.nothingToReset(item, path, out.Items)
		case at < 0:
			out.Items = append(out.Items, item)
		}
	}
	return out
}

func (m merger) nothingToReset(item *strict.Node, path string, there []*strict.Node) {
	var texts []string
	for _, t := range there {
		if t.Kind == strict.KindText {
			texts = append(texts, t.Text)
		}
	}
	if item.Kind != strict.KindText {
		m.Add(item.ResetAt, path, "%s inherits no such item, so !reset takes nothing out", path)
		return
	}
	m.Add(item.ResetAt, path, "%s inherits no %s, so !reset takes nothing out%s", path, strict.Clip(item.Text), strict.DidYouMean(item.Text, texts))
}

// fresh returns a value that nothing is inherited under, with lists freed of what is there twice.
func (m merger) fresh(n *strict.Node, path string, inherited bool) *strict.Node {
	switch n.Kind {
	case strict.KindMap:
		out := &strict.Node{Kind: strict.KindMap, At: n.At, Lost: n.Lost}
		for _, e := range n.Entries {
			out.Entries = append(out.Entries, strict.Entry{Key: e.Key, At: e.At, Value: m.fresh(e.Value, strict.Join(path, e.Key), inherited)})
		}
		dropNulls(out)
		return out
	case strict.KindList:
		return m.lists(&strict.Node{Kind: strict.KindList, At: n.At}, n, path)
	}
	return n
}

// withoutOwn takes out of an ancestor's profile what is not inherited, such as its name.
func withoutOwn(n *strict.Node) *strict.Node {
	out := *n
	out.Entries = slices.DeleteFunc(slices.Clone(n.Entries), func(e strict.Entry) bool {
		return slices.ContainsFunc(strict.Fields(reflect.TypeFor[Profile]()), func(f strict.Field) bool {
			return f.Key == e.Key && f.Tag.Get("inherit") == "no"
		})
	})
	return &out
}
