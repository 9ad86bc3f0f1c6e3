package teardown

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tries and pause are how often, and after what pause, a step that met a busy device is tried again: programs that only look at new
// block devices hold them for a moment, bcache stops in the background, and there is no event for either.
const (
	tries = 50
	pause = 100 * time.Millisecond
)

// Down removes everything that stands on disks, given by kernel name, and returns what it removed, in order. It begins only if
// nothing there is in use. Afterwards nothing holds the disks or their partitions, seen and tried, or there is an error.
func Down(ctx context.Context, s System, disks ...string) ([]Device, error) {
	tree, err := Look(s, disks...)
	if err != nil {
		return nil, err
	}
	steps, err := tree.Steps()
	if err != nil {
		return nil, err
	}
	if err := s.hidden(ctx, tree); err != nil {
		return nil, err
	}
	for i, d := range steps {
		if err := patient(ctx, func() error { return s.remove(d) }); err != nil {
			return steps[:i], fmt.Errorf("release disk: remove %s: %w", d, err)
		}
		if err := s.gone(ctx, d); err != nil {
			return steps[:i], fmt.Errorf("release disk: remove %s: %w", d, err)
		}
	}
	if tree, err = Look(s, disks...); err != nil {
		return steps, err
	}
	if left := append(tree.Holders(), tree.Busy()...); len(left) > 0 {
		return steps, fmt.Errorf("release disk: everything was removed and there is again %s; something else on this machine activates it, stop that first",
			strings.Join(left, ", "))
	}
	return steps, s.hidden(ctx, tree)
}

// patient repeats what fails with EBUSY.
func patient(ctx context.Context, step func() error) error {
	for n := 1; ; n++ {
		err := step()
		if err == nil || !errors.Is(err, unix.EBUSY) || n == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// hidden tries devices on which nothing seems to stand: ZFS, DRBD and the further disks of a mounted Btrfs hold theirs without
// a word in sysfs.
func (s System) hidden(ctx context.Context, t Tree) error {
	var busy []string
	for name, d := range t {
		if d.Kind == Member || t.held(name) {
			continue
		}
		err := patient(ctx, func() error { return s.try(name) })
		switch {
		case errors.Is(err, unix.EBUSY):
			busy = append(busy, d.String())
		case d.Kind == Disk && err != nil:
			return fmt.Errorf("release disk: see whether %s is free: %w", d, err)
		}
	}
	if len(busy) > 0 {
		slices.Sort(busy)
		return fmt.Errorf("release disk: %s is in use by something that the kernel does not name, as ZFS, DRBD or a Btrfs of several disks; stop that first",
			strings.Join(busy, ", "))
	}
	return nil
}

func (s System) node(name string) string {
	return filepath.Join(s.Dev, strings.ReplaceAll(name, "!", "/"))
}

// try opens a device exclusively.
func (s System) try(name string) error {
	f, err := os.OpenFile(s.node(name), os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func (s System) remove(d Device) error {
	dir := filepath.Join(s.Sys, "block", d.Name)
	switch d.Kind {
	case LVM, Crypt, Multipath, OtherDM:
		if err := s.removeDM(d); err != nil {
			return err
		}
		return s.removeNodes(d)
	case RAID:
		// Clear stops an array and forgets it (kernel, admin-guide/md.rst).
		return there(write(filepath.Join(dir, "md/array_state"), "clear"))
	case Loop:
		f, err := os.Open(s.node(d.Name))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
			return err
		}
		return nil
	case BCache:
		return there(write(filepath.Join(dir, "bcache/stop"), "1"))
	case Member:
		return s.removeMember(d.Label)
	}
	return fmt.Errorf("there is no way to remove it")
}

// removeMember unregisters a cache set's device, with its set, or a backing device.
func (s System) removeMember(name string) error {
	dirs, err := filepath.Glob(filepath.Join(s.Sys, "block", "*", name, "bcache"))
	if err != nil {
		return err
	}
	for _, dir := range append(dirs, filepath.Join(s.Sys, "block", name, "bcache")) {
		for _, stop := range []string{"set/stop", "stop"} {
			err := write(filepath.Join(dir, stop), "1")
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil // it went with the device that stood on it
}

// there forgives that something is gone already.
func there(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(value); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func (s System) removeDM(d Device) error {
	arg, err := dmRemove(d.Dev)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.Dev, "mapper/control"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), dmDevRemove, uintptr(unsafe.Pointer(&arg[0])))
	runtime.KeepAlive(arg)
	if errno != 0 && errno != unix.ENXIO { // ENXIO: it is gone already
		return errno
	}
	return nil
}

// removeNodes removes the names that libdm and LVM made for a device below /dev, which without udev nobody else does. A name
// that means something else by now stays.
func (s System) removeNodes(d Device) error {
	if d.Label == "" || strings.Contains(d.Label, "/") {
		return nil
	}
	names := []string{filepath.Join(s.Dev, "mapper", d.Label)}
	if group, volume, ok := splitLVM(d.Label); ok && d.Kind == LVM {
		names = append([]string{filepath.Join(s.Dev, group, volume)}, names...)
	}
	for _, n := range names {
		var st unix.Stat_t
		if err := unix.Lstat(n, &st); err != nil {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFBLK:
			if major, minor, err := numbers(d.Dev); err != nil || st.Rdev != unix.Mkdev(major, minor) {
				continue
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(n)
			if err != nil || filepath.Base(to) != d.Name && filepath.Base(to) != d.Label {
				continue
			}
		default:
			continue
		}
		if err := os.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// splitLVM takes the device-mapper name of a logical volume apart: group and volume are joined by a dash, and dashes in them
// are doubled. Hidden volumes (of a pool, a mirror) have no name below /dev, and their parts are harmless here.
func splitLVM(name string) (group, volume string, ok bool) {
	for i := 0; i < len(name); i++ {
		if name[i] != '-' {
			continue
		}
		if i+1 < len(name) && name[i+1] == '-' {
			i++
			continue
		}
		undouble := func(s string) string { return strings.ReplaceAll(s, "--", "-") }
		return undouble(name[:i]), undouble(name[i+1:]), i > 0 && i+1 < len(name)
	}
	return "", "", false
}

// gone waits until the kernel no longer shows a device as standing on what it stood on.
func (s System) gone(ctx context.Context, d Device) error {
	return patient(ctx, func() error {
		for _, b := range d.Below {
			dirs, err := filepath.Glob(filepath.Join(s.Sys, "block", "*", b))
			if err != nil {
				return err
			}
			for _, dir := range append(dirs, filepath.Join(s.Sys, "block", b)) {
				if _, err := os.Lstat(filepath.Join(dir, "holders", d.Name)); err == nil {
					return fmt.Errorf("it was told to go and stays: %w", unix.EBUSY)
				}
				if _, err := os.Lstat(filepath.Join(dir, "bcache")); err == nil && d.Kind == Member && b == d.Label {
					return fmt.Errorf("it was told to go and stays: %w", unix.EBUSY)
				}
			}
		}
		if d.Kind == Loop && text(s.Sys, "block", d.Name, "loop/backing_file") != "" {
			return fmt.Errorf("it was told to go and stays: %w", unix.EBUSY)
		}
		return nil
	})
}
