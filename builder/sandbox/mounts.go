package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Mounts are the mounts that a build made, undone in reverse order by Close.
type Mounts struct{ points []string }

// Close takes the mounts away again. Mounts that a left-over process still uses disappear when it ends.
func (m *Mounts) Close() error {
	var errs []error
	for _, p := range slices.Backward(m.points) {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	m.points = nil
	return errors.Join(errs...)
}

func (m *Mounts) mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	m.points = append(m.points, target)
	return nil
}

// Bind shows the directory or file at source at target too.
func (m *Mounts) Bind(source, target string) error {
	return m.mount(source, target, "bind", unix.MS_BIND, "")
}

// BindReadOnly shows source at target, where it cannot be written.
func (m *Mounts) BindReadOnly(source, target string) error {
	if err := m.Bind(source, target); err != nil {
		return err
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

// Hide puts an empty directory over each of the host's directories that exists, in this mount namespace.
func (m *Mounts) Hide(dirs ...string) error {
	for _, d := range dirs {
		if st, err := os.Stat(d); err != nil || !st.IsDir() {
			continue
		}
		if err := m.mount("tmpfs", d, "tmpfs", unix.MS_RDONLY, "size=4k,mode=755"); err != nil {
			return err
		}
	}
	return nil
}

// Overlay mounts a directory at target that shows lower with what is changed kept in upper. Upper and work are new
// directories on one file system.
func (m *Mounts) Overlay(lower, upper, work, target string) error {
	// index=on keeps hard links together when one of their names is written to.
	opts := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
	for _, extra := range []string{",index=on,redirect_dir=off,metacopy=off", ""} {
		err := m.mount("overlay", target, "overlay", 0, opts+extra)
		if err == nil || !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return fmt.Errorf("mount overlay on %s: %w", target, unix.EINVAL)
}

// System says how much of a system a root directory gets.
type System struct {
	// Kernel shows the kernel's /sys, read-only, instead of an empty one.
	Kernel bool
}

// Populate mounts /proc, /sys and /dev in root: /proc/sys cannot be written, so that no scriptlet changes the host's
// kernel, and /dev has only the devices that are the same everywhere.
func (m *Mounts) Populate(root string, s System) error {
	for d, mode := range map[string]os.FileMode{"proc": 0o555, "sys": 0o555, "dev": 0o755} {
		// The modes are those of the package filesystem, which cannot set them while something is mounted there.
		if err := os.Mkdir(filepath.Join(root, d), mode); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("prepare %s: %w", root, err)
		}
	}
	if err := m.proc(filepath.Join(root, "proc")); err != nil {
		return err
	}
	sys := filepath.Join(root, "sys")
	if s.Kernel {
		if err := m.BindReadOnly("/sys", sys); err != nil {
			return err
		}
	} else if err := m.mount("tmpfs", sys, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,mode=555"); err != nil {
		return err
	}
	return m.dev(filepath.Join(root, "dev"))
}

func (m *Mounts) proc(dir string) error {
	err := m.mount("proc", dir, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) {
		err = m.Bind("/proc", dir) // a container that may not mount a new one
	}
	if err != nil {
		return err
	}
	for _, d := range []string{"sys", "sysrq-trigger", "irq", "bus"} {
		p := filepath.Join(dir, d)
		if _, err := os.Lstat(p); err != nil {
			continue
		}
		if err := m.BindReadOnly(p, p); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mounts) dev(dir string) error {
	if err := m.mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "size=16m,mode=755"); err != nil {
		return err
	}
	for _, n := range []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		if err := m.device(filepath.Join(dir, n.name), "/dev/"+n.name, n.major, n.minor); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "core": "/proc/kcore", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("make /dev: %w", err)
		}
	}
	for _, d := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("make /dev: %w", err)
		}
	}
	// Without pseudo-terminals only script(1) and its like would miss something.
	if err := m.mount("devpts", filepath.Join(dir, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return m.mount("tmpfs", filepath.Join(dir, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64m,mode=1777")
}

// device makes a device node, or, where that is not allowed, shows the host's.
func (m *Mounts) device(path, host string, major, minor uint32) error {
	err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor)))
	if err == nil {
		return os.Chmod(path, 0o666) // the umask took its part
	}
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("make the device %s: %w", path, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make the device %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return m.Bind(host, path)
}
