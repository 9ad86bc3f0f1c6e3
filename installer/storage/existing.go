package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/mbr"
)

// Existing lists what is on disks now, as far as a layout may keep it: all partitions, and of the arrays and volume groups that
// the layout names those of which it keeps something, with all their volumes, so that it can also be said which of them go.
// disks are those chosen for Layout.Disks, in their order, and then those for Layout.Data. Nothing is written to them: arrays are
// started read-only, and all that was started is stopped again.
func Existing(ctx context.Context, sys System, l layout.Layout, disks []disk.Disk) (list []layout.Existing, err error) {
	if !keepsAny(l) {
		return nil, nil
	}
	f := &finder{sys: sys, members: map[string][]string{}, uuids: map[string]string{}, sizes: map[string]int{}}
	defer func() {
		if left := f.stop(context.WithoutCancel(ctx)); left != nil {
			list, err = nil, errors.Join(err, fmt.Errorf("look for what is kept: %w", left))
		}
	}()
	for i, d := range disks {
		name := d.Name
		if i < len(l.Disks) {
			if name = l.Disks[i].Name; name == "" {
				name = fmt.Sprintf("disk%d", i+1)
			}
		}
		if err := f.disk(ctx, d, name); err != nil {
			return nil, fmt.Errorf("look for what is kept on %s: %w", d.Path, err)
		}
	}
	for _, a := range l.Arrays {
		if err := f.array(ctx, a.Name); err != nil {
			return nil, fmt.Errorf("look for what is kept on array %s: %w", a.Name, err)
		}
	}
	for _, g := range l.Groups {
		if err := f.group(ctx, g); err != nil {
			return nil, fmt.Errorf("look for what is kept in volume group %s: %w", g.Name, err)
		}
	}
	return f.found, nil
}

// keepsAny reports whether a layout may keep something.
func keepsAny(l layout.Layout) bool {
	keep := l.Data != nil && l.Data.Keep
	for _, d := range l.Disks {
		for _, p := range d.Partitions {
			keep = keep || p.Keep
		}
	}
	for _, a := range l.Arrays {
		keep = keep || a.Keep
	}
	return keep || slices.ContainsFunc(l.Groups, keepsVolumes)
}

func keepsVolumes(g layout.Group) bool {
	return slices.ContainsFunc(g.Volumes, func(v layout.Volume) bool { return v.Keep })
}

// finder looks at disks.
type finder struct {
	sys     System
	found   []layout.Existing
	members map[string][]string // nodes by the array's name
	uuids   map[string]string   // of arrays by name
	sizes   map[string]int      // how many members arrays have, by name
	lvm     []string            // nodes of physical volumes
	// What stop has to end.
	arrays []string
	groups []string
	added  []disk.Disk
}

// stop ends what was started, the last first.
func (f *finder) stop(ctx context.Context) error {
	var errs []error
	for _, g := range f.groups {
		errs = append(errs, f.sys.Run.Run(ctx, lvmEnv(), lvm{lvmConfig(f.lvm)}.deactivate(g)...))
	}
	for _, a := range f.arrays {
		errs = append(errs, stopArray(ctx, f.sys.Run, a))
	}
	for _, d := range f.added {
		errs = append(errs, deletePartitions(f.sys.Sys, d))
	}
	return errors.Join(errs...)
}

// disk lists the partitions of one disk.
func (f *finder) disk(ctx context.Context, d disk.Disk, name string) error {
	r, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	list, err := readTable(r, d)
	if err != nil {
		return err
	}
	if list == nil {
		e := layout.Existing{Device: wholeDisk(name), Disk: d.Name, Size: d.Size}
		return f.add(ctx, e, io.NewSectionReader(r, 0, d.Size), d.Path)
	}
	var nodes map[int]string
	for _, e := range list {
		e.Device = partition(name, e.Number)
		content := io.NewSectionReader(r, e.Start, e.Size)
		id, err := identify(content, e.Size)
		if err != nil {
			return err
		}
		node := ""
		if strings.HasSuffix(id.fs, "_member") { // which a program has to look at
			if nodes == nil {
				if nodes, err = f.nodes(d, list); err != nil {
					return err
				}
			}
			node = nodes[e.Number]
		}
		if err := f.add(ctx, e, content, node); err != nil {
			return err
		}
	}
	return nil
}

// readTable lists the partitions of a disk, nil if it has no partition table.
func readTable(r io.ReaderAt, d disk.Disk) ([]layout.Existing, error) {
	list := []layout.Existing{}
	g, err := gpt.Read(r, d.Size)
	switch {
	case err == nil:
		ss := int64(g.SectorSize)
		for _, p := range g.Partitions {
			if p.First > p.Last || p.Last >= uint64(d.Size/ss) {
				continue
			}
			list = append(list, layout.Existing{Disk: d.Name, Number: p.Number, Name: p.Name, Start: int64(p.First) * ss, Size: int64(p.Last-p.First+1) * ss,
				GUID: p.GUID.String(), Type: p.Type.String()})
		}
		return list, nil
	case !errors.Is(err, gpt.ErrNone):
		return nil, err
	}
	m, err := mbr.Read(r, d.Size, d.Sector)
	switch {
	case errors.Is(err, mbr.ErrNone), errors.Is(err, mbr.ErrProtective):
		return nil, nil
	case err != nil:
		return nil, err
	}
	for _, p := range m.Partitions {
		ss := int64(d.Sector)
		if !mbr.Extended(p.Type) {
			list = append(list, layout.Existing{Disk: d.Name, Number: p.Number, Start: int64(p.First) * ss, Size: int64(p.Last-p.First+1) * ss,
				Type: fmt.Sprintf("%02x", p.Type)})
		}
	}
	return list, nil
}

