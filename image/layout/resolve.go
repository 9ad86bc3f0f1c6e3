package layout

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// ErrTooSmall is wrapped when disks cannot hold a layout.
var ErrTooSmall = errors.New("the disk is too small")

type tooSmallError string

func (e tooSmallError) Error() string        { return string(e) }
func (e tooSmallError) Is(target error) bool { return target == ErrTooSmall }

// resolver makes a Scheme of an expanded layout.
type resolver struct {
	l      Layout
	in     Input
	s      *Scheme
	kept   keeps
	faults []error
}

func (r *resolver) fault(format string, a ...any) {
	r.faults = append(r.faults, fmt.Errorf("lay out disks: "+format, a...))
}

func (r *resolver) tooSmall(format string, a ...any) {
	r.faults = append(r.faults, tooSmallError(fmt.Sprintf("lay out disks: "+format, a...)))
}

// Resolve gives everything its place and size. The error has all that is wrong, and is an ErrTooSmall where a disk cannot hold it.
func (l Layout) Resolve(in Input) (*Scheme, error) {
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("lay out disks: %w", err)
	}
	r := &resolver{in: in}
	if err := r.settle(l); err != nil {
		return nil, err
	}
	r.s = &Scheme{Firmware: r.l.Firmware, Discard: r.l.Discard}
	if r.l.Firmware.HasBIOS() {
		r.s.BIOSLoader = r.l.BIOSLoader
	}
	r.candidates()
	if len(r.faults) == 0 {
		r.keep()
	}
	for _, step := range []func(){r.disks, r.arrays, r.groups, r.data} {
		if len(r.faults) > 0 {
			break
		}
		step()
	}
	if len(r.faults) > 0 {
		return nil, errors.Join(r.faults...)
	}
	return r.s, nil
}

// settle decides on firmware and loader and expands the layout for them.
func (r *resolver) settle(l Layout) error {
	fw := l.Firmware
	if fw == "" || fw == Auto {
		fw = r.in.Firmware
	}
	switch {
	case fw != BIOS && fw != UEFI && fw != Both:
		return fmt.Errorf("lay out disks: the machine's firmware is %q, which is neither bios nor uefi", fw)
	case fw.HasBIOS() && r.in.Arch == "aarch64":
		return fmt.Errorf("lay out disks: the layout says firmware: %s, and machines with aarch64 have no BIOS; take firmware: uefi", fw)
	}
	if !l.explicit() {
		// What the image needs counts where a preset gives root its size.
		if n := up(r.in.RootMin, mib); n > l.RootMin.fixed() {
			l.RootMin = Size(strconv.FormatInt(n/mib, 10) + "MiB")
		}
	}
	l.Firmware = fw
	r.l = l.Expand(fw)
	if !fw.HasBIOS() {
		return nil
	}
	why := r.l.extlinuxReads()
	name, _ := r.l.bootMount()
	switch loader := r.l.BIOSLoader; {
	case loader == Extlinux && !r.in.Extlinux:
		return errors.New("lay out disks: the layout says bios_loader: extlinux, and the image has none; add the package syslinux-extlinux to it, or take grub")
	case loader == GRUB && !r.in.GRUB:
		return errors.New("lay out disks: the layout says bios_loader: grub, and the image has no GRUB for BIOS; add the package grub2-pc to it, or take extlinux")
	case loader != AutoLoader:
	case r.in.Extlinux && why == "":
		l.BIOSLoader = Extlinux
	case r.in.GRUB:
		l.BIOSLoader = GRUB
	case r.in.Extlinux:
		return fmt.Errorf("lay out disks: the image has extlinux for BIOS, which cannot read %s: %s; change that, or add the package grub2-pc to the image", name, why)
	default:
		return errors.New("lay out disks: the image has neither extlinux nor GRUB for BIOS; add the package syslinux-extlinux or grub2-pc to it, or start the machine by UEFI")
	}
	r.l = l.Expand(fw)
	if r.l.BIOSLoader == GRUB {
		// With auto it was not certain before.
		var p problems
		r.l.bootProblems(&p)
		for _, q := range p.list {
			r.fault("GRUB is to start the machine by BIOS: %s", q)
		}
	}
	return errors.Join(r.faults...)
}

// candidates checks the disks themselves.
func (r *resolver) candidates() {
	if len(r.in.Disks) != len(r.l.Disks) {
		r.fault("the layout has %d disks and %d were chosen", len(r.l.Disks), len(r.in.Disks))
		return
	}
	boot := r.l.bootDisks()
	seen := map[string]bool{}
	for i, c := range slices.Concat(r.in.Disks, r.in.Data) {
		switch {
		case seen[c.ID]:
			r.fault("%s was chosen twice", c.Path)
		case c.Sector != 512 && c.Sector != 4096:
			r.fault("%s has sectors of %d bytes; 512 and 4096 are supported", c.Path, c.Sector)
		case c.Size > 1<<62:
			r.fault("%s says that it has %d bytes, which cannot be", c.Path, c.Size)
		case i < len(r.l.Disks) && r.l.Disks[i].Table == MBR && c.Size > int64(c.Sector)<<32:
			r.fault("%s has %s, and an MBR reaches only %s; take table: gpt", c.Path, FormatBytes(c.Size), FormatBytes(int64(c.Sector)<<32))
		case slices.Contains(boot, i) && r.l.Firmware.HasBIOS() && c.Sector != 512:
			r.fault("%s has sectors of %d bytes, and a BIOS starts only disks with sectors of 512; start the machine by UEFI", c.Path, c.Sector)
		}
		seen[c.ID] = true
	}
}

