package profiles

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"imgbuild/profiles/strict"
)

// Errors are all mistakes of a profile and of those that it extends: the profile's own first, in the order of the file.
type Errors = strict.Errors

// maxChain bounds how many profiles extend each other.
const maxChain = 16

// layer is one profile of a chain of extends.
type layer struct {
	src  *profileFile
	root *strict.Node // nil when it could not be read
}

// Load reads a shipped profile by name, or a file (a name that ends in .yaml or has a slash), with everything that it
// extends, and returns it merged, with defaults and checked. Paths of the build host are absolute in it. The error, when
// the profile is at fault, is an Errors with every mistake of the profile and of those that it extends.
func Load(ctx context.Context, nameOrPath string) (*Profile, error) {
	c := &strict.Collector{}
	chain, err := readChain(ctx, c, nameOrPath)
	if err != nil {
		return nil, err
	}
	p := finish(c, chain)
	if es := c.Errors(); es != nil {
		return nil, es
	}
	return p, nil
}

// finish merges the chain, fills in the defaults and checks the whole. The profile is good when c has nothing then.
func finish(c *strict.Collector, chain []layer) *Profile {
	merged := mergeChain(c, chain)
	if merged == nil {
		return nil
	}
	p := &Profile{tree: merged, Dir: chain[0].src.dir}
	strict.Decode(merged, reflect.ValueOf(p).Elem())
	p.Extends = ""
	for _, l := range slices.Backward(chain) {
		p.Sources = append(p.Sources, l.src.Name)
	}
	x := &crossChecker{Collector: c, tree: merged, p: p}
	x.name(chain[0].src)
	p.fillDefaults()
	x.all()
	return p
}

// readChain reads a profile and what it extends, the profile itself first, each checked on its own.
func readChain(ctx context.Context, c *strict.Collector, name string) ([]layer, error) {
	var chain []layer
	var from *profileFile
	var extends *strict.Node
	check := strict.NewForms(formats())
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("load profile %s: %w", name, err)
		}
		src, data, err := open(name, from)
		if err != nil && from == nil {
			return nil, Errors{{File: name, Sentence: err.Error()}}
		}
		if err != nil {
			c.Add(extends.At, "extends", "extends: %v", err)
			return append(chain, layer{}), nil
		}
		if at := slices.IndexFunc(chain, func(l layer) bool { return l.src.id == src.id }); at >= 0 {
			c.Add(extends.At, "extends", "extends goes round in a circle: %s", circle(chain[at:], src))
			return append(chain, layer{}), nil
		}
		if len(chain) == maxChain {
			c.Add(extends.At, "extends", "extends has more than %d profiles in a chain", maxChain)
			return append(chain, layer{}), nil
		}
		src.Depth = len(chain)
		root := grammar().Parse(c, &src.Source, data)
		chain = append(chain, layer{src, root})
		if root == nil {
			return chain, nil
		}
		src.check(c, check, root)
		extends = root.Get("extends")
		if extends == nil || extends.Kind == strict.KindNull {
			return chain, nil
		}
		if extends.Kind == strict.KindBad {
			return append(chain, layer{}), nil
		}
		name, from = extends.Text, src
	}
}

// grammar is what a profile's file is.
func grammar() strict.Document {
	return strict.Document{
		Noun: "profile", Least: "a profile has at least extends, or distro, repositories and packages",
		Like: "keys such as name: and packages:", Reset: true,
	}
}

// check holds one file's values against the types.
func (f *profileFile) check(c *strict.Collector, forms *strict.Forms, root *strict.Node) {
	t := reflect.TypeFor[Profile]()
	(&strict.Checker{Collector: c, Forms: forms, Document: grammar(), Root: t, HostPath: f.hostPath}).Structure(root, t, "")
}

// hostPath makes a path of the build host absolute: relative ones start from the file's directory.
func (f *profileFile) hostPath(p string) (absolute, problem string) {
	switch {
	case filepath.IsAbs(p):
		return p, ""
	case f.shipped != "":
		return "", "is a relative path, and a shipped profile has no directory"
	}
	return filepath.Join(f.dir, p), ""
}

func circle(chain []layer, back *profileFile) string {
	var names []string
	for _, l := range chain {
		names = append(names, l.src.Name)
	}
	return strings.Join(append(names, back.Name), " → ")
}

// mergeChain lays the profiles over each other. It returns nil when one of them could not be read: what is missing then
// would only be reported as wrong.
func mergeChain(c *strict.Collector, chain []layer) *strict.Node {
	m := merger{c}
	var merged *strict.Node
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
func (x *crossChecker) name(src *profileFile) {
	if x.p.Name != "" || x.has("name") {
		return
	}
	x.p.Name = src.shipped
	if src.shipped == "" {
		base := filepath.Base(src.Name)
		x.p.Name = strings.TrimSuffix(strings.TrimSuffix(base, ".yaml"), ".yml")
	}
	if p := strict.NewForms(formats()).Text("image-name", x.p.Name); p != "" {
		x.Add(x.tree.At, "name", "name is missing, and the file's %s; write name:", p)
	}
}

// Where returns file:line:column of the value at path, whose elements are keys and the indexes of lists, or of the nearest
// thing that would hold it: Where("packages", "install", "2"). It is empty for a profile that Load has not made.
func (p *Profile) Where(path ...string) string {
	if p.tree == nil {
		return ""
	}
	at, _ := p.tree.Find(path...)
	if at.Line == 0 {
		return at.Src.Name
	}
	return fmt.Sprintf("%s:%d:%d", at.Src.Name, at.Line, at.Col)
}

// YAML returns the merged profile with its defaults, as `imgbuild show` prints it. Loaded again, it is the same profile;
// so it has the password hashes and, where an address of a repository holds a password, that too. The order is that
// of the types, and of the names in maps, so equal profiles give equal bytes.
func (p *Profile) YAML() ([]byte, error) {
	data, err := strict.Marshal(*p)
	if err != nil {
		return nil, fmt.Errorf("write profile %s: %w", p.Name, err)
	}
	return data, nil
}
