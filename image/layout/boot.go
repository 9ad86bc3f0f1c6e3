package layout

import (
	"fmt"
	"slices"
	"strings"
)

// place is where something of an expanded layout is declared.
type place struct {
	disk, part    int // a partition
	array         int
	group, volume int
	kind          placeKind
}

type placeKind int

const (
	nowhere placeKind = iota
	onPartition
	onArray
	onVolume
)

// bootMount is the mount point of the file system that the boot loaders read: /boot, or / where that is not one of its own.
func (l Layout) bootMount() (string, place) {
	if at := l.find("/boot"); at.kind != nowhere {
		return "/boot", at
	}
	return "/", l.find("/")
}

// find looks for a mount point.
func (l Layout) find(mount string) place {
	for i, d := range l.Disks {
		for j, p := range d.Partitions {
			if p.Mount == mount {
				return place{kind: onPartition, disk: i, part: j}
			}
		}
	}
	for i, a := range l.Arrays {
		if a.Mount == mount {
			return place{kind: onArray, array: i}
		}
	}
	for i, g := range l.Groups {
		for j, v := range g.Volumes {
			if v.Mount == mount {
				return place{kind: onVolume, group: i, volume: j}
			}
		}
	}
	return place{}
}

func (l Layout) content(at place) Content {
	switch at.kind {
	case onPartition:
		return l.Disks[at.disk].Partitions[at.part].Content
	case onArray:
		return l.Arrays[at.array].Content
	case onVolume:
		return l.Groups[at.group].Volumes[at.volume].Content
	}
	return Content{}
}

// path is where the place is in the layout, for Problems.
func (at place) path(key string) []string {
	switch at.kind {
	case onPartition:
		return keys("disks", at.disk, "partitions", at.part, key)
	case onArray:
		return keys("raid", at.array, key)
	case onVolume:
		return keys("volume_groups", at.group, "volumes", at.volume, key)
	}
	return nil
}

// member is a partition, or with part -1 a whole disk, that is part of something.
type member struct{ disk, part int }

// members are what an array is made of, in the order of the disks.
func (l Layout) members(array string) []member {
	return l.parts(func(group, name string) bool { return name == array && array != "" })
}

// physical are the partitions and whole disks of a volume group; those of its arrays count only with arrays.
func (l Layout) physical(group string, arrays bool) []member {
	out := l.parts(func(name, _ string) bool { return name == group && group != "" })
	if arrays {
		for _, a := range l.Arrays {
			if a.Group == group {
				out = append(out, l.members(a.Name)...)
			}
		}
	}
	return out
}

func (l Layout) parts(is func(group, array string) bool) []member {
	var out []member
	for i, d := range l.Disks {
		if is(d.Group, d.Array) {
			out = append(out, member{i, -1})
		}
		for j, p := range d.Partitions {
			if is(p.Group, p.Array) {
				out = append(out, member{i, j})
			}
		}
	}
	return out
}

// below are the partitions and disks that a place lies on.
func (l Layout) below(at place) []member {
	switch at.kind {
	case onPartition:
		return []member{{at.disk, at.part}}
	case onArray:
		return l.members(l.Arrays[at.array].Name)
	case onVolume:
		return l.physical(l.Groups[at.group].Name, true)
	}
	return nil
}

// role says whether a disk has a partition with a role.
func (d Disk) role(r Role) bool {
	return slices.ContainsFunc(d.Partitions, func(p Partition) bool { return p.Role == r })
}

// bootDisks are the disks that start the machine: those that hold the boot loaders' file system or a member of its array. Of a volume
// group it is those that are made for booting.
func (l Layout) bootDisks() []int {
	_, at := l.bootMount()
	var out []int
	for _, m := range l.below(at) {
		if !slices.Contains(out, m.disk) {
			out = append(out, m.disk)
		}
	}
	slices.Sort(out)
	if at.kind != onVolume {
		return out
	}
	return slices.DeleteFunc(out, func(i int) bool {
		d := l.Disks[i]
		if l.Firmware.HasUEFI() && !d.role(RoleESP) {
			return true
		}
		return len(d.Partitions) == 0 || l.Firmware.HasBIOS() && d.Table == GPT && !d.role(RoleBIOSBoot)
	})
}

// extlinuxReads says why extlinux cannot read the boot loaders' file system; empty if it can. The layout is expanded.
func (l Layout) extlinuxReads() string {
	_, at := l.bootMount()
	switch c := l.content(at); {
	case at.kind == onVolume:
		return "it is on LVM"
	case at.kind == onArray && l.Arrays[at.array].Level != 1:
		return fmt.Sprintf("it is on RAID %d, of which no disk alone holds a file system", l.Arrays[at.array].Level)
	case at.kind == onArray && l.Arrays[at.array].Metadata != "1.0":
		return "the metadata of its array lies before the file system; metadata 1.0 lies behind it"
	case c.FS == "ext4" && mkfsOption(c.Mkfs, "-O", "64bit", "metadata_csum", "casefold", "encrypt", "inline_data", "verity"):
		return "mkfs turns a feature of ext4 on that extlinux does not know"
	case c.FS == "xfs" && slices.ContainsFunc(l.below(at), func(m member) bool { return l.Disks[m.disk].Table != MBR }):
		return "it is XFS on a GPT; ext4 is read, or XFS on an MBR"
	case c.FS == "xfs" && !mkfsOption(c.Mkfs, "-m", "crc=0") && !mkfsOption(c.Mkfs, "-i", "nrext64=0"):
		return "it is XFS with counters of 64 bits, which newer mkfs.xfs make by themselves; ext4 is read, or XFS with mkfs: [-i, nrext64=0]"
	}
	return ""
}

