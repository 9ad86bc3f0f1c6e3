package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/discard"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/mbr"
	"imgbuild/installer/disk/probe"
)

const (
	// head and tail are what is zeroed of a disk and of each partition, old or new. 5 MiB at the beginning hold every superblock
	// that probe knows (the last one is the second LUKS2 header, at 4 MiB), 1 MiB at the end as well.
	head = 5 * mib
	tail = 1 * mib
)

// typeESP is an EFI system partition in an MBR.
const typeESP = 0xef

// work is one disk of a scheme and what is to be done to it.
type work struct {
	layout.SchemeDisk
	disk  disk.Disk
	open  func() (device, error)
	later bool // the installed system formats it: it gets its table, and no file system
	// table is the new one and interim the one with nothing but what is kept, nil where nothing is.
	table, interim table
	old            []probe.Part // partitions that the disk has now
	kept           []span
	// primary says that of a present GPT the first copy is whole, and boots that something may start from the disk now.
	primary, boots bool
	discard        discard.Plan
	committed      bool // something of the new table may be on the disk
}

// plan looks at a disk, without writing, and refuses what cannot be done to it.
func plan(sys string, s *layout.Scheme, d layout.SchemeDisk, ids *IDs, now disk.Disk, later bool) (*work, error) {
	w := &work{SchemeDisk: d, disk: now, later: later, open: func() (device, error) { return openNode(sys, now) }}
	if now.Size != d.Size || now.Sector != d.Sector {
		return nil, fmt.Errorf("check disk %s: it was laid out for %d bytes in sectors of %d, and %s has %d in sectors of %d", d.Name,
			d.Size, d.Sector, now.Path, now.Size, now.Sector)
	}
	_, old, err := disk.Inspect(now)
	if err != nil {
		return nil, err
	}
	w.old = old
	r, err := openForReading(now.Path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return w, w.prepare(s, ids, r)
}

// prepare computes the tables and checks what is kept against what is there.
func (w *work) prepare(s *layout.Scheme, ids *IDs, r device) error {
	var err error
	if w.table, err = newTable(w.SchemeDisk, ids, false); err != nil {
		return err
	}
	if w.keepsAll(s) {
		w.kept, w.table = []span{{0, w.Size}}, nil
		return nil
	}
	for _, p := range w.Parts {
		if p.Start < 0 || p.Size <= 0 || p.Start+p.Size > w.Size {
			return fmt.Errorf("check disk %s: partition %d lies outside of the disk", w.Path, p.Number)
		}
		if p.Kept != nil {
			if err := w.check(p, r); err != nil {
				return fmt.Errorf("check that partition %d %q of %s can be kept: %w", p.Number, p.Name, w.Path, err)
			}
			w.kept = append(w.kept, span{p.Start, p.Start + p.Size})
		}
	}
	if w.Boot && w.Table == layout.MBR {
		if _, err := w.sealAt(seal.Size); err != nil {
			return fmt.Errorf("check disk %s: %w; keep nothing of it", w.Path, err)
		}
	}
	if w.kept != nil {
		if w.interim, err = newTable(w.SchemeDisk, ids, true); err != nil {
			return err
		}
	}
	return w.look(r)
}

// keepsAll reports whether the disk has no partition table and stays as it is.
func (w *work) keepsAll(s *layout.Scheme) bool {
	if w.Table != "" {
		return false
	}
	if w.Kept != nil {
		return true
	}
	for _, a := range s.Arrays {
		if a.Kept != nil && slices.Contains(a.Members, wholeDisk(w.Name)) {
			return true
		}
	}
	for _, g := range s.Groups {
		if g.Kept && slices.Contains(g.Physical, wholeDisk(w.Name)) {
			return true
		}
	}
	return false
}

// check finds the partition in the present table, just where it is to be.
func (w *work) check(p layout.Part, r device) error {
	if p.Role != layout.RoleNone {
		return errors.New("something could boot from it while the disk is half installed; only data can be kept")
	}
	if p.Start != p.Kept.Start || p.Size != p.Kept.Size {
		return fmt.Errorf("it is to be %d bytes from byte %d on, and it was %d from byte %d on", p.Size, p.Start, p.Kept.Size, p.Kept.Start)
	}
	moved := fmt.Errorf("the partition table of %s no longer has it where it was", w.disk.Path)
	switch w.Table {
	case layout.GPT:
		t, err := gpt.Read(r, w.Size)
		if err != nil {
			return err
		}
		if other, err := mbr.Read(r, w.Size, w.Sector); err == nil && len(other.Partitions) > 0 {
			return fmt.Errorf("the disk also has an MBR with %d partitions, by which systems go rather than by its GPT", len(other.Partitions))
		}
		if t.SectorSize != w.Sector {
			return fmt.Errorf("the partition table counts in sectors of %d bytes and the disk has %d", t.SectorSize, w.Sector)
		}
		for _, e := range t.Partitions {
			first, last := sectors(p, w.Sector)
			if e.Number == p.Kept.Number && e.First == first && e.Last == last && strings.EqualFold(e.GUID.String(), p.Kept.GUID) {
				return nil
			}
		}
		return moved
	case layout.MBR:
		t, err := mbr.Read(r, w.Size, w.Sector)
		if err != nil {
			return err
		}
		for _, e := range t.Partitions {
			first, last := sectors(p, w.Sector)
			if e.Number == p.Kept.Number && e.First == first && e.Last == last {
				return nil
			}
		}
		return moved
	}
	return errors.New("the disk is to have no partition table")
}

// look finds out what may boot from the disk now.
func (w *work) look(r device) error {
	t, err := gpt.Read(r, w.Size)
	switch {
	case err == nil:
		w.primary = t.Primary
		for _, p := range t.Partitions {
			if p.Attributes&gpt.AttrLegacyBoot != 0 || p.Type.String() == gpt.TypeESP || p.Type.String() == gpt.TypeBIOSBoot {
				w.boots = true
			}
		}
	case !errors.Is(err, gpt.ErrNone):
		return err
	}
	// UEFI firmware starts from an MBR too, and BIOSes look for what is active.
	if t, err := mbr.Read(r, w.Size, w.Sector); err == nil {
		for _, p := range t.Partitions {
			w.boots = w.boots || p.Active || p.Type == typeESP
		}
	}
	b := make([]byte, 512)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return fmt.Errorf("read sector 0 of %s: %w", w.Path, err)
	}
	none := make([]byte, mbr.BootCodeMax)
	if code := b[:mbr.BootCodeMax]; b[510] == 0x55 && b[511] == 0xaa && !bytes.Equal(code, none) {
		copy(none, stub())
		w.boots = w.boots || !bytes.Equal(code, none)
	}
	return nil
}

