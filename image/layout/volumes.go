package layout

import (
	"fmt"
	"slices"
	"strings"
)

// arrayLevel is how many members an array of a level has at least; 0 for a level that there is not.
func arrayLevel(level int) int {
	return map[int]int{0: 2, 1: 2, 10: 2, 5: 3, 6: 4}[level]
}

func (s *structure) arrays() {
	names := map[string]bool{}
	for i, a := range s.l.Arrays {
		at := func(key string) []string { return keys("raid", i, key) }
		switch bare := strings.TrimPrefix(strings.TrimPrefix(a.Name, "md"), "_d"); {
		case badName(a.Name) != "":
			s.add(at("name"), "%s", badName(a.Name))
		case strings.Trim(bare, "0123456789") == "":
			s.add(at("name"), "%s would be taken for the number of a device; take a name, as boot", clip(a.Name))
		case names[a.Name]:
			s.add(at("name"), "%s is the name of another array too", clip(a.Name))
		}
		names[a.Name] = true
		s.members(i, a)
		if !slices.Contains([]string{"1.0", "1.2"}, a.Metadata) {
			s.add(at("metadata"), "is %s, which is none of 1.0, 1.2", clip(a.Metadata))
		}
		if a.Chunk != "" {
			n, err := a.Chunk.Bytes()
			switch {
			case err != nil:
				s.add(at("chunk"), "%s", err)
			case a.Level == 1:
				s.add(at("chunk"), "is set, and an array of level 1 has no chunks; take it out")
			case n < 4*kib || n > 64*mib || n&(n-1) != 0:
				s.add(at("chunk"), "is %s and has to be a power of two from 4KiB to 64MiB", a.Chunk)
			}
		}
		if a.Array != "" {
			s.add(at("raid"), "makes an array a member of another; take level 10, or put both into a volume group")
		}
		s.content(a.Content, at, "an array")
		s.refers(at("volume_group"), a.Group, nil, "")
		if a.Keep && a.Group != "" && !s.keptAbove(a.Content) {
			s.add(at("keep"), "is of no use on a physical volume; say it at the volumes that stay")
		}
		if a.Mount == espMount && !s.l.espArray(a.Name) {
			s.add(at("mount"), "is %s, and the members of the array are not EFI system partitions; give them role: esp", espMount)
		}
	}
}

func (s *structure) members(i int, a Array) {
	least := arrayLevel(a.Level)
	if least == 0 {
		s.add(keys("raid", i, "level"), "is %d, which is none of 0, 1, 5, 6, 10", a.Level)
		return
	}
	ms := s.l.members(a.Name)
	switch {
	case a.Spares < 0:
		s.add(keys("raid", i, "spares"), "is %d", a.Spares)
	case a.Spares > 0 && a.Level == 0:
		s.add(keys("raid", i, "spares"), "is %d, and an array of level 0 has no use for a spare; take it out", a.Spares)
	case len(ms) == 0:
		s.add(keys("raid", i), "has no members; let partitions or disks say raid: %s", a.Name)
	case len(ms)-a.Spares < least:
		without := ""
		if a.Spares > 0 {
			without = fmt.Sprintf(", of which %d are spares", a.Spares)
		}
		s.add(keys("raid", i), "has %d members%s, and level %d needs %d that work", len(ms), without, a.Level, least)
	}
	disks := map[int]bool{}
	esp, other := 0, 0
	for _, m := range ms {
		if disks[m.disk] {
			s.add(keys("raid", i), "has two members on %s, which are lost together; put each on a disk of its own", s.l.Disks[m.disk].Name)
		}
		disks[m.disk] = true
		if m.part >= 0 && s.l.Disks[m.disk].Partitions[m.part].Role == RoleESP {
			esp++
		} else {
			other++
		}
	}
	if esp > 0 && other > 0 {
		s.add(keys("raid", i), "has EFI system partitions and others as members; give all of them role: esp")
	}
}

func (s *structure) groups() {
	names := map[string]bool{}
	for i, g := range s.l.Groups {
		at := func(key string) []string { return keys("volume_groups", i, key) }
		switch {
		case badLVMName(g.Name) != "":
			s.add(at("name"), "%s", badLVMName(g.Name))
		case reservedGroup(g.Name):
			s.add(at("name"), "%s is the name of something in /dev, where the group's directory would be", clip(g.Name))
		case names[g.Name]:
			s.add(at("name"), "%s is the name of another volume group too", clip(g.Name))
		}
		names[g.Name] = true
		if n, err := g.ExtentSize.Bytes(); err != nil {
			s.add(at("extent_size"), "%s", err)
		} else if n < 128*kib || n > 1<<30 || n&(n-1) != 0 {
			s.add(at("extent_size"), "is %s and has to be a power of two from 128KiB to 1GiB", g.ExtentSize)
		}
		if len(s.l.physical(g.Name, true)) == 0 {
			s.add(keys("volume_groups", i), "has no physical volume; let a partition, an array or a disk say volume_group: %s", g.Name)
		}
		s.volumes(i, g)
	}
}

