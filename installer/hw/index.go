package hw

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Index is what depmod wrote about the modules of one kernel release.
type Index struct {
	dir     string              // /usr/lib/modules/RELEASE
	files   map[string]string   // module name -> path below dir
	deps    map[string][]string // module name -> modules it needs, in the order of modules.dep
	builtin map[string]bool     // names of modules that are part of the kernel
	pre     map[string][]string // soft dependencies, loaded before if they can be
	post    map[string][]string // and after
	exact   map[string][]string // aliases without wildcards -> modules
	globs   map[string][]alias  // aliases with wildcards, by the bus they start with
}

type alias struct{ pattern, module string }

// OpenIndex reads the index in a directory such as /lib/modules/6.1.0. modules.dep must be there; without the other
// files there are no aliases, soft dependencies or built-in modules.
func OpenIndex(dir string) (*Index, error) {
	x := &Index{dir: dir}
	data := map[string][]byte{}
	for _, name := range []string{"modules.dep", "modules.alias", "modules.softdep", "modules.builtin", "modules.builtin.modinfo"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && (name == "modules.dep" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("read the index of kernel modules: %w", err)
		}
		data[name] = b
	}
	x.files, x.deps = parseDep(data["modules.dep"])
	x.exact, x.globs = parseAlias(data["modules.alias"])
	x.pre, x.post = parseSoftdep(data["modules.softdep"])
	x.builtin = parseBuiltin(data["modules.builtin"])
	for a := range parseBuiltinAliases(data["modules.builtin.modinfo"]) {
		// An alias such as fs-xfs of a module that is built in: nothing to load, and nothing missing.
		x.builtin[a] = true
	}
	return x, nil
}

// Name is how the kernel calls the module in a file: no directory, no .ko, no compression suffix, "_" for "-".
func Name(file string) string {
	base := path.Base(file)
	for _, suffix := range []string{".xz", ".zst", ".gz"} {
		base = strings.TrimSuffix(base, suffix)
	}
	return strings.ReplaceAll(strings.TrimSuffix(base, ".ko"), "-", "_")
}

// eachLine calls f with every line that is neither blank nor a comment. Lines longer than 1 MiB end the reading.
func eachLine(data []byte, f func(line string)) {
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			f(line)
		}
	}
}

// parseDep reads modules.dep: "kernel/a.ko: kernel/b.ko kernel/c.ko", where all that a needs, directly or not, follows,
// and what must be loaded first stands last (depmod(8)).
func parseDep(data []byte) (files map[string]string, deps map[string][]string) {
	files, deps = map[string]string{}, map[string][]string{}
	eachLine(data, func(line string) {
		file, rest, ok := strings.Cut(line, ":")
		if !ok || !filepath.IsLocal(file) {
			return
		}
		name := Name(file)
		files[name] = file
		var needs []string
		for _, f := range strings.Fields(rest) {
			needs = append(needs, Name(f))
		}
		deps[name] = needs
	})
	return files, deps
}

// parseAlias reads "alias PATTERN MODULE" lines. Patterns may hold blanks, module names not.
func parseAlias(data []byte) (exact map[string][]string, globs map[string][]alias) {
	exact, globs = map[string][]string{}, map[string][]alias{}
	eachLine(data, func(line string) {
		rest, ok := strings.CutPrefix(line, "alias ")
		cut := strings.LastIndexAny(rest, " \t")
		if !ok || cut < 0 {
			return
		}
		pattern, module := strings.TrimSpace(rest[:cut]), Name(rest[cut+1:])
		if strings.ContainsAny(pattern, `*?[\`) {
			b := bus(pattern)
			globs[b] = append(globs[b], alias{pattern, module})
		} else {
			key := strings.ReplaceAll(pattern, "-", "_")
			exact[key] = append(exact[key], module)
		}
	})
	return exact, globs
}

// bus is what a modalias starts with, up to the colon: pci, usb, acpi, dmi ... Patterns whose bus has a wildcard are
// kept under "".
func bus(s string) string {
	b, _, ok := strings.Cut(s, ":")
	if !ok || strings.ContainsAny(b, `*?[\`) {
		return ""
	}
	return b
}

// parseSoftdep reads "softdep MODULE pre: A B post: C" lines.
func parseSoftdep(data []byte) (pre, post map[string][]string) {
	pre, post = map[string][]string{}, map[string][]string{}
	eachLine(data, func(line string) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "softdep" {
			return
		}
		name := Name(f[1])
		var into map[string][]string
		for _, word := range f[2:] {
			switch word {
			case "pre:":
				into = pre
			case "post:":
				into = post
			default:
				if into != nil {
					into[name] = append(into[name], Name(word))
				}
			}
		}
	})
	return pre, post
}

func parseBuiltin(data []byte) map[string]bool {
	found := map[string]bool{}
	eachLine(data, func(line string) { found[Name(line)] = true })
	return found
}

// parseBuiltinAliases reads the aliases in modules.builtin.modinfo: strings "module.key=value", each ended by a NUL.
func parseBuiltinAliases(data []byte) map[string]bool {
	found := map[string]bool{}
	for _, s := range strings.Split(string(data), "\x00") {
		key, value, ok := strings.Cut(s, "=")
		if ok && strings.HasSuffix(key, ".alias") && !strings.ContainsAny(value, "*?[:") {
			found[strings.ReplaceAll(value, "-", "_")] = true
		}
	}
	return found
}

// Resolve returns the modules that a name or modalias stands for. known is false if nobody knows it: it is neither a
// module, nor an alias, nor built in.
func (x *Index) Resolve(nameOrAlias string) (modules []string, known bool) {
	name := strings.ReplaceAll(nameOrAlias, "-", "_")
	if _, ok := x.files[name]; ok {
		return []string{name}, true
	}
	if x.builtin[name] {
		return nil, true
	}
	modules = append(modules, x.exact[name]...)
	for _, group := range []string{bus(nameOrAlias), ""} {
		for _, a := range x.globs[group] {
			if match(a.pattern, nameOrAlias) {
				modules = append(modules, a.module)
			}
		}
		if group == "" {
			break
		}
	}
	return dedupe(modules), len(modules) > 0
}

func dedupe(names []string) []string {
	seen := map[string]bool{}
	out := names[:0]
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
