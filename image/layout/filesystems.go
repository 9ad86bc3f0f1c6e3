package layout

import (
	"slices"
	"strings"
)

// Filesystems are the file systems and swap spaces of a scheme: those with a mount point in the order of mounting, then those without,
// swap last. Data disks that the installed system formats are not among them; see FirstBoot.
func (s *Scheme) Filesystems() []Filesystem {
	var out []Filesystem
	for _, d := range s.Disks {
		out = append(out, d.filesystems()...)
	}
	for _, a := range s.Arrays {
		if a.FS != "" {
			out = append(out, Filesystem{Device: arrayDevice(a.Name), Content: a.Content, Size: a.Size, Role: s.arrayRole(a), Kept: a.Kept})
		}
	}
	for _, g := range s.Groups {
		for _, v := range g.Volumes {
			if v.FS != "" {
				out = append(out, Filesystem{Device: g.volume(v.Name), Content: v.Content, Size: v.Size, Kept: v.Kept})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Filesystem) int {
		if d := a.rank() - b.rank(); d != 0 || a.Mount == "" {
			return d
		}
		return compareMounts(a.Mount, b.Mount)
	})
	return out
}

// FirstBoot are the file systems that the installed system itself makes.
func (s *Scheme) FirstBoot() []Filesystem {
	var out []Filesystem
	for _, d := range s.DataFirstBoot {
		out = append(out, d.filesystems()...)
	}
	return out
}

func (f Filesystem) rank() int {
	switch {
	case f.FS == "swap":
		return 2
	case f.Mount == "":
		return 1
	}
	return 0
}

func (d SchemeDisk) filesystems() []Filesystem {
	var out []Filesystem
	for _, p := range d.Parts {
		if p.Content.FS != "" {
			out = append(out, Filesystem{Device: d.part(p.Number), Content: p.Content, Size: p.Size, Role: p.Role, Kept: p.Kept, Data: d.Data})
		}
	}
	if d.Content.FS != "" {
		out = append(out, Filesystem{Device: diskDevice(d.Name), Content: d.Content, Size: d.Candidate.Size, Kept: d.Kept, Data: d.Data})
	}
	return out
}

// arrayRole is the role of an array's members.
func (s *Scheme) arrayRole(a SchemeArray) Role {
	for _, d := range s.Disks {
		for _, p := range d.Parts {
			if p.Content.Array == a.Name {
				return p.Role
			}
		}
	}
	return RoleNone
}

// compareMounts puts a directory before what is below it.
func compareMounts(a, b string) int {
	return slices.Compare(strings.Split(strings.Trim(a, "/"), "/"), strings.Split(strings.Trim(b, "/"), "/"))
}

// On is the file system that is mounted at a mount point; nil if none is.
func (s *Scheme) On(mount string) *Filesystem {
	for _, f := range s.Filesystems() {
		if f.Mount == mount && mount != "" {
			return &f
		}
	}
	return nil
}

// Boot is the file system that the boot loaders read: the one at /boot, or / where that is not one of its own.
func (s *Scheme) Boot() *Filesystem {
	if f := s.On("/boot"); f != nil {
		return f
	}
	return s.On("/")
}

// Holder are the IDs of the disks that a device lies on, in the order of the scheme.
func (s *Scheme) Holder(d Device) (disks []string) {
	below := map[Device]bool{d: true}
	for _, g := range s.Groups {
		for _, v := range g.Volumes {
			if g.volume(v.Name) == d {
				for _, p := range g.Physical {
					below[p] = true
				}
			}
		}
	}
	for _, a := range s.Arrays {
		if below[arrayDevice(a.Name)] {
			for _, m := range a.Members {
				below[m] = true
			}
		}
	}
	for _, sd := range slices.Concat(s.Disks, s.DataFirstBoot) {
		hit := below[diskDevice(sd.Name)]
		for _, p := range sd.Parts {
			hit = hit || below[sd.part(p.Number)]
		}
		if hit {
			disks = append(disks, sd.ID)
		}
	}
	return disks
}
