package standin

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The overlay holds, below the name of an RPM, the files that are ours; scriptlets what runs when it is installed.
//
//go:embed all:overlay scriptlets recipe.txt comps.xml
var assets embed.FS

// assembler makes the trees of RPMs out of Debian packages and the overlay.
type assembler struct {
	recipe *recipe
	debs   string // directory of .deb files
	built  int64  // when the newest of the Debian packages was built: the time of our own files
	key    []byte // armored public key, which the release package carries
	// base are the directories that the filesystem package owns.
	base map[string]bool
}

func newAssembler(rc *recipe, debs string, built int64, key []byte) (*assembler, error) {
	a := &assembler{recipe: rc, debs: debs, built: built, key: key, base: map[string]bool{}}
	i := slices.IndexFunc(rc.Packages, func(p *pkg) bool { return p.Name == "filesystem" })
	if i < 0 {
		return nil, errors.New("the recipe has no package filesystem")
	}
	for _, d := range rc.Packages[i].Dirs {
		a.base[d.Path] = true
	}
	return a, nil
}

// assemble makes the tree of a unit; for one from which others are split, the trees of those too, by name.
func (a *assembler) assemble(ctx context.Context, u *unit, splits []*unit) (map[string]tree, error) {
	whole := tree{}
	for _, d := range u.From {
		name := filepath.Join(a.debs, d.file())
		c, err := readControl(name)
		if err != nil {
			return nil, err
		}
		t, err := readData(ctx, name, c.Conffiles)
		if err != nil {
			return nil, err
		}
		maps.Copy(whole, t)
	}
	if u.Locale != "" {
		if err := compileLocale(ctx, whole, u.Locale, a.built); err != nil {
			return nil, fmt.Errorf("package %s of the recipe: %w", u.Name, err)
		}
	}
	if err := a.apply(whole, u.pkg); err != nil {
		return nil, fmt.Errorf("package %s of the recipe: %w", u.Name, err)
	}
	out := map[string]tree{u.Name: whole}
	for _, s := range splits {
		part := tree{}
		for p, f := range whole {
			if f.kind() != modeDir && matches(p, s.Take) {
				part[p] = f
				delete(whole, p)
			}
		}
		if len(part) == 0 {
			return nil, fmt.Errorf("package %s of the recipe: nothing in %s matches what it takes", s.Name, u.Name)
		}
		out[s.Name] = part
	}
	for name, t := range out {
		if err := t.finish(u.Name == "filesystem", a.base); err != nil {
			return nil, fmt.Errorf("package %s: %w", name, err)
		}
	}
	return out, nil
}

// apply does to a tree what the recipe says, in the order: move, copy, omit, bundle, own files, links, directories,
// attributes, capabilities, configuration.
func (a *assembler) apply(t tree, p *pkg) error {
	bundles := map[string][]byte{}
	for _, b := range p.Bundles {
		bundles[b.To] = t.bundle(b.From)
		if len(bundles[b.To]) == 0 {
			return fmt.Errorf("nothing matches %s", b.From)
		}
	}
	for _, m := range p.Moves {
		if err := t.move(m); err != nil {
			return err
		}
	}
	for _, c := range p.Copies {
		f := t[c.From]
		if f == nil {
			return fmt.Errorf("copy: there is no %s", c.From)
		}
		twin := *f
		twin.Path = c.To
		t[c.To] = &twin
	}
	for name := range t {
		if matches(name, a.recipe.Omit) || matches(name, p.Omit) {
			delete(t, name)
		}
	}
	for to, body := range bundles {
		t.add(to, body, a.built)
	}
	if err := a.overlay(t, p.Name); err != nil {
		return err
	}
	for _, l := range p.Links {
		t[l.To] = &file{Path: l.To, Mode: modeSymlink | 0o777, Owner: "root", Group: "root", MTime: a.built, Body: []byte(l.From)}
	}
	for _, d := range p.Dirs {
		t[d.Path] = &file{Path: d.Path, Mode: modeDir | d.Mode, Owner: d.Owner, Group: d.Group, MTime: a.built}
	}
	for _, x := range p.Attrs {
		f := t[x.Path]
		if f == nil {
			return fmt.Errorf("attr: there is no %s", x.Path)
		}
		f.Mode = f.Mode&modeType | x.Mode
		f.Owner, f.Group = x.Owner, x.Group
	}
	for _, c := range p.Caps {
		if t[c.Path] == nil {
			return fmt.Errorf("caps: there is no %s", c.Path)
		}
		t[c.Path].Caps = c.Caps
	}
	for name, f := range t {
		if f.kind() == modeRegular && (matches(name, p.Config) || strings.HasPrefix(name, "/etc/")) {
			f.Config = true
		}
	}
	return nil
}

