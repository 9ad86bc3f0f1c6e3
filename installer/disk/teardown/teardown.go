// Package teardown releases disks from what the kernel has stacked on them: LVM volumes, dm-crypt, multipath maps and other
// device-mapper devices, md arrays, loop devices, bcache.
//
// The names of disks come in, with /sys, /proc and /dev; disks that nothing holds go out, or an error that names what does. What
// is removed is the kernel's view alone: nothing is written to a disk, and whatever was removed can be activated again. It never
// unmounts and never turns swap off: a disk with anything in use on it is refused before the first step.
package teardown

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/image/mountinfo"
)

// Kind is what a device is, and how it is removed.
type Kind string

// The kinds of devices.
const (
	Disk      Kind = "disk"
	Partition Kind = "partition"
	LVM       Kind = "LVM volume"
	Crypt     Kind = "encrypted volume"
	Multipath Kind = "multipath map"
	OtherDM   Kind = "device-mapper device"
	RAID      Kind = "RAID array"
	Loop      Kind = "loop device"
	BCache    Kind = "bcache device"
	// Member is the registration of a disk or partition with bcache, which holds it also where there is no bcache device.
	Member Kind = "bcache member"
	// Foreign is anything else. There is no way here to remove it.
	Foreign Kind = "device of another driver"
)

// Device is one block device.
type Device struct {
	Name string // kernel name, as dm-3
	Kind Kind
	// Label is what people call it: the device-mapper name, the array's name, the backing file.
	Label string
	// Dev is major:minor.
	Dev string
	// Below are the kernel names of what it stands on, sorted.
	Below []string
	// Users are what keeps it busy, in words: "mounted at /srv", "used as swap".
	Users []string
}

// String is the device in words, as "LVM volume system-root (dm-3)".
func (d Device) String() string {
	if d.Label == "" || d.Label == d.Name {
		return string(d.Kind) + " " + d.Name
	}
	return fmt.Sprintf("%s %s (%s)", d.Kind, d.Label, d.Name)
}

// System is where the kernel shows itself.
type System struct {
	Sys  string // /sys
	Proc string // /proc
	Dev  string // /dev
	// MountInfo is /proc/self/mountinfo where it is not below Proc.
	MountInfo string
}

// Tree is some disks with everything that stands on them, by kernel name.
type Tree map[string]Device

// Kernel is what cannot be found from a disk upwards: loop devices on block devices, arrays in containers, mounts and swap.
type Kernel struct {
	System
	// above are devices that say themselves what they stand on, while that does not speak of them, by kernel name.
	above map[string][]string
	// users are what is said of a device outside of sysfs, by major:minor and by kernel name.
	users map[string][]string
}

// Read looks at the whole machine, once for any number of disks.
func Read(s System) (*Kernel, error) {
	k := &Kernel{System: s, above: map[string][]string{}, users: map[string][]string{}}
	if err := k.index(); err != nil {
		return nil, fmt.Errorf("look at what stands on disks: %w", err)
	}
	return k, nil
}

// Look reads what stands on disks, given by kernel name, directly or through other devices. A disk may itself be a multipath
// map or an array: what is below it is not looked at.
func (k *Kernel) Look(disks ...string) (Tree, error) {
	l := look{Kernel: k, tree: Tree{}}
	for _, d := range disks {
		if err := l.add(d, Disk, ""); err != nil {
			return nil, fmt.Errorf("look at what stands on %s: %w", d, err)
		}
	}
	for name, d := range l.tree {
		slices.Sort(d.Below)
		d.Below = slices.Compact(d.Below)
		l.tree[name] = d
	}
	return l.tree, nil
}

type look struct {
	*Kernel
	tree Tree
}

// Look is Read and then Kernel.Look.
func Look(s System, disks ...string) (Tree, error) {
	k, err := Read(s)
	if err != nil {
		return nil, err
	}
	return k.Look(disks...)
}

// text is the first line of an attribute, or nothing.
func text(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	return string(bytes.Trim(b, " \x00"))
}

