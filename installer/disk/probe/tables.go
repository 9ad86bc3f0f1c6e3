package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/mbr"
)

// What the tables are called that a disk may be given.
const (
	gptKind = "GUID partition table"
	mbrKind = "MBR partition table"
)

// table is what partition tables say.
type table struct {
	found []Finding
	parts []part
	// empty is an MBR without partitions, which the boot sector of a file system looks like as well.
	empty bool
}

// part is a partition with what is in it.
type part struct {
	Part
	name  string
	holds []Finding
}

// tables finds partition tables and returns the partitions inside the disk, each once, with what they hold.
func tables(r io.ReaderAt, size int64) (table, error) {
	t := table{}
	v := &view{r: r, size: size}
	for _, s := range otherTables() {
		if f := s(v); f != nil {
			f.Size = size
			t.found = append(t.found, *f)
		}
		if v.err != nil {
			return t, fmt.Errorf("look for partition tables: %w", v.err)
		}
	}
	g, err := gpt.Read(r, size)
	switch {
	case err == nil:
		f := Finding{Kind: fmt.Sprintf("%s with %s", gptKind, count(len(g.Partitions), "partition")), UUID: g.GUID.String(), Size: size}
		if !g.Primary {
			f.Kind += " (its first copy is damaged, the one at the end of the disk is whole)"
		}
		t.found = append(t.found, f)
		t.parts, err = gptParts(r, size, g)
		return t, err
	case !errors.Is(err, gpt.ErrNone):
		return t, err
	}
	return t, t.mbr(r, size)
}

func gptParts(r io.ReaderAt, size int64, g gpt.Found) ([]part, error) {
	var parts []part
	for _, p := range g.Partitions {
		ss := uint64(g.SectorSize)
		if p.First > p.Last || p.Last >= uint64(size)/ss {
			continue
		}
		e := part{Part: Part{p.Number, int64(p.First * ss), int64((p.Last - p.First + 1) * ss)}, name: printable(p.Name)}
		var err error
		if e.holds, err = inside(r, e.Part); err != nil {
			return nil, err
		}
		if known := typeName(p.Type.String()); known != "" && e.holds[0].nothing() {
			e.holds[0].Kind = known
		}
		parts = append(parts, e)
	}
	return parts, nil
}

// What partitions hold in which no superblock is.
const (
	nothingKnown = "nothing known"
	randomData   = "random data, as of an encrypted volume without a header"
)

func (f Finding) nothing() bool { return f.Kind == nothingKnown || f.Kind == randomData }

// inside is what a partition holds: at least one finding.
func inside(r io.ReaderAt, p Part) ([]Finding, error) {
	in, err := Volume(io.NewSectionReader(r, p.Start, p.Size), p.Size)
	if err != nil {
		return nil, err
	}
	if len(in) == 0 {
		kind := nothingKnown
		if random(&view{r: r, size: p.Start + p.Size}, p.Start) {
			kind = randomData
		}
		in = []Finding{{Kind: kind, Size: p.Size}}
	}
	return in, nil
}

// typeName are GPT types of partitions whose content has no superblock (UEFI specification, Discoverable Partitions
// Specification, and the makers' own lists).
func typeName(guid string) string {
	return map[string]string{
		gpt.TypeBIOSBoot:                       "BIOS boot partition",
		layout.TypeSeal:                        "imgbuild seal",
		"37affc90-ef7d-4e96-91c3-2d7ae055b174": "GPFS disk",
		"4fbd7e29-9d25-41b8-afd0-062c0ceff05d": "Ceph OSD",
		"4fbd7e29-8ae0-4982-bf9d-5a8d867af560": "Ceph OSD (multipath)",
		"4fbd7e29-9d25-41b8-afd0-5ec00ceff05d": "Ceph OSD (encrypted)",
		"45b0969e-9b03-4f30-b4c6-b4b80ceff106": "Ceph journal",
		"30cd0809-c2b2-499c-8879-2d6b78529876": "Ceph block DB",
		"5ce17fce-4087-4169-b7ff-056cc58473f9": "Ceph block WAL",
		"9d275380-40ad-11db-bf97-000c2911d1b8": "VMware core dump partition",
		"aa31e02a-400f-11db-9590-000c2911d1b8": "VMFS partition",
		"381cfccc-7288-11e0-92ee-000c2911d0b2": "VMware vSAN partition",
		"9198effc-31c0-11db-8f78-000c2911d1b8": "VMware reserved partition",
		"e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved partition",
		"af9b60a0-1431-4f62-bc68-3311714a69ad": "Windows dynamic disk's data",
		"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": "Windows dynamic disk's database",
		"e75caf8f-f680-4cee-afa3-b001e56efc2d": "Windows storage space",
		"6a945a3b-1dd2-11b2-99a6-080020736631": "ZFS reserved partition",
		"6a898cc3-1dd2-11b2-99a6-080020736631": "ZFS or Apple partition",
		"9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PowerPC PReP boot partition",
	}[guid]
}

