package initramfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links one path may pass through, as in the kernel (path_resolution(7)).
const maxLinks = 40

// errTooManyLinks is a path that goes round in circles.
var errTooManyLinks = errors.New("too many levels of symbolic links")

// tree is a directory seen as if one had chrooted into it: absolute symbolic links and ".." stay inside, as they will
// on the installed system. Paths are given without a leading slash or with one; both mean the tree's root.
type tree struct {
	dir  string
	root *os.Root
}

// openTree opens dir; the caller closes it.
func openTree(dir string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the root directory %s: %w", dir, err)
	}
	return &tree{dir: dir, root: root}, nil
}

func (t *tree) close() error { return t.root.Close() }

// resolve follows every symbolic link of name and returns the path of what it stands for, without a leading slash.
func (t *tree) resolve(name string) (string, error) {
	pending := strings.Split(name, "/")
	at, links := "", 0
	for len(pending) > 0 {
		step := pending[0]
		pending = pending[1:]
		switch step {
		case "", ".":
			continue
		case "..":
			at = parent(at)
			continue
		}
		next := path.Join(at, step)
		info, err := t.root.Lstat(next)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: errTooManyLinks}
		}
		target, err := t.root.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = ""
		}
		pending = append(strings.Split(target, "/"), pending...)
	}
	if at == "" {
		at = "."
	}
	return at, nil
}

// parent is path.Dir with "" for the top.
func parent(name string) string {
	if dir := path.Dir(name); dir != "." && dir != "/" {
		return dir
	}
	return ""
}

// file is a regular file found in a tree.
type file struct {
	path string // resolved, without a leading slash
	size int64
	id   fileID
}

// name says for messages which file of which tree is meant.
func (t *tree) name(f file) string { return "/" + f.path + " of " + t.dir }

// fileID is the same for two names of one file (hard links, and links already resolved).
type fileID struct{ dev, ino uint64 }

// find resolves name and reports the regular file behind it; fs.ErrNotExist when there is none.
func (t *tree) find(name string) (file, error) {
	resolved, err := t.resolve(name)
	if err != nil {
		return file{}, err
	}
	info, err := t.root.Lstat(resolved)
	if err != nil {
		return file{}, err
	}
	if !info.Mode().IsRegular() {
		return file{}, fmt.Errorf("%s is not a regular file but %s: %w", name, info.Mode().Type(), fs.ErrNotExist)
	}
	found := file{path: resolved, size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		found.id = fileID{dev: uint64(stat.Dev), ino: stat.Ino}
	}
	return found, nil
}

// read reads the whole regular file behind name.
func (t *tree) read(name string) ([]byte, error) {
	found, err := t.find(name)
	if err != nil {
		return nil, err
	}
	return t.root.ReadFile(found.path)
}

// readIfPresent is read with nil for a file that is not there.
func (t *tree) readIfPresent(name string) ([]byte, error) {
	data, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// list names what is in a directory, sorted; an absent directory is empty.
func (t *tree) list(dir string) ([]fs.DirEntry, error) {
	resolved, err := t.resolve(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(t.root.FS(), resolved)
	if err != nil {
		return nil, fmt.Errorf("list %s in %s: %w", dir, t.dir, err)
	}
	return entries, nil
}

// walk calls visit with the path, relative to dir, of every file below dir that is not a directory, in sorted order.
// Symbolic links to directories are not entered.
func (t *tree) walk(dir string, visit func(rel string) error) error {
	resolved, err := t.resolve(dir)
	if err != nil {
		return err
	}
	return fs.WalkDir(t.root.FS(), resolved, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return nil
		}
		return visit(strings.TrimPrefix(strings.TrimPrefix(name, resolved), "/"))
	})
}

// glob returns the paths below dir that match pattern (path.Match), links included, sorted. Only the pattern's own
// directories are listed.
func (t *tree) glob(dir, pattern string) ([]string, error) {
	at := []string{""}
	for _, step := range strings.Split(pattern, "/") {
		var next []string
		for _, base := range at {
			if !strings.ContainsAny(step, `*?[\`) {
				if _, err := t.resolve(path.Join(dir, base, step)); err == nil {
					next = append(next, path.Join(base, step))
				}
				continue
			}
			entries, err := t.list(path.Join(dir, base))
			if err != nil && !errors.Is(err, syscall.ENOTDIR) {
				return nil, err
			}
			for _, entry := range entries {
				matched, err := path.Match(step, entry.Name())
				if err != nil {
					return nil, fmt.Errorf("pattern %q: %w", pattern, err)
				}
				if matched {
					next = append(next, path.Join(base, entry.Name()))
				}
			}
		}
		at = next
	}
	sort.Strings(at)
	return at, nil
}
