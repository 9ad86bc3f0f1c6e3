package profiles

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"imgbuild/profiles/strict"
)

// crossChecker looks for what is missing and for contradictions between values that are right by themselves. It sees the
// merged profile; the places are those of the files in which the values were written.
type crossChecker struct {
	*strict.Collector
	tree *strict.Node
	p    *Profile
}

func (x *crossChecker) all() {
	x.required()
	x.exclusive(x.tree, reflect.TypeFor[Profile](), nil)
	x.distro()
	x.repositories()
	x.accounts()
	x.lists()
	x.kernel()
	x.files()
	x.scripts()
	x.layout()
	x.packing()
	x.hostFiles()
}

// has says whether anything, right or wrong, was written at path.
func (x *crossChecker) has(path ...string) bool {
	_, ok := x.tree.Find(path...)
	return ok
}

// at reports a contradiction or omission at path.
func (x *crossChecker) at(path []string, format string, args ...any) {
	at, _ := x.tree.Find(path...)
	x.Add(at, keyPath(path), "%s", fmt.Sprintf(format, args...))
}

func keyPath(path []string) string {
	s := ""
	for _, p := range path {
		if _, err := strconv.Atoi(p); err == nil && s != "" {
			s += "[" + p + "]"
		} else {
			s = strict.Join(s, p)
		}
	}
	return s
}

// place is how a sentence names another place.
func (x *crossChecker) place(path ...string) string {
	at, _ := x.tree.Find(path...)
	if at.Line == 0 {
		return at.Src.Name
	}
	return fmt.Sprintf("%s:%d", at.Src.Name, at.Line)
}

// later is the one of two paths that was written nearer to the profile itself, or further down; the other is second.
func (x *crossChecker) later(a, b []string) (last, first []string) {
	pa, _ := x.tree.Find(a...)
	pb, _ := x.tree.Find(b...)
	if cmp.Or(cmp.Compare(pb.Src.Depth, pa.Src.Depth), cmp.Compare(pa.Line, pb.Line), cmp.Compare(pa.Col, pb.Col)) >= 0 {
		return a, b
	}
	return b, a
}

// contradict reports that a and b cannot both be, at the later of them. The sentence gets the place of the other.
func (x *crossChecker) contradict(a, b []string, format string, args ...any) {
	sentence := fmt.Sprintf(format, args...)
	switch {
	case !x.has(b...):
		x.at(a, "%s", sentence) // b is a default
	case !x.has(a...):
		x.at(b, "%s", sentence)
	default:
		last, first := x.later(a, b)
		x.at(last, "%s (%s is at %s)", sentence, label(first), x.place(first...))
	}
}

// label is a key's path for a sentence: an item of a list goes by the list, because the numbers of a merged list are not
// those of its files.
func label(path []string) string {
	if _, err := strconv.Atoi(path[len(path)-1]); err == nil {
		path = path[:len(path)-1]
	}
	return keyPath(path)
}

// remedy says how to end a contradiction: what was inherited is taken out with !reset.
func (x *crossChecker) remedy(a, b []string, reset string) string {
	pa, _ := x.tree.Find(a...)
	pb, _ := x.tree.Find(b...)
	if pa.Src == pb.Src {
		return "take one out"
	}
	return "take the inherited one out with `" + reset + "`"
}

func (x *crossChecker) required() {
	if x.p.Distro.ID == "" && !x.has("distro", "id") {
		x.at([]string{"distro"}, "distro.id is missing; it says which distribution this is, such as centos-stream")
	}
	if x.p.Distro.Release == "" && !x.has("distro", "release") {
		x.at([]string{"distro"}, `distro.release is missing; it is dnf's $releasever, such as "9"`)
	}
	if len(x.p.Packages.Install) == 0 && !x.isBad("packages", "install") {
		x.at([]string{"packages", "install"}, "packages.install is missing or empty; an image has at least a group such as \"@core\"")
	}
	if x.isBad("repositories") {
		return
	}
	enabled := false
	for _, r := range x.p.Repositories {
		enabled = enabled || *r.Enabled
	}
	if n := x.tree.Get("repositories"); n == nil || len(n.Entries) == 0 {
		x.at([]string{"repositories"}, "repositories is missing or empty; packages come from at least one")
	} else if !enabled && len(x.p.Repositories) == len(n.Entries) {
		x.at([]string{"repositories"}, "every repository has enabled: false; packages come from at least one")
	}
}

