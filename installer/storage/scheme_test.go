package storage

import (
	"imgbuild/image/layout"
	"imgbuild/installer/disk/gpt"
)

// crash is an old system, and a new one that takes its place.
type crash struct {
	old    *layout.Scheme
	fresh  func(oldIDs *IDs) *layout.Scheme
	keeps  bool
	damage func(*rig)
}

const testSize = 256 * mib

// oneDisk is a disk for either firmware.
func oneDisk(name string, sector int) layout.SchemeDisk {
	parts := []layout.Part{
		{Number: 1, Name: "biosboot", Role: layout.RoleBIOSBoot, Type: gpt.TypeBIOSBoot, Start: 1 * mib, Size: 1 * mib},
		{Number: 2, Name: "esp", Role: layout.RoleESP, Type: gpt.TypeESP, Start: 2 * mib, Size: 40 * mib, Content: layout.Content{FS: "vfat", Mount: "/boot/efi", Label: "ESP"}},
		{Number: 3, Name: "seal", Role: layout.RoleSeal, Type: layout.TypeSeal, Start: 42 * mib, Size: 1 * mib},
		{Number: 4, Name: "boot", Type: gpt.TypeLinux, Start: 43 * mib, Size: 40 * mib, LegacyBoot: true, Content: layout.Content{FS: "ext4", Mount: "/boot", Label: "boot"}},
		{Number: 5, Name: "root", Type: gpt.TypeRootX8664, Start: 83 * mib, Size: 100 * mib, Content: layout.Content{FS: "ext4", Mount: "/", Label: "root"}},
		{Number: 6, Name: "data", Type: gpt.TypeLinux, Start: 183 * mib, Size: 72 * mib, Content: layout.Content{FS: "ext4", Mount: "/data", Label: "data"}},
	}
	return layout.SchemeDisk{Name: name, Candidate: layout.Candidate{ID: name, Path: "/dev/" + name, Size: testSize, Sector: sector}, Table: layout.GPT, Boot: true, Parts: parts}
}

// mbrDisk has logical partitions.
func mbrDisk(name string) layout.SchemeDisk {
	parts := []layout.Part{
		{Number: 1, Type: "83", Start: 1 * mib, Size: 40 * mib, LegacyBoot: true, Content: layout.Content{FS: "ext4", Mount: "/boot"}},
		{Number: 2, Type: "83", Start: 41 * mib, Size: 60 * mib, Content: layout.Content{FS: "ext4", Mount: "/"}},
		{Number: 3, Type: "83", Start: 101 * mib, Size: 50 * mib, Content: layout.Content{FS: "ext4", Mount: "/data"}},
		{Number: 4, Type: "0f", Start: 151 * mib, Size: 104 * mib},
		{Number: 5, Type: "82", Start: 152 * mib, Size: 20 * mib, Content: layout.Content{FS: "swap"}},
		{Number: 6, Type: "83", Start: 173 * mib, Size: 60 * mib, Content: layout.Content{FS: "ext4", Mount: "/srv"}},
	}
	return layout.SchemeDisk{Name: name, Candidate: layout.Candidate{ID: name, Path: "/dev/" + name, Size: testSize, Sector: 512}, Table: layout.MBR, Boot: true, Parts: parts}
}

// dataDisk has nothing that boots.
func dataDisk(name string) layout.SchemeDisk {
	d := oneDisk(name, 512)
	d.Boot = false
	d.Parts = []layout.Part{{Number: 1, Name: "data1", Type: gpt.TypeLinux, Start: mib, Size: testSize - 2*mib, Content: layout.Content{FS: "ext4", Mount: "/data1"}}}
	return d
}

func scheme(disks ...layout.SchemeDisk) *layout.Scheme {
	return &layout.Scheme{Firmware: layout.Both, BIOSLoader: layout.Extlinux, Disks: disks}
}

// keeping marks a partition as one that is there already.
func keeping(d layout.SchemeDisk, number int, ids *IDs) layout.SchemeDisk {
	d.Parts = append([]layout.Part(nil), d.Parts...)
	for i := range d.Parts {
		p := &d.Parts[i]
		if p.Number == number {
			p.Content.Keep = true
			p.Kept = &layout.Existing{Device: partition(d.Name, number), Disk: d.ID, Number: number, Name: p.Name, Start: p.Start, Size: p.Size,
				GUID: ids.Partition(d.Name, number).String(), Type: p.Type, FS: p.Content.FS, UUID: ids.FS(partition(d.Name, number))}
		}
	}
	return d
}

func schemes() map[string]crash {
	always := func(s *layout.Scheme) func(*IDs) *layout.Scheme { return func(*IDs) *layout.Scheme { return s } }
	mirror := scheme(oneDisk("sda", 512), oneDisk("sdb", 512))
	keep := func(d layout.SchemeDisk, numbers ...int) func(*IDs) *layout.Scheme {
		return func(ids *IDs) *layout.Scheme {
			k := d
			for _, n := range numbers {
				k = keeping(k, n, ids)
			}
			return scheme(k)
		}
	}
	return map[string]crash{
		"one disk":                      {old: scheme(oneDisk("sda", 512)), fresh: always(scheme(oneDisk("sda", 512)))},
		"one disk of 4096-byte sectors": {old: scheme(oneDisk("sda", 4096)), fresh: always(scheme(oneDisk("sda", 4096)))},
		"a mirror of two disks":         {old: mirror, fresh: always(mirror)},
		"a boot disk after data":        {old: scheme(dataDisk("sda"), oneDisk("sdb", 512)), fresh: always(scheme(oneDisk("sda", 512), dataDisk("sdb")))},
		"a boot disk with a kept partition, and data": {old: scheme(dataDisk("sda"), oneDisk("sdb", 512)), fresh: func(ids *IDs) *layout.Scheme {
			return scheme(keeping(oneDisk("sdb", 512), 6, ids), dataDisk("sda"))
		}},
		"MBR":                                    {old: scheme(mbrDisk("sda")), fresh: always(scheme(mbrDisk("sda")))},
		"MBR becomes GPT":                        {old: scheme(mbrDisk("sda")), fresh: always(scheme(oneDisk("sda", 512)))},
		"GPT becomes MBR":                        {old: scheme(oneDisk("sda", 512)), fresh: always(scheme(mbrDisk("sda")))},
		"a kept partition":                       {old: scheme(oneDisk("sda", 512)), fresh: keep(oneDisk("sda", 512), 6), keeps: true},
		"a kept partition in front of a new one": {old: scheme(oneDisk("sda", 4096)), fresh: keep(oneDisk("sda", 4096), 5), keeps: true},
		"a kept partition whose first table is damaged": {old: scheme(oneDisk("sda", 512)), fresh: keep(oneDisk("sda", 512), 6), keeps: true,
			damage: func(r *rig) { delete(r.disks["sda"], 1) }},
		"a kept partition whose second table is damaged": {old: scheme(oneDisk("sda", 512)), fresh: keep(oneDisk("sda", 512), 6), keeps: true,
			damage: func(r *rig) { delete(r.disks["sda"], testSize/page-1) }},
		"a kept partition of an MBR": {old: scheme(mbrDisk("sda")), fresh: keep(mbrDisk("sda"), 3), keeps: true},
	}
}
