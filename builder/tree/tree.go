// Package tree reads and writes files of an image's root directory from outside. In go paths as the image sees them;
// symbolic links, absolute ones too, are followed inside the image.
//
// It never reaches a file outside the root directory, whatever links the image's packages or scripts have made.
package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"imgbuild/image/within"
)

// Tree is an image's root directory.
type Tree struct {
	root *os.Root
}

// Open opens the root directory dir.
func Open(dir string) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the image's root directory: %w", err)
	}
	return &Tree{root: root}, nil
}

// Close closes the root directory.
func (t *Tree) Close() error { return t.root.Close() }

// resolve follows the links in name, as within.Resolve says.
func (t *Tree) resolve(name string, last bool) (string, error) {
	return within.Resolve(t.root, name, last)
}

// Stat returns what is at name, links followed.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	p, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	return t.root.Lstat(p)
}

// Lstat returns what is at name; a link that name ends in is not followed.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	p, err := t.resolve(name, false)
	if err != nil {
		return nil, err
	}
	return t.root.Lstat(p)
}

// Exists reports whether there is something at name, links followed.
func (t *Tree) Exists(name string) bool {
	_, err := t.Stat(name)
	return err == nil
}

// First returns the first of names that exists, or "".
func (t *Tree) First(names ...string) string {
	for _, n := range names {
		if t.Exists(n) {
			return n
		}
	}
	return ""
}

// Open opens a file for reading.
func (t *Tree) Open(name string) (*os.File, error) {
	p, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	return t.root.Open(p)
}

// ReadFile returns a file's bytes.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	p, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	return t.root.ReadFile(p)
}

// ReadDir returns a directory's entries by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	p, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	return fs.ReadDir(t.root.FS(), p)
}

// Glob returns the paths that match a pattern below the real directory dir, with a leading slash.
func (t *Tree) Glob(dir, pattern string) ([]string, error) {
	p, err := t.resolve(dir, true)
	if err != nil {
		return nil, err
	}
	found, err := fs.Glob(t.root.FS(), path.Join(p, pattern))
	for i := range found {
		found[i] = "/" + found[i]
	}
	return found, err
}

// Meta are a file's attributes.
type Meta struct {
	Mode     fs.FileMode // permissions, with setuid, setgid and sticky bits
	UID, GID int
}

// RootFile is a file of root that all may read, RootDir such a directory, Secret a file that only root may read.
func RootFile() Meta { return Meta{Mode: 0o644} }

// Secret is a file that only root may read.
func Secret() Meta { return Meta{Mode: 0o600} }

// WriteFile replaces the file at name, with all missing directories, by data with exactly these attributes. A link that
// name ends in is followed, as an administrator's editor would.
func (t *Tree) WriteFile(name string, data []byte, m Meta) error {
	return t.Write(name, strings.NewReader(string(data)), m)
}

// Write is WriteFile for what is read from r.
func (t *Tree) Write(name string, r io.Reader, m Meta) (err error) {
	p, err := t.prepare(name)
	if err != nil {
		return err
	}
	if st, err := t.root.Lstat(p); err == nil && st.IsDir() {
		return fmt.Errorf("write %s in the image: it is a directory", name)
	}
	temp := path.Join(path.Dir(p), ".imgbuild-"+path.Base(p))
	f, err := t.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s in the image: %w", name, err)
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, f.Chown(m.UID, m.GID), f.Chmod(m.Mode), f.Close())
	if err == nil {
		err = t.root.Rename(temp, p)
	}
	if err != nil {
		return fmt.Errorf("write %s in the image: %w", name, errors.Join(err, t.root.Remove(temp)))
	}
	return nil
}

// prepare resolves name and makes the directories that it lies in.
func (t *Tree) prepare(name string) (string, error) {
	p, err := t.resolve(name, true)
	if err != nil {
		return "", fmt.Errorf("write %s in the image: %w", name, err)
	}
	if err := t.makeParents(p); err != nil {
		return "", fmt.Errorf("make the directory of %s in the image: %w", name, err)
	}
	return p, nil
}