// isBad says whether the value at path, or one that holds it, was wrong and has been reported.
func (x *crossChecker) isBad(path ...string) bool {
	n := x.tree
	for _, p := range path {
		if n.Kind == strict.KindBad {
			return true
		}
		if i, err := strconv.Atoi(p); err == nil && n.Kind == strict.KindList && i < len(n.Items) {
			n = n.Items[i]
		} else if n = n.Get(p); n == nil {
			return false
		}
	}
	return n.Kind == strict.KindBad
}

// exclusive checks the groups of the only tag: exactly one of each group's keys is given.
func (x *crossChecker) exclusive(n *strict.Node, t reflect.Type, path []string) {
	if n.Kind == strict.KindBad {
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		groups := map[string][]string{}
		for _, f := range strict.Fields(t) {
			if v := n.Get(f.Key); v != nil {
				x.exclusive(v, f.Typ, append(slices.Clone(path), f.Key))
			}
			if g := f.Tag.Get("only"); g != "" {
				groups[g] = append(groups[g], f.Key)
			}
		}
		for _, keys := range groups {
			x.oneOf(n, path, keys)
		}
	case reflect.Map:
		for _, e := range n.Entries {
			x.exclusive(e.Value, t.Elem(), append(slices.Clone(path), e.Key))
		}
	case reflect.Slice:
		for i, item := range n.Items {
			x.exclusive(item, t.Elem(), append(slices.Clone(path), strconv.Itoa(i)))
		}
	}
}

func (x *crossChecker) oneOf(n *strict.Node, path, keys []string) {
	var given []string
	for _, k := range keys {
		if v := n.Get(k); v != nil && !(v.Kind == strict.KindBool && v.Text == "false") && !(v.Kind == strict.KindList && len(v.Items) == 0) {
			given = append(given, k)
		} else if x.isBad(append(slices.Clone(path), k)...) || v != nil && v.Kind == strict.KindList {
			return // reported already
		}
	}
	if len(given) == 0 {
		x.at(path, "%s needs one of %s", keyPath(path), strict.List(keys, "or"))
		return
	}
	if len(given) > 1 {
		a, b := append(slices.Clone(path), given[0]), append(slices.Clone(path), given[1])
		_, first := x.later(a, b)
		x.contradict(a, b, "%s has %s, and only one can be; %s", keyPath(path), strict.List(given, "and"), x.remedy(a, b, first[len(first)-1]+": !reset"))
	}
}

// lists finds what is in two lists that exclude each other.
func (x *crossChecker) lists() {
	same := func(s string) string { return s }
	x.disjoint([]string{"packages", "install"}, []string{"packages", "exclude"}, same, "%s is both installed and excluded")
	x.disjoint([]string{"services", "enable"}, []string{"services", "disable"}, same, "%s is both enabled and disabled")
	x.disjoint([]string{"services", "enable"}, []string{"services", "mask"}, same, "%s is both enabled and masked")
	flat := func(s string) string { return strings.ReplaceAll(s, "-", "_") }
	x.disjoint([]string{"kernel", "modules"}, []string{"kernel", "blacklist"}, flat, "%s is both loaded and blacklisted")
	if i := slices.Index(x.p.Packages.Exclude, x.p.Kernel.Package); i >= 0 && !slices.Contains(x.p.Packages.Install, x.p.Kernel.Package) {
		x.at([]string{"packages", "exclude", strconv.Itoa(i)}, "packages.exclude has %s, which is the kernel that the image boots (kernel.package)", x.p.Kernel.Package)
	}
	if i := slices.Index(x.p.Services.Mask, x.p.Services.Target); i >= 0 {
		x.at([]string{"services", "mask", strconv.Itoa(i)}, "services.mask has %s, which the image starts into (services.target)", x.p.Services.Target)
	}
}

