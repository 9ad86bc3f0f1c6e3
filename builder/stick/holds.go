package stick

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// signature is where a file system or the like says what it is.
type signature struct {
	kind  string
	at    int64
	magic string
	// label is where its name is, and how long that may be; no length where there is none.
	label, length int64
}

// signatures in the order of asking. Sources: the kernel's headers of each, and libblkid where a driver asks for less.
func signatures() []signature {
	return []signature{
		{"LUKS", 0, "LUKS\xba\xbe", 24, 48},
		{"LVM", 536, "LVM2 001", 0, 0},
		{"RAID member", 0, "\xfc\x4e\x2b\xa9", 32, 32},
		{"RAID member", 4096, "\xfc\x4e\x2b\xa9", 4096 + 32, 32},
		{"bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", 4096 + 72, 32},
		{"btrfs", 65536 + 64, "_BHRfS_M", 65536 + 299, 256},
		{"xfs", 0, "XFSB", 108, 12},
		{"f2fs", 1024, "\x10\x20\xf5\xf2", 0, 0},
		{"squashfs", 0, "hsqs", 0, 0},
		{"erofs", 1024, "\xe2\xe1\xf5\xe0", 1024 + 64, 16},
		{"ntfs", 3, "NTFS    ", 0, 0},
		{"exfat", 3, "EXFAT   ", 0, 0},
		{"vfat", 82, "FAT32   ", 71, 11},
		{"vfat", 54, "FAT1", 43, 11},
		{"swap", 4096 - 10, "SWAPSPACE2", 1052, 16},
		{"hfs+", 1024, "H+\x00\x04", 0, 0},
		{"iso9660", 32769, "CD001", 32808, 32},
		{"udf", 32769, "BEA01", 0, 0},
	}
}

// probe says what is at the beginning of r, as `vfat "DATA"`; empty where nothing known is.
func probe(r io.ReaderAt) string {
	for _, s := range signatures() {
		if string(peek(r, s.at, int64(len(s.magic)))) == s.magic {
			return named(s.kind, peek(r, s.label, s.length))
		}
	}
	if sb := peek(r, 1024, 136); len(sb) == 136 && sb[0x38] == 0x53 && sb[0x39] == 0xef {
		kind := "ext2"
		switch le := binary.LittleEndian; {
		case le.Uint32(sb[0x60:])&0x40 != 0: // extents
			kind = "ext4"
		case le.Uint32(sb[0x5c:])&4 != 0: // a journal
			kind = "ext3"
		}
		return named(kind, sb[0x78:])
	}
	// ZFS: the second half of the first label is a ring of uberblocks, of 1 KiB or more each.
	if ring := peek(r, 128<<10, 128<<10); ring != nil {
		for slot := range slices.Chunk(ring, 1<<10) {
			if bytes.HasPrefix(slot, []byte("\x0c\xb1\xba\x00\x00\x00\x00\x00")) || bytes.HasPrefix(slot, []byte("\x00\x00\x00\x00\x00\xba\xb1\x0c")) {
				return "ZFS member"
			}
		}
	}
	return ""
}

// table says which partition table r begins with; empty for none.
func table(r io.ReaderAt) string {
	for _, sector := range []int64{512, 4096} {
		if string(peek(r, sector, 8)) == gptSignature {
			return "GPT partition table"
		}
	}
	mbr := peek(r, 0, 512)
	if mbr == nil || mbr[510] != 0x55 || mbr[511] != 0xaa {
		return ""
	}
	used := false
	for e := range slices.Chunk(mbr[446:510], 16) {
		if e[0]&0x7f != 0 { // a boot sector of FAT or NTFS has code here
			return ""
		}
		used = used || e[4] != 0
	}
	if used {
		return "MBR partition table"
	}
	return ""
}

const gptSignature = "EFI PART"

// peek reads n bytes, or nothing.
func peek(r io.ReaderAt, at, n int64) []byte {
	b := make([]byte, n)
	if got, err := r.ReadAt(b, at); got < len(b) || err != nil && err != io.EOF {
		return nil
	}
	return b
}

func named(kind string, label []byte) string {
	label, _, _ = bytes.Cut(label, []byte{0})
	if s := clean(string(label)); s != "" && s != "NO NAME" {
		return kind + ` "` + s + `"`
	}
	return kind
}

// holds is what is on a disk and its partitions: what the bytes say, or where they may not be read, what udev knows.
func (m *machine) holds(d Device) []string {
	if d.Size == 0 || d.never {
		return nil
	}
	var out []string
	say := func(name, what string) {
		if what != "" && name != d.Name {
			what = name + ": " + what
		}
		if what != "" {
			out = append(out, what)
		}
	}
	f, err := os.OpenFile(filepath.Join(m.Dev, strings.TrimPrefix(d.Path, "/dev/")), os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if _, err := os.Stat(m.udevFile(d.Name)); err != nil {
			return []string{"what only root may look at"}
		}
		kind, content := m.udev(d.Name)
		say(d.Name, kind)
		say(d.Name, content)
		for _, p := range m.partitions(d.Name) {
			_, content := m.udev(p)
			say(p, content)
		}
		return out
	}
	defer f.Close()
	say(d.Name, table(f))
	say(d.Name, probe(f))
	for _, p := range m.partitions(d.Name) {
		dir := m.nodes[p].dir
		content := probe(io.NewSectionReader(f, number(dir, "start")*512, number(dir, "size")*512))
		if content == "" {
			content = "something unknown"
		}
		say(p, content)
	}
	return out
}

func (m *machine) udevFile(name string) string {
	return filepath.Join(m.Udev, "b"+m.nodes[name].number)
}

// udev is what udev's database says of a device: its partition table, and its content with label.
func (m *machine) udev(name string) (kind, content string) {
	b, err := os.ReadFile(m.udevFile(name))
	if err != nil {
		return "", ""
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimPrefix(line, "E:"), "="); ok && strings.HasPrefix(line, "E:") {
			vars[k] = clean(v)
		}
	}
	switch t := vars["ID_PART_TABLE_TYPE"]; t {
	case "":
	case "gpt":
		kind = "GPT partition table"
	case "dos":
		kind = "MBR partition table"
	default:
		kind = t + " partition table"
	}
	if t := vars["ID_FS_TYPE"]; t != "" {
		content = named(t, []byte(vars["ID_FS_LABEL"]))
	}
	return kind, content
}
