package installer

import (
	"fmt"
	"slices"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer/disk/probe"
)

// maxHolds bounds what an outlook says of one disk.
const maxHolds = 64

// What becomes of a disk, in plan.OutlookDisk.
const (
	useErased    = "erased"
	useKept      = "kept in part"
	useUntouched = "untouched"
)

// outlook is what the installation would do, as far as it is known. refused is why it would not; nil if it would.
func (r *run) outlook(refused error) *plan.Outlook {
	o := &plan.Outlook{Scheme: r.scheme, Disks: []plan.OutlookDisk{}}
	if refused != nil {
		o.Refused = refused.Error()
	}
	written := map[string]layout.SchemeDisk{}
	if r.scheme != nil {
		for _, d := range r.written() {
			written[d.ID] = d
		}
	}
	var erased, kept, untouched strings.Builder
	for _, c := range r.candidates {
		l := r.looks[c.ID]
		if l == nil {
			continue // virtual, and not named
		}
		d := plan.OutlookDisk{Disk: l.describe(), Use: useUntouched}
		if s, ok := written[c.ID]; ok {
			lost, keeps := r.losses(l, s)
			d.Use, d.Keeps = useErased, keeps
			if len(keeps) > 0 {
				d.Use = useKept
				fmt.Fprintf(&kept, "  of %s: %s\n", l.short(), strings.Join(keeps, ", "))
			}
			switch {
			case s.Kept != nil:
				d.Use = useUntouched
			case len(lost) > 0 || len(keeps) == 0:
				list(&erased, l, lost)
			}
		} else {
			list(&untouched, l, l.found)
		}
		o.Disks = append(o.Disks, d)
	}
	o.Text = r.text(erased.String(), kept.String(), untouched.String())
	return o
}

// show shows a table to whoever stands before the machine.
func (r *run) show(text string) {
	say := r.Console
	if say == nil {
		say = r.Report
	}
	for line := range strings.Lines(text) {
		say.Info("| %s", strings.TrimRight(line, "\n"))
	}
}

// text is what people are shown.
func (r *run) text(erased, kept, untouched string) string {
	var b strings.Builder
	for _, part := range []struct{ title, lines string }{{"erased", erased}, {"kept", kept}, {"not touched", untouched}} {
		if part.lines != "" {
			fmt.Fprintf(&b, "%s:\n%s", part.title, part.lines)
		}
	}
	if r.scheme != nil {
		b.WriteString("written:\n")
		if err := r.scheme.Write(&b); err != nil {
			fmt.Fprintf(&b, "%v\n", err) // a strings.Builder gives none
		}
	}
	return b.String()
}

// list writes what is on one disk.
func list(b *strings.Builder, l *look, found []probe.Finding) {
	fmt.Fprintf(b, "  %s:\n", l.candidate.Describe())
	for _, s := range (&look{found: found, err: l.err}).holds() {
		fmt.Fprintf(b, "    %s\n", s)
	}
}

// holds is one line for each finding.
func (l *look) holds() []string {
	found := l.found
	switch {
	case l.err != nil:
		return []string{"it cannot be read"}
	case len(found) == 0:
		return []string{"nothing"}
	}
	var lines []string
	for i, f := range found {
		if i == maxHolds {
			return append(lines, fmt.Sprintf("and %d more", len(found)-i))
		}
		lines = append(lines, f.String())
	}
	return lines
}

func (l *look) describe() plan.Disk {
	d := l.disk
	p := plan.Disk{Path: d.Path, Model: d.Model, Serial: d.Serial, WWN: d.WWN, SizeBytes: d.Size, Transport: d.Transport,
		Rotational: d.Rotational}
	if len(l.found) > 0 || l.err != nil {
		p.Holds = l.holds()
	}
	return p
}

// losses are what of the findings on a disk the installation destroys, and the names of what it keeps.
func (r *run) losses(l *look, d layout.SchemeDisk) (lost []probe.Finding, keeps []string) {
	if whole := layout.Device("disk/" + d.Name); r.keepsAll(whole, d.Content, d.Kept) {
		return nil, []string{"all of it" + at(d.Content)}
	}
	parts := map[int]bool{} // kept whole, by the number that they have now
	for _, p := range d.Parts {
		if p.Kept == nil {
			continue
		}
		dev := layout.Device(fmt.Sprintf("part/%s/%d", d.Name, p.Number))
		parts[p.Kept.Number] = r.keepsAll(dev, p.Content, p.Kept)
		keeps = append(keeps, fmt.Sprintf("partition %d %q%s", p.Kept.Number, p.Name, at(p.Content)))
	}
	keeps = append(keeps, r.keptAbove(d)...)
	goes := false // a partition
	for _, f := range l.found {
		if f.Partition > 0 && !parts[f.Partition] {
			goes = true
			lost = append(lost, f)
		}
	}
	var table []probe.Finding
	for _, f := range l.found {
		// The table is written anew, with what is kept in it: where nothing else was, nothing is lost with it. Whatever else has
		// its place on the disk itself is.
		if f.Partition == 0 && (goes || len(parts) == 0 || !f.Table()) {
			table = append(table, f)
		}
	}
	return append(table, lost...), keeps
}

// keptAbove are the arrays and volumes on a disk that stay.
func (r *run) keptAbove(d layout.SchemeDisk) []string {
	var names []string
	on := func(dev layout.Device) bool { return slices.Contains(r.scheme.Holder(dev), d.ID) }
	for _, a := range r.scheme.Arrays {
		if a.Kept != nil && on(layout.Device("md/"+a.Name)) {
			names = append(names, "array "+a.Name+at(a.Content))
		}
	}
	for _, g := range r.scheme.Groups {
		for _, v := range g.Volumes {
			if dev := layout.Device("lv/" + g.Name + "/" + v.Name); v.Kept != nil && on(dev) {
				names = append(names, "volume "+g.Name+"/"+v.Name+at(v.Content))
			}
		}
	}
	return names
}

// keepsAll reports whether nothing on a device that stays is destroyed: it holds a file system, or arrays and volumes that all
// stay.
func (r *run) keepsAll(dev layout.Device, c layout.Content, kept *layout.Existing) bool {
	switch {
	case kept == nil:
		return false
	case c.Array != "":
		for _, a := range r.scheme.Arrays {
			if a.Name == c.Array {
				return r.keepsAll(layout.Device("md/"+a.Name), a.Content, a.Kept)
			}
		}
		return false
	case c.Group != "":
		for _, g := range r.scheme.Groups {
			if g.Name == c.Group {
				return g.Kept && r.keepsVolumes(g)
			}
		}
		return false
	}
	return true
}

// keepsVolumes reports whether a volume group keeps every volume that it has.
func (r *run) keepsVolumes(g layout.SchemeGroup) bool {
	stay := map[layout.Device]bool{}
	for _, v := range g.Volumes {
		stay[layout.Device("lv/"+g.Name+"/"+v.Name)] = v.Kept != nil
	}
	for _, keep := range stay {
		if !keep {
			return false
		}
	}
	for _, e := range r.found {
		if strings.HasPrefix(string(e.Device), "lv/"+g.Name+"/") && !stay[e.Device] {
			return false
		}
	}
	return true
}

// keepsSomething reports whether a disk's partition table is never without what is kept.
func keepsSomething(d layout.SchemeDisk) bool {
	return slices.ContainsFunc(d.Parts, func(p layout.Part) bool { return p.Kept != nil })
}

// at says where something is mounted.
func at(c layout.Content) string {
	if c.Mount == "" {
		return ""
	}
	return " at " + c.Mount
}
