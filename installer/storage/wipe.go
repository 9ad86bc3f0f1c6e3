package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
)

// The order in which a disk stops being what it was. Nothing of an old system is destroyed before nothing can start it any more:
//
//  1. Sector 0 of every disk from which something boots. Writing one sector is atomic: before, the old system is whole, and
//     afterwards no BIOS finds boot code and no UEFI firmware a protective MBR, without which it takes no GPT.
//  2. Both headers of their GPTs, for firmware that is less strict.
//  3. The same on disks from which nothing boots.
//  4. Everything else: the ends of all partitions, old ones and new ones, and of the disk.
//
// Where a partition is kept, the first three write a table in its place that has the kept partitions and nothing else, one copy after
// the other, so that at every moment one whole copy has them.

// writable opens the disk behind its fence.
func (w *work) writable() (device, error) {
	d, err := w.open()
	if err != nil {
		return nil, err
	}
	return fenced{d, w.kept}, nil
}

// do opens the disk, does something to it, and says which disk it was if that failed.
func (w *work) do(what string, f func(device) error) error {
	d, err := w.writable()
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, w.Path, err)
	}
	if err := errors.Join(f(d), d.Close()); err != nil {
		return fmt.Errorf("%s %s: %w", what, w.Path, err)
	}
	return nil
}

// untouched reports whether the disk is kept as a whole.
func (w *work) untouched() bool { return len(w.kept) == 1 && w.kept[0] == span{0, w.Size} }

// neutralise makes all disks unbootable. Those from which something may boot are, before others change: what boots finds all its
// data.
func neutralise(disks []*work) error {
	for _, boots := range []bool{true, false} {
		for _, step := range []func(*work, device) error{(*work).killSector0, (*work).killTable} {
			for _, w := range disks {
				if w.boots != boots || w.untouched() {
					continue
				}
				if err := w.do("make unbootable", func(d device) error { return step(w, d) }); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// killSector0 writes one sector: zeros, or the table of what is kept and code that boots nothing.
func (w *work) killSector0(d device) error {
	b := make([]byte, w.Sector)
	if w.interim != nil {
		groups, err := w.interim.groups(stub())
		if err != nil {
			return err
		}
		b = groups[len(groups)-1][0].Data
	}
	if _, err := d.WriteAt(b, 0); err != nil {
		return err
	}
	return d.Sync()
}

// killTable zeroes both headers of a GPT, at either sector size; or writes the table of what is kept, into the damaged copy
// first if one is.
func (w *work) killTable(d device) error {
	if w.interim != nil {
		groups, err := w.interim.groups(stub())
		if err != nil {
			return err
		}
		groups = groups[:len(groups)-1]
		if w.Table == layout.GPT && !w.primary {
			slices.Reverse(groups)
		}
		if err := write(d, groups); err != nil {
			return err
		}
		dropCache(d)
		return w.interim.readBack(d, true)
	}
	last := w.Size &^ 4095
	if last == w.Size {
		last -= 4096
	}
	if err := zero(d, []span{{int64(w.Sector), 8192}, {last, w.Size}}); err != nil {
		return err
	}
	return d.Sync()
}

// write writes groups with everything on stable storage between them.
func write(d device, groups [][]gpt.Write) error {
	for _, g := range groups {
		for _, w := range g {
			if _, err := d.WriteAt(w.Data, w.Offset); err != nil {
				return fmt.Errorf("write %s: %w", w.What, err)
			}
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
	}
	return nil
}

// wipe zeroes the ends of everything on a disk that is not kept, reads the zeros back, and looks whether anything is left that
// somebody could recognise.
func (w *work) wipe(ctx context.Context) error {
	if w.untouched() {
		return nil
	}
	return w.do("wipe", func(d device) error {
		ends := w.ends()
		for _, s := range ends {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := zero(d, []span{s}); err != nil {
				return err
			}
		}
		if err := d.Sync(); err != nil {
			return err
		}
		dropCache(d)
		if err := allZero(d, ends); err != nil {
			return err
		}
		return w.clean(d)
	})
}

// clean looks for what is left.
func (w *work) clean(d device) error {
	look := w.volumes()
	if w.kept == nil {
		look = append(look, span{0, w.Size})
	}
	for _, s := range look {
		found, err := probe.Volume(io.NewSectionReader(d, s.start, s.end-s.start), s.end-s.start)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("zeros were written to both ends of the %s from byte %d on, and there still is: %s; wipe it by hand",
				probe.Bytes(s.end-s.start), s.start, found[0])
		}
	}
	return nil
}

func openForReading(node string) (device, error) {
	f, err := os.Open(node)
	if err != nil {
		return nil, fmt.Errorf("look at disk: %w", err)
	}
	return f, nil
}