// volumes are the pieces of the disk that hold or will hold something, and are not kept: partitions of the old table and of
// the new one.
func (w *work) volumes() []span {
	var out []span
	add := func(s span) {
		for _, k := range w.kept {
			if s == k {
				return
			}
		}
		out = append(out, s)
	}
	for _, p := range w.old {
		add(span{p.Start, p.Start + p.Size})
	}
	for _, p := range w.Parts {
		add(span{p.Start, p.Start + p.Size})
	}
	return out
}

// tables is where partition tables lie, which the wipe of a disk with something kept leaves alone: GPT's entries end before
// sector 34, or 6 of 4096 bytes.
func (w *work) tables() []span {
	ss := int64(w.Sector)
	if w.Table == layout.MBR {
		return []span{{0, ss}}
	}
	t := gpt.Table{SectorSize: w.Sector, Sectors: uint64(w.Size / ss)}
	return []span{{0, int64(t.FirstUsable()) * ss}, {int64(t.LastUsable()+1) * ss, w.Size}}
}

// ends are the pieces that are zeroed.
func (w *work) ends() []span {
	var out []span
	for _, v := range append(w.volumes(), span{0, w.Size}) {
		n := v.end - v.start
		h := min(head, n)
		out = append(out, span{v.start, v.start + h}, span{v.end - min(tail, n-h), v.end})
	}
	holes := w.kept
	if w.kept != nil {
		holes = append(w.tables(), w.kept...)
	}
	return without(out, holes)
}
