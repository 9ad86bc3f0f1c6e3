// Package storage makes a layout.Scheme real: it empties disks, makes partitions, RAID arrays, volume groups and file systems,
// and, when everything else is done, makes the disks bootable.
//
// A scheme and the disks that it was made for come in; device nodes to mount come out. Until Commit the new partitions are known
// to the kernel alone. Killed at any moment, a disk boots its old system, which is whole then, or the new one, which is, or
// nothing; and what is kept is in a whole copy of a partition table at every moment. It never decides which disk, never
// writes to a disk that is not in the scheme, never writes into what is kept, and never mounts.
package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"imgbuild/image/layout"
	"imgbuild/installer/disk"
	"imgbuild/installer/report"
	"imgbuild/installer/tool"
)

// System is the machine as this package touches it.
type System struct {
	Sys     string // sysfs; /sys
	Run     tool.Runner
	Scratch string // an existing directory for configuration files
	Report  report.Reporter
}

// Made is a scheme that has become real.
type Made struct {
	sys    System
	scheme *layout.Scheme
	ids    *IDs
	disks  []*work
	nodes  map[layout.Device]string
	// What Stop has to end, the last first.
	groups, arrays []string
	commands       map[string]lvm // by volume group
	partitioned    []*work
}

// Make does all up to file systems. disks are the present ones by SchemeDisk.Name, those of DataFirstBoot included. When it
// fails, nothing of it is active any more, and unless it failed before the first write, nothing boots from the disks.
//
// Everything that can be refused is refused before anything is written: then the error wraps ErrUntouched.
func Make(ctx context.Context, sys System, s *layout.Scheme, ids *IDs, disks map[string]disk.Disk) (*Made, error) {
	m := &Made{sys: sys, scheme: s, ids: ids, nodes: map[layout.Device]string{}, commands: map[string]lvm{}}
	if err := m.prepare(disks); err != nil {
		return nil, fmt.Errorf("%w%w", err, ErrUntouched)
	}
	if err := m.teardown(ctx); err != nil {
		return nil, fmt.Errorf("%w%w", err, ErrUntouched)
	}
	if err := m.rehearse(ctx); err != nil {
		return nil, fmt.Errorf("%w%w", err, ErrUntouched)
	}
	if err := m.make(ctx); err != nil {
		if left := m.Stop(context.WithoutCancel(ctx)); left != nil {
			return nil, errors.Join(err, left)
		}
		return nil, err
	}
	return m, nil
}

// ErrUntouched is wrapped when no disk was written to. It adds nothing to an error's text.
var ErrUntouched = untouched{}

type untouched struct{}

func (untouched) Error() string { return "" }

// prepare only reads.
func (m *Made) prepare(disks map[string]disk.Disk) error {
	var errs []error
	for _, later := range []bool{false, true} {
		list := m.scheme.Disks
		if later {
			list = m.scheme.DataFirstBoot
		}
		for _, d := range list {
			now, ok := disks[d.Name]
			if !ok {
				errs = append(errs, fmt.Errorf("check disk %s: the layout has it and nobody said which of the machine's it is", d.Name))
				continue
			}
			w, err := plan(m.sys.Sys, m.scheme, d, m.ids, now, later)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			m.disks = append(m.disks, w)
		}
	}
	for _, t := range m.tools() {
		if _, err := m.sys.Run.Find(t); err != nil {
			errs = append(errs, fmt.Errorf("check tools: %w; rebuild the release", err))
		}
	}
	return errors.Join(append(errs, m.planDiscard())...)
}

// tools are the programs that the scheme needs.
func (m *Made) tools() []string {
	var out []string
	for _, h := range m.holders() {
		if h.FS != "" && !h.kept && !h.later {
			out = append(out, mkfsTool(h.FS))
		}
	}
	if len(m.scheme.Arrays) > 0 {
		out = append(out, "mdadm")
	}
	if len(m.scheme.Groups) > 0 {
		out = append(out, "lvm")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (m *Made) make(ctx context.Context) error {
	if err := neutralise(m.disks); err != nil {
		return err
	}
	if err := m.each(ctx, m.empty); err != nil {
		return err
	}
	if err := m.partition(); err != nil {
		return err
	}
	for _, a := range m.scheme.Arrays {
		if err := m.array(ctx, a); err != nil {
			return err
		}
	}
	for _, g := range m.scheme.Groups {
		if err := m.group(ctx, g); err != nil {
			return err
		}
	}
	return m.format(ctx)
}

// parallel is how many disks are worked on at the same time: mkfs.xfs alone touches some 30 MiB of memory.
const parallel = 4

// each does something to all disks, a few at a time.
func (m *Made) each(ctx context.Context, f func(context.Context, *work) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, w := range m.disks {
		g.Go(func() error { return f(ctx, w) })
	}
	return g.Wait()
}

// partition tells the kernel of all partitions.
func (m *Made) partition() error {
	for _, w := range m.disks {
		if w.later {
			continue
		}
		m.nodes[wholeDisk(w.Name)] = w.disk.Path
		m.partitioned = append(m.partitioned, w)
		var places []place
		for _, p := range w.Parts {
			if !w.extended(p) {
				places = append(places, place{p.Number, p.Start, p.Size})
			}
		}
		nodes, err := addPartitions(m.sys.Sys, w.disk, places)
		if err != nil {
			return err
		}
		for number, node := range nodes {
			m.nodes[partition(w.Name, number)] = node
		}
	}
	return nil
}

// format makes all file systems: those of one disk one after the other, of several at the same time.
func (m *Made) format(ctx context.Context) error {
	byDisk := map[string][]held{}
	for _, h := range m.holders() {
		if h.FS != "" && !h.kept && !h.later && len(h.disks) > 0 {
			byDisk[h.disks[0]] = append(byDisk[h.disks[0]], h)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, list := range byDisk {
		g.Go(func() error {
			for _, h := range list {
				if err := m.mkfs(ctx, h); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// Node is the device node of something in the scheme: /dev/vda3, /dev/md/boot, /dev/system/root. It is empty for what the scheme
// does not have.
func (m *Made) Node(d layout.Device) string { return m.nodes[d] }

// Stop ends everything that Make started, so that the kernel uses none of the disks any more. File systems have to be
// unmounted. It may be called again, and after it nothing but Commit.
func (m *Made) Stop(ctx context.Context) error {
	for n := len(m.groups); n > 0; n = len(m.groups) {
		if err := m.stopGroup(ctx, m.groups[n-1]); err != nil {
			return err
		}
		m.groups = m.groups[:n-1]
	}
	for n := len(m.arrays); n > 0; n = len(m.arrays) {
		if err := stopArray(ctx, m.sys.Run, m.arrays[n-1]); err != nil {
			return err
		}
		m.arrays = m.arrays[:n-1]
	}
	for n := len(m.partitioned); n > 0; n = len(m.partitioned) {
		if err := deletePartitions(m.sys.Sys, m.partitioned[n-1].disk); err != nil {
			return err
		}
		m.partitioned = m.partitioned[:n-1]
	}
	return nil
}

// Commit makes the disks bootable, after Stop. code is by SchemeDisk.Name. An error leaves nothing bootable, unless it wraps
// ErrNotUndone.
func (m *Made) Commit(code map[string]BootCode) error {
	if len(m.partitioned) > 0 {
		return errors.New("write partition tables: the kernel still has partitions of the disks, and may write to them; stop them first")
	}
	return commit(m.disks, code)
}
