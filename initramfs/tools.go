package initramfs

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Tool is a program that the installer runs.
type Tool struct {
	// Name is the program's name, for messages.
	Name string
	// Candidates are the absolute paths at which it may lie in the image; the first that is there is taken, and lies at
	// the same path in the initramfs (after the merge of /bin, /sbin and /lib into /usr).
	Candidates []string
	// FallbackToHost takes the build host's program when the image has none. It runs with the image's libraries as far
	// as those exist, and the build fails if they are too old for it.
	FallbackToHost bool
}

// toolbox puts tools and the libraries they need into the archive.
type toolbox struct {
	archive *archive
	image   *tree
	host    *tree // nil when no tool may come from the host
	search  map[*tree][]string
	libDir  string           // where libraries found by the default search are stored: the directory of the image's libc
	loaded  map[string]place // name in the archive -> what lies there
	parsed  map[fileID]program
}

// storeTools adds the tools with their loader and libraries. It returns the names in the archive, sorted.
func storeTools(ctx context.Context, a *archive, image *tree, tools []Tool) ([]string, error) {
	if len(tools) == 0 {
		return nil, nil
	}
	b := &toolbox{archive: a, image: image, search: map[*tree][]string{}, loaded: map[string]place{}, parsed: map[fileID]program{}}
	var err error
	if b.search[image], err = librarySearch(ctx, image); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(tools, func(t Tool) bool { return t.FallbackToHost }) {
		if b.host, err = a.openHost(); err != nil {
			return nil, err
		}
		if b.search[b.host], err = librarySearch(ctx, b.host); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, tool := range tools {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("choose tools: %w", err)
		}
		name, err := b.addTool(tool)
		if err != nil {
			return nil, fmt.Errorf("put the tool %s into the initramfs: %w", tool.Name, err)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, b.addConfigs(names)
}

// addTool adds one tool and returns its absolute path in the archive.
func (b *toolbox) addTool(tool Tool) (string, error) {
	found, err := b.archive.findFirst(b.image, tool.Candidates, tool.FallbackToHost)
	if err != nil {
		return "", err
	}
	if err := b.archive.addFile(sectionTools, found.name, 0o755, found.tree, found.file); err != nil {
		return "", err
	}
	if err := b.addNeeds(found); err != nil {
		return "", err
	}
	return "/" + merged(found.name), nil
}

// program reads a file's headers once.
func (b *toolbox) program(p place) (program, error) {
	if known, ok := b.parsed[p.file.id]; ok {
		return known, nil
	}
	f, err := p.tree.root.Open(p.file.path)
	if err != nil {
		return program{}, err
	}
	defer f.Close()
	parsed, err := readProgram(f)
	if err != nil {
		return program{}, fmt.Errorf("read %s: %w", p.tree.name(p.file), err)
	}
	b.parsed[p.file.id] = parsed
	return parsed, nil
}

// addNeeds adds the loader and the libraries of a program or library, and theirs.
func (b *toolbox) addNeeds(of place) error {
	p, err := b.program(of)
	if err != nil {
		return err
	}
	if p.interp != "" {
		if err := b.addLoader(of, p); err != nil {
			return err
		}
	}
	for _, name := range p.needed {
		library, stored, err := b.findLibrary(of, p, name)
		if err != nil {
			return err
		}
		if err := b.checkVersions(of, p, name, library); err != nil {
			return err
		}
		if old, ok := b.loaded[stored]; ok {
			if old.file.id != library.file.id {
				return fmt.Errorf("%s needs %s, another tool needs %s, and both would be %s in the initramfs: leave one of the tools out",
					of.tree.name(of.file), library.tree.name(library.file), old.tree.name(old.file), stored)
			}
			continue
		}
		b.loaded[stored] = library
		if err := b.archive.addFile(sectionLibraries, stored, 0o755, library.tree, library.file); err != nil {
			return err
		}
		if err := b.addNeeds(library); err != nil {
			return err
		}
	}
	return nil
}

// addLoader adds ld.so. It comes from the image whenever the image has it, as it must fit the image's libc.
func (b *toolbox) addLoader(of place, p program) error {
	stored := "/" + merged(p.interp)
	if _, ok := b.loaded[stored]; ok {
		return nil
	}
	for _, t := range b.trees(of) {
		found, err := t.find(p.interp)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for its loader %s in %s: %w", p.interp, t.dir, err)
		}
		b.loaded[stored] = place{tree: t, file: found, name: p.interp}
		return b.archive.addFile(sectionLibraries, stored, 0o755, t, found)
	}
	return fmt.Errorf("its loader %s is not in %s: install the image's C library", p.interp, of.tree.dir)
}

// trees are where the libraries of a file may come from: the image first, for host programs too.
func (b *toolbox) trees(of place) []*tree {
	if of.tree == b.host {
		return []*tree{b.image, b.host}
	}
	return []*tree{b.image}
}

// findLibrary finds a library as ld.so would and says by which name it is stored. One that lies on the program's own
// path keeps its place; every other goes to the directory of the C library, because there is no ld.so.cache in the
// initramfs and only the built-in directories are searched there.
func (b *toolbox) findLibrary(of place, p program, name string) (place, string, error) {
	if strings.Contains(name, "/") {
		found, err := of.tree.find(name)
		if err != nil {
			return place{}, "", fmt.Errorf("look for the library %s of %s: %w", name, of.tree.name(of.file), err)
		}
		return place{tree: of.tree, file: found, name: name}, "/" + merged(name), nil
	}
	own := p.searchDirs(path.Dir(path.Clean("/" + of.file.path)))
	for _, t := range b.trees(of) {
		for _, dir := range append(slices.Clone(own), b.search[t]...) {
			found, err := t.find(path.Join(dir, name))
			if err != nil {
				continue // not there, or no directory: ld.so goes on as well
			}
			library := place{tree: t, file: found, name: path.Join(dir, name)}
			parsed, err := b.program(library)
			if err != nil || parsed.class != p.class || parsed.machine != p.machine {
				continue // a library of another architecture, or a linker script: ld.so goes on as well
			}
			if slices.Contains(own, dir) && !slices.Contains(b.search[t], dir) {
				return library, "/" + merged(library.name), nil
			}
			return library, path.Join(b.defaultDir(p), name), nil
		}
	}
	return place{}, "", fmt.Errorf("%s needs the library %s, which is not in %s: install the package that has it in the image", of.tree.name(of.file), name, b.image.dir)
}

// defaultDir is the directory of the image's C library (or the host's, for an image without one), which its loader
// searches without being told.
func (b *toolbox) defaultDir(p program) string {
	if b.libDir != "" {
		return b.libDir
	}
	b.libDir = "/usr/lib64"
	if p.class != elf.ELFCLASS64 {
		b.libDir = "/usr/lib"
	}
	for _, t := range []*tree{b.image, b.host} {
		if t == nil {
			continue
		}
		for _, dir := range b.search[t] {
			found, err := t.find(path.Join(dir, "libc.so.6"))
			if err != nil {
				continue
			}
			parsed, err := b.program(place{tree: t, file: found})
			if err == nil && parsed.class == p.class && parsed.machine == p.machine {
				b.libDir = "/" + merged(dir)
				return b.libDir
			}
		}
	}
	return b.libDir
}

// checkVersions makes sure that a library defines every symbol version that the file was linked against: otherwise
// ld.so would refuse to start the tool, on the machine and in the middle of an install.
func (b *toolbox) checkVersions(of place, p program, name string, library place) error {
	provided, err := b.program(library)
	if err != nil {
		return err
	}
	if len(provided.provides) == 0 {
		return nil
	}
	for _, version := range p.versions[name] {
		if !slices.Contains(provided.provides, version) {
			return fmt.Errorf("%s needs %s of %s, but %s is older: install the tool's own package in the image",
				of.tree.name(of.file), version, name, library.tree.name(library.file))
		}
	}
	return nil
}

// addConfigs adds the configuration without which a tool would do something else than on the installed system.
func (b *toolbox) addConfigs(names []string) error {
	for _, config := range []struct{ tool, file string }{
		{"mke2fs", "etc/mke2fs.conf"},
		{"mkfs.ext", "etc/mke2fs.conf"},
	} {
		if b.archive.has(config.file) || !slices.ContainsFunc(names, func(name string) bool {
			return strings.HasPrefix(path.Base(name), config.tool)
		}) {
			continue
		}
		found, err := b.archive.findFirst(b.image, []string{"/" + config.file}, b.host != nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := b.archive.addFile(sectionFiles, config.file, 0o644, found.tree, found.file); err != nil {
			return err
		}
	}
	return nil
}