func (s *structure) volumes(i int, g Group) {
	names := map[string]bool{}
	pools := map[string]bool{}
	for _, v := range g.Volumes {
		pools[v.Name] = pools[v.Name] || v.Pool
	}
	var extents []Extent
	var index []int
	for j, v := range g.Volumes {
		at := func(key string) []string { return keys("volume_groups", i, "volumes", j, key) }
		switch {
		case badLVMName(v.Name) != "":
			s.add(at("name"), "%s", badLVMName(v.Name))
		case badVolumeName(v.Name):
			s.add(at("name"), "%s is a name that LVM keeps for itself", clip(v.Name))
		case len(g.Name)+strings.Count(g.Name, "-")+len(v.Name)+strings.Count(v.Name, "-") > 110:
			s.add(at("name"), "%s is, with the group's name, too long for the device mapper", clip(v.Name))
		case names[v.Name]:
			s.add(at("name"), "%s is the name of another volume of the group too", clip(v.Name))
		}
		names[v.Name] = true
		if v.Group != "" {
			s.add(at("volume_group"), "makes a volume a physical volume of a group; leave that out")
		}
		if v.Array != "" {
			s.add(at("raid"), "makes a volume a member of an array; make the array of partitions, and the group of the array")
		}
		if v.Pool {
			s.pool(v, at)
		}
		if v.Thin == "" {
			extents, index = append(extents, v.Extent), append(index, j)
		} else {
			s.thin(v, at, pools[v.Thin])
		}
		if !v.Pool {
			s.content(v.Content, at, "a volume")
		}
		if v.Mount == espMount {
			s.add(at("mount"), "is %s, and firmware does not read LVM; declare a partition with role: esp", espMount)
		}
	}
	s.extents(extents, func(k int, key string) []string { return keys("volume_groups", i, "volumes", index[k], key) }, "volume group")
}

func (s *structure) pool(v Volume, at func(string) []string) {
	if v.Thin != "" {
		s.add(at("thin"), "puts a pool into a pool; take pool or thin out")
	}
	c := v.Content
	c.Keep = false
	if !empty(c) {
		s.add(at("pool"), "is true, and a pool holds volumes, no file system of its own; take its fs, mount and what else is there out")
	}
	if v.Keep && !slices.ContainsFunc(s.l.Groups, func(g Group) bool {
		return slices.ContainsFunc(g.Volumes, func(o Volume) bool { return o.Thin == v.Name && o.Keep })
	}) {
		s.add(at("keep"), "is of no use on a pool; say it at the volumes in it that stay")
	}
}

func (s *structure) thin(v Volume, at func(string) []string, pool bool) {
	if !pool {
		s.add(at("thin"), "%s is not a volume of the group with pool: true", clip(v.Thin))
	}
	if v.Size == "" {
		s.add(at("size"), "is missing; a thin volume has a size of its own, as 100GiB, whatever the pool's is")
	} else if _, err := v.Size.Bytes(); err != nil {
		s.add(at("size"), "of a thin volume is virtual: %s", err)
	}
	if v.Min != "" || v.Max != "" {
		s.add(at("size"), "of a thin volume is fixed, so min and max have no meaning; take them out")
	}
}

// badLVMName says why LVM does not take a name (lvm(8), VALID NAMES); empty if it does.
func badLVMName(s string) string {
	if s == "" || len(s) > 60 || strings.HasPrefix(s, "-") || s == "." || s == ".." ||
		strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789+_.-") != "" {
		return fmt.Sprintf("%s is not a name for LVM: it is up to 60 letters, digits, + _ . and -, and does not begin with a dash", clip(s))
	}
	return ""
}

// badVolumeName says whether LVM reserves a name (lvm(8), VALID NAMES).
func badVolumeName(s string) bool {
	for _, prefix := range []string{"snapshot", "pvmove"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	for _, part := range []string{
		"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig",
	} {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// reservedGroup says whether /dev has something else by a volume group's name.
func reservedGroup(s string) bool {
	if slices.Contains([]string{
		"block", "bsg", "bus", "char", "console", "core", "cpu", "disk", "dm", "dri", "fd", "full", "fuse", "hugepages", "hwrng", "initctl", "input", "kmsg", "kvm",
		"log", "lp", "mapper", "mcelog", "md", "mei", "mem", "mqueue", "net", "null", "nvram", "port", "ppp", "ptmx", "pts", "random", "raw", "rtc", "sg", "shm",
		"snapshot", "snd", "stderr", "stdin", "stdout", "tty", "tpm", "uinput", "urandom", "usb", "userfaultfd", "vfio", "vga_arbiter", "watchdog", "zero",
	}, s) {
		return true
	}
	bare := strings.TrimRight(s, "0123456789")
	if bare != s && slices.Contains([]string{"dm-", "loop", "md", "nbd", "ram", "sr", "tty", "ttyS", "vcs", "vcsa", "sg", "nvme", "pmem", "watchdog", "rtc", "tpm"}, bare) {
		return true
	}
	for _, disk := range []string{"sd", "vd", "xvd", "hd"} {
		if rest, ok := strings.CutPrefix(bare, disk); ok && len(rest) == 1 && rest[0] >= 'a' && rest[0] <= 'z' {
			return true
		}
	}
	return false
}
