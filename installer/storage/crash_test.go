package storage

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/mbr"
)

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
					case m.fresh && (!filled(disks, fresh, "new") || !tablesOfData(t, disks, fresh, ids)):
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
