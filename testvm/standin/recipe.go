package standin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// recipe says which Debian packages become which RPMs.
type recipe struct {
	// Drop are Debian packages that are never taken and on which nothing depends in the result.
	Drop map[string]bool
	// Rename gives the EL name of packages that come in only as dependencies.
	Rename map[string]string
	// Omit are globs of files that no RPM gets.
	Omit     []string
	Packages []*pkg
}

// pkg is one RPM of the recipe.
type pkg struct {
	Name, Summary string
	// Debs are the packages that it is made of; Via are those found as a dependency of another one.
	Debs []string
	Via  []via
	// Split names the RPM from which files that match Take are taken.
	Split string
	Take  []string
	// Optional packages are left out when the archive has no such Debian package.
	Optional bool
	// Locale is a locale that is compiled into the package, e.g. en_US.
	Locale   string
	Provides []string
	Requires []string
	Users    []user
	Groups   []group
	Moves    []move
	Links    []move
	Omit     []string
	Config   []string
	Dirs     []attr
	Attrs    []attr
	Caps     []capability
	// Copies are moves that leave the original where it is.
	Copies []move
	// Bundles join the files that match From into one file at To.
	Bundles []move
}

type via struct{ Deb, Glob string }

// user is a system account that exists before the package's files do.
type user struct {
	Name, Home, Comment string
}

type group struct{ Name string }

// move is a path or glob and where it goes; for links, the target and the link.
type move struct{ From, To string }

type attr struct {
	Mode         uint32
	Owner, Group string
	Path         string
}

type capability struct{ Caps, Path string }

// parseRecipe reads recipe.txt. Every fault is reported, with its line.
func parseRecipe(r io.Reader) (*recipe, error) {
	rc := &recipe{Drop: map[string]bool{}, Rename: map[string]string{}}
	var errs []error
	var p *pkg
	seen := map[string]bool{}
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		var err error
		switch w[0] {
		case "drop":
			for _, d := range w[1:] {
				rc.Drop[d] = true
			}
		case "rename":
			if len(w) != 3 {
				err = errors.New("rename wants a Debian and an EL name")
				break
			}
			rc.Rename[w[1]] = w[2]
		case "omit-everywhere":
			rc.Omit = append(rc.Omit, w[1:]...)
			err = checkGlobs(w[1:])
		case "package":
			if len(w) < 2 || seen[w[1]] {
				err = errors.New("package wants a name that is not yet taken")
				break
			}
			p = &pkg{Name: w[1], Summary: strings.Join(w[2:], " ")}
			seen[p.Name] = true
			rc.Packages = append(rc.Packages, p)
		default:
			if p == nil {
				err = errors.New("it stands before the first package")
				break
			}
			err = p.set(w[0], w[1:])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("recipe line %d, %q: %w", n, strings.TrimSpace(line), err))
		}
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, fmt.Errorf("read the recipe: %w", err))
	}
	for _, p := range rc.Packages {
		if p.Split != "" && !seen[p.Split] {
			errs = append(errs, fmt.Errorf("recipe package %s: split from %s, which is not in the recipe", p.Name, p.Split))
		}
	}
	return rc, errors.Join(errs...)
}

// set takes one line of a package's section.
func (p *pkg) set(key string, w []string) error {
	want := func(n int) error {
		if len(w) != n {
			return fmt.Errorf("%s wants %d words, got %d", key, n, len(w))
		}
		return nil
	}
	pair := func(to *[]move) error {
		if err := want(2); err != nil {
			return err
		}
		*to = append(*to, move{w[0], w[1]})
		return checkGlobs(w[:1])
	}
	switch key {
	case "deb":
		p.Debs = append(p.Debs, w...)
	case "via":
		if err := want(2); err != nil {
			return err
		}
		p.Via = append(p.Via, via{w[0], w[1]})
		return checkGlobs(w[1:])
	case "split":
		if err := want(1); err != nil {
			return err
		}
		p.Split = w[0]
	case "take":
		p.Take = append(p.Take, w...)
		return checkGlobs(w)
	case "optional":
		p.Optional = true
		return want(0)
	case "locale":
		if err := want(1); err != nil {
			return err
		}
		p.Locale = w[0]
	case "provide":
		p.Provides = append(p.Provides, w...)
	case "require":
		p.Requires = append(p.Requires, w...)
	case "user":
		if len(w) < 2 {
			return errors.New("user wants a name, a home and a comment")
		}
		p.Users = append(p.Users, user{w[0], w[1], strings.Join(w[2:], " ")})
	case "group":
		if err := want(1); err != nil {
			return err
		}
		p.Groups = append(p.Groups, group{w[0]})
	case "move":
		return pair(&p.Moves)
	case "copy":
		return pair(&p.Copies)
	case "link":
		return pair(&p.Links)
	case "bundle":
		return pair(&p.Bundles)
	case "omit":
		p.Omit = append(p.Omit, w...)
		return checkGlobs(w)
	case "config":
		p.Config = append(p.Config, w...)
		return checkGlobs(w)
	case "dir", "attr":
		if len(w) < 4 {
			return fmt.Errorf("%s wants a mode, an owner, a group and paths", key)
		}
		mode, err := strconv.ParseUint(w[0], 8, 12)
		if err != nil {
			return fmt.Errorf("%q is no mode", w[0])
		}
		for _, f := range w[3:] {
			if !path.IsAbs(f) {
				return fmt.Errorf("%q is not an absolute path", f)
			}
			a := attr{uint32(mode), w[1], w[2], f}
			if key == "dir" {
				p.Dirs = append(p.Dirs, a)
			} else {
				p.Attrs = append(p.Attrs, a)
			}
		}
	case "caps":
		if err := want(2); err != nil {
			return err
		}
		p.Caps = append(p.Caps, capability{w[0], w[1]})
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return nil
}

func checkGlobs(globs []string) error {
	for _, g := range globs {
		if _, err := path.Match(g, ""); err != nil {
			return fmt.Errorf("%q is no glob: %w", g, err)
		}
	}
	return nil
}

// matches says whether a path matches one of the globs. A glob's elements are matched one by one as path.Match does; a
// last element ** stands for the directory itself and everything below.
func matches(name string, globs []string) bool {
	for _, g := range globs {
		if match(g, name) {
			return true
		}
	}
	return false
}

func match(glob, name string) bool {
	if dir, deep := strings.CutSuffix(glob, "/**"); deep {
		glob, name = dir, prefix(name, strings.Count(dir, "/"))
	}
	ok, err := path.Match(glob, name)
	return err == nil && ok
}

// prefix gives the part of an absolute path that has n elements.
func prefix(name string, n int) string {
	for i := range len(name) {
		if name[i] == '/' {
			if n--; n < 0 {
				return name[:i]
			}
		}
	}
	return name
}
