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

	"imgbuild/installer/disk/teardown"
)

// Inventory reads all disks from sys (usually /sys) and what is mounted from mountinfo (usually /proc/self/mountinfo; swaps, which
// may be missing, lies beside self), in a stable order: by by-path name, then by kernel name in natural order. Disks without a medium are left out, as
// are the kinds that never hold an installation (RAM disks, CD-ROMs, floppies, the boot areas of eMMC). Of several paths to one
// disk, all but one say so.
func Inventory(sys, mountinfo string) ([]Disk, error) {
	names, err := os.ReadDir(filepath.Join(sys, "block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w; is /sys mounted?", err)
	}
	kernel, err := teardown.Read(teardown.System{Sys: sys, Proc: filepath.Dir(filepath.Dir(mountinfo)), Dev: "/dev", MountInfo: mountinfo})
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var disks []Disk
	for _, n := range names {
		if neverRE.MatchString(n.Name()) {
			continue
		}
		d, err := read(sys, n.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // unplugged while we looked
		}
		if err != nil {
			return nil, err
		}
		if d.Size <= 0 {
			continue
		}
		tree, err := kernel.Look(d.Name)
		if _, gone := os.Stat(filepath.Join(sys, "block", d.Name, "dev")); errors.Is(gone, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list disks: %w", err)
		}
		d.Users, d.Holders = tree.Busy(), tree.Holders()
		disks = append(disks, d)
	}
	slices.SortFunc(disks, func(a, b Disk) int { return strings.Compare(sortKey(a), sortKey(b)) })
	joinPaths(disks)
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

func read(sys, name string) (Disk, error) {
	dir := filepath.Join(sys, "block", name)
	a := attrs{dir}
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Disk{}, fmt.Errorf("read disk %s: %w", name, err)
	}
	if a.text("hidden") == "1" { // the paths behind a multipath NVMe namespace
		return Disk{}, fs.ErrNotExist
	}
	rel, err := filepath.Rel(sys, target)
	if err != nil {
		return Disk{}, fmt.Errorf("read disk %s: %w", name, err)
	}
	d := Disk{
		Name: name, Path: "/dev/" + strings.ReplaceAll(name, "!", "/"),
		Size: a.number("size") * 512, Sector: int(a.number("queue/logical_block_size")),
		PhysicalSector: int(a.number("queue/physical_block_size")),
		product:        a.text("device/model", "device/name"),
		Serial:         a.text("serial", "device/serial"),
		WWN:            a.text("wwid", "device/wwid"),
		Removable:      a.text("removable") == "1", ReadOnly: a.text("ro") == "1",
		Rotational: a.text("queue/rotational") == "1",
		zoned:      a.text("queue/zoned"),
		virtual:    virtualRE.MatchString(name),
		rank:       rank(a.text("device/state"), a.text("device/access_state")),
	}
	if d.Sector == 0 {
		d.Sector = 512
	}
	if v := a.text("device/vendor"); !strings.HasPrefix(v, "0x") {
		d.vendor = v
	}
	d.Model = strings.TrimSpace(d.vendor + " " + d.product)
	if d.product == "" {
		d.Model = ""
	}
	if d.Serial == "" {
		d.Serial = unitSerial(filepath.Join(dir, "device/vpd_pg80"))
	}
	if e := path.Base(path.Dir(path.Dir(filepath.ToSlash(rel)))); scsiRE.MatchString(e) {
		d.HCTL = e
	}
	d.Transport = transport(rel, d.virtual)
	if d.Transport == "usb" {
		if d.Serial == "" {
			d.Serial = usbSerial(sys, rel)
		}
		d.medium = lent(d.Model)
	}
	d.card = d.Transport == "mmc" && a.text("device/type") == "SD"
	d.ByPath = byPath(sys, rel)
	d.ByID = byID(d, d.vendor, d.product, a.text("nsid"))
	if uuid, ok := strings.CutPrefix(a.text("dm/uuid"), "mpath-"); ok {
		if err := d.multipath(dir, uuid, a.text("dm/name")); err != nil {
			return Disk{}, err
		}
	}
	return d, nil
}

// usbSerial is the serial number of the USB device that a disk belongs to.
func usbSerial(sys, rel string) string {
	for dir := path.Dir(filepath.ToSlash(rel)); dir != "." && dir != "/"; dir = path.Dir(dir) {
		a := attrs{filepath.Join(sys, dir)}
		if a.text("idVendor") != "" {
			return a.text("serial")
		}
	}
	return ""
}

// lent reports whether a USB disk is one that a management controller makes up: what AMI and Supermicro (ATEN), Dell, HPE,
// Lenovo and IBM, Cisco, Huawei, Fujitsu, Oracle and Intel (Avocent, Peppercon) call theirs.
func lent(model string) bool {
	m := strings.ToLower(model)
	for _, s := range []string{"virtual", "idrac", "lcdrive", "secupd", "oemdrv", "vflash", "ilo ", "ilo-", "cimc", "vkvm", "vmedia", "irmc",
		"remote storage", "redfish", "peppercon", "multidevice", "avocent"} {
		if strings.Contains(m, s) {
			return true
		}
	}
	return false
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
