package stick

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

var (
	// neverRE are devices that hold no images: RAM, CD-ROMs, floppies, flash without a translation layer, the boot areas of eMMC.
	neverRE = regexp.MustCompile(`^(ram|zram|sr|scd|fd|mtdblock|mmcblk\d+(boot|rpmb|gp))\d*$`)
	// stackedRE are devices that are made of others.
	stackedRE = regexp.MustCompile(`^(dm-|md|drbd|bcache)\d`)
	digitsRE  = regexp.MustCompile(`\d+`)
)

// node is a block device, whole or a partition.
type node struct {
	disk   string // kernel name of the whole disk: of a partition another than its own
	dir    string // its directory in sysfs, by real path
	number string // major:minor
}

// machine is all block devices and who uses them.
type machine struct {
	System
	nodes map[string]node // by kernel name
	// names are kernel names by major:minor, also by those that file systems invent for themselves.
	names map[string]string
	uses  map[string]*uses // by kernel name of a whole disk
}

// read looks at the whole machine.
func (s System) read() (*machine, error) {
	m := &machine{System: s, nodes: map[string]node{}, names: map[string]string{}, uses: map[string]*uses{}}
	disks, err := os.ReadDir(filepath.Join(s.Sys, "block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w; is /sys mounted?", err)
	}
	for _, d := range disks {
		dir, err := filepath.EvalSymlinks(filepath.Join(s.Sys, "block", d.Name()))
		if err != nil || text(dir, "hidden") == "1" {
			continue // unplugged while we looked, or one of several ways to another
		}
		m.add(d.Name(), d.Name(), dir)
		for _, e := range list(dir) {
			if part := filepath.Join(dir, e); text(part, "partition") != "" {
				m.add(e, d.Name(), part)
			}
		}
	}
	if err := m.findUses(); err != nil {
		return nil, fmt.Errorf("look for what uses disks: %w", err)
	}
	return m, nil
}

func (m *machine) add(name, disk, dir string) {
	if number := text(dir, "dev"); number != "" {
		m.nodes[name] = node{disk, dir, number}
		m.names[number] = name
	}
}

// partitions are the kernel names of a disk's partitions, in their order.
func (m *machine) partitions(disk string) []string {
	var out []string
	for name, n := range m.nodes {
		if n.disk == disk && name != disk {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(natural(a), natural(b)) })
	return out
}

// device describes a whole disk.
func (m *machine) device(name string) Device {
	n := m.nodes[name]
	d := Device{
		Name: name, Path: "/dev/" + strings.ReplaceAll(name, "!", "/"), Size: number(n.dir, "size") * 512, Sector: int(number(n.dir, "queue/logical_block_size")),
		Model: text(n.dir, "device/model"), Removable: text(n.dir, "removable") == "1", ReadOnly: text(n.dir, "ro") == "1",
		number: n.number, seq: text(n.dir, "diskseq"), stacked: stackedRE.MatchString(name), never: neverRE.MatchString(name),
	}
	if d.Sector == 0 {
		d.Sector = 512
	}
	for _, attr := range []string{"device/name", "loop/backing_file"} { // of a memory card, of a loop device
		if d.Model == "" {
			d.Model = text(n.dir, attr)
		}
	}
	if vendor := text(n.dir, "device/vendor"); vendor != "" && !strings.HasPrefix(vendor, "0x") && d.Model != "" {
		d.Model = vendor + " " + d.Model
	}
	rel, err := filepath.Rel(m.Sys, n.dir)
	if err != nil {
		rel = n.dir
	}
	d.Bus = bus("/" + filepath.ToSlash(rel))
	d.virtual = d.Bus == "virtual"
	d.card = d.Bus == "mmc" && text(n.dir, "device/type") == "SD"
	d.Serial = m.serial(n.dir, d.Bus)
	if u := m.uses[name]; u != nil {
		d.Uses, d.System = u.lines(), u.system
	}
	return d
}

// bus is how a disk is attached, from its place in the device tree. A bridge to USB is found before what it bridges.
func bus(place string) string {
	for _, b := range []struct{ in, name string }{
		{"/usb", "usb"}, {"/nvme", "nvme"}, {"/virtual/", "virtual"}, {"/mmc", "mmc"}, {"/session", "iscsi"}, {"/rport-", "fc"},
		{"/end_device-", "sas"}, {"/ata", "sata"}, {"/virtio", "virtio"}, {"/fw", "firewire"}, {"/host", "scsi"},
	} {
		if strings.Contains(place, b.in) {
			return b.name
		}
	}
	return ""
}

// serial is the disk's own serial number, or that of the USB device in which it is.
func (m *machine) serial(dir, bus string) string {
	for _, attr := range []string{"serial", "device/serial"} {
		if s := text(dir, attr); s != "" {
			return s
		}
	}
	// SCSI vital product data, page 80h: unit serial number (SPC-4, 7.8.15).
	if b, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80")); err == nil && len(b) > 4 && b[1] == 0x80 {
		if s := clean(string(b[4:min(len(b), 4+int(b[2])<<8+int(b[3]))])); s != "" {
			return s
		}
	}
	if bus != "usb" {
		return ""
	}
	for at := filepath.Dir(dir); len(at) > len(m.Sys); at = filepath.Dir(at) {
		if text(at, "idVendor") != "" {
			return text(at, "serial")
		}
	}
	return ""
}

// text is an attribute, or nothing.
func text(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return clean(string(b))
}

func number(elem ...string) int64 {
	n, err := strconv.ParseInt(text(elem...), 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0
	}
	return n
}

// list are the names in a directory; none where it cannot be read, which a device that was just pulled out cannot.
func list(elem ...string) []string {
	entries, _ := os.ReadDir(filepath.Join(elem...))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// clean drops padding and what no terminal should be sent: names come from a disk's maker, labels from anybody.
func clean(s string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)), " ")
}

// natural is a key that puts sdb before sdaa, and sdb2 before sdb10.
func natural(name string) string {
	return fmt.Sprintf("%03d", len(strings.TrimRight(name, "0123456789"))) + digitsRE.ReplaceAllStringFunc(name, func(n string) string { return fmt.Sprintf("%012s", n) })
}
