package probe

import (
	"encoding/binary"
	"io"
)

type mbr struct {
	protective bool
	parts      []Part
}

// maxLogical bounds the chain of logical partitions, which a damaged or malicious disk can close to a loop.
const maxLogical = 128

// readMBR reads the four primary partitions and the chain of logical ones. A boot sector of a file system ends in
// 55AA as well; it is told apart by entries that no partition table has. The unit is 512 bytes as nothing on the disk
// says otherwise.
func readMBR(r io.ReaderAt, size int64) (mbr, error) {
	v := &view{r: r, size: size}
	var m mbr
	first := entries(v, 0)
	if v.err != nil {
		return m, v.err
	}
	for i, e := range first {
		switch {
		case e.typ == 0xee:
			m.protective = true
		case e.typ == 0x05 || e.typ == 0x0f || e.typ == 0x85:
			m.parts = append(m.parts, logical(v, e.start)...)
		case e.typ != 0 && e.sectors > 0 && (e.start+e.sectors)*512 <= size:
			m.parts = append(m.parts, Part{i + 1, e.start * 512, e.sectors * 512})
		}
	}
	return m, v.err
}

type mbrEntry struct {
	typ            byte
	start, sectors int64
}

// entries returns the table at sector lba, or nil if there is none.
func entries(v *view, lba int64) []mbrEntry {
	b := v.at(lba*512, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	var out []mbrEntry
	for e := b[446:510]; len(e) > 0; e = e[16:] {
		if e[0]&0x7f != 0 {
			return nil
		}
		le := binary.LittleEndian
		out = append(out, mbrEntry{e[4], int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))})
	}
	return out
}

// logical follows the chain of extended boot records that starts at sector base. Numbers start at 5.
func logical(v *view, base int64) []Part {
	var parts []Part
	next := base
	for n := 0; n < maxLogical && next > 0; n++ {
		es := entries(v, next)
		if len(es) < 2 {
			break
		}
		if e := es[0]; e.typ != 0 && e.start > 0 && e.sectors > 0 && (next+e.start+e.sectors)*512 <= v.size {
			parts = append(parts, Part{5 + n, (next + e.start) * 512, e.sectors * 512})
		}
		if es[1].typ == 0 || es[1].start == 0 {
			break
		}
		next = base + es[1].start
	}
	return parts
}
