package profiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/profiles/strict"
)

// profileFile is one file that a profile is made from.
type profileFile struct {
	strict.Source        // its name is as in Profile.Sources
	id            string // the same for the same file, however it was named
	dir           string // absolute; empty for shipped profiles
	display       string // dir as the person would write it
	shipped       string // the name of a shipped profile
}

// isFile says whether a person means a file, and not a shipped profile's name.
func isFile(name string) bool {
	return strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// open finds the profile that name names, seen from the source from (nil for the command line), and reads it.
func open(name string, from *profileFile) (*profileFile, []byte, error) {
	if !isFile(name) {
		data, err := shippedFS.ReadFile("shipped/" + name + ".yaml")
		if err != nil {
			return nil, nil, notShipped(name, from)
		}
		id := "shipped:" + name
		return &profileFile{Source: strict.Source{Name: id}, id: id, shipped: name}, data, nil
	}
	display, path := name, name
	if from != nil && !filepath.IsAbs(name) {
		if from.shipped != "" {
			return nil, nil, errors.New("a shipped profile can extend shipped profiles only")
		}
		display, path = filepath.Join(from.display, name), filepath.Join(from.dir, name)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("find profile %s: %w", display, err)
	}
	data, err := strict.ReadLimited(path)
	if err != nil {
		return nil, nil, fmt.Errorf("the profile %s cannot be read: %w", display, err)
	}
	id := path
	if p, err := filepath.EvalSymlinks(path); err == nil {
		id = p
	}
	return &profileFile{Source: strict.Source{Name: display}, id: id, dir: filepath.Dir(path), display: filepath.Dir(display)}, data, nil
}

func notShipped(name string, from *profileFile) error {
	dir := "."
	if from != nil {
		dir = from.dir
	}
	for _, p := range []string{name + ".yaml", name + ".yml", name} {
		if st, err := os.Stat(filepath.Join(dir, p)); err == nil && st.Mode().IsRegular() {
			return fmt.Errorf("there is no shipped profile %q; for the file write ./%s", name, p)
		}
	}
	if s := strict.Suggest(name, Shipped()); s != "" {
		return fmt.Errorf("there is no shipped profile %q; did you mean %s? A file's name ends in .yaml or has a slash", name, s)
	}
	return fmt.Errorf("there is no shipped profile %q; there are %s. A file's name ends in .yaml or has a slash", name, strict.List(Shipped(), "and"))
}

// Shipped returns the names of the profiles that are shipped, sorted.
func Shipped() []string {
	files, err := shippedFS.ReadDir("shipped")
	if err != nil {
		return nil // the directory is in the binary
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}
