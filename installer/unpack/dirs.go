package unpack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"imgbuild/installer/squashfs"
)

// openDir opens a directory that is one component below another, and never follows a symbolic link.
const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// dirs are the directories of the tree, by the index of their entries. Everything is reached from the descriptor of its
// directory by a name of one component, so that neither a name nor a link in the image can lead elsewhere.
type dirs struct {
	*openFDs
	tree   *squashfs.Tree
	root   int
	device map[int32]uint64 // the file system each directory is on
}

// openDirs opens dest, which must hold nothing but directories: mount points, lost+found and the like.
func openDirs(dest string, tree *squashfs.Tree, limit int) (*dirs, error) {
	fd, err := unix.Open(dest, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open it: %w", err)
	}
	if err := onlyDirs(fd, ""); err != nil {
		unix.Close(fd)
		return nil, err
	}
	d := &dirs{tree: tree, root: fd, device: make(map[int32]uint64)}
	d.openFDs = newOpenFDs(limit, d.openDir)
	return d, nil
}

// onlyDirs looks for anything in a directory, and below it, that is not a directory.
func onlyDirs(fd int, at string) error {
	own, err := unix.Openat(fd, ".", openDir, 0)
	if err != nil {
		return fmt.Errorf("look into /%s: %w", at, err)
	}
	f := os.NewFile(uintptr(own), at)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("look into /%s: %w", at, err)
	}
	for _, e := range entries {
		name := path.Join(at, e.Name())
		sub, err := unix.Openat(own, e.Name(), openDir, 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return fmt.Errorf("it is not empty: it holds /%s; give a new file system", name)
		}
		if err != nil {
			return fmt.Errorf("look into /%s: %w", name, err)
		}
		err = onlyDirs(sub, name)
		unix.Close(sub)
		if err != nil {
			return err
		}
	}
	return nil
}

// openDir opens the directory of an entry, and those above it that are not open.
func (d *dirs) openDir(i int32) (int, error) {
	e := &d.tree.Entries[i]
	if e.Parent < 0 {
		return unix.FcntlInt(uintptr(d.root), unix.F_DUPFD_CLOEXEC, 0)
	}
	parent, err := d.acquire(e.Parent)
	if err != nil {
		return -1, err
	}
	defer d.release(e.Parent)
	return openat(parent, e.Name, openDir, 0)
}

// make makes all directories, closed to others until finishDirs gives them their modes.
func (d *dirs) make(ctx context.Context) error {
	for n := range d.tree.Entries {
		e := &d.tree.Entries[n]
		if e.Inode.Type != squashfs.Directory {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := d.makeOne(int32(n), e); err != nil {
			return fmt.Errorf("make directory /%s: %w", d.tree.Path(n), err)
		}
	}
	return nil
}

func (d *dirs) makeOne(n int32, e *squashfs.Entry) error {
	if e.Parent < 0 {
		return d.findDevice(n)
	}
	parent, err := d.acquire(e.Parent)
	if err != nil {
		return err
	}
	defer d.release(e.Parent)
	err = unix.Mkdirat(parent, e.Name, 0o700)
	switch {
	case errors.Is(err, unix.EEXIST):
		return d.findDevice(n)
	case err != nil:
		return err
	}
	d.device[n] = d.device[e.Parent]
	return nil
}

// findDevice finds out on what file system a directory is that was there before.
func (d *dirs) findDevice(n int32) error {
	fd, err := d.acquire(n)
	if err != nil {
		return err
	}
	defer d.release(n)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	d.device[n] = st.Dev
	return nil
}

func (d *dirs) close() {
	d.openFDs.close()
	unix.Close(d.root)
}

// finishDirs gives the directories, the innermost first, what making things in them would change or be hindered by.
func (u *unpacker) finishDirs(ctx context.Context) error {
	for n := len(u.tree.Entries) - 1; n >= 0; n-- {
		in := u.tree.Entries[n].Inode
		if in.Type != squashfs.Directory {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fd, err := u.dirs.acquire(int32(n))
		if err != nil {
			return fmt.Errorf("open directory /%s: %w", u.tree.Path(n), err)
		}
		err = u.finish(fd, in)
		u.dirs.drop(int32(n))
		if err != nil {
			return fmt.Errorf("finish directory /%s: %w", u.tree.Path(n), err)
		}
	}
	return nil
}

// openat is openat(2), again after a signal.
func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
