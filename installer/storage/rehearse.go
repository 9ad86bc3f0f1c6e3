package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/discard"
)

// rehearse does with everything that is kept what will be done with it once all else is gone, without writing: arrays are
// started from their kept members alone, and volume groups have to be whole on their kept physical volumes alone.
func (m *Made) rehearse(ctx context.Context) (err error) {
	f := &finder{sys: m.sys}
	defer func() {
		if left := f.stop(context.WithoutCancel(ctx)); left != nil {
			err = errors.Join(err, fmt.Errorf("check what is kept: %w", left))
		}
	}()
	nodes, err := m.keptNodes(f)
	if err != nil {
		return fmt.Errorf("check what is kept: %w", err)
	}
	all := func(devices []layout.Device) ([]string, error) {
		var out []string
		for _, d := range devices {
			if nodes[d] == "" {
				return nil, fmt.Errorf("it lies on %s, which is not kept", d)
			}
			out = append(out, nodes[d])
		}
		return out, nil
	}
	for _, a := range m.scheme.Arrays {
		if a.Kept == nil {
			continue
		}
		members, err := all(a.Members)
		if err == nil {
			f.arrays = append(f.arrays, a.Name)
			err = m.sys.Run.Run(ctx, noUdev(), assembleArray(a.Name, m.ids.Array(a.Name), true, members)...)
		}
		if err == nil {
			err = arrayNode(m.sys.Sys, a.Name, members[0])
		}
		if err == nil {
			nodes[array(a.Name)], err = filepath.EvalSymlinks(mdNode(a.Name))
		}
		if err == nil {
			err = wholeArray(m.sys.Sys, nodes[array(a.Name)])
		}
		if err != nil {
			return fmt.Errorf("check that array %s can be kept: %w", a.Name, err)
		}
	}
	for _, g := range m.scheme.Groups {
		if !g.Kept {
			continue
		}
		physical, err := all(g.Physical)
		if err == nil {
			err = wholeGroup(ctx, lvmReader{m.sys.Run, lvm{lvmConfig(physical)}}, g)
		}
		if err != nil {
			return fmt.Errorf("check that volume group %s can be kept: %w", g.Name, err)
		}
	}
	return nil
}

// wholeArray returns an error for an array that runs without some of its members, which mdadm has left out where they are of another
// array or older than the others.
func wholeArray(sys, node string) error {
	b, err := os.ReadFile(filepath.Join(sys, "block", filepath.Base(node), "md/degraded"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // RAID 0 is whole or does not run
	}
	if err != nil {
		return err
	}
	if n := strings.TrimSpace(string(b)); n != "0" {
		return fmt.Errorf("of its members that are kept %s cannot be used; repair the array first, or keep nothing of it", n)
	}
	return nil
}

// wholeGroup looks for a group, and in it for all volumes that are kept.
func wholeGroup(ctx context.Context, c lvmReader, g layout.SchemeGroup) error {
	info, err := c.group(ctx, g.Name)
	switch {
	case err != nil:
		return err
	case info == nil:
		return errors.New("LVM does not find it")
	case info.missing > 0:
		return fmt.Errorf("%d of its physical volumes are on none of the kept partitions", info.missing)
	case info.extent != g.Extent:
		return fmt.Errorf("its extents have %d bytes, and the layout says %d; change the layout's extent_size", info.extent, g.Extent)
	}
	have, err := c.volumes(ctx, g.Name)
	if err == nil {
		_, err = removals(g, have)
	}
	return err
}

// keptNodes tells the kernel of kept partitions on which something stands, as they are numbered now.
func (m *Made) keptNodes(f *finder) (map[layout.Device]string, error) {
	nodes := map[layout.Device]string{}
	for _, w := range m.disks {
		if w.untouched() {
			nodes[wholeDisk(w.Name)] = w.disk.Path
		}
		var places []place
		for _, p := range w.Parts {
			if p.Kept != nil && (p.Content.Group != "" || p.Content.Array != "") {
				places = append(places, place{p.Kept.Number, p.Start, p.Size})
			}
		}
		if places == nil {
			continue
		}
		f.added = append(f.added, w.disk)
		made, err := addPartitions(m.sys.Sys, w.disk, places)
		if err != nil {
			return nil, err
		}
		for _, p := range w.Parts {
			if p.Kept != nil && made[p.Kept.Number] != "" {
				nodes[partition(w.Name, p.Number)] = made[p.Kept.Number]
			}
		}
	}
	return nodes, nil
}

// planDiscard decides how disks are emptied besides being wiped.
func (m *Made) planDiscard() error {
	how := m.scheme.Discard
	if how == "" || how == layout.DiscardNone {
		return nil
	}
	var errs []error
	for _, w := range m.disks {
		err := fmt.Errorf("empty %s: something on it is kept, and only whole disks are emptied", w.Path)
		if w.kept == nil {
			w.discard, err = discard.Prepare(discard.System{Sys: m.sys.Sys, Dev: "/dev"}, w.disk.Name, how)
		}
		switch {
		case err == nil:
		case how == layout.DiscardBlocks && (w.kept != nil || errors.Is(err, discard.ErrUnsupported)):
			m.sys.Report.Warn("%v", err)
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
