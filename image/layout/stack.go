package layout

import (
	"fmt"
	"slices"
	"strconv"
)

// The names of devices in a scheme.
func partDevice(disk string, number int) Device {
	return Device("part/" + disk + "/" + strconv.Itoa(number))
}
func diskDevice(disk string) Device             { return Device("disk/" + disk) }
func arrayDevice(name string) Device            { return Device("md/" + name) }
func volumeDevice(group, name string) Device    { return Device("lv/" + group + "/" + name) }
func (d SchemeDisk) part(number int) Device     { return partDevice(d.Name, number) }
func (g SchemeGroup) volume(name string) Device { return volumeDevice(g.Name, name) }

// device is what a member is called, how large it is, and the sectors of its disk.
func (r *resolver) device(m member) (d Device, size int64, sector int) {
	disk := r.s.Disks[m.disk]
	if m.part < 0 {
		return diskDevice(disk.Name), disk.Candidate.Size, disk.Sector
	}
	parts := disk.Parts
	if len(parts) > 0 && parts[0].Role == RoleSeal {
		parts = parts[1:]
	}
	p := parts[m.part]
	return disk.part(p.Number), p.Size, disk.Sector
}

func (r *resolver) arrays() {
	for _, a := range r.l.Arrays {
		sa := SchemeArray{Array: a, Kept: r.kept.arrays[a.Name]}
		var sizes []int64
		sector := 512
		for _, m := range r.l.members(a.Name) {
			d, size, s := r.device(m)
			sa.Members = append(sa.Members, d)
			sizes = append(sizes, size)
			sector = max(sector, s)
		}
		sa.Size = arraySize(a.Level, a.Metadata, a.Chunk.fixed(), sizes, a.Spares)
		if sa.Kept != nil && sa.Kept.Size > 0 {
			sa.Size = sa.Kept.Size
		}
		if least, why := r.least(a.Content, sector); sa.Size < least && sa.Kept == nil {
			r.tooSmall("array %s has %s on its members and needs at least %s, %s", a.Name, FormatBytes(sa.Size), FormatBytes(least), why)
		}
		r.s.Arrays = append(r.s.Arrays, sa)
	}
}

func (r *resolver) groups() {
	for _, g := range r.l.Groups {
		sg := SchemeGroup{Group: g, Extent: g.ExtentSize.fixed(), Kept: r.kept.groups[g.Name]}
		sector := 512
		for _, m := range r.l.physical(g.Name, false) {
			d, size, s := r.device(m)
			sg.Physical = append(sg.Physical, d)
			sg.Size += physicalExtents(size, sg.Extent, 0) * sg.Extent
			sector = max(sector, s)
		}
		for _, a := range r.s.Arrays {
			if a.Array.Group == g.Name {
				sg.Physical = append(sg.Physical, arrayDevice(a.Name))
				sg.Size += physicalExtents(a.Size, sg.Extent, stripe(a.Array, len(a.Members))) * sg.Extent
				for _, m := range r.l.members(a.Name) {
					_, _, s := r.device(m)
					sector = max(sector, s)
				}
			}
		}
		r.volumes(&sg, sector)
		r.s.Groups = append(r.s.Groups, sg)
	}
}

// volumes gives the volumes of a group their sizes; pools come before what is in them, and everything else stays in order.
func (r *resolver) volumes(g *SchemeGroup, sector int) {
	declared := slices.Clone(g.Group.Volumes)
	slices.SortStableFunc(declared, func(a, b Volume) int {
		rank := map[bool]int{true: 1}
		return rank[a.Thin != ""] - rank[b.Thin != ""]
	})
	var wants []want
	var sized []int
	var taken, spare int64
	for i, v := range declared {
		name := fmt.Sprintf("volume %s of %s", v.Name, g.Name)
		sv := SchemeVolume{Volume: v, Kept: r.kept.volumes[volumeDevice(g.Name, v.Name)]}
		least, why := r.least(v.Content, sector)
		switch {
		case sv.Kept != nil:
			sv.Size = up(sv.Kept.Size, g.Extent)
			if v.Pool {
				sv.Metadata = poolMetadata(sv.Size, g.Extent)
				taken += sv.Metadata
				spare = max(spare, sv.Metadata)
			}
			if v.Thin == "" {
				taken += sv.Size
			}
		case v.Thin != "":
			sv.Size = up(v.Size.fixed(), g.Extent)
			if sv.Size < least {
				r.fault("%s has %s and needs at least %s, %s; change its size", name, v.Size, FormatBytes(least), why)
			}
		default:
			wants = append(wants, r.want(name, v.Extent, least, why, false))
			sized = append(sized, i)
		}
		g.Volumes = append(g.Volumes, sv)
	}
	if len(r.faults) > 0 {
		return
	}
	r.divideGroup(g, wants, sized, taken, spare)
}

