package installer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/storage"
)

// look is a disk of the machine and what is on it.
type look struct {
	disk      disk.Disk
	candidate layout.Candidate
	found     []probe.Finding
	seal      *seal.Seal // nil where there is none that can be read
	first     []byte     // the first 512 bytes
	err       error      // why it could not be read
}

// short is the disk with serial number and size for a sentence.
func (l *look) short() string { return l.disk.Short() }

// choiceError has a sentence of its own and is still a layout.ErrChoice.
type choiceError string

func (e choiceError) Error() string        { return string(e) }
func (e choiceError) Is(target error) bool { return target == layout.ErrChoice }

// survey finds the machine's disks and looks at what is on them. It only reads. Virtual disks are not looked at, as there may
// be thousands of loop devices, unless they are named or chosen.
func (r *run) survey() error {
	var err error
	if r.disks, err = disk.Inventory(r.System.Sys, r.System.MountInfo); err != nil {
		return err
	}
	r.looks = map[string]*look{}
	r.candidates = disk.Candidates(r.disks)
	for i, c := range r.candidates {
		if r.disks[i].Transport != "virtual" || r.named(c) {
			r.look(i)
		}
	}
	return nil
}

// look looks at one of the disks.
func (r *run) look(i int) *look {
	l := &look{disk: r.disks[i], candidate: r.candidates[i]}
	if l.err = l.inspect(); l.err != nil {
		r.Report.Warn("%v", l.err) // an error only if the disk is chosen
	}
	l.candidate.Found = strings.Join(l.holds(), "; ")
	r.looks[l.candidate.ID], r.candidates[i] = l, l.candidate
	return l
}

// named reports whether an argument means the disk.
func (r *run) named(c layout.Candidate) bool {
	for _, name := range append(r.Args.Disks[:len(r.Args.Disks):len(r.Args.Disks)], r.Args.Wipe...) {
		if c.Matches(name) {
			return true
		}
	}
	return false
}

// inspect reads what is on the disk.
func (l *look) inspect() error {
	found, _, err := disk.Inspect(l.disk)
	if err != nil {
		return err
	}
	l.found = found
	if l.first, err = firstSector(l.disk.Path); err != nil {
		return err
	}
	return l.readSeal()
}

// readSeal looks for a seal: on a GPT in the partition of its type, else at the end of the first MiB. One that cannot be read
// is something that was found.
func (l *look) readSeal() error {
	// Without any table, which is how an installation that was cut off leaves a disk, the seal may be where the partition was.
	places, number := []int64{mib - seal.Size, mib}, 0
	t, err := l.table()
	switch {
	case errors.Is(err, gpt.ErrNone):
		if slices.ContainsFunc(l.found, func(f probe.Finding) bool { return f.Partition > 0 }) {
			places = places[:1]
		}
	case err != nil:
		return fmt.Errorf("look for a seal: %w", err)
	default:
		at, n := sealPartition(t)
		if n == 0 {
			return nil
		}
		places, number = []int64{at}, n
	}
	f, err := os.Open(l.disk.Path)
	if err != nil {
		return fmt.Errorf("look for a seal: %w", err)
	}
	defer f.Close()
	for _, at := range places {
		if at < 0 || at+seal.Size > l.disk.Size {
			continue
		}
		b := make([]byte, seal.Size)
		if _, err := f.ReadAt(b, at); err != nil {
			return fmt.Errorf("look for a seal on %s: %w", l.disk.Path, err)
		}
		if found, err := seal.Parse(b); !errors.Is(err, seal.ErrNone) {
			l.take(found, err, number)
			return nil
		}
	}
	return nil
}

// take is a seal, or one that is damaged, in a partition or, where number is 0, on the disk itself.
func (l *look) take(s *seal.Seal, damage error, number int) {
	found := probe.Finding{Partition: number, Size: layout.SealSize}
	if l.seal = s; damage == nil {
		found.Kind, found.Label = "seal of", s.Serial
	} else {
		found.Kind = fmt.Sprintf("damaged seal (%v)", damage)
	}
	if i := slices.IndexFunc(l.found, func(f probe.Finding) bool { return number > 0 && f.Partition == number }); i >= 0 {
		l.found[i] = found
	} else {
		l.found = append(l.found, found)
	}
}

