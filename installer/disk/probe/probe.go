// Package probe says what is on a disk before anybody writes to it.
//
// A disk (or one partition of it) goes in as an io.ReaderAt with a size, and a list of findings comes out: partition
// tables, file systems, volume managers, RAID members, encrypted volumes. It knows superblocks by their fixed offsets
// and believes nothing else in them: labels and sizes are for people to read. It never writes, never mounts, and never
// decides whether a disk may be used. Plain dm-crypt writes nothing that could be recognised: it is named as random data.
package probe

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Finding is one thing found on a disk.
type Finding struct {
	// Partition is the number of the partition that it is in, 0 for the disk itself. Name is the partition's in a GUID partition
	// table.
	Partition int
	Name      string
	// Kind is what people call it, e.g. "XFS file system".
	Kind string
	// Type is what blkid(8) calls it, e.g. xfs, LVM2_member, linux_raid_member; empty for partition tables and for what blkid does
	// not know.
	Type string
	// Label is the name that its owner gave it, if it has one: of a file system its label, of a member that of the group or array.
	Label string
	// UUID identifies it, written as blkid writes it; empty where there is none.
	UUID string
	// Size is its size in bytes where it says so, else that of the disk or partition.
	Size int64
}

// Table reports whether it is a partition table of the kinds that are also written here.
func (f Finding) Table() bool {
	return f.Partition == 0 && f.Type == "" && (strings.HasPrefix(f.Kind, gptKind) || strings.HasPrefix(f.Kind, mbrKind))
}

// String is the finding in words, e.g. `partition 2: XFS file system "data" (20 GiB)`.
func (f Finding) String() string {
	s := f.Kind
	if f.Label != "" {
		s += fmt.Sprintf(" %q", f.Label)
	}
	if f.Partition > 0 {
		name := ""
		if f.Name != "" {
			name = fmt.Sprintf(" %q", f.Name)
		}
		s = fmt.Sprintf("partition %d%s: %s (%s)", f.Partition, name, s, Bytes(f.Size))
	}
	return s
}

// Part is a partition that a table on the disk speaks of, in bytes.
type Part struct {
	Number      int
	Start, Size int64
}

// Edge is how much of the beginning and the end of a disk must be zero for it to be called empty: 1 MiB.
const Edge = 1 << 20

// Disk looks at a whole disk of size bytes and at each partition of the tables found on it. Nothing found means that
// there is no known superblock and that the first and last MiB are zero.
func Disk(r io.ReaderAt, size int64) ([]Finding, []Part, error) {
	if size <= 0 {
		return nil, nil, fmt.Errorf("look for data: the disk has no size")
	}
	t, err := tables(r, size)
	if err != nil {
		return nil, nil, err
	}
	sigs, err := Volume(r, size)
	if err != nil {
		return nil, nil, err
	}
	found := t.found
	if t.empty && len(sigs) == 0 {
		found = append(found, Finding{Kind: mbrKind + " with 0 partitions", Size: size})
	}
	found = append(found, sigs...)
	var parts []Part
	for _, p := range t.parts {
		parts = append(parts, p.Part)
		for _, f := range p.holds {
			f.Partition, f.Name = p.Number, p.name
			found = append(found, f)
		}
	}
	if len(found) > 0 {
		return found, parts, nil
	}
	for _, e := range []struct {
		off  int64
		what string
	}{{0, "the first MiB"}, {max(0, size-Edge), "the last MiB"}} {
		zero, err := Zero(r, e.off, min(Edge, size-e.off))
		if err != nil {
			return nil, nil, err
		}
		if zero {
			continue
		}
		kind := "unknown data in " + e.what
		if random(&view{r: r, size: size}, e.off) {
			kind = "random data in " + e.what + ", as of an encrypted volume without a header"
		}
		found = append(found, Finding{Kind: kind, Size: size})
	}
	return found, nil, nil
}

// random reports whether 64 KiB at off have all bytes about equally often. That is all that there is to see of plain dm-crypt, and
// of a disk that was overwritten with noise.
func random(v *view, off int64) bool {
	const n = 64 << 10
	b := v.at(off, n)
	if b == nil {
		return false
	}
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	for _, k := range count {
		if k < n/256-96 || k > n/256+96 { // six standard deviations
			return false
		}
	}
	return true
}

// Volume looks for superblocks on a disk or partition of size bytes.
func Volume(r io.ReaderAt, size int64) ([]Finding, error) {
	v := &view{r: r, size: size}
	var found []Finding
	for _, s := range signatures() {
		f := s(v)
		if v.err != nil {
			return nil, fmt.Errorf("look for data: %w", v.err)
		}
		if f == nil {
			continue
		}
		if f.Size <= 0 || f.Size > size {
			f.Size = size
		}
		f.Label, f.UUID = printable(f.Label), printable(f.UUID)
		found = append(found, *f)
	}
	return found, nil
}

// Zero reports whether n bytes at off are all zero.
func Zero(r io.ReaderAt, off, n int64) (bool, error) {
	b := make([]byte, min(n, 128<<10))
	for n > 0 {
		b = b[:min(n, int64(len(b)))]
		if k, err := r.ReadAt(b, off); k < len(b) {
			return false, fmt.Errorf("look for data: %w", err)
		}
		for _, c := range b {
			if c != 0 {
				return false, nil
			}
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return true, nil
}

// view reads fixed places of a volume and remembers the first error that is not the end of the volume.
type view struct {
	r    io.ReaderAt
	size int64
	err  error
	// last page read: superblocks crowd together.
	page    [4096]byte
	pageOff int64
	valid   bool
}

// at returns n bytes at off, or nil where the volume is too small or cannot be read.
func (v *view) at(off int64, n int) []byte {
	if v.err != nil || off < 0 || off+int64(n) > v.size {
		return nil
	}
	if p := off &^ 4095; v.valid && p == v.pageOff && off-p+int64(n) <= 4096 {
		return v.page[off-p:][:n]
	}
	if p := off &^ 4095; off-p+int64(n) <= 4096 && p+4096 <= v.size {
		if !v.read(v.page[:], p) {
			v.valid = false
			return nil
		}
		v.pageOff, v.valid = p, true
		return v.page[off-p:][:n]
	}
	b := make([]byte, n)
	if !v.read(b, off) {
		return nil
	}
	return b
}

func (v *view) read(b []byte, off int64) bool {
	if n, err := v.r.ReadAt(b, off); n < len(b) {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		v.err = err
		return false
	}
	return true
}

// has reports whether magic is at off.
func (v *view) has(off int64, magic string) bool {
	return string(v.at(off, len(magic))) == magic
}

// text returns the NUL-terminated text in a field of n bytes at off.
func (v *view) text(off int64, n int) string {
	s, _, _ := strings.Cut(string(v.at(off, n)), "\x00")
	return strings.TrimSpace(s)
}

// printable makes a label from an unknown disk fit for a console.
func printable(s string) string {
	if !utf8.ValidString(s) {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}

// Bytes writes a size for people: a whole number or one decimal, in binary units.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n)/1024, 0
	for f >= 1023.95 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	s := strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
	return s + " " + units[i]
}
