package installer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/probe"
)

// ErrChanged is wrapped where a disk is no longer what was decided on.
var ErrChanged = errors.New("a disk has changed since it was looked at")

// again looks at the disks that are written to once more, right before the first write: until the server has said that it may begin,
// minutes can have passed, in which disks come and go and others write to them. It only reads.
func (r *run) again() error {
	all, err := disk.Inventory(r.System.Sys, r.System.MountInfo)
	if err != nil {
		return err
	}
	candidates := disk.Candidates(all)
	var errs []error
	for _, d := range r.written() {
		was := r.looks[d.ID]
		i := slices.IndexFunc(all, func(now disk.Disk) bool { return now.Name == d.ID })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%w: %s is gone; check its cabling and try again", ErrChanged, was.short()))
			continue
		}
		if why := was.changed(&look{disk: all[i], candidate: candidates[i]}); why != "" {
			errs = append(errs, fmt.Errorf("%w: %s: %s; nothing was written, try again", ErrChanged, was.short(), why))
		}
	}
	return errors.Join(errs...)
}

// changed says in what a disk that has the same name now, and that is yet to be looked at, is not what it was.
func (l *look) changed(now *look) string {
	a, b := l.disk, now.disk
	switch {
	case a.Serial != b.Serial || a.WWN != b.WWN || a.Size != b.Size || a.Sector != b.Sector || a.HCTL != b.HCTL || !slices.Equal(a.ByPath, b.ByPath):
		return "another disk has its name, " + now.candidate.Describe()
	case now.candidate.Unusable != l.candidate.Unusable:
		return now.candidate.Unusable
	}
	if err := now.inspect(); err != nil {
		return err.Error()
	}
	if !slices.Equal(l.found, now.found) {
		return "it held " + strings.Join(l.holds(), "; ") + ", and now it holds " + strings.Join(now.holds(), "; ")
	}
	if (l.seal == nil) != (now.seal == nil) || l.seal != nil && l.seal.Record != now.seal.Record {
		return "its seal is another one"
	}
	return ""
}

// lvmType is blkid's name for a physical volume.
const lvmType = "LVM2_member"

// sameGroups refuses a layout with a volume group whose name another group on the machine's other disks has: LVM activates
// neither, so that the installed system, which knows its volumes by that name, would not boot.
func (r *run) sameGroups(writes []*look) error {
	var faults []string
	for _, c := range r.candidates {
		l := r.looks[c.ID]
		if l == nil || c.PathOf != "" || slices.Contains(writes, l) {
			continue
		}
		for _, f := range l.found {
			if f.Type == lvmType && f.Label != "" && slices.ContainsFunc(r.scheme.Groups, func(g layout.SchemeGroup) bool { return g.Name == f.Label }) {
				faults = append(faults, fmt.Sprintf("%s, which is not written to, has a volume group %s as well (%s)", l.short(), f.Label, where(f)))
			}
		}
	}
	if faults == nil {
		return nil
	}
	return choiceError(fmt.Sprintf("check disks: %s; LVM starts neither of two groups with one name: rename that one (vgrename), give the layout's another name, or take the disk too",
		strings.Join(slices.Compact(faults), "; ")))
}

// where says in which part of a disk something was found.
func where(f probe.Finding) string {
	if f.Partition == 0 {
		return "the whole disk"
	}
	return fmt.Sprintf("partition %d", f.Partition)
}
