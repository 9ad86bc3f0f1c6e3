package kexec

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// parseEnv reads GRUB's environment block.
func parseEnv(block []byte) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(string(block)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if ok && key != "" && !strings.HasPrefix(key, "#") {
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

// item is a menu entry or a submenu of GRUB's.
type item struct {
	title, id string
	candidate candidate
	children  []*item
}

// parseGRUB reads grub.cfg as far as it says what there is to start. Conditions are not evaluated: of several defaults the last
// that is not empty holds, which is what grub-mkconfig's files come to.
func parseGRUB(text string, env map[string]string) menu {
	p := grubParser{env: map[string]string{}}
	for k, v := range env {
		if k != "next_entry" { // meant for one boot
			p.env[k] = v
		}
	}
	top := &item{}
	stack := []*item{top}
	for _, words := range grubStatements(text) {
		if len(stack) == 0 {
			break
		}
		at := stack[len(stack)-1]
		switch words[0] {
		case "}":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
		case "menuentry", "submenu":
			it := p.item(words)
			at.children = append(at.children, it)
			if words[len(words)-1] == "{" {
				stack = append(stack, it)
			}
		default:
			if words[len(words)-1] == "{" {
				stack = append(stack, &item{}) // a function's body, which nobody sees
				continue
			}
			p.statement(at, words, len(stack) == 1)
		}
	}
	m := menu{start: -1}
	wanted := find(top.children, p.start)
	flatten(top.children, func(it *item) {
		if it == wanted {
			m.start = len(m.list)
		}
		if it.candidate.kernel != "" {
			m.list = append(m.list, it.candidate)
		} else if m.start == len(m.list) && len(it.children) == 0 {
			m.start = -1 // what starts is no Linux kernel
		}
	})
	if m.start >= len(m.list) {
		m.start = -1
	}
	return m
}

type grubParser struct {
	env   map[string]string
	start string
}

// item reads menuentry's and submenu's words: a title and options.
func (p *grubParser) item(words []string) *item {
	it := &item{}
	args := words[1:]
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "{":
		case (a == "--id" || a == "$menuentry_id_option" || a == "${menuentry_id_option}") && i+1 < len(args):
			i++
			it.id = args[i]
		case strings.HasPrefix(a, "--id="):
			it.id = strings.TrimPrefix(a, "--id=")
		case strings.HasPrefix(a, "--") && !strings.Contains(a, "=") && a != "--unrestricted" && i+1 < len(args):
			i++ // --class CLASS and the like
		case strings.HasPrefix(a, "-"):
		case it.title == "":
			it.title = expand(a, p.env)
		}
	}
	it.candidate.title, it.candidate.id = it.title, it.id
	return it
}

func (p *grubParser) statement(at *item, words []string, top bool) {
	switch words[0] {
	case "set":
		if len(words) > 1 {
			p.set(words[1], top)
		}
	case "linux", "linux16", "linuxefi", "linux_efi":
		if len(words) > 1 {
			at.candidate.kernel = p.file(words[1])
			args := slices.Clone(words[2:])
			for i := range args {
				args[i] = expand(args[i], p.env)
			}
			at.candidate.args = kernelArgs(args)
		}
	case "initrd", "initrd16", "initrdefi", "initrd_efi":
		at.candidate.initrds = nil
		for _, w := range words[1:] {
			if f := p.file(w); f != "" {
				at.candidate.initrds = append(at.candidate.initrds, f)
			}
		}
	default:
		if strings.Contains(words[0], "=") {
			p.set(words[0], top)
		}
	}
}

func (p *grubParser) set(assignment string, top bool) {
	key, value, ok := strings.Cut(assignment, "=")
	if !ok {
		return
	}
	value = expand(value, p.env)
	if key == "default" && top && value != "" {
		p.start = value
	}
	if len(p.env) < 1024 && (value != "" || p.env[key] == "") {
		p.env[key] = value
	}
}

// file drops the device before a path, as in ($root)/vmlinuz.
func (p *grubParser) file(word string) string {
	if strings.HasPrefix(word, "(") {
		if _, rest, ok := strings.Cut(word, ")"); ok {
			word = rest
		}
	}
	return expand(word, p.env)
}

// find is the item that GRUB's variable default names: a number, an identifier or a title, or several with > between them for
// submenus. Nothing named is the first.
func find(list []*item, name string) *item {
	if len(list) == 0 {
		return nil
	}
	part, rest, deeper := strings.Cut(name, ">")
	var it *item
	if n, err := strconv.Atoi(strings.TrimSpace(part)); err == nil && n >= 0 && n < len(list) {
		it = list[n]
	}
	for _, i := range list {
		if it == nil && part != "" && (i.id == part || i.title == part) {
			it = i
		}
	}
	if it == nil {
		it = list[0]
	}
	if len(it.children) > 0 {
		if !deeper {
			rest = ""
		}
		return find(it.children, rest)
	}
	return it
}

func flatten(list []*item, do func(*item)) {
	for _, i := range list {
		do(i)
		flatten(i.children, do)
	}
}

// grubStatements splits a script into statements, and these into words (GRUB manual, 6.1): quotes are taken away, and what they
// keep from being replaced as a variable is lost, which only matters for names with dollar signs. None is empty.
func grubStatements(text string) [][]string {
	var out [][]string
	var words []string
	var word strings.Builder
	inWord := false
	flush := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	end := func() {
		flush()
		if len(words) > 0 {
			out = append(out, words)
		}
		words = nil
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			if text[i] != '\n' {
				word.WriteByte(text[i])
				inWord = true
			}
		case c == '\'':
			inWord = true
			for i++; i < len(text) && text[i] != '\''; i++ {
				word.WriteByte(text[i])
			}
		case c == '"':
			inWord = true
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' && i+1 < len(text) && strings.IndexByte("\"\\$`", text[i+1]) >= 0 {
					i++
				}
				word.WriteByte(text[i])
			}
		case c == '#' && !inWord:
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
		case c == '\n' || c == ';':
			end()
		case c == ' ' || c == '\t' || c == '\r':
			flush()
		case c == '{' && !inWord:
			words = append(words, "{")
			end()
		case c == '}' && !inWord:
			end()
			out = append(out, []string{"}"})
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	end()
	return out
}