// mbr reads an MBR. The disk does not say how large its sectors were: they are taken for 512 bytes, and for 4096 where only
// that finds something in the partitions.
func (t *table) mbr(r io.ReaderAt, size int64) error {
	small, err := mbrParts(r, size, 512)
	switch {
	case errors.Is(err, mbr.ErrProtective):
		t.found = append(t.found, Finding{Kind: "protective MBR of a GUID partition table that is gone", Size: size})
		return nil
	case errors.Is(err, mbr.ErrNone):
		return nil
	case err != nil:
		return err
	}
	large, err := mbrParts(r, size, 4096)
	if err != nil && !errors.Is(err, mbr.ErrNone) {
		return err
	}
	t.parts = small
	if known(large) > 0 && known(small) == 0 {
		t.parts = large
	}
	if len(t.parts) == 0 {
		t.empty = true
		return nil
	}
	t.found = append(t.found, Finding{Kind: fmt.Sprintf("%s with %s", mbrKind, count(len(t.parts), "partition")), Size: size})
	return nil
}

func known(parts []part) int {
	n := 0
	for _, p := range parts {
		for _, f := range p.holds {
			if !f.nothing() {
				n++
			}
		}
	}
	return n
}

func mbrParts(r io.ReaderAt, size int64, sector int) ([]part, error) {
	m, err := mbr.Read(r, size, sector)
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, p := range m.Partitions {
		if mbr.Extended(p.Type) {
			continue
		}
		e := part{Part: Part{p.Number, int64(p.First) * int64(sector), int64(p.Last-p.First+1) * int64(sector)}}
		if e.holds, err = inside(r, e.Part); err != nil {
			return nil, err
		}
		parts = append(parts, e)
	}
	return parts, nil
}

// otherTables are partition tables that are only named: no system that the installer runs on uses them.
func otherTables() []signature {
	return []signature{
		bsd, sun,
		magic("Apple partition table", "", 512, "PM\x00\x00"),
		magic("SGI partition table", "", 0, "\x0b\xe5\xa9\x41"),
		magic("AIX physical volume", "", 0, "\xc9\xc2\xd4\xc1"),
		magic("Windows dynamic disk", "", 6*512, "PRIVHEAD"),
	}
}

// bsd has its disk label in the second sector, or inside of the first on a few machines. The magic is there twice.
func bsd(v *view) *Finding {
	for _, off := range []int64{512, 64, 0} {
		const m = "\x57\x45\x56\x82"
		if v.has(off, m) && v.has(off+132, m) {
			return &Finding{Kind: "BSD disk label", Label: v.text(off+24, 16)}
		}
	}
	return nil
}

// sun has a checksum over its one sector, as 16-bit words in big endian.
func sun(v *view) *Finding {
	b := v.at(0, 512)
	if b == nil || b[508] != 0xda || b[509] != 0xbe {
		return nil
	}
	sum := uint16(0)
	for i := 0; i < 512; i += 2 {
		sum ^= binary.BigEndian.Uint16(b[i:])
	}
	if sum != 0 {
		return nil
	}
	return &Finding{Kind: "Sun disk label"}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