func (x *crossChecker) disjoint(a, b []string, form func(string) string, sentence string) {
	items := func(path []string) []*strict.Node {
		n := x.tree
		for _, p := range path {
			if n = n.Get(p); n == nil {
				return nil
			}
		}
		return n.Items
	}
	seen := map[string]int{}
	for i, n := range items(a) {
		seen[form(n.Text)] = i
	}
	for j, n := range items(b) {
		i, both := seen[form(n.Text)]
		if !both || n.Kind == strict.KindBad {
			continue
		}
		pa, pb := append(slices.Clone(a), strconv.Itoa(i)), append(slices.Clone(b), strconv.Itoa(j))
		x.contradict(pa, pb, sentence+"; %s", n.Text, x.remedy(pa, pb, "- !reset "+n.Text))
	}
}

func (x *crossChecker) kernel() {
	serial, _, _ := strings.Cut(x.p.Kernel.Serial, ",")
	selinux := !x.isBad("system", "selinux")
	for i, a := range x.p.Kernel.Args {
		path := []string{"kernel", "args", strconv.Itoa(i)}
		key, value, _ := strings.Cut(a, "=")
		device, _, _ := strings.Cut(value, ",")
		mode := x.p.System.SELinux
		switch {
		case key == "console" && device == serial && value != x.p.Kernel.Serial:
			x.contradict(path, []string{"kernel", "serial"}, "the argument %s and the serial console %s name the same device differently", a, x.p.Kernel.Serial)
		case selinux && a == "selinux=0" && mode != "disabled":
			x.contradict(path, []string{"system", "selinux"}, "the argument selinux=0 disables SELinux, and system.selinux is %s", mode)
		case selinux && a == "selinux=1" && mode == "disabled":
			x.contradict(path, []string{"system", "selinux"}, "the argument selinux=1 enables SELinux, and system.selinux is disabled")
		case selinux && (a == "enforcing=0" && mode == "enforcing" || a == "enforcing=1" && mode != "enforcing"):
			x.contradict(path, []string{"system", "selinux"}, "the argument %s is against system.selinux, which is %s", a, mode)
		}
	}
}

func (x *crossChecker) files() {
	var paths []string
	for p := range x.p.Files {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, p := range paths {
		f := x.p.Files[p]
		here := []string{"files", p}
		for parent := p[:strings.LastIndexByte(p, '/')]; parent != ""; parent = parent[:strings.LastIndexByte(parent, '/')] {
			if above, ok := x.p.Files[parent]; ok && !above.Directory && above.Source == "" {
				x.contradict(here, []string{"files", parent}, "%s cannot be in %s, which is not a directory", p, parent)
			}
		}
		if len(f.Vars) > 0 && f.Template == nil && !x.isBad(append(here, "template")...) {
			x.at(append(here, "vars"), "%s.vars are values for a template, and there is none", keyPath(here))
		}
		if f.Link != "" && f.Mode != "" {
			x.at(append(here, "mode"), "%s.mode: a symbolic link has no mode of its own", keyPath(here))
		}
	}
}

func (x *crossChecker) scripts() {
	for _, list := range x.p.allScripts() {
		seen := map[string]int{}
		for i, s := range list.scripts {
			path := []string{list.key, strconv.Itoa(i)}
			if s.Name == "" {
				if !x.has(append(path, "name")...) && !x.isBad(path...) {
					x.at(path, "%s.name is missing; %s shows it", keyPath(path), list.where)
				}
				continue
			}
			if first, twice := seen[s.Name]; twice {
				x.contradict(append(path, "name"), []string{list.key, strconv.Itoa(first), "name"}, "two scripts have the name %s", strict.Clip(s.Name))
			}
			seen[s.Name] = i
		}
	}
}

func (x *crossChecker) packing() {
	k := x.p.Pack
	level := []string{"pack", "compression_level"}
	if !x.has(level...) || x.isBad(level...) {
		return
	}
	switch {
	case k.Compressor == "xz" || k.Compressor == "lz4":
		x.at(level, "pack.compression_level is %d, and %s has no levels; take it out", k.CompressionLevel, k.Compressor)
	case k.Compressor == "gzip" && k.CompressionLevel > 9:
		x.at(level, "pack.compression_level is %d; gzip has 1 to 9", k.CompressionLevel)
	}
}
