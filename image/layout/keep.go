package layout

import "fmt"

// keeps is what is on the disks now and stays.
type keeps struct {
	parts   map[member]*Existing
	arrays  map[string]*Existing
	groups  map[string]bool
	volumes map[Device]*Existing
}

// keep finds what stays: file systems that the layout keeps and that are there, and all that lies below them.
func (r *resolver) keep() {
	r.kept = keeps{map[member]*Existing{}, map[string]*Existing{}, map[string]bool{}, map[Device]*Existing{}}
	if len(r.in.Existing) == 0 {
		return
	}
	for _, g := range r.l.Groups {
		r.keepVolumes(g)
	}
	for _, a := range r.l.Arrays {
		e := r.existing(arrayDevice(a.Name))
		switch {
		case r.kept.groups[a.Group]:
			r.keepArray(a, e, Content{Group: a.Group})
		case a.Keep && a.Group == "" && e != nil:
			r.keepArray(a, e, a.Content)
		}
	}
	for i, d := range r.l.Disks {
		if r.below(Content{Group: d.Group, Array: d.Array}) {
			r.keepPart(member{i, -1}, d.Name, r.existing(diskDevice(d.Name)), Content{Group: d.Group, Array: d.Array})
		}
		for j, p := range d.Partitions {
			e, several := r.existingPart(r.in.Disks[i].ID, d.Table, p.Name, j)
			name := fmt.Sprintf("partition %q of %s", p.Name, d.Name)
			switch {
			case several && (p.Keep || r.below(p.Content)):
				r.fault("%s is to be kept, and %s has several partitions of that name; rename all but one (sgdisk -c), or say that nothing is kept", name, r.in.Disks[i].Path)
			case r.below(p.Content):
				r.keepPart(member{i, j}, name, e, p.Content)
			case p.Keep && p.Group == "" && p.Array == "" && e != nil:
				r.keepPart(member{i, j}, name, e, p.Content)
			}
		}
	}
}

// below says whether something that is kept lies on a content.
func (r *resolver) below(c Content) bool {
	return c.Group != "" && r.kept.groups[c.Group] || c.Array != "" && r.kept.arrays[c.Array] != nil
}

func (r *resolver) keepVolumes(g Group) {
	pools := map[string]bool{}
	for _, v := range g.Volumes {
		d := volumeDevice(g.Name, v.Name)
		e := r.existing(d)
		if v.Pool || !v.Keep || e == nil {
			continue
		}
		if !r.sameKind(*e, v.Content, fmt.Sprintf("volume %s of %s", v.Name, g.Name)) {
			continue
		}
		r.kept.volumes[d], r.kept.groups[g.Name] = e, true
		if v.Thin != "" {
			pools[v.Thin] = true
		}
	}
	for _, v := range g.Volumes {
		if !v.Pool || !pools[v.Name] {
			continue
		}
		d := volumeDevice(g.Name, v.Name)
		e := r.existing(d)
		if e == nil {
			r.fault("volumes in the thin pool %s of %s are to be kept, and there is no such pool on the disks; say that nothing is kept, or change the layout to what is there", v.Name, g.Name)
			continue
		}
		r.kept.volumes[d] = e
	}
}

func (r *resolver) keepArray(a Array, e *Existing, c Content) {
	if e == nil {
		r.fault("what is on array %s is to be kept, and there is no such array on the disks; say that nothing is kept, or change the layout to what is there", a.Name)
		return
	}
	if r.sameKind(*e, c, "array "+a.Name) {
		r.kept.arrays[a.Name] = e
	}
}

func (r *resolver) keepPart(m member, name string, e *Existing, c Content) {
	if e == nil {
		r.fault("something that lies on %s is to be kept, and that is not on the disk; say that nothing is kept, or change the layout to what is there", name)
		return
	}
	if r.sameKind(*e, c, name) {
		r.kept.parts[m] = e
	}
}

func (r *resolver) existing(d Device) *Existing {
	for i := range r.in.Existing {
		if r.in.Existing[i].Device == d {
			return &r.in.Existing[i]
		}
	}
	return nil
}

// existingPart finds a partition by its name, or on an MBR, which has no names, by its number. Names may be there several times.
func (r *resolver) existingPart(disk string, t Table, name string, index int) (found *Existing, several bool) {
	for i := range r.in.Existing {
		e := &r.in.Existing[i]
		if e.Disk != disk || e.Number == 0 || !(t == GPT && e.Name == name || t == MBR && e.Number == index+1) {
			continue
		}
		if found != nil {
			return found, true
		}
		found = e
	}
	return found, false
}

// sameKind checks that what is there is what the layout says.
func (r *resolver) sameKind(e Existing, c Content, name string) bool {
	want := c.FS
	switch {
	case c.Group != "":
		want = "LVM2_member"
	case c.Array != "":
		want = "linux_raid_member"
	}
	if want == "" || want == e.FS {
		return true
	}
	has := e.FS
	if has == "" {
		has = "nothing that is known"
	}
	r.fault("%s is to be kept as %s and holds %s; say that nothing is kept, or change the layout to what is there", name, want, has)
	return false
}

// keptInside checks that kept partitions can stay in the new table.
func (r *resolver) keptInside(c Candidate, all span, slots []slot) bool {
	n := len(r.faults)
	// A partition that another tool made may begin before our first MiB.
	first := int64(34 * c.Sector)
	for i, s := range slots {
		if s.kept == nil {
			continue
		}
		k := s.kept
		if k.Start < first || k.Size <= 0 || k.Start+k.Size > all.end+align-int64(33*c.Sector) || k.Number < 1 || k.Number > 128 || k.Start%int64(c.Sector) != 0 || k.Size%int64(c.Sector) != 0 {
			r.fault("%s: partition %d, which is to be kept, lies from %d with %d bytes, where no table of this disk can have it", c.Path, k.Number, k.Start, k.Size)
			continue
		}
		for _, o := range slots[:i] {
			if o.kept != nil && (o.kept.Number == k.Number || o.kept.Start < k.Start+k.Size && k.Start < o.kept.Start+o.kept.Size) {
				r.fault("%s: partitions %d and %d, which are to be kept, overlap", c.Path, o.kept.Number, k.Number)
			}
		}
	}
	return len(r.faults) == n
}