func (t *Tree) makeParents(p string) error {
	if d := path.Dir(p); d != "." {
		return t.mkdirs(d)
	}
	return nil
}

// mkdirs makes directories of mode 0755 whatever the umask is.
func (t *Tree) mkdirs(p string) error {
	if st, err := t.root.Lstat(p); err == nil {
		if !st.IsDir() {
			return fmt.Errorf("/%s is not a directory", p)
		}
		return nil
	}
	if err := t.makeParents(p); err != nil {
		return err
	}
	if err := t.root.Mkdir(p, 0o755); err != nil {
		return err
	}
	return t.root.Chmod(p, 0o755)
}

// Mkdir makes a directory, with all above it, or gives an existing one these attributes.
func (t *Tree) Mkdir(name string, m Meta) error {
	p, err := t.resolve(name, true)
	if err == nil {
		err = t.mkdirs(p)
	}
	if err == nil {
		err = errors.Join(t.root.Lchown(p, m.UID, m.GID), t.root.Chmod(p, m.Mode))
	}
	if err != nil {
		return fmt.Errorf("make the directory %s in the image: %w", name, err)
	}
	return nil
}

// Symlink puts a symbolic link to target at name in place of whatever file or link is there.
func (t *Tree) Symlink(target, name string) error {
	p, err := t.resolve(name, false)
	if err == nil {
		err = t.makeParents(p)
	}
	if err == nil {
		if err = t.root.Remove(p); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = t.root.Symlink(target, p)
	}
	if err != nil {
		return fmt.Errorf("link %s to %s in the image: %w", name, target, err)
	}
	return nil
}

// Remove removes name and everything below it; a link that name ends in is removed, not followed. What is not there is
// no error.
func (t *Tree) Remove(name string) error {
	p, err := t.resolve(name, false)
	if err == nil && p == "." {
		err = errors.New("it is the root directory")
	}
	if err == nil {
		err = t.root.RemoveAll(p)
	}
	if err != nil {
		return fmt.Errorf("remove %s in the image: %w", name, err)
	}
	return nil
}

// Empty removes everything in the directory name.
func (t *Tree) Empty(name string) error {
	entries, err := t.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("empty %s in the image: %w", name, err)
	}
	for _, e := range entries {
		if err := t.Remove(path.Join(name, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Truncate makes the file at name empty and leaves its attributes.
func (t *Tree) Truncate(name string) error {
	p, err := t.resolve(name, true)
	if err != nil {
		return fmt.Errorf("empty %s in the image: %w", name, err)
	}
	f, err := t.root.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("empty %s in the image: %w", name, err)
	}
	return f.Close()
}

// CopyIn copies a file or a whole directory of the host to name. Directories keep the modes of the host's, files too
// unless m has a mode; owners are m's. Symbolic links stay links.
func (t *Tree) CopyIn(source, name string, m Meta) error {
	return filepath.WalkDir(source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copy %s into the image: %w", source, err)
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(rel))
		st, err := os.Stat(p)
		if p != source {
			st, err = d.Info()
		}
		if err != nil {
			return fmt.Errorf("copy %s into the image: %w", p, err)
		}
		mode := st.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return fmt.Errorf("copy %s into the image: %w", p, err)
			}
			return t.Symlink(target, to)
		case st.IsDir():
			return t.Mkdir(to, Meta{Mode: mode, UID: m.UID, GID: m.GID})
		case st.Mode().IsRegular():
			if m.Mode != 0 {
				mode = m.Mode
			}
			f, err := os.Open(p)
			if err != nil {
				return fmt.Errorf("copy %s into the image: %w", p, err)
			}
			defer f.Close()
			return t.Write(to, f, Meta{Mode: mode, UID: m.UID, GID: m.GID})
		default:
			return fmt.Errorf("copy %s into the image: it is neither a file, a directory nor a link", p)
		}
	})
}
