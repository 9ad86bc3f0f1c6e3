package profiles

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// maxChain bounds how many profiles extend each other.
const maxChain = 16

// layer is one profile of a chain of extends.
type layer struct {
	src  *source
	root *node // nil when it could not be read
}

// Load reads a shipped profile by name, or a file (a name that ends in .yaml or has a slash), with everything that it
// extends, and returns it merged, with defaults and checked. Paths of the build host are absolute in it. The error, when
// the profile is at fault, is an Errors with every mistake of the profile and of those that it extends.
func Load(ctx context.Context, nameOrPath string) (*Profile, error) {
	c := &collector{}
	chain, err := readChain(ctx, c, nameOrPath)
	if err != nil {
		return nil, err
	}
	p := finish(c, chain)
	if es := c.errors(); es != nil {
		return nil, es
	}
	return p, nil
}

// finish merges the chain, fills in the defaults and checks the whole. The profile is good when c has nothing then.
func finish(c *collector, chain []layer) *Profile {
	merged := mergeChain(c, chain)
	if merged == nil {
		return nil
	}
	p := &Profile{tree: merged, Dir: chain[0].src.dir}
	decode(merged, reflect.ValueOf(p).Elem())
	p.Extends = ""
	for _, l := range slices.Backward(chain) {
		p.Sources = append(p.Sources, l.src.name)
	}
	x := &crossChecker{collector: c, tree: merged, p: p}
	x.name(chain[0].src)
	p.fillDefaults()
	x.all()
	return p
}

// readChain reads a profile and what it extends, the profile itself first, each checked on its own.
func readChain(ctx context.Context, c *collector, name string) ([]layer, error) {
	var chain []layer
	var from *source
	var extends *node
	check := newChecker()
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("load profile %s: %w", name, err)
		}
		src, data, err := open(name, from)
		if err != nil && from == nil {
			return nil, Errors{{File: name, Sentence: err.Error()}}
		}
		if err != nil {
			c.add(extends.at, "extends", "extends: %v", err)
			return append(chain, layer{}), nil
		}
		if at := slices.IndexFunc(chain, func(l layer) bool { return l.src.id == src.id }); at >= 0 {
			c.add(extends.at, "extends", "extends goes round in a circle: %s", circle(chain[at:], src))
			return append(chain, layer{}), nil
		}
		if len(chain) == maxChain {
			c.add(extends.at, "extends", "extends has more than %d profiles in a chain", maxChain)
			return append(chain, layer{}), nil
		}
		src.depth = len(chain)
		root := parse(c, src, data)
		chain = append(chain, layer{src, root})
		if root == nil {
			return chain, nil
		}
		(&treeChecker{c, check, src}).structure(root, reflect.TypeFor[Profile](), "")
		extends = root.get("extends")
		if extends == nil || extends.kind == kindNull {
			return chain, nil
		}
		if extends.kind == kindBad {
			return append(chain, layer{}), nil
		}
		name, from = extends.text, src
	}
}

func circle(chain []layer, back *source) string {
	var names []string
	for _, l := range chain {
		names = append(names, l.src.name)
	}
	return strings.Join(append(names, back.name), " → ")
}

// mergeChain lays the profiles over each other. It returns nil when one of them could not be read: what is missing then
// would only be reported as wrong.
func mergeChain(c *collector, chain []layer) *node {
	m := merger{c}
	var merged *node
	for i, l := range slices.Backward(chain) {
		if l.root == nil {
			return nil
		}
		if i > 0 {
			merged = m.onto(merged, withoutOwn(l.root), "")
		} else {
			merged = m.onto(merged, l.root, "")
		}
	}
	return merged
}

// name fills in the default of name, which is the file's.
func (x *crossChecker) name(src *source) {
	if x.p.Name != "" || x.has("name") {
		return
	}
	x.p.Name = src.shipped
	if src.shipped == "" {
		base := filepath.Base(src.name)
		x.p.Name = strings.TrimSuffix(strings.TrimSuffix(base, ".yaml"), ".yml")
	}
	if p := newChecker().text("image-name", x.p.Name); p != "" {
		x.add(x.tree.at, "name", "name is missing, and the file's %s; write name:", p)
	}
}

// Where returns file:line:column of the value at path, whose elements are keys and the indexes of lists, or of the nearest
// thing that would hold it: Where("packages", "install", "2"). It is empty for a profile that Load has not made.
func (p *Profile) Where(path ...string) string {
	if p.tree == nil {
		return ""
	}
	at, _ := p.tree.find(path...)
	if at.line == 0 {
		return at.src.name
	}
	return fmt.Sprintf("%s:%d:%d", at.src.name, at.line, at.col)
}
