// Package live mounts a system that runs from memory: a read-only root file system, a squashfs in memory or an exported tree, below an
// overlay that takes what the system writes; and, where a person asked for it, directories that are kept on this machine's disks.
//
// Files and options come in; a directory goes out that a first process can make its root. It writes to no disk but to those file
// systems that were asked for by label, fetches nothing, and configures nothing.
package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
)

// Options say what to mount, and where.
type Options struct {
	// Work is a directory below /run, which the running system keeps: there are the layers. Root is where the new root is mounted.
	Work, Root string
	// Size is the most that the system may write in memory, in bytes.
	Size int64
	// LoadModule loads a kernel module with all that it needs, and is content if it is built in; nil if nobody has to.
	LoadModule func(ctx context.Context, name string) error
	// Find returns the block device with a file system of a label, and its type.
	Find func(ctx context.Context, label string) (device, fs string, err error)
}

// Root is a mounted system.
type Root struct {
	o      Options
	mounts []string // in the order in which they were mounted
}

// layers are the directories below Options.Work.
func (o Options) layer(name string) string { return filepath.Join(o.Work, name) }

// Memory makes a file system in memory with room for size bytes, for what New is given.
func Memory(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mount memory at %s: %w", dir, err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		return fmt.Errorf("mount memory at %s: %w", dir, err)
	}
	return nil
}

// New mounts nothing yet.
func New(o Options) *Root { return &Root{o: o} }

// MountImage mounts the squashfs in the image as the lowest layer.
func (r *Root) MountImage(ctx context.Context, i *Image) error {
	if err := r.load(ctx, buildAgain, "loop", "squashfs"); err != nil {
		return err
	}
	path, device, err := attach(i.f)
	if err != nil {
		return err
	}
	defer device.Close() // the mount holds it
	err = r.mount(path, r.o.layer("ro"), "squashfs", unix.MS_RDONLY, "")
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("%w: this kernel cannot read how the image is compressed; build it with its profile's squashfs compression set to one that the kernel knows", err)
	}
	return err
}

// Overlay lays memory over the lowest layer: Options.Root is then a whole, writable tree.
func (r *Root) Overlay(ctx context.Context) error {
	if err := r.load(ctx, buildAgain, "overlay"); err != nil {
		return err
	}
	rw := r.o.layer("rw")
	if err := Memory(rw, r.o.Size); err != nil {
		return err
	}
	r.mounts = append(r.mounts, rw)
	return r.overlay(r.o.layer("ro"), rw, r.o.Root)
}

// overlay mounts lower below upper's directories at target. What is upper may already be there.
func (r *Root) overlay(lower, upper, target string) error {
	up, work := filepath.Join(upper, "upper"), filepath.Join(upper, "work")
	// The new root's own mode and owner are the upper directory's.
	var s unix.Stat_t
	if err := unix.Stat(lower, &s); err != nil {
		return fmt.Errorf("look at %s: %w", lower, err)
	}
	for _, d := range []string{up, work} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a layer: %w", err)
		}
	}
	if err := errors.Join(os.Chown(up, int(s.Uid), int(s.Gid)), os.Chmod(up, fs.FileMode(s.Mode&0o777))); err != nil {
		return fmt.Errorf("make a layer: %w", err)
	}
	label := make([]byte, 256)
	if n, err := unix.Lgetxattr(lower, "security.selinux", label); err == nil && n > 0 {
		if err := unix.Lsetxattr(up, "security.selinux", label[:n], 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("label a layer: %w", err)
		}
	}
	return r.mount("imgbuild-live", target, "overlay", 0, "lowerdir="+lower+",upperdir="+up+",workdir="+work)
}

// keptDir is what shows that a file system was laid over a directory of the image, and holds what was written there.
const keptDir = ".imgbuild-overlay"

// Persist mounts a file system of this machine at a directory of the new root. One that is empty, or was used so before, is laid over
// what the image has there; one that holds something else takes its place.
func (r *Root) Persist(ctx context.Context, p plan.Persistent) error {
	device, kind, err := r.o.Find(ctx, p.Label)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"ext4", "xfs"}, kind) {
		return fmt.Errorf("keep %s: the file system with the label %s on %s is %q, and ext4 and xfs can be used: make one with mkfs.ext4 -L %s", p.Dir, p.Label, device, kind, p.Label)
	}
	if err := r.load(ctx, buildAgain, kind); err != nil {
		return err
	}
	target, err := r.inside(p.Dir)
	if err != nil {
		return err
	}
	place := r.o.layer("kept-" + p.Label)
	if err := r.mount(device, place, kind, unix.MS_NOATIME, ""); err != nil {
		return err
	}
	entries, err := os.ReadDir(place)
	if err != nil {
		return fmt.Errorf("keep %s: %w", p.Dir, err)
	}
	foreign := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lost+found" && e.Name() != keptDir })
	if foreign {
		if err := unix.Mount(place, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keep %s: mount %s there: %w", p.Dir, device, err)
		}
		r.mounts = append(r.mounts, target)
		return nil
	}
	kept := filepath.Join(place, keptDir)
	if err := os.Mkdir(kept, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep %s: %w", p.Dir, err)
	}
	// The image's directory below the overlay: that of the new root would be an overlay of an overlay's upper layer.
	return r.overlay(target, kept, target)
}

// inside is a directory of the new root, which no link leads out of.
func (r *Root) inside(dir string) (string, error) {
	root, err := os.OpenRoot(r.o.Root)
	if err != nil {
		return "", fmt.Errorf("keep %s: %w", dir, err)
	}
	defer root.Close()
	rel := strings.TrimPrefix(dir, "/")
	if err := root.MkdirAll(rel, 0o755); err != nil {
		return "", fmt.Errorf("keep %s: %w", dir, err)
	}
	for at := rel; at != "."; at = filepath.Dir(at) {
		if s, err := root.Lstat(at); err != nil || !s.IsDir() {
			return "", fmt.Errorf("keep %s: it is no directory in the image (%w)", dir, errors.Join(err, fs.ErrInvalid))
		}
	}
	return filepath.Join(r.o.Root, rel), nil
}

// buildAgain is what to do where the initramfs lacks a module that every release has now.
const buildAgain = "build the image again with this version of imgbuild"

// load loads modules in order. The advice is for who lacks one.
func (r *Root) load(ctx context.Context, advice string, names ...string) error {
	for _, n := range names {
		if r.o.LoadModule == nil {
			continue
		}
		if err := r.o.LoadModule(ctx, n); err != nil {
			return fmt.Errorf("run from memory: %w; %s", err, advice)
		}
	}
	return nil
}

func (r *Root) mount(source, target, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s (%s) at %s: %w", source, kind, target, err)
	}
	r.mounts = append(r.mounts, target)
	return nil
}

// Unmount takes everything apart again, after something went wrong.
func (r *Root) Unmount() error {
	var errs []error
	for _, m := range slices.Backward(r.mounts) {
		if err := unix.Unmount(m, unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	r.mounts = nil
	return errors.Join(errs...)
}
