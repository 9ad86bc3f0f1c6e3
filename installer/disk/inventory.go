package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Inventory reads all disks from sys (usually /sys) and what is mounted from mountinfo (usually
// /proc/self/mountinfo), in a stable order: by by-path name, then by kernel name in natural order. Disks without a
// medium are left out, as are the kinds that never hold an installation (RAM disks, CD-ROMs, floppies).
func Inventory(sys, mountinfo string) ([]Disk, error) {
	names, err := os.ReadDir(filepath.Join(sys, "block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w; is /sys mounted?", err)
	}
	mounts, err := mountedDevices(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var disks []Disk
	for _, n := range names {
		if neverRE.MatchString(n.Name()) {
			continue
		}
		d, err := read(sys, n.Name(), mounts)
		if errors.Is(err, fs.ErrNotExist) {
			continue // unplugged while we looked
		}
		if err != nil {
			return nil, err
		}
		if d.Size > 0 {
			disks = append(disks, d)
		}
	}
	slices.SortFunc(disks, func(a, b Disk) int { return strings.Compare(sortKey(a), sortKey(b)) })
	return disks, nil
}

var (
	neverRE   = regexp.MustCompile(`^(ram|zram|sr|scd|fd|mtdblock|pmem|mmcblk\d+(boot|rpmb|gp))\d*`)
	virtualRE = regexp.MustCompile(`^(loop|dm-|md|nbd|rbd|drbd|zd|bcache)\d*`)
	digitsRE  = regexp.MustCompile(`\d+`)
)

// sortKey pads numbers so that sd2 comes before sd10 and sdz before sdaa.
func sortKey(d Disk) string {
	pad := func(s string) string {
		return digitsRE.ReplaceAllStringFunc(s, func(n string) string { return fmt.Sprintf("%012s", n) })
	}
	var p string
	if len(d.ByPath) > 0 {
		p = d.ByPath[0]
	}
	return fmt.Sprintf("%s\x00%03d%s", pad(p), len(strings.TrimRight(d.Name, "0123456789np")), pad(d.Name))
}

// attrs reads the attribute files of one disk.
type attrs struct{ dir string }

func (a attrs) text(names ...string) string {
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(a.dir, n))
		if s := clean(string(b)); err == nil && s != "" {
			return s
		}
	}
	return ""
}

func (a attrs) number(name string) int64 {
	n, err := strconv.ParseInt(a.text(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// clean drops the padding and what no terminal should be sent: the text comes from the disk's maker.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

func read(sys, name string, mounts map[string][]string) (Disk, error) {
	dir := filepath.Join(sys, "block", name)
	a := attrs{dir}
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Disk{}, fmt.Errorf("read disk %s: %w", name, err)
	}
	if a.text("hidden") == "1" { // the paths behind a multipath NVMe namespace
		return Disk{}, fs.ErrNotExist
	}
	d := Disk{
		Name: name, Path: "/dev/" + strings.ReplaceAll(name, "!", "/"),
		Size: a.number("size") * 512, Sector: int(a.number("queue/logical_block_size")),
		PhysicalSector: int(a.number("queue/physical_block_size")),
		Model:          a.text("device/model", "device/name"),
		Serial:         a.text("serial", "device/serial"),
		WWN:            a.text("wwid", "device/wwid"),
		Removable:      a.text("removable") == "1", ReadOnly: a.text("ro") == "1",
		Rotational: a.text("queue/rotational") == "1",
		virtual:    virtualRE.MatchString(name),
	}
	if d.Sector == 0 {
		d.Sector = 512
	}
	if vendor := a.text("device/vendor"); vendor != "" && !strings.HasPrefix(vendor, "0x") && d.Model != "" {
		d.Model = vendor + " " + d.Model
	}
	if d.Serial == "" {
		d.Serial = unitSerial(filepath.Join(dir, "device/vpd_pg80"))
	}
	rel, err := filepath.Rel(sys, target)
	if err != nil {
		return Disk{}, fmt.Errorf("read disk %s: %w", name, err)
	}
	d.Transport = transport(rel, d.virtual)
	d.ByPath = byPath(sys, rel)
	d.ByID = byID(d, a.text("device/model"))
	if d.Users, err = users(dir, name, mounts); err != nil {
		return Disk{}, err
	}
	return d, nil
}

// unitSerial reads the SCSI vital product data page 80h, unit serial number (SPC-4, 7.8.15).
func unitSerial(file string) string {
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 4 || b[1] != 0x80 {
		return ""
	}
	n := int(b[2])<<8 | int(b[3])
	return clean(string(b[4:min(len(b), 4+n)]))
}

// transport is how the disk is attached, from its place in the device tree.
func transport(rel string, virtual bool) string {
	if virtual {
		return "virtual"
	}
	has := func(s string) bool { return strings.Contains("/"+rel, s) }
	switch {
	case has("/usb"):
		return "usb"
	case has("/nvme"):
		return "nvme"
	case has("/mmc"):
		return "mmc"
	case has("/session"):
		return "iscsi"
	case has("/rport-"):
		return "fc"
	case has("/end_device-") || has("/sas_"):
		return "sas"
	case has("/ata"):
		return "sata"
	case has("/virtio"):
		return "virtio"
	case has("/VMBUS:") || has("/vmbus"):
		return "hyper-v"
	case has("/vbd-"):
		return "xen"
	case has("/host"):
		return "scsi"
	}
	return ""
}

// users lists what stands on a disk or one of its partitions.
func users(dir, name string, mounts map[string][]string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read disk %s: %w", name, err)
	}
	dirs := []string{dir}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name) {
			dirs = append(dirs, filepath.Join(dir, e.Name()))
		}
	}
	var out []string
	for _, d := range dirs {
		holders, err := os.ReadDir(filepath.Join(d, "holders"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read disk %s: %w", name, err)
		}
		for _, h := range holders {
			what := h.Name()
			if s := (attrs{filepath.Join(d, "holders", what)}).text("dm/name"); s != "" {
				what = s
			}
			out = append(out, "in use by "+what)
		}
		dev := attrs{d}.text("dev")
		for _, m := range mounts[dev] {
			out = append(out, "mounted at "+m)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// mountedDevices maps "major:minor" to mount points (proc_pid_mountinfo(5)).
func mountedDevices(file string) (map[string][]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 {
			out[f[2]] = append(out[f[2]], clean(f[4]))
		}
	}
	return out, nil
}

// partitions are the partitions that the kernel has of a disk at present: number by kernel name.
func partitions(sys, name string) (map[string]int, error) {
	out := map[string]int{}
	files, err := filepath.Glob(filepath.Join(sys, "block", name, name+"*", "partition"))
	if err != nil {
		return nil, fmt.Errorf("list partitions of %s: %w", name, err)
	}
	for _, f := range files {
		dir := path.Dir(f)
		if n := (attrs{dir}).number("partition"); n > 0 {
			out[path.Base(dir)] = int(n)
		}
	}
	return out, nil
}
