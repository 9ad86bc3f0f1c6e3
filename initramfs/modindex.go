package initramfs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// moduleName is the name the kernel knows a module file by: without directory and suffixes, "-" as "_".
func moduleName(name string) string {
	name = path.Base(name)
	name = strings.TrimSuffix(name, packedSuffix(name))
	return strings.ReplaceAll(strings.TrimSuffix(name, ".ko"), "-", "_")
}

// isModule says whether a file name is a module's, compressed or not.
func isModule(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, packedSuffix(name)), ".ko")
}

// kernelModules is what the image has of one kernel release: which modules there are and what depmod wrote of them.
type kernelModules struct {
	tree     *tree
	dir      string              // usr/lib/modules/RELEASE
	files    map[string]string   // module name -> path below dir
	builtin  map[string]string   // module name -> path below dir, as in modules.builtin
	deps     map[string][]string // module name -> names of the modules it needs, from modules.dep
	softdeps map[string][]softdep
	aliases  []alias // from modules.alias, or from the modules themselves once that was needed
	scanned  bool
	order    []string // paths of modules.order
}

// alias is one line of modules.alias: a pattern and the module that serves what matches it.
type alias struct{ pattern, module string }

// openModules reads the index of the modules of a kernel release. The files that depmod writes are used when they are
// there; without them (a package unpacked without its scriptlets) the modules speak for themselves.
func openModules(t *tree, release string) (*kernelModules, error) {
	if release == "" || release != path.Base(release) || release == ".." || release == "." {
		return nil, fmt.Errorf("kernel release %q is not a name of a directory below /lib/modules", release)
	}
	dir, err := t.resolve("lib/modules/" + release)
	if err != nil {
		return nil, fmt.Errorf("find the modules of kernel %s in %s (is the kernel's modules package installed in the image?): %w", release, t.dir, err)
	}
	k := &kernelModules{tree: t, dir: dir, files: map[string]string{}}
	err = t.walk(dir, func(rel string) error {
		// build and source are trees of headers; what is in them is not for loading.
		if !isModule(rel) || strings.HasPrefix(rel, "build/") || strings.HasPrefix(rel, "source/") {
			return nil
		}
		name := moduleName(rel)
		if old, ok := k.files[name]; !ok || placeRank(rel) < placeRank(old) {
			k.files[name] = rel
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the modules of kernel %s in %s: %w", release, t.dir, err)
	}
	if len(k.files) == 0 {
		return nil, fmt.Errorf("no module below /lib/modules/%s in %s: install the kernel's modules package in the image", release, t.dir)
	}
	return k, k.readIndexes()
}

// placeRank orders the directories of a release as depmod.d(5) does on EL: a module in updates or extra overrides the
// kernel's own, one in weak-updates only fills a gap.
func placeRank(rel string) int {
	top, _, _ := strings.Cut(rel, "/")
	if rank := slices.Index([]string{"updates", "extra", "kernel"}, top); rank >= 0 {
		return rank
	}
	if top == "weak-updates" {
		return 4
	}
	return 3
}

func (k *kernelModules) readIndexes() error {
	files := map[string][]byte{}
	for _, name := range []string{"modules.builtin", "modules.dep", "modules.softdep", "modules.alias", "modules.order"} {
		data, err := k.tree.readIfPresent(path.Join(k.dir, name))
		if err != nil {
			return fmt.Errorf("read %s of the image's kernel: %w", name, err)
		}
		files[name] = data
	}
	k.builtin = map[string]string{}
	for _, rel := range lines(files["modules.builtin"]) {
		k.builtin[moduleName(rel)] = rel
	}
	var err error
	if k.deps, err = parseModulesDep(files["modules.dep"]); err != nil {
		return err
	}
	k.softdeps = parseModulesSoftdep(files["modules.softdep"])
	k.aliases = parseModulesAlias(files["modules.alias"])
	k.scanned = len(k.aliases) > 0
	k.order = lines(files["modules.order"])
	return nil
}

// lines are the non-empty lines that are no comments, without surrounding space.
func lines(data []byte) []string {
	var found []string
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, len(data)+1)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" && line[0] != '#' {
			found = append(found, line)
		}
	}
	return found
}

