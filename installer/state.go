package installer

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// State is what a failed installation left of a disk.
type State int

// The states of disks.
const (
	Untouched State = iota // nothing was written
	Cleared                // it has no partition table and does not boot
	Kept                   // its table has what is kept and nothing else, and it does not boot
	Old                    // some of it may have been written, and its old first sector is still there
	Unknown                // nobody can say
)

// DiskState is one disk that was chosen, by its path, and its state.
type DiskState struct {
	Path  string
	State State
}

// Error is how Run fails. It says in what state the disks are.
type Error struct {
	Err error
	// Disks are those that were chosen, in the layout's order; none if the installation did not come so far.
	Disks []DiskState
	// NoKexec is the manifest's; nil if there is none, or if the installation did not come so far.
	NoKexec []string
}

// Error is one sentence: what failed, and the state of the disks.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v", e.Err)
	if len(e.Disks) == 0 {
		b.WriteString("; no disk was touched")
	}
	for _, s := range []struct {
		state     State
		one, more string
	}{
		{Cleared, "was left without a partition table and does not boot", "were left without a partition table and do not boot"},
		{Kept, "was left with nothing but what the layout keeps and does not boot", "were left with nothing but what the layout keeps and do not boot"},
		{Old, "still has its old first sector", "still have their old first sectors"},
		{Untouched, "was not touched", "were not touched"},
	} {
		switch list := e.in(s.state); len(list) {
		case 0:
		case 1:
			fmt.Fprintf(&b, "; %s %s", list[0], s.one)
		default:
			fmt.Fprintf(&b, "; %s %s", and(list), s.more)
		}
	}
	if list := e.in(Unknown); len(list) > 0 {
		fmt.Fprintf(&b, "; the state of %s is unknown: do not boot from it", and(list))
	}
	return b.String()
}

// in are the paths of the disks in a state.
func (e *Error) in(s State) []string {
	var list []string
	for _, d := range e.Disks {
		if d.State == s {
			list = append(list, d.Path)
		}
	}
	return list
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// and joins names as in a sentence.
func and(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// states looks at what became of the chosen disks.
func (r *run) states() []DiskState {
	var list []DiskState
	for _, d := range r.written() {
		l := r.looks[d.ID]
		s := DiskState{Path: l.disk.Path}
		switch {
		case r.undone:
			s.State = Unknown
		case r.touched:
			s.State = l.state(keepsSomething(d))
		}
		list = append(list, s)
	}
	return list
}

// state compares the disk's first sector with what it was.
func (l *look) state(kept bool) State {
	now, err := firstSector(l.disk.Path)
	switch {
	case err != nil:
		return Unknown
	case len(bytes.Trim(now, "\x00")) == 0:
		return Cleared
	case bytes.Equal(now, l.first):
		return Old
	case kept:
		return Kept
	case !bytes.HasSuffix(now, []byte{0x55, 0xaa}): // no firmware takes it for one to boot from
		return Cleared
	}
	return Unknown
}

// firstSector is the first 512 bytes of a disk: the whole of what firmware looks at first, whatever the sector's size.
func firstSector(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("look at disk: %w", err)
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("look at disk %s: %w", path, err)
	}
	return b, nil
}
