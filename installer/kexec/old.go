package kexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image/within"
	"imgbuild/installer/disk"
)

// Entry is what an old system's boot loader would start. The files are copies in memory; Close frees them.
type Entry struct {
	Disk   string // the disk's path
	Title  string
	Kernel *os.File
	Initrd *os.File // all of them, one behind the other; nil if there is none
	Args   string
}

// Close frees the copies.
func (e *Entry) Close() error {
	err := e.Kernel.Close()
	if e.Initrd != nil {
		err = errors.Join(err, e.Initrd.Close())
	}
	return err
}

// Options are how OldSystem works. The zero value is right for the mini initramfs.
type Options struct {
	Sys     string // sysfs; /sys
	Dev     string // device nodes; /dev
	Scratch string // an empty directory for a mount point; one is made in /run where this is empty
	// LoadFS makes the running kernel able to mount a kind of file system; nil where nothing has to be done for that.
	LoadFS func(fs string) error
}

// The largest kernel and the largest sum of its initial RAM disks that are taken, in bytes.
const (
	maxKernel = 256 << 20
	maxInitrd = 1 << 30
)

// ErrNone is wrapped when no disk has a system whose boot configuration is understood.
var ErrNone = errors.New("no boot configuration that this program understands")

// OldSystem finds what the first of the disks that has a Linux system would start, and copies it into memory. It looks at the
// disks' partitions, and at a disk itself that has none: ext4, XFS and vfat; what is on LVM it does not see, and boot loaders
// do not either.
func OldSystem(ctx context.Context, disks []disk.Disk, o Options) (*Entry, error) {
	if o.Sys == "" {
		o.Sys = "/sys"
	}
	if o.Dev == "" {
		o.Dev = "/dev"
	}
	if o.Scratch == "" {
		dir, err := os.MkdirTemp("/run", "imgbuild-old-system-")
		if err != nil {
			return nil, fmt.Errorf("look for the system on the disk: %w", err)
		}
		defer os.Remove(dir)
		o.Scratch = dir
	}
	var errs []error
	for _, d := range disks {
		e, err := o.onDisk(ctx, d)
		if err == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("%s: %w", d.Path, err))
	}
	if len(errs) == 0 {
		errs = append(errs, ErrNone)
	}
	return nil, fmt.Errorf("look for the system on the disk: %w", errors.Join(errs...))
}

// onDisk looks at one disk.
func (o Options) onDisk(ctx context.Context, d disk.Disk) (e *Entry, err error) {
	nodes, err := o.volumes(d)
	if err != nil {
		return nil, err
	}
	var mounted []string
	var roots []*os.Root
	defer func() {
		for _, r := range roots {
			r.Close()
		}
		for _, m := range slices.Backward(mounted) {
			if uerr := unix.Unmount(m, unix.UMOUNT_NOFOLLOW); uerr != nil {
				err = errors.Join(err, fmt.Errorf("unmount %s: %w", m, uerr))
				continue
			}
			os.Remove(m)
		}
		if err != nil && e != nil {
			e.Close()
			e = nil
		}
	}()
	for i, node := range nodes {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		at := filepath.Join(o.Scratch, fmt.Sprint(i))
		ok, err := o.mount(node, at)
		if err != nil || !ok {
			continue // a file system that cannot be read is not where the system starts from
		}
		mounted = append(mounted, at)
		r, err := os.OpenRoot(at)
		if err != nil {
			return nil, err
		}
		roots = append(roots, r)
	}
	if e, err = choose(roots); err != nil {
		return nil, err
	}
	e.Disk = d.Path
	return e, nil
}

// volumes are the device nodes of a disk's partitions in their order, or the disk's own.
func (o Options) volumes(d disk.Disk) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(o.Sys, "block", d.Name, d.Name+"*", "partition"))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return []string{d.Path}, nil
	}
	var nodes []string
	for _, f := range found {
		nodes = append(nodes, filepath.Join(o.Dev, strings.ReplaceAll(filepath.Base(filepath.Dir(f)), "!", "/")))
	}
	slices.SortFunc(nodes, compareVersions)
	return nodes, nil
}

// mount mounts a file system read-only where it is one that boot loaders read. noload and norecovery keep the kernel from
// replaying a journal, which would write even then.
func (o Options) mount(node, at string) (bool, error) {
	kind, err := kindOf(node)
	if err != nil || kind == "" {
		return false, err
	}
	if o.LoadFS != nil {
		if err := o.LoadFS(kind); err != nil {
			return false, err
		}
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return false, err
	}
	options := map[string]string{"ext4": "noload", "xfs": "norecovery,nouuid"}[kind]
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount(node, at, kind, flags, options); err != nil {
		return false, errors.Join(err, os.Remove(at))
	}
	return true, nil
}

// kindOf knows ext2 to ext4, XFS and FAT by their magic numbers; a file system on another kind of thing is empty.
func kindOf(node string) (string, error) {
	f, err := os.Open(node)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 2048)
	if _, err := io.ReadFull(f, b); err != nil {
		return "", err
	}
	switch {
	case string(b[:4]) == "XFSB":
		return "xfs", nil
	case b[1080] == 0x53 && b[1081] == 0xef:
		return "ext4", nil
	case b[510] == 0x55 && b[511] == 0xaa && (string(b[54:57]) == "FAT" || string(b[82:85]) == "FAT"):
		return "vfat", nil
	}
	return "", nil
}

// load copies an entry's files into memory. An error means that it cannot start.
func load(root *os.Root, prefix string, c candidate) (*Entry, error) {
	open := func(name string) (*os.File, error) {
		var first error
		for _, p := range []string{name, prefix + "/" + name} {
			resolved, err := within.Resolve(root, p, true)
			if err != nil {
				return nil, err
			}
			f, err := root.Open(resolved)
			if err == nil {
				if st, serr := f.Stat(); serr == nil && st.Mode().IsRegular() {
					return f, nil
				}
				f.Close()
				err = fmt.Errorf("%s is not a file", name)
			}
			if first == nil {
				first = err
			}
		}
		return nil, first
	}
	k, err := open(c.kernel)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	e := &Entry{Title: c.title, Args: c.args}
	if e.Kernel, err = memory("kernel", maxKernel, k); err != nil {
		return nil, err
	}
	var parts []io.Reader
	for _, name := range c.initrds {
		f, err := open(name)
		if err != nil {
			e.Close()
			return nil, err
		}
		defer f.Close()
		parts = append(parts, f)
	}
	if len(parts) > 0 {
		if e.Initrd, err = memory("initrd", maxInitrd, parts...); err != nil {
			e.Close()
			return nil, err
		}
	}
	return e, nil
}
