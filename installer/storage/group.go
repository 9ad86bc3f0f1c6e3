package storage

import (
	"context"
	"errors"
	"fmt"
	"os"

	"imgbuild/image/layout"
	"imgbuild/installer/tool"
)

// lvm runs an LVM command.
func (m *Made) lvm(ctx context.Context, argv []string) error {
	return m.sys.Run.Run(ctx, lvmEnv(), argv...)
}

// group makes a volume group with all its volumes, or those volumes of one that is kept which are not.
func (m *Made) group(ctx context.Context, g layout.SchemeGroup) error {
	nodes, err := m.nodesOf(g.Physical)
	if err != nil {
		return fmt.Errorf("make volume group %s: %w", g.Name, err)
	}
	l := lvm{lvmConfig(nodes)}
	m.commands[g.Name] = l
	if g.Kept {
		err = m.clearGroup(ctx, l, g)
	} else {
		err = m.createGroup(ctx, l, g, nodes)
	}
	if err != nil {
		return err
	}
	m.groups = append(m.groups, g.Name)
	for _, v := range inOrder(g.Volumes) {
		if v.Kept != nil {
			continue
		}
		if err := m.createVolume(ctx, l, g, v); err != nil {
			return fmt.Errorf("make volume %s of group %s: %w", v.Name, g.Name, err)
		}
	}
	var nodesOf []string
	for _, v := range g.Volumes {
		if !v.Pool {
			nodesOf = append(nodesOf, volumeNode(g.Name, v.Name))
			m.nodes[volume(g.Name, v.Name)] = volumeNode(g.Name, v.Name)
		}
	}
	return activate(ctx, m.sys.Run, l, g.Name, nodesOf)
}

// activate makes a group's volumes devices with these nodes. LVM makes them itself where there is no udev; vgmknodes is for those
// that it has not made, and since it fails over thin pools, which have none, what counts is whether the nodes are there.
func activate(ctx context.Context, run tool.Runner, l lvm, group string, nodes []string) error {
	if err := run.Run(ctx, lvmEnv(), l.activate(group)...); err != nil {
		return fmt.Errorf("activate volume group %s: %w", group, err)
	}
	missing := func() error {
		var errs []error
		for _, n := range nodes {
			if _, err := os.Stat(n); err != nil {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	if missing() == nil {
		return nil
	}
	made := run.Run(ctx, lvmEnv(), l.makeNodes(group)...)
	if err := missing(); err != nil {
		return fmt.Errorf("make device nodes of volume group %s: %w", group, errors.Join(made, err))
	}
	return nil
}

func volumeNode(group, name string) string { return "/dev/" + group + "/" + name }

func (m *Made) createGroup(ctx context.Context, l lvm, g layout.SchemeGroup, nodes []string) error {
	for _, n := range nodes {
		if err := m.lvm(ctx, l.createPhysical(n)); err != nil {
			return fmt.Errorf("make physical volume of group %s: %w", g.Name, err)
		}
	}
	if err := m.lvm(ctx, l.createGroup(g, nodes)); err != nil {
		return fmt.Errorf("make volume group %s: %w", g.Name, err)
	}
	return nil
}

// clearGroup removes all volumes that are not kept, those in thin pools before their pools.
func (m *Made) clearGroup(ctx context.Context, l lvm, g layout.SchemeGroup) error {
	have, err := lvmReader{m.sys.Run, l}.volumes(ctx, g.Name)
	if err != nil {
		return fmt.Errorf("list volumes of group %s: %w", g.Name, err)
	}
	remove, err := removals(g, have)
	if err != nil {
		return err
	}
	for _, name := range remove {
		if err := m.lvm(ctx, l.removeVolume(g.Name, name)); err != nil {
			return fmt.Errorf("remove volume %s of group %s: %w", name, g.Name, err)
		}
	}
	return nil
}

// removals are the volumes of a group that go, in order. All that are kept have to be there.
func removals(g layout.SchemeGroup, have []volumeInfo) ([]string, error) {
	keep, there := map[string]bool{}, map[string]bool{}
	for _, v := range g.Volumes {
		keep[v.Name] = keep[v.Name] || v.Kept != nil
		if v.Kept != nil && v.Thin != "" {
			keep[v.Thin] = true
		}
	}
	var thin, plain []string
	for _, v := range have {
		switch {
		case keep[v.name]:
			there[v.name] = true
		case v.thin != "":
			thin = append(thin, v.name)
		default:
			plain = append(plain, v.name)
		}
	}
	for _, v := range g.Volumes {
		if v.Kept != nil && !there[v.Name] {
			return nil, fmt.Errorf("look for what is kept: the volume group %s no longer has a volume %s", g.Name, v.Name)
		}
	}
	return append(thin, plain...), nil
}

// inOrder is what has a size, then what takes the rest of the group, then what is in thin pools.
func inOrder(list []layout.SchemeVolume) []layout.SchemeVolume {
	var sized, rest, thin []layout.SchemeVolume
	for _, v := range list {
		switch {
		case v.Thin != "":
			thin = append(thin, v)
		case takesRest(v):
			rest = append(rest, v)
		default:
			sized = append(sized, v)
		}
	}
	return append(append(sized, rest...), thin...)
}

// takesRest reports whether a volume is as large as there is room.
func takesRest(v layout.SchemeVolume) bool {
	return v.Thin == "" && (v.Extent.Size == layout.Rest || v.Extent.Size == "")
}

func (m *Made) createVolume(ctx context.Context, l lvm, g layout.SchemeGroup, v layout.SchemeVolume) error {
	extents := v.Size / g.Extent
	if takesRest(v) {
		info, err := lvmReader{m.sys.Run, l}.group(ctx, g.Name)
		if err != nil {
			return err
		}
		if info == nil {
			return fmt.Errorf("LVM no longer finds the volume group %s", g.Name)
		}
		if extents, err = restExtents(*info, g, v); err != nil {
			return err
		}
	}
	return m.lvm(ctx, l.createVolume(g.Name, v, extents))
}

// restExtents is how many extents a volume that takes the rest gets: what the group really has left, which metadata of LVM and
// md make a little less, or more, than the scheme could know. A max of the layout holds. A thin pool leaves room for its
// metadata, and for the spare that LVM makes for the largest of the group.
func restExtents(i groupInfo, g layout.SchemeGroup, v layout.SchemeVolume) (int64, error) {
	free := i.free
	if v.Pool {
		spare := int64(0)
		for _, o := range g.Volumes {
			if o.Pool && o.Name != v.Name {
				spare = max(spare, o.Metadata)
			}
		}
		free -= upExtents(v.Metadata, i.extent) + upExtents(max(0, v.Metadata-spare), i.extent)
	}
	least := int64(1)
	if v.Min != "" {
		n, err := v.Min.Bytes()
		if err != nil {
			return 0, err
		}
		least = upExtents(n, i.extent)
	}
	if free < least {
		return 0, fmt.Errorf("the group has %d free extents of %d bytes and the volume needs %d", max(0, free), i.extent, least)
	}
	if v.Max != "" {
		free = min(free, v.Size/i.extent)
	}
	return free, nil
}

func upExtents(n, extent int64) int64 { return (n + extent - 1) / extent }

func (m *Made) stopGroup(ctx context.Context, name string) error {
	if err := m.lvm(ctx, m.commands[name].deactivate(name)); err != nil {
		return fmt.Errorf("deactivate volume group %s: %w", name, err)
	}
	return nil
}