// list are the names in a directory; none where there is no directory.
func list(elem ...string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(elem...))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (k *Kernel) index() error {
	blocks, err := list(k.Sys, "block")
	if err != nil {
		return err
	}
	for _, b := range blocks {
		dir := filepath.Join(k.Sys, "block", b)
		if file := text(dir, "loop/backing_file"); strings.HasPrefix(file, "/dev/") {
			below := k.nameOf(file)
			k.above[below] = append(k.above[below], b)
		}
		// A member of an array with foreign metadata (IMSM, DDF) stands on its container: external:/md127/0.
		if m, ok := strings.CutPrefix(text(dir, "md/metadata_version"), "external:"); ok && len(m) > 1 && (m[0] == '/' || m[0] == '-') {
			container, _, _ := strings.Cut(m[1:], "/")
			k.above[container] = append(k.above[container], b)
		}
	}
	file := k.MountInfo
	if file == "" {
		file = filepath.Join(k.Proc, "self/mountinfo")
	}
	mounts, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	for _, m := range mountinfo.Parse(string(mounts)) {
		use := "mounted at " + m.Target
		if strings.HasPrefix(m.Dev, "0:") {
			if strings.HasPrefix(m.Source, "/dev/") {
				name := k.nameOf(m.Source)
				k.users[name] = append(k.users[name], use)
			}
			continue
		}
		k.users[m.Dev] = append(k.users[m.Dev], use)
	}
	swaps, err := os.ReadFile(filepath.Join(k.Proc, "swaps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read swaps: %w", err)
	}
	for line := range strings.Lines(string(swaps)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "/dev/") {
			name := k.nameOf(mountinfo.Unescape(f[0]))
			k.users[name] = append(k.users[name], "used as swap")
		}
	}
	return nil
}

// nameOf is the kernel name of a device node, from its path alone where that says it.
func (k *Kernel) nameOf(node string) string {
	if dm, ok := strings.CutPrefix(node, "/dev/mapper/"); ok {
		if blocks, err := list(k.Sys, "block"); err == nil {
			for _, b := range blocks {
				if text(k.Sys, "block", b, "dm/name") == dm {
					return b
				}
			}
		}
	}
	rel := strings.TrimPrefix(node, "/dev/")
	if real, err := filepath.EvalSymlinks(filepath.Join(k.Dev, rel)); err == nil {
		return filepath.Base(real)
	}
	return strings.ReplaceAll(rel, "/", "!")
}

// add puts a device into the tree, and everything above it. parent is the disk of a partition.
func (l *look) add(name string, kind Kind, parent string) error {
	if _, ok := l.tree[name]; ok {
		return nil
	}
	dir := filepath.Join(l.Sys, "block", parent, name)
	d := Device{Name: name, Kind: kind, Dev: text(dir, "dev")}
	if d.Dev == "" {
		return fmt.Errorf("%s is not in %s", name, filepath.Dir(dir))
	}
	if kind == "" {
		d.Kind, d.Label = kindOf(dir)
	}
	d.Users = slices.Concat(l.users[d.Dev], l.users[name])
	if parent != "" {
		d.Below = []string{parent}
	}
	l.tree[name] = d

	if _, err := os.Stat(filepath.Join(dir, "bcache")); err == nil && (kind == Disk || kind == Partition) {
		l.on("member:"+name, Device{Name: "member:" + name, Kind: Member, Label: name}, name)
	}
	holders, err := list(dir, "holders")
	if err != nil {
		return err
	}
	for _, h := range slices.Concat(holders, l.above[name]) {
		if err := l.add(h, "", ""); err != nil {
			return err
		}
		l.on(h, l.tree[h], name)
		if d := l.tree[h]; d.Kind == BCache {
			if _, ok := l.tree["member:"+name]; ok { // the member is let go after the device
				l.on(h, d, "member:"+name)
			}
		}
	}
	if parent != "" {
		return nil
	}
	entries, err := list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if text(dir, e, "partition") != "" && text(dir, e, "dev") != "" {
			if err := l.add(e, Partition, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// on records that device d stands on name.
func (l *look) on(key string, d Device, name string) {
	d.Below = append(slices.Clone(d.Below), name)
	l.tree[key] = d
}

// kindOf says what a holder is.
func kindOf(dir string) (Kind, string) {
	is := func(sub string) bool {
		_, err := os.Stat(filepath.Join(dir, sub))
		return err == nil
	}
	switch {
	case is("dm"):
		label := text(dir, "dm/name")
		uuid := text(dir, "dm/uuid")
		for _, k := range []struct {
			prefix string
			kind   Kind
		}{{"LVM-", LVM}, {"CRYPT-", Crypt}, {"mpath-", Multipath}} {
			if strings.HasPrefix(uuid, k.prefix) {
				return k.kind, label
			}
		}
		return OtherDM, label
	case is("md"):
		return RAID, ""
	case is("loop"):
		return Loop, text(dir, "loop/backing_file")
	case is("bcache"):
		return BCache, ""
	}
	return Foreign, ""
}
