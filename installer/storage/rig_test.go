package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/mbr"
	"imgbuild/installer/disk/probe"
)

// These tests cut the power. A rig is a machine whose disks note every write and sync of a whole installation; afterwards the
// state of the disks is looked at for every moment at which power could have failed: what was synced is there, and of what was
// not any part, sector by sector, in any order.

const page = 512

// memory is the content of a disk, of which only what was written takes space.
type memory map[int64][]byte

func (m memory) read(p []byte, off int64) {
	for n := 0; n < len(p); {
		at := off + int64(n)
		in := int(at % page)
		k := min(len(p)-n, page-in)
		if b := m[at/page]; b != nil {
			copy(p[n:n+k], b[in:])
		} else {
			clear(p[n : n+k])
		}
		n += k
	}
}

func (m memory) write(p []byte, off int64) {
	if off%page != 0 || len(p)%page != 0 {
		panic(fmt.Sprintf("a write of %d bytes at %d is not one of whole sectors", len(p), off))
	}
	for n := 0; n < len(p); n += page {
		m.set((off+int64(n))/page, p[n:n+page])
	}
}

// set stores one sector. Zeros are what there is from the beginning.
func (m memory) set(k int64, b []byte) {
	if bytes.Equal(b, make([]byte, page)) {
		delete(m, k)
	} else {
		m[k] = slices.Clone(b)
	}
}

// op is a write of one disk, or its sync where data is nil.
type op struct {
	disk string
	off  int64
	data []byte
}

// rig is a machine.
type rig struct {
	disks map[string]memory
	log   []op
	// fail lets the write with this number, from 1, and all later ones to the same disk fail.
	fail int
	dead string
}

var errBroken = errors.New("I/O error")

type rigDisk struct {
	*rig
	name string
	size int64
}

func (d rigDisk) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("read of %d bytes at %d of %d", len(p), off, d.size)
	}
	d.disks[d.name].read(p, off)
	return len(p), nil
}

func (d rigDisk) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("write of %d bytes at %d of %d", len(p), off, d.size)
	}
	d.log = append(d.log, op{d.name, off, slices.Clone(p)})
	if d.fail > 0 && d.dead == "" && len(d.log) >= d.fail {
		d.dead = d.name
	}
	if d.dead == d.name {
		return 0, errBroken
	}
	d.disks[d.name].write(p, off)
	return len(p), nil
}

func (d rigDisk) Sync() error {
	d.log = append(d.log, op{d.name, 0, nil})
	return nil
}

func (d rigDisk) Close() error { return nil }

// fill writes something that only this content has to a few places of a partition.
func (r *rig) fill(s layout.SchemeDisk, p layout.Part, what string) {
	if p.Role == layout.RoleSeal || s.Table == layout.MBR && mbr.Extended(mbrType(p)) {
		return
	}
	d := rigDisk{r, s.Name, s.Size}
	for _, off := range samples(p) {
		b := bytes.Repeat([]byte(fmt.Sprintf("%-32s", fmt.Sprintf("%s %s %d", what, s.Name, p.Number))), page/32)
		if _, err := d.WriteAt(b, off); err != nil {
			panic(err)
		}
	}
	_ = d.Sync()
}

func samples(p layout.Part) []int64 {
	return []int64{p.Start, p.Start + p.Size/2/page*page, p.Start + p.Size - page}
}

// filled reports whether all partitions of all disks of a scheme have their content.
func filled(disks map[string]memory, s *layout.Scheme, what string) bool {
	for _, d := range s.Disks {
		for _, p := range d.Parts {
			if p.Role == layout.RoleSeal || p.Kept != nil || d.Table == layout.MBR && mbr.Extended(mbrType(p)) {
				continue
			}
			for _, off := range samples(p) {
				b := make([]byte, page)
				disks[d.Name].read(b, off)
				if !strings.HasPrefix(string(b), fmt.Sprintf("%s %s %d ", what, d.Name, p.Number)) {
					return false
				}
			}
		}
	}
	return true
}

