package layout

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Write says what a scheme makes of the disks, for people: each disk's partitions with their places and sizes, then what lies on them. Lines are
// at most 80 columns wide unless names and options are long.
func (s *Scheme) Write(w io.Writer) error {
	var b bytes.Buffer
	for i, d := range slices.Concat(s.Disks, s.DataFirstBoot) {
		if i > 0 {
			b.WriteByte('\n')
		}
		s.writeDisk(&b, d, i >= len(s.Disks))
	}
	for _, a := range s.Arrays {
		s.writeArray(&b, a)
	}
	for _, g := range s.Groups {
		s.writeGroup(&b, g)
	}
	fmt.Fprintf(&b, "\nBoots by %s.\n", s.boots())
	_, err := w.Write(b.Bytes())
	return err
}

func (s *Scheme) boots() string {
	bios := "BIOS with " + string(s.BIOSLoader)
	if s.BIOSLoader == GRUB {
		bios = "BIOS with GRUB"
	}
	var from []string
	for _, d := range s.Disks {
		if d.Boot {
			from = append(from, d.Name)
		}
	}
	on := " from " + joinAnd(from)
	if len(from) > 1 {
		on += ", each alone"
	}
	switch s.Firmware {
	case BIOS:
		return bios + on
	case UEFI:
		return "UEFI with GRUB" + on
	}
	return bios + " or UEFI with GRUB" + on
}

func (s *Scheme) writeDisk(b *bytes.Buffer, d SchemeDisk, later bool) {
	fmt.Fprintf(b, "%s: %s\n", d.Name, d.Describe())
	if d.Table == "" {
		fmt.Fprintf(b, "  %s, no partition table\n  the whole disk: %s\n", d.sectors(), s.holds(d.Content, d.Kept, later))
		return
	}
	fmt.Fprintf(b, "  %s, %s, partitions aligned to 1 MiB\n", strings.ToUpper(string(d.Table)), d.sectors())
	rows := [][]string{{"", "start", "size", "name", "holds"}}
	parts := slices.Clone(d.Parts)
	slices.SortFunc(parts, func(a, c Part) int { return compareInt(a.Start, c.Start) })
	all := usable(d.Candidate.Size)
	at := all.start
	gap := func(to int64) {
		if to-at >= align {
			rows = append(rows, []string{"-", inMiB(at), FormatBytes(to - at), "", "nothing"})
		}
	}
	for _, p := range parts {
		gap(p.Start)
		holds := s.holds(p.Content, p.Kept, later)
		switch p.Role {
		case RoleSeal:
			holds = "whose disk this is"
		case RoleBIOSBoot:
			holds = "GRUB's core"
		}
		rows = append(rows, []string{strconv.Itoa(p.Number), inMiB(p.Start), FormatBytes(p.Size), p.Name, holds})
		at = p.Start + p.Size
	}
	gap(all.end)
	writeRows(b, rows)
}

// inMiB is a place on a disk: exact, where it is a whole MiB as ours are.
func inMiB(n int64) string {
	if n%mib != 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return strconv.FormatInt(n/mib, 10) + " MiB"
}

// sectors are a disk's sectors for people: 512, 512e or 4Kn.
func (d SchemeDisk) sectors() string {
	if d.PhysicalSector > d.Sector {
		return fmt.Sprintf("sectors of %d bytes (physically %d)", d.Sector, d.PhysicalSector)
	}
	return fmt.Sprintf("sectors of %d bytes", d.Sector)
}

// holds is a content for people.
func (s *Scheme) holds(c Content, kept *Existing, later bool) string {
	var out string
	switch {
	case c.Array != "":
		out = "array " + c.Array
	case c.Group != "":
		out = "volume group " + c.Group
	case c.FS == "":
		out = "nothing"
	default:
		out = c.FS
		if c.Label != "" {
			out += fmt.Sprintf(" %q", c.Label)
		}
		if c.Mount != "" {
			out += " at " + c.Mount
		}
		if c.Options != "" && c.Mount != "" && c.Options != espOptions {
			out += " (" + c.Options + ")"
		}
	}
	switch {
	case kept != nil:
		out += ", kept"
	case later:
		out += ", made at first boot"
	}
	return out
}

func (s *Scheme) writeArray(b *bytes.Buffer, a SchemeArray) {
	fmt.Fprintf(b, "\narray %s: %s, RAID %d, metadata %s", a.Name, FormatBytes(a.Size), a.Level, a.Metadata)
	switch {
	case a.Spares == 1:
		b.WriteString(", the last member is a spare")
	case a.Spares > 1:
		fmt.Fprintf(b, ", the last %d members are spares", a.Spares)
	}
	fmt.Fprintf(b, "\n  on %s\n  %s\n", s.devices(a.Members), s.holds(a.Content, a.Kept, false))
}

func (s *Scheme) writeGroup(b *bytes.Buffer, g SchemeGroup) {
	kept := ""
	if g.Kept {
		kept = ", kept"
	}
	fmt.Fprintf(b, "\nvolume group %s: %s, extents of %s%s\n  on %s\n", g.Name, FormatBytes(g.Size), FormatBytes(g.Extent), kept, s.devices(g.Physical))
	rows := [][]string{{"", "size", "name", "holds"}}
	left, spare := g.Size, int64(0)
	for _, v := range g.Volumes {
		holds := s.holds(v.Content, v.Kept, false)
		switch {
		case v.Pool:
			holds = fmt.Sprintf("thin pool, and %s of metadata", FormatBytes(v.Metadata))
			left -= v.Metadata
			spare = max(spare, v.Metadata)
		case v.Thin != "":
			holds += ", thin in " + v.Thin
		}
		if v.Thin == "" {
			left -= v.Size
		}
		rows = append(rows, []string{"", FormatBytes(v.Size), v.Name, holds})
	}
	if left -= spare; left >= g.Extent {
		rows = append(rows, []string{"-", FormatBytes(left), "", "nothing"})
	}
	writeRows(b, rows)
}

// devices are devices for people: partition 3 of disk1, array system.
func (s *Scheme) devices(list []Device) string {
	var out []string
	for _, d := range list {
		e := strings.Split(string(d), "/")
		switch {
		case e[0] == "part" && len(e) == 3:
			out = append(out, "partition "+e[2]+" of "+e[1])
		case e[0] == "md" && len(e) == 2:
			out = append(out, "array "+e[1])
		default:
			out = append(out, e[len(e)-1])
		}
	}
	return joinAnd(out)
}

// columns is how wide the console of a machine is.
const columns = 80

// writeRows aligns columns: sizes and places to the right, texts to the left. What is too wide goes on below.
func writeRows(b *bytes.Buffer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	indent := 2 * len(widths)
	for _, w := range widths[:len(widths)-1] {
		indent += w
	}
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r[:len(r)-1] {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i < len(r)-2 {
				line.WriteString("  " + pad + c)
			} else {
				line.WriteString("  " + c + pad)
			}
		}
		line.WriteString("  ")
		used := indent
		for k, word := range strings.Split(r[len(r)-1], " ") {
			n := utf8.RuneCountInString(word)
			switch {
			case k > 0 && used+1+n > columns:
				line.WriteString("\n" + strings.Repeat(" ", indent))
				used = indent
			case k > 0:
				line.WriteString(" ")
				used++
			}
			line.WriteString(word)
			used += n
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
