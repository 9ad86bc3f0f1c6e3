package initramfs

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

func classNames(classes []class) []string {
	var names []string
	for _, c := range classes {
		names = append(names, c.name)
	}
	return names
}

// chosenModule is a module that goes into the image.
type chosenModule struct {
	name     string
	rel      string // path below the release's directory, without the suffix of its compression
	file     file
	data     []byte // uncompressed content, kept when the file is compressed
	info     modinfo
	needs    []string // names of the modules that must be loaded before, direct ones
	softdeps []softdep
}

// selection collects modules with all that they need.
type selection struct {
	from    *kernelModules
	modules map[string]*chosenModule
	missing map[string]bool // names of classes that the kernel has neither as a module nor built in
}

// selectModules chooses the modules that the options ask for, with the closure of their dependencies.
func selectModules(ctx context.Context, k *kernelModules, o Options) (*selection, error) {
	s := &selection{from: k, modules: map[string]*chosenModule{}, missing: map[string]bool{}}
	classes, hardware := []class{baseClass()}, false
	for _, group := range []struct {
		option  string
		asked   []string
		offered []class
	}{
		{"network", o.Network, networkClasses()},
		{"storage", o.Storage, storageClasses()},
	} {
		for _, name := range group.asked {
			i := slices.IndexFunc(group.offered, func(c class) bool { return c.name == name })
			if i < 0 {
				return nil, fmt.Errorf("choose modules: there is no %s class %q; there are: %s", group.option, name, strings.Join(classNames(group.offered), ", "))
			}
			c := group.offered[i]
			c.name, c.asked = group.option+" class "+c.name, true
			classes = append(classes, c)
			hardware = hardware || name != virtualClass
		}
	}
	if hardware {
		classes = append(classes, hardwareClass())
	}
	for _, c := range classes {
		if err := s.addClass(ctx, c); err != nil {
			return nil, err
		}
	}
	for _, pattern := range o.ExtraModules {
		if err := s.addExtra(ctx, pattern); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *selection) addClass(ctx context.Context, c class) error {
	found := map[string]bool{}
	satisfied := false
	for name, rel := range s.from.files {
		if slices.ContainsFunc(c.dirs, func(dir string) bool { return strings.HasPrefix(rel, dir+"/") }) && !excluded(c.not, name, rel) {
			found[name] = true
		}
	}
	for _, pattern := range c.names {
		names, builtin, err := s.match(pattern)
		if err != nil {
			return err
		}
		if len(names) == 0 && !builtin {
			s.missing[pattern] = true
		}
		satisfied = satisfied || builtin
		for _, name := range names {
			found[name] = true
		}
	}
	if len(found) == 0 && !satisfied && c.asked {
		return fmt.Errorf("choose modules: the %s finds none of its modules in /%s of %s: is the kernel's modules package complete?", c.name, s.from.dir, s.from.tree.dir)
	}
	for _, name := range sortedKeys(found) {
		if err := s.add(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func excluded(not []string, name, rel string) bool {
	return slices.ContainsFunc(not, func(pattern string) bool {
		if strings.Contains(pattern, "/") {
			return strings.HasPrefix(rel, pattern+"/")
		}
		matched, err := path.Match(dashless(pattern), name)
		return err == nil && matched
	})
}

// match finds modules by a pattern: a module name with "*", "?" and "[...]", or, when it holds a slash, a path below
// the release's directory, where ".ko" and the suffix of a compression may be left out. builtin tells of a match that
// is part of the kernel itself.
func (s *selection) match(pattern string) (names []string, builtin bool, err error) {
	compare := func(name, rel string) (bool, error) {
		if strings.Contains(pattern, "/") {
			rel = strings.TrimSuffix(rel, packedSuffix(rel))
			return path.Match(strings.TrimSuffix(strings.TrimSuffix(pattern, packedSuffix(pattern)), ".ko"), strings.TrimSuffix(rel, ".ko"))
		}
		return path.Match(moduleName(pattern), name)
	}
	for name, rel := range s.from.files {
		matched, err := compare(name, rel)
		if err != nil {
			return nil, false, fmt.Errorf("choose modules: pattern %q: %w", pattern, err)
		}
		if matched {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for name, rel := range s.from.builtin {
		if matched, err := compare(name, rel); err == nil && matched {
			return names, true, nil
		}
	}
	return names, false, nil
}

func (s *selection) addExtra(ctx context.Context, pattern string) error {
	names, builtin, err := s.match(pattern)
	if err != nil {
		return err
	}
	if len(names) == 0 && !builtin {
		return fmt.Errorf("choose modules: the extra module %q is neither a module of kernel %s nor built into it", pattern, path.Base(s.from.dir))
	}
	for _, name := range names {
		if err := s.add(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// add chooses a module and what it needs. Its own "depends" and depmod's modules.dep both count: the first is always
// there and true, the second also knows of modules that override others.
func (s *selection) add(ctx context.Context, name string) error {
	if _, ok := s.modules[name]; ok {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("choose modules: %w", err)
	}
	found, data, info, err := s.from.module(name)
	if err != nil {
		return err
	}
	rel := s.from.files[name]
	m := &chosenModule{name: name, rel: strings.TrimSuffix(rel, packedSuffix(rel)), file: found, info: info}
	if packedSuffix(rel) != "" {
		m.data = data
	}
	s.modules[name] = m
	for _, need := range append(slices.Clone(info.depends), s.from.deps[name]...) {
		need = moduleName(need)
		if _, ok := s.from.builtin[need]; ok && s.from.files[need] == "" {
			continue
		}
		if _, ok := s.from.files[need]; !ok {
			return fmt.Errorf("module %s needs %s, which is neither a module of kernel %s nor built into it: install the package that has it in the image", name, need, path.Base(s.from.dir))
		}
		if need == name || slices.Contains(m.needs, need) {
			continue
		}
		m.needs = append(m.needs, need)
		if err := s.add(ctx, need); err != nil {
			return err
		}
	}
	m.softdeps = slices.Clone(info.softdeps)
	if len(info.softdeps) == 0 {
		m.softdeps = slices.Clone(s.from.softdeps[name])
	}
	if with := companions()[name]; with != nil {
		m.softdeps = append(m.softdeps, softdep{post: with})
	}
	return s.addSoft(ctx, m)
}

// addSoft chooses what a module would like to have beside it. A name nobody knows is no error: it is a wish.
func (s *selection) addSoft(ctx context.Context, m *chosenModule) error {
	for _, dep := range m.softdeps {
		for _, name := range append(slices.Clone(dep.pre), dep.post...) {
			provided, _, err := s.from.provide(ctx, name)
			if err != nil {
				return err
			}
			for _, module := range provided {
				if err := s.add(ctx, module); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// names of the chosen modules, sorted.
func (s *selection) names() []string { return sortedKeys(s.modules) }
