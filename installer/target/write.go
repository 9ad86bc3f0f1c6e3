package target

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image/within"
	"imgbuild/installer/fcontext"
)

// meta are a file's attributes.
type meta struct {
	mode     fs.FileMode // permissions, with setuid, setgid and sticky bits
	uid, gid int
}

// writer writes what belongs to one machine into the installed tree. Links are followed inside the tree. A file that is
// there keeps its SELinux label; a new one gets the label that the image's own policy has for its path, or, where the image
// brings no policy, that of its directory. In a tree without labels nothing is labelled: such a system labels itself when it
// first boots, or has no SELinux.
type writer struct {
	root   *os.Root
	policy *fcontext.Policy
	labels bool
}

func newWriter(root *os.Root) (*writer, error) {
	w := &writer{root: root}
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	label, err := getLabel(d)
	if err != nil {
		return nil, err
	}
	if w.labels = label != nil; w.labels {
		w.policy, err = fcontext.Load(w.read)
	}
	return w, err
}

// read returns a file's bytes.
func (w *writer) read(name string) ([]byte, error) {
	p, err := within.Resolve(w.root, name, true)
	if err != nil {
		return nil, err
	}
	return w.root.ReadFile(p)
}

// exists reports whether there is something at name, links followed.
func (w *writer) exists(name string) bool {
	p, err := within.Resolve(w.root, name, true)
	if err != nil {
		return false
	}
	_, err = w.root.Lstat(p)
	return err == nil
}

// replace changes the bytes of a file and nothing else. One that is not there is made as m says.
func (w *writer) replace(name string, data []byte, m meta) error {
	if !w.exists(name) {
		return w.write(name, data, m)
	}
	p, err := within.Resolve(w.root, name, true)
	if err != nil {
		return fmt.Errorf("write /%s: %w", name, err)
	}
	f, err := w.root.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("write /%s: %w", name, err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// write makes a file, or replaces it, with exactly these attributes.
func (w *writer) write(name string, data []byte, m meta) error {
	return w.copy(name, strings.NewReader(string(data)), m)
}

// copy is write for what is read from r.
func (w *writer) copy(name string, r io.Reader, m meta) error {
	p, err := w.prepare(name)
	if err == nil {
		err = w.copyTo(p, r, m)
	}
	if err != nil {
		return fmt.Errorf("write /%s: %w", strings.TrimPrefix(name, "/"), err)
	}
	return nil
}

func (w *writer) copyTo(p string, r io.Reader, m meta) error {
	st, err := w.root.Lstat(p)
	fresh := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !fresh:
		return err
	case err == nil && !st.Mode().IsRegular():
		return errors.New("the image has something there that is no file")
	}
	f, err := w.root.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	// Nobody else reads it before its mode is right: it may be a secret.
	err = f.Chmod(0o600)
	if err == nil && fresh {
		err = w.label(p, f, 0)
	}
	if err == nil {
		_, err = io.Copy(f, r)
	}
	if err == nil {
		err = errors.Join(f.Chown(m.uid, m.gid), f.Chmod(m.mode))
	}
	return errors.Join(err, f.Close())
}

// prepare resolves name and makes the directories that it lies in, as root's.
func (w *writer) prepare(name string) (string, error) {
	p, err := within.Resolve(w.root, name, true)
	if err != nil {
		return "", err
	}
	if p == "." {
		return "", errors.New("it is the root directory")
	}
	return p, w.mkdirs(path.Dir(p))
}

func (w *writer) mkdirs(p string) error {
	if p == "." {
		return nil
	}
	if st, err := w.root.Lstat(p); err == nil {
		if !st.IsDir() {
			return fmt.Errorf("/%s is not a directory", p)
		}
		return nil
	}
	if err := w.mkdirs(path.Dir(p)); err != nil {
		return err
	}
	return w.makeDir(p, meta{mode: 0o755})
}

func (w *writer) makeDir(p string, m meta) error {
	if err := w.root.Mkdir(p, 0o700); err != nil {
		return err
	}
	d, err := w.root.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(w.label(p, d, fs.ModeDir), d.Chown(m.uid, m.gid), d.Chmod(m.mode), d.Close())
}

// mkdir makes a directory, with all above it. One that is there stays as it is.
func (w *writer) mkdir(name string, m meta) error {
	p, err := w.prepare(name)
	if err == nil {
		if st, lerr := w.root.Lstat(p); lerr == nil {
			if !st.IsDir() {
				err = errors.New("the image has something there that is no directory")
			}
		} else {
			err = w.makeDir(p, m)
		}
	}
	if err != nil {
		return fmt.Errorf("make the directory /%s: %w", strings.TrimPrefix(name, "/"), err)
	}
	return nil
}

// symlink makes a symbolic link where nothing is.
func (w *writer) symlink(to, name string) error {
	p, err := w.prepare(name)
	if err == nil {
		if err = w.root.Symlink(to, p); errors.Is(err, fs.ErrExist) {
			return nil
		}
	}
	if err == nil {
		err = w.labelLink(p)
	}
	if err != nil {
		return fmt.Errorf("link /%s: %w", name, err)
	}
	return nil
}

// labelFor is the label of a new file; nil if it is to have none.
func (w *writer) labelFor(p string, kind fs.FileMode) ([]byte, error) {
	if !w.labels {
		return nil, nil
	}
	if w.policy != nil {
		label, ok := w.policy.Label("/"+p, kind)
		if !ok {
			return nil, nil
		}
		return append([]byte(label), 0), nil // as setfiles writes it
	}
	d, err := w.root.Open(path.Dir(p))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return getLabel(d)
}

func (w *writer) label(p string, f *os.File, kind fs.FileMode) error {
	label, err := w.labelFor(p, kind)
	if err != nil || label == nil {
		return err
	}
	if err := unix.Fsetxattr(int(f.Fd()), selinux, label, 0); err != nil {
		return fmt.Errorf("label it: %w", err)
	}
	return nil
}

// labelLink labels a link itself, which no descriptor can do: by the path of its directory's descriptor.
func (w *writer) labelLink(p string) error {
	label, err := w.labelFor(p, fs.ModeSymlink)
	if err != nil || label == nil {
		return err
	}
	d, err := w.root.Open(path.Dir(p))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), path.Base(p)), selinux, label, 0); err != nil {
		return fmt.Errorf("label it: %w", err)
	}
	return nil
}

// remove removes what matches a glob below the root.
func (w *writer) remove(glob string) error {
	dir, err := within.Resolve(w.root, path.Dir(glob), true)
	if err != nil {
		return fmt.Errorf("remove /%s: %w", glob, err)
	}
	list, err := fs.ReadDir(w.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove /%s: %w", glob, err)
	}
	for _, e := range list {
		ok, err := path.Match(path.Base(glob), e.Name())
		if err == nil && ok {
			err = w.root.RemoveAll(path.Join(dir, e.Name()))
		}
		if err != nil {
			return fmt.Errorf("remove /%s: %w", glob, err)
		}
	}
	return nil
}
