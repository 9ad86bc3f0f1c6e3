package initramfs

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// store puts the chosen modules, uncompressed, and the indexes that the installer loads them by into the archive. The
// indexes have depmod's text forms (modules.dep(5)); they speak of the chosen modules only.
func (s *selection) store(a *archive) error {
	dir := "usr/lib/modules/" + path.Base(s.from.dir)
	for _, name := range s.names() {
		m := s.modules[name]
		var err error
		if m.data != nil {
			err = a.addUnpacked(sectionModules, path.Join(dir, m.rel), s.from.tree, m.file, m.data)
		} else {
			err = a.addFile(sectionModules, path.Join(dir, m.rel), 0o644, s.from.tree, m.file)
		}
		if err != nil {
			return err
		}
	}
	for _, index := range []struct {
		name string
		text string
	}{
		{"modules.dep", s.depText()},
		{"modules.alias", s.aliasText()},
		{"modules.softdep", s.softdepText()},
		{"modules.order", s.orderText()},
		{"modules.builtin", s.builtinText()},
	} {
		err := a.addBytes(sectionModules, path.Join(dir, index.name), 0o644, []byte(index.text), "the index of the chosen modules")
		if err != nil {
			return err
		}
	}
	return nil
}

// depText is modules.dep: after each module all that it needs, so that loading from the last to the first works.
func (s *selection) depText() string {
	var text strings.Builder
	for _, name := range s.names() {
		fmt.Fprintf(&text, "%s:", s.modules[name].rel)
		for _, need := range s.closure(name) {
			text.WriteString(" " + s.modules[need].rel)
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// closure is everything that a module needs, directly or not, each one before what it needs itself.
func (s *selection) closure(name string) []string {
	var order []string
	seen := map[string]bool{name: true}
	var visit func(string)
	visit = func(module string) {
		for _, need := range s.modules[module].needs {
			if !seen[need] {
				seen[need] = true
				visit(need)
				order = append(order, need)
			}
		}
	}
	visit(name)
	slices.Reverse(order)
	return order
}

func (s *selection) aliasText() string {
	var text strings.Builder
	text.WriteString("# Aliases extracted from modules themselves.\n")
	for _, name := range s.names() {
		for _, pattern := range s.modules[name].info.aliases {
			fmt.Fprintf(&text, "alias %s %s\n", pattern, name)
		}
	}
	return text.String()
}

func (s *selection) softdepText() string {
	var text strings.Builder
	text.WriteString("# Soft dependencies extracted from modules themselves.\n")
	for _, name := range s.names() {
		for _, dep := range s.modules[name].softdeps {
			fmt.Fprintf(&text, "softdep %s", name)
			if len(dep.pre) > 0 {
				text.WriteString(" pre: " + strings.Join(dep.pre, " "))
			}
			if len(dep.post) > 0 {
				text.WriteString(" post: " + strings.Join(dep.post, " "))
			}
			text.WriteByte('\n')
		}
	}
	return text.String()
}

// orderText is modules.order, which decides between modules that serve the same alias: the kernel's own order, then
// the rest by name.
func (s *selection) orderText() string {
	var ordered []string
	done := map[string]bool{}
	put := func(name string) {
		if m, ok := s.modules[name]; ok && !done[name] {
			done[name] = true
			ordered = append(ordered, m.rel+"\n")
		}
	}
	for _, rel := range s.from.order {
		put(moduleName(rel))
	}
	for _, name := range s.names() {
		put(name)
	}
	return strings.Join(ordered, "")
}

func (s *selection) builtinText() string {
	var built []string
	for _, rel := range s.from.builtin {
		built = append(built, rel+"\n")
	}
	slices.Sort(built)
	return strings.Join(built, "")
}
