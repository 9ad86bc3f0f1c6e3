// Package fcontext knows which SELinux label a file of an image has by the image's own policy, as setfiles and
// matchpathcon find it out: the file_contexts of its policy come in, a path's label goes out.
//
// It labels nothing, and needs neither SELinux in the running kernel nor the image's programs.
package fcontext

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Policy is the part of an SELinux policy that says what files are.
type Policy struct {
	specs []*spec // the last that matches wins
	subs  [][2]string
	dist  [][2]string
}

// spec is one line of file_contexts (file_contexts(5)).
type spec struct {
	expr   string
	exact  bool   // expr is a path: it has no metacharacters
	prefix string // what every path that matches begins with
	kind   fs.FileMode
	any    bool // of all kinds
	label  string

	compiled bool
	re       *regexp.Regexp // nil if Go cannot read it: then it matches nothing
}

const config = "etc/selinux/config"

// Load reads the policy that the image would load. read returns a file of the image, fs.ErrNotExist where there is none. An
// image without a policy gives nil.
func Load(read func(name string) ([]byte, error)) (*Policy, error) {
	data, err := read(config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the image's SELinux policy: %w", err)
	}
	kind := "targeted"
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); ok {
			kind = strings.TrimSpace(v)
		}
	}
	base := path.Join("etc/selinux", path.Base(kind), "contexts/files/file_contexts")
	p := &Policy{}
	for _, f := range []struct {
		suffix string
		parse  func(string) error
	}{{"", p.parse}, {".homedirs", p.parse}, {".local", p.parse}, {".subs", substitutions(&p.subs)}, {".subs_dist", substitutions(&p.dist)}} {
		data, err := read(base + f.suffix)
		if errors.Is(err, fs.ErrNotExist) {
			if f.suffix == "" {
				return nil, nil
			}
			continue
		}
		if err == nil {
			err = f.parse(string(data))
		}
		if err != nil {
			return nil, fmt.Errorf("read the image's SELinux policy: /%s%s: %w", base, f.suffix, err)
		}
	}
	p.sort()
	return p, nil
}

// parse adds the lines of one file: a regular expression, a file's kind if it matters, and a label.
func (p *Policy) parse(text string) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		s := &spec{expr: f[0], any: true, label: f[len(f)-1]}
		switch len(f) {
		case 2:
		case 3:
			var ok bool
			if s.kind, ok = kindOf(f[1]); !ok {
				return fmt.Errorf("line %d: %q is no kind of file", n, f[1])
			}
			s.any = false
		default:
			return fmt.Errorf("line %d: it has %d words and not 2 or 3", n, len(f))
		}
		s.prefix, s.exact = literal(s.expr)
		p.specs = append(p.specs, s)
	}
	return nil
}

func kindOf(word string) (fs.FileMode, bool) {
	switch word {
	case "--":
		return 0, true
	case "-d":
		return fs.ModeDir, true
	case "-l":
		return fs.ModeSymlink, true
	case "-c":
		return fs.ModeDevice | fs.ModeCharDevice, true
	case "-b":
		return fs.ModeDevice, true
	case "-p":
		return fs.ModeNamedPipe, true
	case "-s":
		return fs.ModeSocket, true
	}
	return 0, false
}

// literal returns what an expression begins with before its first metacharacter, and whether that is all of it. As
// libselinux's stems do, it lets whole expressions be passed over without compiling them.
func literal(expr string) (prefix string, exact bool) {
	var b []byte
	if strings.Contains(topLevel(expr), "|") {
		return "", false // what comes first is only one of two
	}
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; c {
		case '\\':
			i++
			if i == len(expr) || isAlnum(expr[i]) { // a class such as \d
				return string(b), false
			}
			b = append(b, expr[i])
		case '?', '*', '{': // the character before may be missing
			return string(b[:max(len(b)-1, 0)]), false
		case '.', '^', '$', '+', '[', '(':
			return string(b), false
		default:
			b = append(b, c)
		}
	}
	return string(b), true
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// topLevel is an expression without what is in round or square brackets.
func topLevel(expr string) string {
	var b strings.Builder
	depth, set := 0, false
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; {
		case c == '\\':
			i++
		case set:
			set = c != ']'
		case c == '[':
			set = true
			if strings.HasPrefix(expr[i+1:], "^]") {
				i += 2
			} else if strings.HasPrefix(expr[i+1:], "]") {
				i++
			}
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// sort puts the expressions that are plain paths last, and so in front, as libselinux does; all else keeps its order.
func (p *Policy) sort() {
	var exprs, paths []*spec
	for _, s := range p.specs {
		if s.exact {
			paths = append(paths, s)
		} else {
			exprs = append(exprs, s)
		}
	}
	p.specs = append(exprs, paths...)
}

// substitutions reads lines of a path and the path whose labels it shares.
func substitutions(to *[][2]string) func(string) error {
	return func(text string) error {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) == 2 && !strings.HasPrefix(f[0], "#") {
				*to = append(*to, [2]string{f[0], f[1]})
			}
		}
		return nil
	}
}

// substitute replaces the beginning of a path as the first entry says that fits.
func substitute(list [][2]string, name string) string {
	for _, s := range list {
		if rest, ok := strings.CutPrefix(name, s[0]); ok && (rest == "" || rest[0] == '/') {
			if s[1] == "/" && rest != "" {
				return rest
			}
			return s[1] + rest
		}
	}
	return name
}

// Label returns the label of a path of the image; ok is false where the policy says that there is to be none.
func (p *Policy) Label(name string, mode fs.FileMode) (label string, ok bool) {
	name = substitute(p.dist, substitute(p.subs, path.Clean("/"+name)))
	kind := mode.Type()
	for i := len(p.specs) - 1; i >= 0; i-- {
		s := p.specs[i]
		if (s.any || s.kind == kind) && s.matches(name) {
			return s.label, s.label != "<<none>>"
		}
	}
	return "", false
}

func (s *spec) matches(name string) bool {
	if s.exact {
		return name == s.prefix
	}
	if !strings.HasPrefix(name, s.prefix) {
		return false
	}
	if !s.compiled {
		s.compiled = true
		s.re, _ = regexp.Compile(`^(?s:` + s.expr + `)$`) // see re
	}
	return s.re != nil && s.re.MatchString(name)
}