// parseModulesDep reads modules.dep (depmod(8)): "path: path path". The result is by module name.
func parseModulesDep(data []byte) (map[string][]string, error) {
	deps := map[string][]string{}
	for _, line := range lines(data) {
		module, needed, ok := strings.Cut(line, ":")
		if !ok || !isModule(module) {
			return nil, fmt.Errorf("modules.dep has the line %.80q, which is not of the form \"module: modules\": run depmod in the image", line)
		}
		name := moduleName(module)
		for _, need := range strings.Fields(needed) {
			deps[name] = append(deps[name], moduleName(need))
		}
	}
	return deps, nil
}

// parseModulesSoftdep reads "softdep module pre: ... post: ..." lines; others are passed over.
func parseModulesSoftdep(data []byte) map[string][]softdep {
	deps := map[string][]softdep{}
	for _, line := range lines(data) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[0] == "softdep" {
			name := moduleName(fields[1])
			deps[name] = append(deps[name], parseSoftdep(strings.Join(fields[2:], " ")))
		}
	}
	return deps
}

// parseModulesAlias reads "alias pattern module" lines; others are passed over. Patterns may hold spaces.
func parseModulesAlias(data []byte) []alias {
	var found []alias
	for _, line := range lines(data) {
		rest, ok := strings.CutPrefix(line, "alias ")
		cut := strings.LastIndexByte(rest, ' ')
		if !ok || cut < 0 {
			continue
		}
		a := alias{pattern: strings.TrimSpace(rest[:cut]), module: rest[cut+1:]}
		if a.pattern != "" && !strings.ContainsAny(a.module, "/\t") {
			a.module = moduleName(a.module)
			found = append(found, a)
		}
	}
	return found
}

// module reads a module and what it says of itself; the bytes are uncompressed.
func (k *kernelModules) module(name string) (file, []byte, modinfo, error) {
	rel := k.files[name]
	found, err := k.tree.find(path.Join(k.dir, rel))
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, nil, modinfo{}, fmt.Errorf("module %s: %s leads nowhere in %s: %w", name, rel, k.tree.dir, err)
	}
	if err != nil {
		return file{}, nil, modinfo{}, fmt.Errorf("module %s: %w", name, err)
	}
	packed, err := k.tree.root.ReadFile(found.path)
	if err != nil {
		return file{}, nil, modinfo{}, fmt.Errorf("read module %s: %w", name, err)
	}
	data, err := unpack(packedSuffix(rel), packed)
	if err != nil {
		return file{}, nil, modinfo{}, fmt.Errorf("unpack module %s (%s): %w", name, rel, err)
	}
	info, err := readModinfo(data)
	if err != nil {
		return file{}, nil, modinfo{}, fmt.Errorf("read module %s (%s): %w", name, rel, err)
	}
	return found, data, info, nil
}

// provide returns the modules that a name stands for: the module itself, nothing if it is built in, or those that have
// it as an alias. known is false when nobody knows the name.
func (k *kernelModules) provide(ctx context.Context, name string) (modules []string, known bool, err error) {
	normal := moduleName(name)
	if _, ok := k.files[normal]; ok {
		return []string{normal}, true, nil
	}
	if _, ok := k.builtin[normal]; ok {
		return nil, true, nil
	}
	if err := k.scanAliases(ctx); err != nil {
		return nil, false, err
	}
	for _, a := range k.aliases {
		if dashless(a.pattern) == normal && k.files[a.module] != "" && !slices.Contains(modules, a.module) {
			modules = append(modules, a.module)
		}
	}
	return modules, len(modules) > 0, nil
}

func dashless(name string) string { return strings.ReplaceAll(name, "-", "_") }

// scanAliases reads the aliases of every module when depmod has not written them down; seconds with compressed ones.
func (k *kernelModules) scanAliases(ctx context.Context) error {
	if k.scanned {
		return nil
	}
	for name := range k.files {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("read the modules' aliases: %w", err)
		}
		_, _, info, err := k.module(name)
		if err != nil {
			return err
		}
		for _, pattern := range info.aliases {
			k.aliases = append(k.aliases, alias{pattern: pattern, module: name})
		}
	}
	slices.SortFunc(k.aliases, func(a, b alias) int {
		return strings.Compare(a.pattern+" "+a.module, b.pattern+" "+b.module)
	})
	k.scanned = true
	return nil
}