// table reads the disk's GPT; gpt.ErrNone if it has none.
func (l *look) table() (gpt.Found, error) {
	f, err := os.Open(l.disk.Path)
	if err != nil {
		return gpt.Found{}, fmt.Errorf("look for partitions: %w", err)
	}
	defer f.Close()
	t, err := gpt.Read(f, l.disk.Size)
	if err != nil {
		return t, fmt.Errorf("look for partitions on %s: %w", l.disk.Path, err)
	}
	return t, nil
}

// sealPartition is where a table has its seal, in bytes, and the partition's number; 0 if it has none.
func sealPartition(t gpt.Found) (at int64, number int) {
	for _, p := range t.Partitions {
		if p.Type == uuid.MustParse(layout.TypeSeal) {
			return int64(p.First) * int64(t.SectorSize), p.Number
		}
	}
	return 0, 0
}

// choose decides which disks are laid out, and how. It only reads.
func (r *run) choose(ctx context.Context) error {
	disks, data, err := r.layout.Choose(r.candidates, r.Args.Disks)
	if err != nil {
		return err
	}
	in := layout.Input{
		Disks: disks, Data: data, Firmware: r.firmware(), Arch: r.manifest.Arch,
		RootMin:  r.manifest.RootMin(),
		Extlinux: r.manifest.BootLoader.Extlinux != nil, GRUB: r.manifest.BootLoader.GRUBPC != nil,
	}
	for _, c := range append(disks[:len(disks):len(disks)], data...) {
		l := r.looks[c.ID]
		if l == nil {
			l = r.look(slices.IndexFunc(r.candidates, func(o layout.Candidate) bool { return o.ID == c.ID }))
		}
		if l.err != nil {
			return l.err
		}
		r.chosen = append(r.chosen, l)
	}
	if !r.Args.Fresh {
		if r.found, err = r.existing(ctx, disks, data); err != nil {
			return err
		}
		in.Existing = r.found
	}
	s, err := r.layout.Resolve(in)
	if err != nil {
		return err
	}
	r.scheme, r.ids = s, storage.Identify(s)
	return nil
}

// existing is what the layout may keep. The layout knows its disks by name and in order.
func (r *run) existing(ctx context.Context, disks, data []layout.Candidate) ([]layout.Existing, error) {
	var list []disk.Disk
	for _, c := range append(disks[:len(disks):len(disks)], data...) {
		list = append(list, r.looks[c.ID].disk)
	}
	return storage.Existing(ctx, r.storage(), r.layout, list)
}

// storage is the machine as package storage touches it.
func (r *run) storage() storage.System {
	return storage.System{Sys: r.System.Sys, Run: r.System.Tools, Scratch: r.scratch(), Report: r.Report}
}

// written are the disks of the scheme, in its order; before there is one, those that were chosen.
func (r *run) written() []layout.SchemeDisk {
	if r.scheme == nil {
		var list []layout.SchemeDisk
		for _, l := range r.chosen {
			list = append(list, layout.SchemeDisk{Candidate: l.candidate})
		}
		return list
	}
	return append(r.scheme.Disks[:len(r.scheme.Disks):len(r.scheme.Disks)], r.scheme.DataFirstBoot...)
}

// mayWrite holds all locks against writing to the wrong disk: seals, and what is on the disks.
func (r *run) mayWrite() error {
	var writes []*look
	var lost [][]probe.Finding
	for _, d := range r.written() {
		l := r.looks[d.ID]
		writes = append(writes, l)
		erased, _ := r.losses(l, d)
		lost = append(lost, erased)
	}
	if r.Seal != nil {
		_, err := seal.Parse(r.Seal)
		if err == nil && len(r.Seal) != seal.Size {
			err = fmt.Errorf("it has %d bytes, and one has %d", len(r.Seal), seal.Size)
		}
		if err != nil { // at the very end, the disk would be left with nothing that boots
			return fmt.Errorf("check the seal that the server sent for the disk: %w; bring server and release to one version", err)
		}
	}
	if err := r.sealed(writes); err != nil {
		return err
	}
	if err := r.sameGroups(writes); err != nil {
		return err
	}
	return mayErase(r.candidates, writes, lost, r.Args)
}

