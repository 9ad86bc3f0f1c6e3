package bootloader

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// rel makes a path of the installed system one below its root.
func rel(p string) string { return strings.TrimLeft(p, "/") }

// maxLoader bounds a boot loader's file: the largest real ones have some 4 MiB.
const maxLoader = 64 << 20

// readLoader reads a regular file that is not empty.
func readLoader(from *os.Root, name string) ([]byte, fs.FileInfo, error) {
	f, err := from.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > maxLoader {
		return nil, nil, fmt.Errorf("it is not a file of 1 to %d bytes", maxLoader)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLoader))
	return data, st, err
}

// copyFile copies a regular file with its time stamp. A destination that has the same bytes already is left alone, so
// that the package manager still finds it as it was.
func copyFile(from *os.Root, src string, to *os.Root, dst string) error {
	data, st, err := readLoader(from, src)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	if old, err := to.ReadFile(dst); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := writeFile(to, dst, data, st.Mode().Perm()); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	if err := to.Chtimes(dst, st.ModTime(), st.ModTime()); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	return nil
}

// writeFile replaces a file. What is there and no file, such as EL8's link from /boot/grub2 onto the ESP, which GRUB cannot
// follow, makes room. A new file gets the SELinux label of its directory, as the kernel would give it under the policy.
func writeFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	st, err := root.Lstat(name)
	if err == nil && !st.Mode().IsRegular() {
		if err := root.Remove(name); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := err != nil
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && fresh {
		err = inherit(root, path.Dir(name), f)
	}
	return errors.Join(err, f.Close())
}

// mkdirs makes a directory and those above it, as writeFile makes files.
func mkdirs(root *os.Root, dir string, mode fs.FileMode) error {
	if dir == "." {
		return nil
	}
	if st, err := root.Stat(dir); err == nil {
		if !st.IsDir() {
			return fmt.Errorf("/%s is not a directory", dir)
		}
		return nil
	}
	if err := mkdirs(root, path.Dir(dir), mode); err != nil {
		return err
	}
	if err := root.Mkdir(dir, mode); err != nil {
		return err
	}
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(inherit(root, path.Dir(dir), d), d.Close())
}

// inherit gives f the SELinux label of the directory dir. Where that has none, or the file system knows none, as vfat, f
// gets none either.
func inherit(root *os.Root, dir string, f *os.File) error {
	const selinux = "security.selinux"
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	label := make([]byte, 1024)
	n, err := unix.Fgetxattr(int(d.Fd()), selinux, label)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the label of /%s: %w", dir, err)
	}
	if err := unix.Fsetxattr(int(f.Fd()), selinux, label[:n], 0); err != nil {
		return fmt.Errorf("label %s: %w", f.Name(), err)
	}
	return nil
}

// removeFile removes a file that may not be there.
func removeFile(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
