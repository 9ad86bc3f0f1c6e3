package installer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image/layout"
	"imgbuild/installer/target"
)

// Mounter mounts file systems.
type Mounter interface {
	// Supports returns an error, before anything is written, if a kind of file system cannot be mounted.
	Supports(fs string) error
	// Mount mounts the device source at target. options are the file system's own.
	Mount(source, target, fs, options string) error
	// Unmount returns when everything is written.
	Unmount(target string) error
}

// KernelMounter mounts with the kernel's own drivers.
type KernelMounter struct {
	// LoadModule loads a kernel module with all that it needs; nil if modules are loaded by somebody else.
	LoadModule func(name string) error
}

// companions are modules that the kernel asks user space for when a file system is mounted. In the initramfs nobody
// answers, so they are loaded first. Those that are built in, or that this kernel does not have, are not missed.
func companions(fs string) []string {
	switch fs {
	case "vfat":
		return []string{"nls_cp437", "nls_ascii", "nls_iso8859-1", "nls_utf8"}
	case "xfs", "ext4":
		return []string{"crc32c_intel", "crc32c-intel", "crc32c_generic", "libcrc32c"}
	}
	return nil
}

// Supports implements Mounter.
func (k KernelMounter) Supports(fs string) error {
	have, err := hasFS(fs)
	if k.LoadModule != nil {
		for _, m := range companions(fs) {
			_ = k.LoadModule(m) // see companions
		}
	}
	if have || err != nil {
		return err
	}
	if k.LoadModule != nil {
		if err := k.LoadModule(fs); err != nil {
			return fmt.Errorf("load the driver of %s: %w; rebuild the release with storage class server or virtual", fs, err)
		}
	}
	if have, err = hasFS(fs); err != nil || have {
		return err
	}
	return fmt.Errorf("the running kernel cannot mount %s", fs)
}

func hasFS(fs string) (bool, error) {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false, fmt.Errorf("list file systems of the kernel: %w", err)
	}
	return slices.Contains(strings.Fields(string(b)), fs), nil
}

// Mount implements Mounter.
func (KernelMounter) Mount(source, target, fs, options string) error {
	if err := unix.Mount(source, target, fs, unix.MS_NOATIME, options); err != nil {
		return fmt.Errorf("mount %s (%s) at %s: %w", source, fs, target, err)
	}
	return nil
}

// Unmount implements Mounter. It syncs first, as an error while writing back is reported there and not by umount.
func (KernelMounter) Unmount(target string) error {
	d, err := os.Open(target)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	err = unix.Syncfs(int(d.Fd()))
	d.Close()
	if err != nil {
		return fmt.Errorf("write everything to %s: %w", target, err)
	}
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// mounts are the mounted places in the order in which they were mounted.
type mounts []string

func (m *mounts) mount(by Mounter, source, target, fs, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := by.Mount(source, target, fs, options); err != nil {
		return err
	}
	*m = append(*m, target)
	return nil
}

// unmount unmounts the place that was mounted last.
func (m *mounts) unmount(by Mounter) error {
	last := (*m)[len(*m)-1]
	if err := by.Unmount(last); err != nil {
		return err
	}
	*m = (*m)[:len(*m)-1]
	return nil
}

// unmountAll goes on after an error, so that as little as possible stays mounted.
func (m *mounts) unmountAll(by Mounter) error {
	var errs []error
	for _, t := range slices.Backward(*m) {
		if err := by.Unmount(t); err != nil {
			errs = append(errs, err)
			if err := unix.Unmount(t, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fmt.Errorf("detach %s: %w", t, err))
			}
		}
	}
	*m = nil
	return errors.Join(errs...)
}

func (r *run) rootDir() string { return filepath.Join(r.System.Work, "root") }
func (r *run) espDir() string  { return filepath.Join(r.System.Work, "esp") }

// espMount is where the installed system has its EFI system partition.
const espMount = "/boot/efi"

// espOptions are how vfat is mounted here; fstab's options are the installed system's.
const espOptions = "umask=0077,shortname=winnt"

// mountTarget mounts the scheme's file systems that are wanted, root first and every one before those below it, and the ESP
// beside the tree: the image's files for the ESP come through /boot/efi and are copied when they are all there. Swap space is
// not turned on.
func (r *run) mountTarget(want func(layout.Filesystem) bool) error {
	for _, f := range r.scheme.Filesystems() {
		if f.Mount == "" || f.FS == "swap" || !want(f) {
			continue
		}
		target, options := filepath.Join(r.rootDir(), f.Mount), ""
		if f.FS == "vfat" {
			options = espOptions
		}
		if f.Mount == espMount {
			target = r.espDir()
		}
		node := r.made.Node(f.Device)
		if node == "" {
			continue // the installed system formats it
		}
		if err := r.mounts.mount(r.System.Mounter, node, target, f.FS, options); err != nil {
			return err
		}
	}
	return nil
}

// mountKept mounts what the layout keeps, after the image has been unpacked: the image's files do not go there. Those that it
// has below such a mount point would lie hidden in the file system above, so they go.
func (r *run) mountKept() error {
	for _, f := range r.scheme.Filesystems() {
		if f.Kept == nil || f.Mount == "" || f.FS == "swap" {
			continue
		}
		if err := r.withRoot(func(root *os.Root) error { return empty(root, strings.TrimPrefix(f.Mount, "/")) }); err != nil {
			return fmt.Errorf("prepare the mount point %s: %w", f.Mount, err)
		}
	}
	return r.mountTarget(func(f layout.Filesystem) bool { return f.Kept != nil })
}

// empty removes everything in a directory, if there is one.
func empty(root *os.Root, dir string) error {
	entries, err := fs.ReadDir(root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, root.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// unmountTarget unmounts everything, and gives mount points the attributes of what was mounted on them.
func (r *run) unmountTarget() error {
	for len(r.mounts) > 0 {
		last := r.mounts[len(r.mounts)-1]
		mount, below := strings.CutPrefix(last, r.rootDir()+"/")
		if !below {
			if err := r.mounts.unmount(r.System.Mounter); err != nil {
				return err
			}
			continue
		}
		var point target.MountPoint
		err := r.withRoot(func(root *os.Root) (err error) {
			point, err = target.TakeMountPoint(root, mount)
			return err
		})
		if err != nil {
			return err
		}
		if err := r.mounts.unmount(r.System.Mounter); err != nil {
			return err
		}
		if err := r.withRoot(point.Give); err != nil {
			return err
		}
	}
	return nil
}

// withRoot opens the installed tree for a moment: while it is open, nothing in it can be unmounted.
func (r *run) withRoot(f func(*os.Root) error) error {
	root, err := os.OpenRoot(r.rootDir())
	if err != nil {
		return fmt.Errorf("open installed tree: %w", err)
	}
	return errors.Join(f(root), root.Close())
}
