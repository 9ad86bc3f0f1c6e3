package configure

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"imgbuild/builder/tree"
	"imgbuild/profiles"
)

// Files writes the profile's files, directories and links, in the order of their paths.
func Files(t *tree.Tree, p *profiles.Profile) error {
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		if err := file(t, p, name, p.Files[name]); err != nil {
			return fmt.Errorf("write the profile's file %s: %w", name, err)
		}
	}
	return nil
}

func file(t *tree.Tree, p *profiles.Profile, name string, f profiles.File) error {
	m, err := meta(t, f)
	if err != nil {
		return err
	}
	standard := func(mode fs.FileMode) tree.Meta {
		if f.Mode == "" {
			m.Mode = mode
		}
		return m
	}
	switch {
	case f.Link != "":
		return t.Symlink(f.Link, name)
	case f.Directory:
		return t.Mkdir(name, standard(0o755))
	case f.Source != "":
		return t.CopyIn(f.Source, name, m)
	case f.Template != nil:
		text, err := Expand(name, *f.Template, p, f.Vars)
		if err != nil {
			return err
		}
		return t.WriteFile(name, text, standard(textMode(string(text))))
	case f.Content != nil:
		return t.WriteFile(name, []byte(*f.Content), standard(textMode(*f.Content)))
	}
	return t.WriteFile(name, nil, standard(0o644))
}

// textMode makes scripts executable.
func textMode(text string) fs.FileMode {
	if strings.HasPrefix(text, "#!") {
		return 0o755
	}
	return 0o644
}

// templateData is what a template sees: {{.Profile.Name}}, {{.Vars.zone}}.
type templateData struct {
	Profile *profiles.Profile
	Vars    map[string]string
}

// Expand executes a template of the profile. A variable that is not there is an error.
func Expand(name, text string, p *profiles.Profile, vars map[string]string) ([]byte, error) {
	tmpl, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, templateData{p, vars}); err != nil {
		return nil, fmt.Errorf("expand the template: %w", err)
	}
	return b.Bytes(), nil
}

// meta reads mode, owner and group; a mode that is not said stays 0.
func meta(t *tree.Tree, f profiles.File) (tree.Meta, error) {
	var m tree.Meta
	if f.Mode != "" {
		n, err := strconv.ParseUint(f.Mode, 8, 12)
		if err != nil {
			return m, fmt.Errorf("mode %q is not octal", f.Mode)
		}
		m.Mode = fs.FileMode(n & 0o777)
		for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
			if n&bit != 0 {
				m.Mode |= flag
			}
		}
	}
	var err error
	if m.UID, err = lookup(t, "/etc/passwd", "user", f.Owner); err != nil {
		return m, err
	}
	m.GID, err = lookup(t, "/etc/group", "group", f.Group)
	return m, err
}

// lookup finds the number of a user or group of the image; a number is taken as it is.
func lookup(t *tree.Tree, file, what, name string) (int, error) {
	if name == "" || name == "root" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	data, err := t.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("find the %s %s: %w", what, name, err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[0] == name {
			n, err := strconv.Atoi(f[2])
			if err != nil {
				return 0, fmt.Errorf("find the %s %s: %s has the number %q for it", what, name, file, f[2])
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("the image has no %s %s", what, name)
}