// move moves the files that match; to a directory when the destination ends in a slash. A % in the destination is
// what the last * of the glob stands for.
func (t tree) move(m move) error {
	var names []string
	for name, f := range t {
		if f.kind() != modeDir && match(m.From, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("move: nothing matches %s", m.From)
	}
	for _, name := range names {
		to := m.To
		if strings.HasSuffix(to, "/") {
			to += path.Base(name)
		}
		if stem, glob, ok := strings.Cut(m.From, "*"); ok && glob == "" {
			to = strings.ReplaceAll(to, "%", strings.TrimPrefix(name, stem))
		}
		f := t[name]
		delete(t, name)
		f.Path = to
		t[to] = f
	}
	return nil
}

// bundle joins the files that match in the order of their names.
func (t tree) bundle(glob string) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if match(glob, name) {
			b.Write(bytes.TrimSpace(t[name].Body))
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// add puts a file of ours in; a script is executable.
func (t tree) add(name string, body []byte, mtime int64) {
	mode := uint32(0o644)
	if bytes.HasPrefix(body, []byte("#!")) {
		mode = 0o755
	}
	t[name] = &file{Path: name, Mode: modeRegular | mode, Owner: "root", Group: "root", MTime: mtime, Body: body}
}

// overlay adds the files that are ours.
func (a *assembler) overlay(t tree, name string) error {
	root := "overlay/" + name
	if _, err := fs.Stat(assets, root); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := fs.WalkDir(assets, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := assets.ReadFile(p)
		if err == nil {
			t.add(strings.TrimPrefix(p, root), body, a.built)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the overlay of %s: %w", name, err)
	}
	if name == releasePackage {
		t.add("/etc/pki/rpm-gpg/"+keyFile, a.key, a.built)
	}
	return nil
}

// finish drops the directories that other packages own, settles hard links and classifies files.
func (t tree) finish(isBase bool, base map[string]bool) error {
	for name, f := range t {
		if f.kind() == modeDir && (!isBase && base[name] || slices.Contains(mergedDirs(), name) || transient(name)) {
			delete(t, name)
			continue
		}
		for _, d := range mergedDirs() {
			if strings.HasPrefix(name, d+"/") {
				return fmt.Errorf("%s is below a directory that is merged into /usr", name)
			}
		}
		f.classify()
	}
	t.settleHardLinks()
	return nil
}

// settleHardLinks keeps the sets of hard links whose names follow each other, and makes symbolic links of others. rpm
// unpacks a set only when its members are neighbours in the payload, which rpmpack writes in the order of names.
func (t tree) settleHardLinks() {
	names := slices.Sorted(maps.Keys(t))
	sets := map[string][]int{} // positions by the name that the archive had first
	for i, name := range names {
		if f := t[name]; f.kind() == modeRegular && f.Link != "" {
			sets[f.Link] = append(sets[f.Link], i)
		}
	}
	for _, set := range sets {
		head := names[set[0]]
		neighbours := set[len(set)-1]-set[0] == len(set)-1
		for _, i := range set {
			f := t[names[i]]
			f.Link = ""
			switch {
			case neighbours && len(set) > 1:
				f.Link = head
			case f.Path != head:
				f.Mode, f.Config = modeSymlink|0o777, false
				f.Body = []byte(relative(path.Dir(f.Path), head))
			}
		}
	}
}

// transient says whether a directory is on a file system that is empty at every boot.
func transient(name string) bool {
	for _, d := range []string{"/run/", "/tmp/", "/dev/", "/proc/", "/sys/"} {
		if strings.HasPrefix(name, d) {
			return true
		}
	}
	return false
}

// newest gives the time of the newest Debian package.
func newest(dir string, debs []*deb) (int64, error) {
	var t int64
	for _, d := range debs {
		f, err := os.Open(filepath.Join(dir, d.file()))
		if err != nil {
			return 0, fmt.Errorf("read the time of a package: %w", err)
		}
		ar, err := newArReader(f)
		if err == nil {
			var m arMember
			if m, err = ar.Next(); err == nil {
				t = max(t, m.MTime.Unix())
			}
		}
		f.Close()
		if err != nil {
			return 0, fmt.Errorf("read the time of %s: %w", d.file(), err)
		}
	}
	return t, nil
}
