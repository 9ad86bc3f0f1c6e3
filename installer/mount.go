package installer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image"
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

// espOptions are how vfat is mounted here; fstab's options are the installed system's.
const espOptions = "umask=0077,shortname=winnt"

// mountTarget mounts root, /boot in it, and the ESP beside it: the image's files for the ESP come through /boot/efi and
// are copied when they are all there.
func (r *run) mountTarget() error {
	for _, mount := range []string{"/", "/boot"} {
		for i, p := range r.parts {
			if p.Mount != mount || p.Role == image.RoleESP {
				continue
			}
			if err := r.mounts.mount(r.System.Mounter, r.nodes[i], filepath.Join(r.rootDir(), mount), p.FS, ""); err != nil {
				return err
			}
		}
	}
	for i, p := range r.parts {
		if p.Role == image.RoleESP && p.FS != "" {
			return r.mounts.mount(r.System.Mounter, r.nodes[i], r.espDir(), p.FS, espOptions)
		}
	}
	return nil
}