// tablesOfData reports whether all disks that only have data still have their partition tables.
func tablesOfData(t *testing.T, disks map[string]memory, s *layout.Scheme, ids *IDs) bool {
	t.Helper()
	for _, d := range s.Disks {
		tab, err := newTable(d, ids, false)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Boot && tab.readBack(reader{disks[d.Name], 0}, true) != nil {
			return false
		}
	}
	return true
}

// works are the disks of a scheme, prepared as plan does it.
func (r *rig) works(t *testing.T, s *layout.Scheme, ids *IDs) []*work {
	t.Helper()
	var list []*work
	for _, d := range s.Disks {
		dev := rigDisk{r, d.Name, d.Size}
		_, old, err := probe.Disk(dev, d.Size)
		if err != nil {
			t.Fatal(err)
		}
		w := &work{SchemeDisk: d, disk: disk.Disk{Path: d.Path}, old: old, open: func() (device, error) { return dev, nil }}
		if err := w.prepare(s, ids, dev); err != nil {
			t.Fatal(err)
		}
		list = append(list, w)
	}
	return list
}

// codes is boot code and seals for the boot disks of a scheme.
func codes(s *layout.Scheme, what string) map[string]BootCode {
	out := map[string]BootCode{}
	for _, d := range s.Disks {
		if !d.Boot {
			continue
		}
		c := BootCode{MBR: []byte(what + " boot code"), Seal: bytes.Repeat([]byte("S"), seal.Size)}
		if d.Table == layout.MBR {
			c.Gap = bytes.Repeat([]byte(what), 5000)
		}
		out[d.Name] = c
	}
	return out
}

// install is everything of an installation that writes.
func (r *rig) install(t *testing.T, s *layout.Scheme, what string) (*IDs, error) {
	t.Helper()
	ids := Identify(s)
	list := r.works(t, s, ids)
	if err := neutralise(list); err != nil {
		return ids, err
	}
	for _, w := range list {
		if err := w.wipe(t.Context()); err != nil {
			return ids, err
		}
	}
	if r.dead == "" {
		for _, d := range s.Disks {
			for _, p := range d.Parts {
				if p.Kept == nil {
					r.fill(d, p, what)
				}
			}
		}
	}
	return ids, commit(list, codes(s, what))
}

// cuts calls look with the disks as a power failure may leave them, for every moment.
func (r *rig) cuts(before map[string]memory, seed uint64, look func(moment string, disks map[string]memory)) {
	random := rand.New(rand.NewPCG(seed, 0))
	durable := map[string]memory{}
	for name, m := range before {
		durable[name] = memory{}
		for k, b := range m {
			durable[name][k] = b
		}
	}
	pending := map[string][]op{}
	for i, o := range r.log {
		if o.data == nil {
			for _, p := range pending[o.disk] {
				durable[o.disk].write(p.data, p.off)
			}
			pending[o.disk] = nil
			continue
		}
		pending[o.disk] = append(pending[o.disk], o)
		if n := len(pending[o.disk]); n > 8 && n%16 != 0 {
			continue // the zeros of a wipe: all moments are alike
		}
		for variant := range 10 {
			var undo []func()
			for name, list := range pending {
				for _, p := range list {
					if variant == 0 || random.IntN(2) == 0 {
						undo = append(undo, tear(durable[name], p, variant > 5, random)...)
					}
				}
			}
			look(fmt.Sprintf("operation %d, variant %d", i, variant), durable)
			slices.Reverse(undo)
			for _, u := range undo {
				u()
			}
		}
	}
}

// tear applies a write, or only some sectors of it, and returns how to take it back.
func tear(m memory, o op, some bool, random *rand.Rand) []func() {
	var undo []func()
	for n := 0; n < len(o.data); n += page {
		if some && random.IntN(2) == 0 {
			continue
		}
		k := (o.off + int64(n)) / page
		was, there := m[k]
		m.set(k, o.data[n:n+page])
		undo = append(undo, func() {
			if there {
				m[k] = was
			} else {
				delete(m, k)
			}
		})
	}
	return undo
}
