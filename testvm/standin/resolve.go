package standin

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// unit is one RPM to be made: a package of the recipe, or a Debian package that came in as a dependency.
type unit struct {
	*pkg
	From []*deb
	// Needs are the names of the RPMs that it requires.
	Needs []string
}

// version is the version of the first Debian package, or that of the stand-in for what is wholly ours.
func (u *unit) version() (evr, error) {
	if len(u.From) == 0 {
		return evr{Version: "9", Release: fmt.Sprintf("%d", formatVersion)}, nil
	}
	return translateVersion(u.From[0].Version)
}

// resolution is the closure of a recipe over an index.
type resolution struct {
	Units []*unit
	// Debs are all Debian packages that are needed, by name.
	Debs []*deb
}

// resolve closes the recipe over the dependencies of what it names. A dependency is satisfied by what is already
// in the set, else by the first alternative that the archive has and the recipe does not drop.
func resolve(rc *recipe, index map[string]*deb) (*resolution, error) {
	providers := map[string][]string{}
	for _, d := range index {
		for _, v := range d.Provides {
			providers[v] = append(providers[v], d.Name)
		}
	}
	for _, p := range providers {
		slices.Sort(p)
	}
	units, owner, err := seeds(rc, index)
	if err != nil {
		return nil, err
	}

	set := map[string]bool{}
	var queue []string
	add := func(name string) {
		if !set[name] {
			set[name] = true
			queue = append(queue, name)
		}
	}
	for _, u := range units {
		for _, d := range u.From {
			add(d.Name)
		}
	}
	satisfier := func(group []string) (string, bool) {
		for _, name := range group {
			if set[name] {
				return name, true
			}
			for _, p := range providers[name] {
				if set[p] {
					return p, true
				}
			}
		}
		return "", false
	}
	var errs []error
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		for _, group := range index[name].Depends {
			if _, ok := satisfier(group); ok || anyDropped(rc, group) {
				continue
			}
			choice := choose(rc, index, providers, group)
			if choice == "" {
				errs = append(errs, fmt.Errorf("%s depends on %s, which the archive does not have; refresh the host's package lists (apt-get update)",
					name, strings.Join(group, " or ")))
				continue
			}
			add(choice)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	res := &resolution{Units: units}
	for _, name := range names {
		res.Debs = append(res.Debs, index[name])
		if owner[name] != nil {
			continue
		}
		el := name
		if r := rc.Rename[name]; r != "" {
			el = r
		}
		// Several libraries may share one EL name, as they do in EL.
		i := slices.IndexFunc(res.Units, func(u *unit) bool { return u.Name == el })
		if i < 0 {
			i = len(res.Units)
			res.Units = append(res.Units, &unit{pkg: &pkg{Name: el}})
		}
		res.Units[i].From = append(res.Units[i].From, index[name])
		owner[name] = res.Units[i]
	}
	for _, u := range res.Units {
		u.Needs = needs(u, satisfier, owner)
	}
	return res, nil
}

// seeds makes the units that the recipe names; the second result maps a Debian package to its unit.
func seeds(rc *recipe, index map[string]*deb) ([]*unit, map[string]*unit, error) {
	var units []*unit
	var errs []error
	owner := map[string]*unit{}
	for _, p := range rc.Packages {
		u := &unit{pkg: p}
		names := slices.Clone(p.Debs)
		for _, v := range p.Via {
			name, err := follow(index, v)
			if err != nil {
				errs = append(errs, fmt.Errorf("package %s of the recipe: %w", p.Name, err))
				continue
			}
			names = append(names, name)
		}
		missing := slices.ContainsFunc(names, func(n string) bool { return index[n] == nil })
		if missing && p.Optional {
			continue
		}
		for _, name := range names {
			switch {
			case index[name] == nil:
				errs = append(errs, fmt.Errorf("the archive has no package %s for %s; refresh the host's package lists (apt-get update)", name, p.Name))
				continue
			case owner[name] != nil:
				errs = append(errs, fmt.Errorf("the recipe puts %s into both %s and %s", name, owner[name].Name, p.Name))
				continue
			}
			owner[name] = u
			u.From = append(u.From, index[name])
		}
		units = append(units, u)
	}
	return units, owner, errors.Join(errs...)
}

// follow finds the dependency of a metapackage that matches a glob.
func follow(index map[string]*deb, v via) (string, error) {
	meta := index[v.Deb]
	if meta == nil {
		return "", fmt.Errorf("the archive has no package %s; refresh the host's package lists (apt-get update)", v.Deb)
	}
	for _, group := range meta.Depends {
		for _, name := range group {
			if ok, err := path.Match(v.Glob, name); err == nil && ok {
				return name, nil
			}
		}
	}
	return "", fmt.Errorf("%s depends on nothing that matches %s", v.Deb, v.Glob)
}

func anyDropped(rc *recipe, group []string) bool {
	return slices.ContainsFunc(group, func(n string) bool { return rc.Drop[n] })
}

// choose picks what satisfies a group that nothing in the set does.
func choose(rc *recipe, index map[string]*deb, providers map[string][]string, group []string) string {
	for _, name := range group {
		if index[name] != nil {
			return name
		}
		for _, p := range providers[name] {
			if !rc.Drop[p] {
				return p
			}
		}
	}
	return ""
}

// needs translates the dependencies of a unit to names of RPMs.
func needs(u *unit, satisfier func([]string) (string, bool), owner map[string]*unit) []string {
	out := slices.Clone(u.Requires)
	for _, d := range u.From {
		for _, group := range d.Depends {
			name, ok := satisfier(group)
			if !ok {
				continue // dropped by the recipe
			}
			if o := owner[name]; o != nil && o.Name != u.Name {
				out = append(out, o.Name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
