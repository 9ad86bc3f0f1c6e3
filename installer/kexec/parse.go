package kexec

import (
	"path"
	"slices"
	"strings"
)

// parseEnv reads GRUB's environment block.
func parseEnv(block []byte) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(string(block)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if ok && key != "" && len(value) <= maxValue && !strings.HasPrefix(key, "#") {
			env[key] = strings.ReplaceAll(value, `\\`, `\`)
		}
	}
	return env
}

// parseEntries reads Boot Loader Specification entries, by their names without .conf; the newest comes first.
func parseEntries(files map[string][]byte, env map[string]string) []candidate {
	var list []candidate
	for id, text := range files {
		c := candidate{id: id}
		var args []string
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), "\t", " "), " ")
			value = strings.TrimSpace(value)
			switch key {
			case "title":
				c.title = value
			case "version":
				c.version = value
			case "linux":
				c.kernel = value
			case "initrd":
				c.initrds = append(c.initrds, strings.Fields(expand(value, env))...)
			case "options":
				args = append(args, expand(value, env))
			}
		}
		c.args = strings.Join(args, " ")
		if c.kernel != "" {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b candidate) int {
		if n := compareVersions(b.version, a.version); n != 0 {
			return n
		}
		return compareVersions(b.id, a.id)
	})
	return list
}

// expand replaces $name and ${name}; an unknown name becomes nothing.
func expand(s string, env map[string]string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, "$")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name := after
		if inner, rest, ok := strings.Cut(strings.TrimPrefix(after, "{"), "}"); ok && strings.HasPrefix(after, "{") {
			name, s = inner, rest
		} else {
			n := strings.IndexFunc(after, func(r rune) bool {
				return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
			})
			if n < 0 {
				n = len(after)
			}
			name, s = after[:n], after[n:]
		}
		b.WriteString(env[name])
	}
}

// kernelArgs leaves out what boot loaders add for themselves.
func kernelArgs(words []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(words), func(a string) bool {
		return a == "" || strings.HasPrefix(a, "BOOT_IMAGE=") || strings.HasPrefix(a, "initrd=")
	}), " ")
}

// parseExtlinux reads extlinux.conf (Syslinux's doc/syslinux.txt). dir is where relative paths begin.
func parseExtlinux(text, dir string) menu {
	m := menu{start: -1}
	wanted, chosen := "", -1
	var appendAll string
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), "\t", " "), " ")
		value = strings.TrimSpace(value)
		var c *candidate
		if len(m.list) > 0 {
			c = &m.list[len(m.list)-1]
		}
		switch key = strings.ToLower(key); {
		case key == "default":
			wanted = value
		case key == "label":
			m.list = append(m.list, candidate{id: value, title: value, args: appendAll})
		case key == "append" && c == nil:
			appendAll = value
		case c == nil:
		case key == "menu":
			word, rest, _ := strings.Cut(value, " ")
			switch strings.ToLower(word) {
			case "label":
				c.title = strings.TrimSpace(rest)
			case "default":
				chosen = len(m.list) - 1
			}
		case key == "linux" || key == "kernel":
			if ext := strings.ToLower(path.Ext(value)); ext != ".c32" && ext != ".0" && ext != ".bin" && ext != ".img" {
				c.kernel = below(dir, value)
			}
		case key == "initrd":
			for _, i := range strings.Split(value, ",") {
				c.initrds = append(c.initrds, below(dir, i))
			}
		case key == "append":
			if value == "-" {
				value = ""
			}
			c.args = value
		}
	}
	for i := range m.list {
		c := &m.list[i]
		words := strings.Fields(c.args)
		for _, w := range words {
			if v, ok := strings.CutPrefix(w, "initrd="); ok && len(c.initrds) == 0 {
				for _, f := range strings.Split(v, ",") {
					c.initrds = append(c.initrds, below(dir, f))
				}
			}
		}
		c.args = kernelArgs(words)
		if wanted != "" && c.id == wanted {
			m.start = i
		}
	}
	if chosen >= 0 {
		m.start = chosen
	}
	if m.start < 0 && wanted == "" && len(m.list) > 0 {
		m.start = 0
	}
	if m.start >= 0 && m.list[m.start].kernel == "" {
		m.start = -1
	}
	return m
}

func below(dir, name string) string {
	if name = strings.TrimSpace(name); path.IsAbs(name) {
		return name
	}
	return path.Join(dir, name)
}
