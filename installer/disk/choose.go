package disk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"imgbuild/installer/disk/probe"
)

// ErrChoice is wrapped by every refusal to take a disk: a person has to decide.
var ErrChoice = errors.New("no disk was chosen")

// choiceError has a sentence of its own and is still an ErrChoice.
type choiceError string

func (e choiceError) Error() string        { return string(e) }
func (e choiceError) Is(target error) bool { return target == ErrChoice }

func refuse(format string, a ...any) error { return choiceError(fmt.Sprintf(format, a...)) }

// Look says what is on a disk.
type Look func(Disk) ([]probe.Finding, error)

// Choose takes the disk that want names, or, where want is empty, the only eligible one. USB, removable, read-only and
// virtual disks are eligible only by name. A refusal lists every disk with what is on it and what to write to decide.
func Choose(disks []Disk, want string, look Look) (Disk, error) {
	if want != "" {
		return named(disks, want, look)
	}
	var eligible []Disk
	for _, d := range disks {
		if d.unfit() == "" {
			eligible = append(eligible, d)
		}
	}
	switch len(eligible) {
	case 1:
		return eligible[0], usable(eligible[0])
	case 0:
		if len(disks) == 0 {
			return Disk{}, refuse("choose disk: this machine has no disk that the kernel knows; check the controller's driver and cabling")
		}
		return Disk{}, refuse("choose disk: no disk may be taken without being named; choose with imgbuild.disk=%s", List(disks, disks, look))
	}
	return Disk{}, refuse("choose disk: there are %d disks and nobody said which; choose with imgbuild.disk=%s", len(eligible), List(eligible, disks, look))
}

func named(disks []Disk, want string, look Look) (Disk, error) {
	var hits []Disk
	for _, d := range disks {
		if d.Matches(want) {
			hits = append(hits, d)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], usable(hits[0])
	case 0:
		offer := slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool { return d.virtual })
		if len(offer) == 0 {
			return Disk{}, refuse("choose disk: imgbuild.disk=%s names no disk, and this machine has no disk that the kernel knows", want)
		}
		return Disk{}, refuse("choose disk: imgbuild.disk=%s names no disk of this machine; it has%s", want, List(offer, disks, look))
	}
	return Disk{}, refuse("choose disk: imgbuild.disk=%s names %d disks; choose with imgbuild.disk=%s", want, len(hits), List(hits, disks, look))
}

// usable refuses disks that no argument makes usable.
func usable(d Disk) error {
	if why := d.unusable(); why != "" {
		return refuse("choose disk: %s: %s", d.Short(), why)
	}
	return nil
}

// List is one line for each disk: the argument that names it among all, what it is, and what is on it.
func List(disks, all []Disk, look Look) string {
	var b strings.Builder
	for _, d := range disks {
		fmt.Fprintf(&b, "\n  %s: %s: ", d.Argument(all), d.Describe())
		if why := d.unfit(); why != "" {
			fmt.Fprintf(&b, "%s; ", why)
		}
		found, err := look(d)
		switch {
		case err != nil:
			fmt.Fprintf(&b, "cannot be read: %v", err)
		case len(found) == 0:
			b.WriteString("empty")
		default:
			b.WriteString(Findings(found))
		}
	}
	return b.String()
}

// maxShown bounds a list of findings on a console.
const maxShown = 12

// Findings are what was found, in one line.
func Findings(found []probe.Finding) string {
	var s []string
	for i, f := range found {
		if i == maxShown {
			s = append(s, fmt.Sprintf("and %d more", len(found)-i))
			break
		}
		s = append(s, f.String())
	}
	return strings.Join(s, "; ")
}

// ErrNotEmpty is wrapped by the refusal to write to a disk that has something on it.
var ErrNotEmpty = errors.New("the disk is not empty")

type notEmptyError string

func (e notEmptyError) Error() string        { return string(e) }
func (e notEmptyError) Is(target error) bool { return target == ErrNotEmpty }

// MayWrite decides whether the chosen disk may be written to. found is what is on it, wipe what the person allowed to
// be destroyed. A name in wipe that means another disk, or none, or several, is an error even when the disk is empty:
// whoever wrote it had another machine or disk in mind.
func MayWrite(d Disk, all []Disk, found []probe.Finding, wipe []string) error {
	allowed := false
	for _, w := range wipe {
		var hits []Disk
		for _, o := range all {
			if o.Matches(w) {
				hits = append(hits, o)
			}
		}
		switch {
		case len(hits) == 0:
			return refuse("check disk: imgbuild.wipe=%s names no disk of this machine, and the installation would go to %s; correct the argument or leave it out", w, d.Short())
		case len(hits) > 1:
			return refuse("check disk: imgbuild.wipe=%s names %d disks; write imgbuild.wipe=%s", w, len(hits), d.Argument(all))
		case hits[0].Name != d.Name:
			return refuse("check disk: imgbuild.wipe=%s names %s, but the installation would go to %s; make imgbuild.disk= and imgbuild.wipe= name the same disk",
				w, hits[0].Short(), d.Short())
		}
		allowed = true
	}
	if len(found) == 0 || allowed {
		return nil
	}
	return notEmptyError(fmt.Sprintf("check disk: %s is not empty: %s; to destroy that, boot with imgbuild.wipe=%s",
		d.Short(), Findings(found), d.Argument(all)))
}
