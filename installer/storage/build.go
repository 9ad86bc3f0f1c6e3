package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/mbr"
	"imgbuild/installer/disk/teardown"
	"imgbuild/installer/tool"
)

// held is a device of the scheme that may hold something.
type held struct {
	device layout.Device
	layout.Content
	kept   bool
	later  bool
	disks  []string // SchemeDisk.Name of those below it
	sector int      // of the first of them, bytes
}

// holders lists them: disks and partitions, arrays, volumes. What comes later stands on what comes before.
func (m *Made) holders() []held {
	var list []held
	below := func(devices []layout.Device) (disks []string, sector int) {
		for _, h := range list {
			if slices.Contains(devices, h.device) {
				disks = append(disks, h.disks...)
				sector = max(sector, h.sector)
			}
		}
		return disks, sector
	}
	for _, w := range m.disks {
		one := []string{w.Name}
		list = append(list, held{wholeDisk(w.Name), w.Content, w.Kept != nil, w.later, one, w.Sector})
		for _, p := range w.Parts {
			list = append(list, held{partition(w.Name, p.Number), p.Content, p.Kept != nil, w.later, one, w.Sector})
		}
	}
	for _, a := range m.scheme.Arrays {
		disks, sector := below(a.Members)
		list = append(list, held{array(a.Name), a.Content, a.Kept != nil, false, disks, sector})
	}
	for _, g := range m.scheme.Groups {
		disks, sector := below(g.Physical)
		for _, v := range g.Volumes {
			list = append(list, held{volume(g.Name, v.Name), v.Content, v.Kept != nil, false, disks, sector})
		}
	}
	return list
}

// extended reports whether a partition is only the container of logical ones, which the kernel does not take by BLKPG.
func (w *work) extended(p layout.Part) bool {
	return w.Table == layout.MBR && mbr.Extended(mbrType(p))
}

// teardown takes down what stands on the disks, without writing to them, and makes the kernel forget their partitions.
func (m *Made) teardown(ctx context.Context) error {
	var names []string
	for _, w := range m.disks {
		names = append(append(names, w.disk.Name), w.disk.Paths...)
	}
	gone, err := teardown.Down(ctx, teardown.System{Sys: m.sys.Sys, Proc: "/proc", Dev: "/dev"}, names...)
	for _, d := range gone {
		m.sys.Report.Info("%s was taken down", d)
	}
	if err != nil {
		return err
	}
	for _, w := range m.disks {
		if err := deletePartitions(m.sys.Sys, w.disk); err != nil {
			return err
		}
	}
	return nil
}

// empty removes what was on a disk. What a device does with discarded blocks is its own affair, so the wipe comes last.
func (m *Made) empty(ctx context.Context, w *work) error {
	if w.kept == nil {
		if err := w.erase(ctx); err != nil {
			return err
		}
	}
	return w.wipe(ctx)
}

// erase lets the disk empty itself, where the layout asks for that.
func (w *work) erase(ctx context.Context) error {
	d, err := w.open()
	if err != nil {
		return fmt.Errorf("empty %s: %w", w.Path, err)
	}
	if f, ok := d.(*os.File); ok {
		err = w.discard.Run(ctx, f, nil)
	}
	return errors.Join(err, d.Close())
}

// nodesOf are the device nodes of some devices, as the kernel names them.
func (m *Made) nodesOf(devices []layout.Device) ([]string, error) {
	var out []string
	for _, d := range devices {
		node := m.nodes[d]
		if node == "" {
			return nil, fmt.Errorf("find %s: the layout names it and has no such device", d)
		}
		real, err := filepath.EvalSymlinks(node)
		if err != nil {
			return nil, fmt.Errorf("find device of %s: %w", d, err)
		}
		out = append(out, real)
	}
	return out, nil
}

// array makes or, if it is kept, starts an array.
func (m *Made) array(ctx context.Context, a layout.SchemeArray) error {
	members, err := m.nodesOf(a.Members)
	if err != nil {
		return fmt.Errorf("make array %s: %w", a.Name, err)
	}
	argv := createArray(a, m.ids.Array(a.Name), members)
	if a.Kept != nil {
		argv = assembleArray(a.Name, m.ids.Array(a.Name), false, members)
	}
	m.arrays = append(m.arrays, a.Name)
	if err := m.sys.Run.Run(ctx, noUdev(), argv...); err != nil {
		return fmt.Errorf("make array %s of %s: %w", a.Name, strings.Join(members, ", "), err)
	}
	if err := arrayNode(m.sys.Sys, a.Name, members[0]); err != nil {
		return fmt.Errorf("make array %s: %w", a.Name, err)
	}
	m.nodes[array(a.Name)] = mdNode(a.Name)
	return nil
}

// arrayNode makes /dev/md/NAME where mdadm did not: a link to the device that the kernel has of an array, which holds its members.
func arrayNode(sys, name, member string) error {
	link := mdNode(name)
	if st, err := os.Stat(link); err == nil && st.Mode()&fs.ModeDevice != 0 {
		return nil
	}
	dirs, err := filepath.Glob(filepath.Join(sys, "class/block", filepath.Base(member), "holders/md*"))
	if err != nil || len(dirs) != 1 {
		return fmt.Errorf("%s is held by %d arrays and not by one", member, len(dirs))
	}
	kernel := filepath.Base(dirs[0])
	if err := ensureNode(filepath.Join(sys, "block", kernel), "/dev/"+kernel); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("make link to array: %w", err)
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace link to array: %w", err)
	}
	if err := os.Symlink("../"+kernel, link); err != nil {
		return fmt.Errorf("make link to array: %w", err)
	}
	return nil
}

// stopArray ends an array. One that was never made is none.
func stopArray(ctx context.Context, run tool.Runner, name string) error {
	if _, err := os.Stat(mdNode(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := run.Run(ctx, noUdev(), endArray(name)...); err != nil {
		return fmt.Errorf("stop array %s: %w", name, err)
	}
	if err := os.Remove(mdNode(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stop array %s: %w", name, err)
	}
	return nil
}

// mkfs makes one file system.
func (m *Made) mkfs(ctx context.Context, h held) error {
	node := m.nodes[h.device]
	argv, err := mkfsArgs(h.Content, m.ids.FS(h.device), node, h.sector)
	if err != nil {
		return err
	}
	var env []string
	if conf := mke2fsConf(m.reader(h.Content)); h.FS == "ext4" && conf != "" {
		file := filepath.Join(m.sys.Scratch, "mke2fs.conf")
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			return fmt.Errorf("make file system: %w", err)
		}
		env = []string{"MKE2FS_CONFIG=" + file}
	}
	if err := m.sys.Run.Run(ctx, env, argv...); err != nil {
		return fmt.Errorf("make %s on %s: %w", h.FS, node, err)
	}
	return nil
}

// reader is the boot loader that reads a file system: that of /boot, or of / where that has none.
func (m *Made) reader(c layout.Content) bootReader {
	boot := "/"
	for _, h := range m.holders() {
		if h.Mount == "/boot" {
			boot = "/boot"
		}
	}
	switch {
	case c.Mount != boot:
		return readByNobody
	case m.scheme.BIOSLoader == layout.Extlinux:
		return readByExtlinux
	}
	return readByGRUB
}