// nodes are the device nodes of a disk's partitions. Those that the kernel has not found itself are added.
func (f *finder) nodes(d disk.Disk, list []layout.Existing) (map[int]string, error) {
	have, err := kernelPartitions(f.sys.Sys, d.Name)
	if err != nil {
		return nil, err
	}
	if len(have) == 0 {
		f.added = append(f.added, d)
		var places []place
		for _, e := range list {
			places = append(places, place{e.Number, e.Start, e.Size})
		}
		return addPartitions(f.sys.Sys, d, places)
	}
	nodes := map[int]string{}
	for _, number := range have {
		if nodes[number], err = PartitionNode(f.sys.Sys, d, number); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// add looks into one thing, whose device node is known where it may be a member of something.
func (f *finder) add(ctx context.Context, e layout.Existing, content io.ReaderAt, node string) error {
	id, err := identify(content, e.Size)
	if err != nil {
		return err
	}
	e.FS, e.UUID, e.Label = id.fs, id.uuid, id.label
	f.found = append(f.found, e)
	switch {
	case node == "":
	case id.fs == "LVM2_member":
		f.lvm = append(f.lvm, node)
	case id.fs == "linux_raid_member":
		out, err := f.sys.Run.Read(ctx, noUdev(), examineMember(node)...)
		if err != nil {
			return err
		}
		m, err := parseMember(out)
		if err != nil {
			return err
		}
		if was := f.uuids[m.array]; was != "" && was != m.uuid {
			return fmt.Errorf("there are two arrays called %s; stop one of them from being found, or keep nothing", m.array)
		}
		f.members[m.array], f.uuids[m.array], f.sizes[m.array] = append(f.members[m.array], node), m.uuid, m.devices
	}
	return nil
}

// array starts an array, if it is there, and looks into it.
func (f *finder) array(ctx context.Context, name string) error {
	members := f.members[name]
	if len(members) == 0 {
		return nil
	}
	if have, all := len(members), f.sizes[name]; have < all {
		// Started without the rest, what is on these may be older than what is on the others.
		return fmt.Errorf("it has %d members and %d of them are on the disks that the layout takes; without the others nothing of it can be kept", all, have)
	}
	f.arrays = append(f.arrays, name)
	if err := f.sys.Run.Run(ctx, noUdev(), assembleArray(name, f.uuids[name], true, members)...); err != nil {
		return err
	}
	if err := arrayNode(f.sys.Sys, name, members[0]); err != nil {
		return err
	}
	node, err := filepath.EvalSymlinks(mdNode(name))
	if err != nil {
		return err
	}
	return f.device(ctx, layout.Existing{Device: array(name), GUID: f.uuids[name]}, node)
}

// device looks into something that has a device node.
func (f *finder) device(ctx context.Context, e layout.Existing, node string) error {
	r, err := os.Open(node)
	if err != nil {
		return err
	}
	defer r.Close()
	if e.Size, err = r.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	return f.add(ctx, e, r, node)
}

// group lists the volumes of a group, if it is there and something of it is to be kept.
func (f *finder) group(ctx context.Context, g layout.Group) error {
	if !keepsVolumes(g) || len(f.lvm) == 0 {
		return nil
	}
	c := lvmReader{f.sys.Run, lvm{lvmConfig(f.lvm)}}
	info, err := c.group(ctx, g.Name)
	if err != nil || info == nil {
		return err
	}
	if info.missing > 0 {
		return fmt.Errorf("%d of its physical volumes are not on the disks that the layout takes; without them nothing of it can be kept", info.missing)
	}
	volumes, err := c.volumes(ctx, g.Name)
	if err != nil {
		return err
	}
	pieces, err := c.pieces(ctx, g.Name)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		e := layout.Existing{Device: volume(g.Name, v.name), Size: v.size}
		switch r, err := openPieces(pieces[v.name]); {
		case err != nil:
			return err
		case v.pool:
			f.found = append(f.found, e)
		case r != nil:
			err := f.add(ctx, e, r, "")
			r.Close()
			if err != nil {
				return err
			}
		default:
			node := volumeNode(g.Name, v.name)
			if err := f.activate(ctx, c.lvm, g.Name, node); err != nil {
				return err
			}
			if err := f.device(ctx, e, node); err != nil {
				return err
			}
		}
	}
	return nil
}

// activate makes the volume with this node a device, which those are that are not simply pieces of physical volumes: thin and
// striped ones.
func (f *finder) activate(ctx context.Context, l lvm, group, node string) error {
	if !slices.Contains(f.groups, group) {
		f.groups = append(f.groups, group)
	}
	return activate(ctx, f.sys.Run, l, group, []string{node})
}
