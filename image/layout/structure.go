package layout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// structure checks an expanded layout's parts and how they hang together, whatever the firmware. declared is what it was expanded
// from, by which paths go.
func (l Layout) structure(p *problems, declared Layout) {
	s := &structure{problems: p, l: l, declared: declared, mounts: map[string]bool{}, labels: map[string]bool{}}
	if len(l.Disks) == 0 {
		p.add(keys("disks"), "are missing: arrays and volume groups need disks to lie on")
	}
	s.disks()
	s.arrays()
	s.groups()
	if !s.mounts["/"] {
		p.add(keys("disks"), "hold no file system with mount: /, which the image is unpacked to")
	}
}

type structure struct {
	*problems
	l, declared    Layout
	mounts, labels map[string]bool
}

// partPath is where a partition of the expanded layout was declared.
func (s *structure) partPath(i, j int, key string) []string {
	d := s.declared.Disks[i]
	switch {
	case j < len(d.Partitions):
		return keys("disks", i, "partitions", j, key)
	case d.Array != "":
		return keys("disks", i, "raid")
	}
	return keys("disks", i, "volume_group")
}

func (s *structure) disks() {
	names := map[string]bool{}
	for i, d := range s.l.Disks {
		at := keys("disks", i)
		if why := badName(d.Name); why != "" {
			s.add(keys(at, "name"), "%s", why)
		} else if names[d.Name] {
			s.add(keys(at, "name"), "%s is the name of another disk too", clip(d.Name))
		} else if _, err := strconv.Atoi(strings.TrimPrefix(d.Name, "data")); err == nil && s.l.Data != nil && strings.HasPrefix(d.Name, "data") {
			s.add(keys(at, "name"), "%s is what data disks are called", clip(d.Name))
		}
		names[d.Name] = true
		d.Match.problems(func(key, format string, a ...any) { s.add(keys(at, "match", key), format, a...) })
		was := s.declared.Disks[i]
		oneOf(s.problems, keys(at, "table"), was.Table, "", GPT, MBR)
		if was.Group != "" && was.Array != "" {
			s.add(keys(at, "raid"), "and volume_group both want the rest of the disk; take one out")
		}
		switch {
		case len(d.Partitions) == 0 && d.Group == "" && d.Array == "":
			s.add(at, "has no partitions and belongs to nothing; declare partitions, or take the disk out")
		case len(d.Partitions) == 0 && d.Table != "":
			s.add(keys(at, "table"), "is %s, but without partitions the whole disk is used and has no table; take it out", d.Table)
		}
		if len(d.Partitions) == 0 {
			s.refers(keys(at, "volume_group"), d.Group, keys(at, "raid"), d.Array)
			continue
		}
		s.partitions(i, d)
	}
}

func (s *structure) partitions(i int, d Disk) {
	switch {
	case d.Table == MBR && len(d.Partitions) > 4:
		s.add(keys("disks", i, "partitions"), "are %d, and an MBR has four; put file systems into a volume group, or take table: gpt", len(d.Partitions))
	case len(d.Partitions) > 120:
		s.add(keys("disks", i, "partitions"), "are %d, and a GPT has place for 120 besides ours", len(d.Partitions))
	}
	names, esps := map[string]bool{}, 0
	for j, part := range d.Partitions {
		at := func(key string) []string { return s.partPath(i, j, key) }
		if why := badPartitionName(part.Name); why != "" {
			s.add(at("name"), "%s", why)
		} else if names[part.Name] {
			s.add(at("name"), "%s is the name of another partition of the disk too", clip(part.Name))
		}
		names[part.Name] = true
		if part.Mount == espMount && part.Role != RoleESP {
			s.add(at("role"), "is missing: what is mounted at %s is the EFI system partition; add role: esp", espMount)
		}
		switch part.Role {
		case RoleNone:
		case RoleBIOSBoot:
			if d.Table == MBR {
				s.add(at("role"), "is biosboot, and on an MBR GRUB's core lies before the first partition; take the partition out")
			}
			if !empty(part.Content) {
				s.add(at("role"), "is biosboot, which holds GRUB's core and nothing else; take its fs, mount, keep and what else is there out")
			}
		case RoleESP:
			if esps++; esps > 1 {
				s.add(at("role"), "is a second EFI system partition of the disk; take one out")
			}
			s.esp(part.Content, at)
		case RoleSeal:
			s.add(at("role"), "is seal, a partition that every disk that boots gets by itself; take it out")
		default:
			s.add(at("role"), "is %s, which is none of biosboot, esp", clip(string(part.Role)))
		}
		s.content(part.Content, at, "a partition")
		s.refers(at("volume_group"), part.Group, at("raid"), part.Array)
		if part.Keep && empty(part.Content.without()) && (part.Group != "" || part.Array != "") && !s.keptAbove(part.Content) {
			s.add(at("keep"), "is of no use on a part of something; say it at the file system that lies on it")
		}
	}
	var extents []Extent
	for _, part := range d.Partitions {
		extents = append(extents, part.Extent)
	}
	s.extents(extents, func(j int, key string) []string { return s.partPath(i, j, key) }, "disk")
}

// without is the content but for what it is a part of and whether it is kept.
func (c Content) without() Content {
	c.Group, c.Array, c.Keep = "", "", false
	return c
}

func empty(c Content) bool {
	return c.FS == "" && c.Label == "" && len(c.Mkfs) == 0 && c.Mount == "" && c.Options == "" && !c.Keep && c.Group == "" && c.Array == ""
}