// disks places the partitions.
func (r *resolver) disks() {
	boot := r.l.bootDisks()
	for i, d := range r.l.Disks {
		c := r.in.Disks[i]
		sd := SchemeDisk{Name: d.Name, Candidate: c, Table: d.Table, Boot: slices.Contains(boot, i)}
		if len(d.Partitions) == 0 {
			sd.Content = Content{Group: d.Group, Array: d.Array}
			sd.Kept = r.kept.parts[member{i, -1}]
			r.s.Disks = append(r.s.Disks, sd)
			continue
		}
		r.partitions(i, d, &sd)
		r.s.Disks = append(r.s.Disks, sd)
	}
}

func (r *resolver) partitions(i int, d Disk, sd *SchemeDisk) {
	all := usable(sd.Candidate.Size)
	var slots []slot
	base := all.size()
	seal := sd.Boot && d.Table == GPT
	if seal {
		slots = append(slots, slot{want: want{amount: amount{bytes: SealSize}}})
		base -= SealSize
	}
	for j, p := range d.Partitions {
		s := slot{kept: r.kept.parts[member{i, j}]}
		least, why := r.least(p.Content, sd.Candidate.Sector)
		s.want = r.want(fmt.Sprintf("partition %q of %s", p.Name, d.Name), p.Extent, least, why, s.kept != nil)
		slots = append(slots, s)
	}
	if len(r.faults) > 0 || !r.keptInside(sd.Candidate, all, slots) {
		return
	}
	if need, ok := placeSlots(slots, all, max(base, 0)); !ok {
		beside := ""
		if slices.ContainsFunc(slots, func(s slot) bool { return s.kept != nil }) {
			beside = " around what it keeps"
		}
		r.tooSmall("%s is too small for %s: it has %s, and its partitions need %s%s", sd.Candidate.Path, d.Name, FormatBytes(sd.Candidate.Size), FormatBytes(need), beside)
		return
	}
	numbers := numberSlots(slots)
	if seal {
		sd.Parts = append(sd.Parts, Part{Number: numbers[0], Name: string(RoleSeal), Role: RoleSeal, Type: TypeSeal, Start: slots[0].start, Size: slots[0].size})
		slots, numbers = slots[1:], numbers[1:]
	}
	for j, p := range d.Partitions {
		part := Part{
			Number: numbers[j], Name: p.Name, Role: p.Role, Type: partType(d.Table, p), Start: slots[j].start, Size: slots[j].size, Kept: slots[j].kept, Content: p.Content,
		}
		part.LegacyBoot = sd.Boot && r.legacyBoot(i, j)
		if part.Kept != nil && d.Table == GPT && part.Kept.Type != "" {
			part.Type = part.Kept.Type
		}
		sd.Parts = append(sd.Parts, part)
	}
}

// legacyBoot says whether boot code looks for a partition: the one with /boot, or on an MBR, where some BIOSes want one that is
// active, else the first.
func (r *resolver) legacyBoot(i, j int) bool {
	if !r.l.Firmware.HasBIOS() {
		return false
	}
	_, at := r.l.bootMount()
	if at.kind == onVolume {
		return r.l.Disks[i].Table == MBR && j == 0
	}
	return slices.Contains(r.l.below(at), member{i, j})
}

// numberSlots numbers partitions in their order; kept ones have theirs.
func numberSlots(slots []slot) []int {
	taken := map[int]bool{}
	for _, s := range slots {
		if s.kept != nil {
			taken[s.kept.Number] = true
		}
	}
	out := make([]int, len(slots))
	next := 1
	for i, s := range slots {
		if s.kept != nil {
			out[i] = s.kept.Number
			continue
		}
		for taken[next] {
			next++
		}
		out[i], next = next, next+1
	}
	return out
}

// least is the least size in bytes of what holds a content itself, and why.
func (r *resolver) least(c Content, sector int) (int64, string) {
	least := leastSize(c.FS, sector)
	if c.Mount == "/" && r.in.RootMin > least {
		return r.in.RootMin, "what the image's files need"
	}
	return least, "the least that " + c.FS + " has"
}

// want turns an extent into what divide understands.
func (r *resolver) want(name string, e Extent, least int64, why string, kept bool) want {
	a, err := e.Size.read()
	if err != nil {
		r.fault("%s: %s", name, err)
		return want{}
	}
	w := want{amount: a, least: max(least, e.Min.fixed()), most: e.Max.fixed(), yields: e.Min != ""}
	switch {
	case kept:
	case a.absolute() && a.bytes < least:
		r.fault("%s has %s and needs at least %s, %s; change its size", name, e.Size, FormatBytes(least), why)
	case w.most > 0 && w.most < least:
		r.fault("%s has at most %s and needs at least %s, %s; change its max", name, e.Max, FormatBytes(least), why)
	}
	return w
}

// The types of partitions: UEFI specification 2.10, 5.3.3, and the Discoverable Partitions Specification. Root and /boot are plain Linux file systems: their own types
// would let systemd mount them without fstab.
func partType(t Table, p Partition) string {
	i := 0
	if t == MBR {
		i = 1
	}
	switch {
	case p.Role == RoleBIOSBoot:
		return "21686148-6449-6e6f-744e-656564454649"
	case p.Role == RoleESP:
		return [2]string{"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef"}[i]
	case p.Array != "":
		return [2]string{"a19d880f-05fc-4d3b-a006-743f0f84911e", "fd"}[i]
	case p.Group != "":
		return [2]string{"e6d6d379-f507-44c2-a23c-238f2a3df928", "8e"}[i]
	case p.FS == "swap":
		return [2]string{"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "82"}[i]
	case p.FS == "vfat":
		return [2]string{"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "0c"}[i]
	}
	return [2]string{"0fc63daf-8483-4772-8e79-3d69d8477de4", "83"}[i]
}