// mkfsOption says whether an option has one of some words in its comma-separated argument.
func mkfsOption(args []string, flag string, words ...string) bool {
	for i, a := range args {
		value, ok := strings.CutPrefix(a, flag)
		if !ok {
			continue
		}
		if value == "" && i+1 < len(args) {
			value = args[i+1]
		}
		for _, w := range strings.Split(value, ",") {
			if slices.Contains(words, w) {
				return true
			}
		}
	}
	return false
}

// grubReads says why GRUB cannot read the boot loaders' file system; empty if it can.
func (l Layout) grubReads() string {
	_, at := l.bootMount()
	if at.kind == onVolume && l.Groups[at.group].Volumes[at.volume].Thin != "" {
		return "it is a thin volume"
	}
	return ""
}

// needsGRUB says whether GRUB starts the machine on BIOS, if it has BIOS.
func (l Layout) needsGRUB() bool {
	return l.BIOSLoader == GRUB || l.BIOSLoader != Extlinux && l.extlinuxReads() != ""
}

// bootProblems checks an expanded layout for one firmware.
func (l Layout) bootProblems(p *problems) {
	name, at := l.bootMount()
	if at.kind == nowhere {
		return // a missing root is said elsewhere
	}
	where := at.path("mount")
	if at.kind == onArray && len(l.below(at)) == 0 || at.kind == onVolume && len(l.below(at)) == 0 {
		return // so are an array and a group that are made of nothing
	}
	if l.Firmware.HasUEFI() || l.needsGRUB() {
		if why := l.grubReads(); why != "" {
			p.add(where, "GRUB cannot read %s: %s; put /boot on a partition, or on a volume that is not thin", name, why)
		}
	}
	if l.Firmware.HasBIOS() && l.BIOSLoader == Extlinux {
		if why := l.extlinuxReads(); why != "" {
			p.add(where, "extlinux cannot read %s: %s; put /boot on a partition with ext4, or on RAID 1 with metadata 1.0, or take bios_loader: grub", name, why)
		}
	}
	for _, m := range l.below(at) {
		if at.kind != onVolume && m.part < 0 {
			p.add(keys("disks", m.disk), "holds %s without a partition table, and no firmware starts such a disk; declare partitions", name)
		}
	}
	if l.Firmware.HasUEFI() {
		l.espProblems(p, name, at)
	}
	if l.Firmware.HasBIOS() && l.needsGRUB() {
		l.biosBootProblems(p, name, at)
	}
}

// biosBootProblems: GRUB's core needs a place on each disk with a GPT that is to boot.
func (l Layout) biosBootProblems(p *problems, name string, at place) {
	const text = "has no partition with role: biosboot, in which GRUB's core lies on a disk with a GPT that starts by BIOS; declare one of 1MiB"
	found := false
	var first *member
	for _, m := range l.below(at) {
		d := l.Disks[m.disk]
		if len(d.Partitions) == 0 || d.Table == MBR || d.role(RoleBIOSBoot) {
			found = found || len(d.Partitions) > 0
			continue
		}
		if at.kind != onVolume {
			p.add(keys("disks", m.disk), "%s, as it holds %s", text, name)
		} else if first == nil {
			first = &m
		}
	}
	if at.kind != onVolume || found {
		return
	}
	if first == nil {
		p.add(at.path("mount"), "is on disks without a partition table, and no firmware starts such a disk; declare partitions, and in them the physical volume")
		return
	}
	p.add(keys("disks", first.disk), "%s, as it holds %s", text, name)
}

// espProblems: UEFI reads an EFI system partition, on a disk that the boot loaders' file system is on too.
func (l Layout) espProblems(p *problems, name string, at place) {
	var withESP, single []int
	for i, d := range l.Disks {
		for j, part := range d.Partitions {
			if part.Role != RoleESP {
				continue
			}
			withESP = append(withESP, i)
			if part.Array == "" {
				single = append(single, i)
				if len(single) > 1 {
					p.add(keys("disks", i, "partitions", j, "role"), "is a second EFI system partition beside that of %s; join both in an array of level 1", l.Disks[single[0]].Name)
				}
			}
		}
	}
	if len(withESP) == 0 {
		first := 0
		for i, m := range l.below(at) {
			if i == 0 || m.disk < first {
				first = m.disk
			}
		}
		p.add(keys("disks", first), "has no EFI system partition, from which UEFI starts; declare a partition with role: esp, or firmware: bios")
		return
	}
	disks := map[int]bool{}
	for _, m := range l.below(at) {
		disks[m.disk] = true
	}
	for _, i := range withESP {
		if !disks[i] {
			p.add(keys("disks", i), "has an EFI system partition, but %s is not on it; put both on the same disks", name)
		}
		delete(disks, i)
	}
	if at.kind != onArray {
		return
	}
	for i := range l.Disks {
		if disks[i] {
			p.add(keys("disks", i), "has a member of the array with %s but no EFI system partition, so without %s the machine would not start; declare one, and join them in an array of level 1",
				name, l.Disks[withESP[0]].Name)
		}
	}
}
