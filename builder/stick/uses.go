package stick

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image/mountinfo"
)

// uses are what keeps a disk busy, in the order in which it was found.
type uses struct {
	system bool
	held   []string // sentences of their own
	mounts []mounted
}

// mounted is a device with the places where it is mounted.
type mounted struct {
	what string
	at   []string
}

func (u *uses) lines() []string {
	var out []string
	for _, m := range u.mounts {
		at := strings.Join(m.at[:min(3, len(m.at))], " and ")
		if more := len(m.at) - 3; more > 0 {
			at += fmt.Sprintf(" and %d more", more)
		}
		out = append(out, m.what+" is mounted at "+at)
	}
	return append(out, u.held...)
}

func (u *uses) mount(what, at string) {
	i := slices.IndexFunc(u.mounts, func(m mounted) bool { return m.what == what })
	if i < 0 {
		u.mounts = append(u.mounts, mounted{what, []string{at}})
	} else if !slices.Contains(u.mounts[i].at, at) {
		u.mounts[i].at = append(u.mounts[i].at, at)
	}
}

// systemDir reports whether the running system has there what it cannot do without.
func systemDir(target string) bool {
	return slices.Contains([]string{"/", "/boot", "/boot/efi", "/efi", "/usr", "/var", "/home"}, target)
}

// findUses asks everything that knows of users. What none of them knows of, the kernel still refuses when a device is to be opened
// for us alone.
func (m *machine) findUses() error {
	mounts, err := os.ReadFile(filepath.Join(m.Proc, "self/mountinfo"))
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	for _, mount := range mountinfo.Parse(string(mounts)) {
		name := m.names[mount.Dev]
		if name == "" && strings.HasPrefix(mount.Source, "/") { // Btrfs and others invent a number
			if name = m.nameOf(mount.Source); name != "" {
				m.names[mount.Dev] = name
			}
		}
		for _, u := range m.below(name) {
			u.mount(m.describe(name), mount.Target)
			u.system = u.system || systemDir(mount.Target)
		}
	}
	swaps, err := os.ReadFile(filepath.Join(m.Proc, "swaps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read swaps: %w", err)
	}
	for line := range strings.Lines(string(swaps)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "/") {
			name := m.nameOf(mountinfo.Unescape(f[0]))
			for _, u := range m.below(name) {
				u.system = true
			}
			m.hold(name, m.describe(name)+" is used as swap")
		}
	}
	m.findHolders()
	return nil
}

// findHolders asks sysfs for what stands on disks: device-mapper, md, loop devices, bcache, and file systems over several disks, of
// which mounts name only one.
func (m *machine) findHolders() {
	for name, n := range m.nodes {
		for _, h := range list(n.dir, "holders") {
			m.hold(name, fmt.Sprintf("%s is held by %s", m.describe(name), m.describe(h)))
		}
		if _, err := os.Stat(filepath.Join(n.dir, "bcache")); err == nil && !stackedRE.MatchString(n.disk) {
			m.hold(name, m.describe(name)+" is registered with bcache")
		}
		if file := text(n.dir, "loop/backing_file"); strings.HasPrefix(file, "/dev/") {
			if below := m.nameOf(file); below != "" {
				m.hold(below, fmt.Sprintf("%s stands on %s", m.describe(name), m.describe(below)))
			}
		}
	}
	for _, fs := range list(m.Sys, "fs/btrfs") {
		for _, member := range list(m.Sys, "fs/btrfs", fs, "devices") {
			m.hold(member, m.describe(member)+" belongs to a mounted Btrfs file system")
		}
	}
	for _, u := range m.uses {
		slices.Sort(u.held)
		u.held = slices.Compact(u.held)
	}
}

// hold records a sentence about a device with its disk, and with all disks on which that stands.
func (m *machine) hold(name, sentence string) {
	for _, u := range m.below(name) {
		u.held = append(u.held, sentence)
	}
}

// below are the records of the disk of a device, and of all disks on which it stands.
func (m *machine) below(name string) []*uses {
	var out []*uses
	seen := map[string]bool{}
	var down func(string)
	down = func(name string) {
		n, ok := m.nodes[name]
		if !ok || seen[n.disk] {
			return
		}
		seen[n.disk] = true
		if m.uses[n.disk] == nil {
			m.uses[n.disk] = &uses{}
		}
		out = append(out, m.uses[n.disk])
		dir := m.nodes[n.disk].dir
		for _, s := range list(dir, "slaves") {
			down(s)
		}
		if file := text(dir, "loop/backing_file"); strings.HasPrefix(file, "/dev/") {
			down(m.nameOf(file))
		}
	}
	down(name)
	return out
}

// describe is a device in words, as "LVM volume system-root (dm-3)" or "sdb1".
func (m *machine) describe(name string) string {
	dir := m.nodes[name].dir
	switch {
	case strings.HasPrefix(name, "dm-"):
		kind := "device-mapper device"
		switch prefix, _, _ := strings.Cut(text(dir, "dm/uuid"), "-"); prefix {
		case "LVM":
			kind = "LVM volume"
		case "CRYPT":
			kind = "encrypted volume"
		case "mpath":
			kind = "multipath map"
		}
		return fmt.Sprintf("%s %s (%s)", kind, text(dir, "dm/name"), name)
	case strings.HasPrefix(name, "md"):
		return "RAID array " + name
	case strings.HasPrefix(name, "loop"):
		return "loop device " + name
	}
	return name
}

// nameOf is the kernel name of a device node, or empty where there is none.
func (m *machine) nameOf(path string) string {
	rel, ok := strings.CutPrefix(path, "/dev/")
	if !ok {
		return ""
	}
	real, err := filepath.EvalSymlinks(filepath.Join(m.Dev, rel))
	if err != nil {
		return ""
	}
	var st unix.Stat_t
	if unix.Stat(real, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return m.names[numbers(st.Rdev)]
	}
	if name := filepath.Base(real); m.nodes[name].dir != "" {
		return name
	}
	return ""
}

// numbers writes a device number as sysfs does.
func numbers(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