// keptAbove says whether something that lies on a content is kept.
func (s *structure) keptAbove(c Content) bool {
	for _, a := range s.l.Arrays {
		if c.Array != "" && a.Name == c.Array && a.Keep {
			return true
		}
	}
	for _, g := range s.l.Groups {
		if c.Group != "" && g.Name == c.Group && slices.ContainsFunc(g.Volumes, func(v Volume) bool { return v.Keep }) {
			return true
		}
	}
	return false
}

// esp checks what an EFI system partition holds, itself or as a member of an array.
func (s *structure) esp(c Content, at func(string) []string) {
	if c.Array == "" {
		switch {
		case c.Group != "":
			s.add(at("volume_group"), "is on an EFI system partition, which firmware could not read then")
		case c.FS != "vfat":
			s.add(at("fs"), "is %s on an EFI system partition, and firmware reads vfat", c.FS)
		case c.Mount != espMount:
			s.add(at("mount"), "is %s, and an EFI system partition is mounted at %s", clip(c.Mount), espMount)
		}
		return
	}
	for k, a := range s.l.Arrays {
		if a.Name != c.Array {
			continue
		}
		if a.Level != 1 {
			s.add(keys("raid", k, "level"), "is %d, and EFI system partitions go into an array of level 1, of which firmware reads each member alone", a.Level)
		}
		if a.Metadata != "1.0" {
			s.add(keys("raid", k, "metadata"), "is %s, and on EFI system partitions it has to be 1.0, which lies behind the file system that firmware reads", clip(a.Metadata))
		}
		switch {
		case a.FS != "vfat":
			s.add(keys("raid", k, "fs"), "is %s on EFI system partitions, and firmware reads vfat", clip(a.FS))
		case a.Mount != espMount:
			s.add(keys("raid", k, "mount"), "is %s, and an EFI system partition is mounted at %s", clip(a.Mount), espMount)
		}
	}
}

// refers checks that a volume group and an array that are named are declared.
func (s *structure) refers(groupPath []string, group string, arrayPath []string, array string) {
	if group != "" && !slices.ContainsFunc(s.l.Groups, func(g Group) bool { return g.Name == group }) {
		s.add(groupPath, "%s is not declared; add it to volume_groups", clip(group))
	}
	if array != "" && !slices.ContainsFunc(s.l.Arrays, func(a Array) bool { return a.Name == array }) {
		s.add(arrayPath, "%s is not declared; add it to raid", clip(array))
	}
}

// extents checks the sizes of what shares a disk or a volume group.
func (s *structure) extents(list []Extent, at func(i int, key string) []string, whole string) {
	rest, percent, others := -1, 0, 0
	for i, e := range list {
		a, err := e.Size.read()
		switch {
		case err != nil:
			s.add(at(i, "size"), "%s", err)
			continue
		case a.rest && rest >= 0:
			s.add(at(i, "size"), "is the rest of the %s, which %s has already; give one of the two a size", whole, pathText(at(rest, "")))
		case a.rest:
			rest = i
		case a.percent > 0:
			percent += a.percent
			if percent > 100 && percent-a.percent <= 100 {
				s.add(at(i, "size"), "makes the percentages of the %s %d%% together; make them 100%% or less", whole, percent)
			}
		default:
			others++
		}
		s.bounds(e, a, func(key string) []string { return at(i, key) })
	}
	if percent == 100 && (others > 0 || rest >= 0) {
		s.add(at(0, "size"), "is one of several whose percentages take the whole %s, so that nothing remains for the others; make the percentages less", whole)
	}
}

func (s *structure) bounds(e Extent, a amount, at func(string) []string) {
	if a.absolute() && (e.Min != "" || e.Max != "") {
		s.add(at("size"), "is fixed, so min and max have no meaning; take them out, or take a percentage or rest")
		return
	}
	var least, most int64
	for _, b := range []struct {
		key string
		v   Size
		to  *int64
	}{{"min", e.Min, &least}, {"max", e.Max, &most}} {
		if b.v == "" {
			continue
		}
		n, err := b.v.Bytes()
		if err != nil {
			s.add(at(b.key), "%s", err)
		}
		*b.to = n
	}
	if least > 0 && most > 0 && least > most {
		s.add(at("min"), "is %s, which is more than max, %s", e.Min, e.Max)
	}
}

// badName says why a name is not one of a disk or array of a layout; empty if it is.
func badName(s string) string {
	if s == "" || len(s) > 24 || strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" || strings.HasPrefix(s, "-") || strings.HasPrefix(s, ".") {
		return fmt.Sprintf("%s is not a name: it is up to 24 letters, digits, _ . and -, with a letter or digit first", clip(s))
	}
	return ""
}

func badPartitionName(s string) string {
	units := 0
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '/' || r == '\\' || r == '"' || r == 0xfffd {
			return fmt.Sprintf("%s has a character that cannot be in the name of a partition", clip(s))
		}
		if units++; r > 0xffff {
			units++
		}
	}
	switch {
	case s == "" || strings.TrimSpace(s) != s:
		return fmt.Sprintf("%s is empty, or begins or ends with a blank", clip(s))
	case units > 36:
		return fmt.Sprintf("%s is longer than 36 characters", clip(s))
	case s == string(RoleSeal):
		return "is seal, the name of a partition that every disk that boots gets by itself"
	}
	return ""
}
