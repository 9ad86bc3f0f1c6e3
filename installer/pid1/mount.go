package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"imgbuild/image/mountinfo"
)

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// mountAll mounts the kernel's file systems and two in memory. What is mounted already is left alone.
func mountAll() []error {
	const hard = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	var errs []error
	for _, m := range []mount{
		{"proc", "/proc", "proc", hard, ""},
		{"sysfs", "/sys", "sysfs", hard, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := m.mount(); err != nil {
			errs = append(errs, err)
		}
	}
	for name, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errs
}

func (m mount) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
	}
	return nil
}

// MountEFIVars mounts the firmware's variables where the machine has UEFI and the kernel knows efivarfs, whose module
// must have been loaded.
func MountEFIVars() error {
	const dir = "/sys/firmware/efi/efivars"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return mount{"efivarfs", dir, "efivarfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""}.mount()
}

// mountPoints reads /proc/self/mountinfo: the mount points, the last mounted first, of file systems that are on devices
// or may keep one busy.
func mountPoints(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, m := range mountinfo.Parse(string(text)) {
		// What is ours stays until the end; the rest, with the bind mounts of a chroot, goes.
		if slices.Contains([]string{"/", "/proc", "/sys", "/dev", "/dev/pts", "/run", "/tmp"}, m.Target) || m.FS == "rootfs" {
			continue
		}
		found = append(found, m.Target)
	}
	slices.Reverse(found)
	return found, nil
}

// unmountAll unmounts everything that is on a disk, or makes it read-only if something still holds it.
func unmountAll() []error {
	points, err := mountPoints("/proc/self/mountinfo")
	if err != nil {
		return []error{fmt.Errorf("list what is mounted: %w", err)}
	}
	var errs []error
	for _, p := range points {
		if err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW); err == nil || errors.Is(err, unix.EINVAL) {
			continue
		}
		if err := unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: it is busy, and cannot be made read-only: %w", p, err))
		}
	}
	return errs
}