// divideGroup shares a group's extents. The metadata of pools, and once as much as that of the largest, which LVM holds ready for
// repairs, come out of the group too, and depend on the pools' sizes.
func (r *resolver) divideGroup(g *SchemeGroup, wants []want, sized []int, taken, spare int64) {
	var overhead int64
	for range 4 {
		room := g.Size - taken - spare - overhead
		sizes, need, ok := divide(max(room, 0), max(g.Size-spare-overhead, 0), g.Extent, wants)
		if !ok || room < 0 {
			r.tooSmall("volume group %s has %s on %s, and its volumes need %s", g.Name, FormatBytes(g.Size), r.where(g.Physical), FormatBytes(need+taken+spare+overhead))
			return
		}
		var meta, largest int64
		for k, i := range sized {
			g.Volumes[i].Size = sizes[k]
			if g.Volumes[i].Pool {
				g.Volumes[i].Metadata = poolMetadata(sizes[k], g.Extent)
				meta += g.Volumes[i].Metadata
				largest = max(largest, g.Volumes[i].Metadata)
			}
		}
		if extra := meta + max(largest-spare, 0); extra > overhead {
			overhead = extra
			continue
		}
		return
	}
}

// where names the disks below devices.
func (r *resolver) where(devices []Device) string {
	var out []string
	for _, d := range devices {
		for _, id := range r.s.Holder(d) {
			i := slices.IndexFunc(r.s.Disks, func(sd SchemeDisk) bool { return sd.ID == id })
			if i < 0 {
				continue
			}
			if s := fmt.Sprintf("%s (%s)", r.s.Disks[i].Path, FormatBytes(r.s.Disks[i].Candidate.Size)); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return joinAnd(out)
}

// data lays out the data disks.
func (r *resolver) data() {
	d := r.l.Data
	if d == nil {
		return
	}
	taken := map[int]bool{}
	numbers := make([]int, len(r.in.Data))
	kept := make([]*Existing, len(r.in.Data))
	for i, c := range r.in.Data {
		if !d.Keep {
			continue
		}
		for k, e := range r.in.Existing {
			if n, ok := dataNumber(d.Label, e.Name); ok && e.Disk == c.ID && !taken[n] {
				if !r.sameKind(e, Content{FS: d.FS}, fmt.Sprintf("partition %q of %s", e.Name, c.Path)) {
					return
				}
				numbers[i], kept[i] = n, &r.in.Existing[k]
				taken[n] = true
				break
			}
		}
	}
	next := 1
	for i, c := range r.in.Data {
		if numbers[i] == 0 {
			for taken[next] {
				next++
			}
			numbers[i], next = next, next+1
		}
		r.dataDisk(d, c, numbers[i], kept[i])
	}
	slices.SortStableFunc(r.s.DataFirstBoot, byDataNumber)
}

func byDataNumber(a, b SchemeDisk) int {
	n, _ := dataNumber("data", a.Name)
	m, _ := dataNumber("data", b.Name)
	return n - m
}

// dataNumber reads a name such as data12.
func dataNumber(label, name string) (int, bool) {
	if len(name) <= len(label) || name[:len(label)] != label {
		return 0, false
	}
	n, err := strconv.Atoi(name[len(label):])
	return n, err == nil && n > 0 && n < 1000
}

func (r *resolver) dataDisk(d *Data, c Candidate, n int, kept *Existing) {
	number := strconv.Itoa(n)
	all := usable(c.Size)
	part := Part{
		Number: 1, Name: d.Label + number, Type: partType(GPT, Partition{}), Start: all.start, Size: all.size(), Kept: kept,
		Content: Content{FS: d.FS, Label: d.Label + number, Mkfs: d.Mkfs, Mount: d.Mount + number, Options: d.Options, Keep: d.Keep},
	}
	if kept != nil {
		part.Number, part.Start, part.Size = kept.Number, kept.Start, kept.Size
		if kept.Type != "" {
			part.Type = kept.Type
		}
	}
	if least := leastSize(d.FS, c.Sector); part.Size < least && kept == nil {
		r.tooSmall("%s is too small for a data disk: it has %s, and %s needs %s", c.Path, FormatBytes(c.Size), d.FS, FormatBytes(least+2*align))
	}
	sd := SchemeDisk{Name: "data" + number, Candidate: c, Table: GPT, Data: true, Parts: []Part{part}}
	if d.When == "firstboot" && kept == nil {
		r.s.DataFirstBoot = append(r.s.DataFirstBoot, sd)
		return
	}
	r.s.Disks = append(r.s.Disks, sd)
}
