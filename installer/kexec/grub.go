package kexec

import (
	"slices"
	"strconv"
	"strings"
)

// item is a menu entry or a submenu of GRUB's.
type item struct {
	title, id string
	candidate candidate
	children  []*item
}

// parseGRUB reads grub.cfg as far as it says what there is to start. Of the conditions only those are evaluated that decide what
// starts, in what grub-mkconfig and EL's GRUB write; of all others both sides are read.
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
		if words = p.conditions(words); len(words) == 0 {
			continue
		}
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
	open  []condition
}

// condition is one that is open. What is known of it can be skipped.
type condition struct{ known, skip bool }

// skips reports whether what stands here is not done.
func (p *grubParser) skips() bool {
	return slices.ContainsFunc(p.open, func(c condition) bool { return c.skip })
}

// conditions takes the words of if, then, else and fi away from a statement and returns what is left of it.
func (p *grubParser) conditions(words []string) []string {
	var inner *condition
	if n := len(p.open); n > 0 {
		inner = &p.open[n-1]
	}
	switch words[0] {
	case "if":
		holds, known := p.holds(words[1:])
		p.open = append(p.open, condition{known: known, skip: known && !holds})
		return nil
	case "elif":
		if inner != nil {
			*inner = condition{}
		}
		return nil
	case "else":
		if inner != nil {
			inner.skip = inner.known && !inner.skip
		}
		return words[1:]
	case "fi":
		if inner != nil {
			p.open = p.open[:len(p.open)-1]
		}
		return words[1:]
	case "then":
		return words[1:]
	}
	return words
}

// holds evaluates [ A = B ] and [ A ], of what starts only.
func (p *grubParser) holds(words []string) (holds, known bool) {
	isOurs := func(w string) bool {
		for _, name := range []string{"default", "next_entry"} {
			if strings.HasSuffix(w, "$"+name) || strings.HasSuffix(w, "${"+name+"}") {
				return true
			}
		}
		return false
	}
	if !slices.ContainsFunc(words, isOurs) {
		return false, false
	}
	value := func(w string) string {
		before, _, _ := strings.Cut(w, "$")
		switch {
		case !isOurs(w):
			return w
		case strings.Contains(w, "default"):
			return before + p.start
		}
		return before // next_entry is empty: it was meant for one boot
	}
	switch {
	case len(words) == 5 && words[0] == "[" && words[2] == "=" && words[4] == "]":
		return value(words[1]) == value(words[3]), true
	case len(words) == 3 && words[0] == "[" && words[2] == "]":
		return value(words[1]) != "", true
	}
	return false, false
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
	if key == "default" && top && value != "" && !p.skips() {
		p.start = value
	}
	if len(p.env) < 1024 && len(value) <= maxValue && (value != "" || p.env[key] == "") {
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