// sealedError has a sentence of its own and is still an ErrSealed.
type sealedError string

func (e sealedError) Error() string        { return string(e) }
func (e sealedError) Is(target error) bool { return target == ErrSealed }

// ErrSealed is wrapped by the refusal to install a machine over a seal.
var ErrSealed = errors.New("a disk is sealed")

// sealed refuses where a seal on any disk of the machine protects it, and where one on a disk that would be written is another
// machine's.
func (r *run) sealed(writes []*look) error {
	var refusals []string
	for _, c := range r.candidates {
		l := r.looks[c.ID]
		if l == nil || l.seal == nil {
			continue
		}
		written := false
		for _, w := range writes {
			written = written || w == l
		}
		if !written && !l.seal.Protect {
			continue // the disk of another machine that only lies in this one
		}
		if why := l.seal.Refusal(r.Machine.Serial, r.Args.Unseal, func(sn string) string { return r.Args.Advice("unseal", sn) }); why != "" {
			refusals = append(refusals, l.short()+": "+why)
		}
	}
	if len(refusals) == 0 {
		return nil
	}
	return sealedError("check seals: " + strings.Join(refusals, "; "))
}

// notEmptyError has a sentence of its own and is still an ErrNotEmpty.
type notEmptyError string

func (e notEmptyError) Error() string        { return string(e) }
func (e notEmptyError) Is(target error) bool { return target == ErrNotEmpty }

// ErrNotEmpty is wrapped by the refusal to write to disks that have something on them.
var ErrNotEmpty = errors.New("the disk is not empty")

// mayErase decides whether the disks that an installation writes to may be written to. lost is what of each would be destroyed,
// args.Wipe what a person allowed to be. A name there that means another disk, or none, or several, is an error even when the
// disks are empty: whoever wrote it had another machine or disk in mind.
func mayErase(all []layout.Candidate, writes []*look, lost [][]probe.Finding, args cmdline.Args) error {
	allowed := map[string]bool{}
	for _, w := range args.Wipe {
		if err := covers(all, writes, args, w, allowed); err != nil {
			return err
		}
	}
	var full, names []string
	for i, l := range writes {
		if len(lost[i]) > 0 && !allowed[l.candidate.ID] {
			full = append(full, fmt.Sprintf("%s is not empty: %s", l.short(), disk.Findings(lost[i])))
			names = append(names, l.candidate.Argument(all))
		}
	}
	switch len(full) {
	case 0:
		return nil
	case 1:
		return notEmptyError(fmt.Sprintf("check disk: %s; to destroy that, %s", full[0], args.Advice("wipe", names...)))
	}
	return notEmptyError(fmt.Sprintf("check disks: %s; to destroy all of that, %s", strings.Join(full, "; "), args.Advice("wipe", names...)))
}

// covers finds the disk that one name in wipe means, which has to be one that is written to.
func covers(all []layout.Candidate, writes []*look, args cmdline.Args, name string, allowed map[string]bool) error {
	said := args.Argument("wipe", name)
	var targets []string
	for _, l := range writes {
		targets = append(targets, l.short())
	}
	hits := layout.Named(all, name)
	switch {
	case len(hits) == 0:
		return choiceError(fmt.Sprintf("check disks: %s names no disk of this machine, and the installation would go to %s; correct the argument or leave it out", said, and(targets)))
	case len(hits) > 1:
		return choiceError(fmt.Sprintf("check disks: %s names %d disks; write %s", said, len(hits), args.Argument("wipe", hits[0].Argument(all))))
	}
	for _, l := range writes {
		if l.candidate.ID == hits[0].ID {
			allowed[hits[0].ID] = true
			return nil
		}
	}
	return choiceError(fmt.Sprintf("check disks: %s names %s, but the installation would go to %s; name the same disks to install to and to wipe",
		said, hits[0].Describe(), and(targets)))
}
