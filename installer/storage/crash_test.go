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
	"imgbuild/installer/disk/gpt"
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

// marks is what firmware may start of a disk.
type marks struct {
	old, fresh bool // the old system, the new one
	other      string
}

// reader shows a disk without one sector, which reads as zeros.
type reader struct {
	m    memory
	hide int64 // byte where it begins, 0 for none
}

func (r reader) ReadAt(p []byte, off int64) (int, error) {
	r.m.read(p, off)
	if r.hide > 0 && r.hide >= off && r.hide+page <= off+int64(len(p)) {
		clear(p[r.hide-off:][:page])
	}
	return len(p), nil
}

// boots looks at a disk as the least strict firmware does: any whole copy of a GPT, with a protective MBR or without.
func boots(t *testing.T, m memory, d layout.SchemeDisk, ids, oldIDs *IDs) (out marks) {
	t.Helper()
	b := make([]byte, page)
	m.read(b, 0)
	if b[510] == 0x55 && b[511] == 0xaa {
		code, _, _ := bytes.Cut(b[:440], []byte{0})
		switch string(code) {
		case "old boot code":
			out.old = true
		case "new boot code":
			out.fresh = true
		case "", string(stub()):
		default:
			out.other = fmt.Sprintf("boot code %q", code)
		}
	}
	// One copy after the other: each alone may be what a firmware believes.
	for _, hide := range []int64{1, d.Size/int64(d.Sector) - 1} {
		view := reader{m, hide * int64(d.Sector)}
		g, err := gpt.Read(view, d.Size)
		if errors.Is(err, gpt.ErrNone) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range g.Partitions {
			if p.Type.String() != gpt.TypeESP && p.Type.String() != gpt.TypeBIOSBoot && p.Attributes == 0 {
				continue
			}
			switch g.GUID {
			case ids.Table(d.Name):
				out.fresh = true
			case oldIDs.Table(d.Name):
				out.old = true
			default:
				out.other = "a table that nobody wrote"
			}
		}
	}
	return out
}

// findable reports whether the kept partitions of a disk are in a partition table.
func findable(m memory, d layout.SchemeDisk) error {
	r := reader{m, 0}
	have := map[string]bool{}
	if d.Table == layout.MBR {
		t, err := mbr.Read(r, d.Size, d.Sector)
		if err != nil {
			return err
		}
		for _, p := range t.Partitions {
			have[fmt.Sprint(p.First, " ", p.Last)] = true
		}
	} else {
		t, err := gpt.Read(r, d.Size)
		if err != nil {
			return err
		}
		for _, p := range t.Partitions {
			have[fmt.Sprint(p.First, " ", p.Last)] = true
		}
	}
	for _, p := range d.Parts {
		first, last := sectors(p, d.Sector)
		if p.Kept != nil && !have[fmt.Sprint(first, " ", last)] {
			return fmt.Errorf("partition %d is not in the table", p.Number)
		}
	}
	return nil
}

func TestWheneverPowerFailsADiskBootsOneWholeSystemOrNothing(t *testing.T) {
	for name, c := range schemes() {
		t.Run(name, func(t *testing.T) {
			r := &rig{disks: map[string]memory{}}
			for _, d := range c.old.Disks {
				r.disks[d.Name] = memory{}
			}
			oldIDs, err := r.install(t, c.old, "old")
			if err != nil {
				t.Fatal(err)
			}
			if c.damage != nil {
				c.damage(r)
			}
			before := map[string]memory{}
			for name, m := range r.disks {
				before[name] = memory{}
				for k, b := range m {
					before[name][k] = b
				}
			}
			fresh := c.fresh(oldIDs)
			r.log = nil
			ids, err := r.install(t, fresh, "new")
			if err != nil {
				t.Fatal(err)
			}
			seen := marks{}
			n := 0
			r.cuts(before, 1, func(moment string, disks map[string]memory) {
				n++
				for _, d := range fresh.Disks {
					m := boots(t, disks[d.Name], d, ids, oldIDs)
					switch {
					case m.other != "":
						t.Errorf("%s: %s has %s", moment, d.Name, m.other)
					case m.old && m.fresh:
						t.Errorf("%s: %s boots a mixture", moment, d.Name)
					case m.old && (!filled(disks, c.old, "old") || !tablesOfData(t, disks, c.old, oldIDs)):
						t.Errorf("%s: %s boots the old system, which is no longer whole", moment, d.Name)
					case m.fresh && !filled(disks, fresh, "new"):
						t.Errorf("%s: %s boots the new system, which is not whole yet", moment, d.Name)
					}
					seen.old, seen.fresh = seen.old || m.old, seen.fresh || m.fresh
					if c.keeps {
						if err := findable(disks[d.Name], d); err != nil {
							t.Errorf("%s: %s: what is kept is not found: %v", moment, d.Name, err)
						}
					}
				}
				if t.Failed() {
					t.FailNow()
				}
			})
			if !seen.fresh || !seen.old {
				t.Errorf("of %d moments none shows the old system or none the new one: %+v", n, seen)
			}
			for _, d := range fresh.Disks {
				if m := boots(t, r.disks[d.Name], d, ids, oldIDs); d.Boot && (!m.fresh || m.old) {
					t.Errorf("at the end %s shows %+v", d.Name, m)
				}
				for _, p := range d.Parts {
					for _, off := range samples(p) {
						a, b := make([]byte, page), make([]byte, page)
						before[d.Name].read(a, off)
						r.disks[d.Name].read(b, off)
						if p.Kept != nil && (!bytes.Equal(a, b) || !bytes.HasPrefix(a, []byte("old"))) {
							t.Errorf("the kept partition %d has %.32q and had %.32q", p.Number, b, a)
						}
					}
				}
			}
			t.Logf("%d operations, %d moments", len(r.log), n)
		})
	}
}

func TestADiskThatBreaksDuringTheCommitLeavesNothingBootable(t *testing.T) {
	for name, c := range schemes() {
		t.Run(name, func(t *testing.T) {
			for fail := 1; ; fail++ {
				r := &rig{disks: map[string]memory{}}
				for _, d := range c.old.Disks {
					r.disks[d.Name] = memory{}
				}
				oldIDs, err := r.install(t, c.old, "old")
				if err != nil {
					t.Fatal(err)
				}
				fresh := c.fresh(oldIDs)
				ids := Identify(fresh)
				list := r.works(t, fresh, ids)
				if err := neutralise(list); err != nil {
					t.Fatal(err)
				}
				r.log, r.fail = nil, fail
				err = commit(list, codes(fresh, "new"))
				if r.dead == "" {
					if err != nil || fail < 4 {
						t.Fatalf("with no write failing: %v, after %d", err, fail)
					}
					return
				}
				if !errors.Is(err, errBroken) || !errors.Is(err, ErrNotUndone) {
					t.Fatalf("write %d fails and commit says %v", fail, err)
				}
				for _, d := range fresh.Disks {
					if m := boots(t, r.disks[d.Name], d, ids, oldIDs); d.Name != r.dead && (m.fresh || m.other != "") {
						t.Errorf("after write %d failed %s shows %+v", fail, d.Name, m)
					}
					if c.keeps && findable(r.disks[d.Name], d) != nil {
						t.Errorf("after write %d failed what is kept on %s is not found", fail, d.Name)
					}
				}
			}
		})
	}
}
