package stick

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tree is a machine in a temporary directory: attribute files and nodes by path.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) *tree {
	t.Helper()
	tr := &tree{t, t.TempDir()}
	tr.file("sys/block/.keep", "")
	if err := os.Remove(filepath.Join(tr.dir, "sys/block/.keep")); err != nil {
		t.Fatal(err)
	}
	tr.file("dev/null", "")
	tr.file("proc/self/mountinfo", "")
	return tr
}

func (tr *tree) system() System {
	return System{filepath.Join(tr.dir, "sys"), filepath.Join(tr.dir, "proc"), filepath.Join(tr.dir, "dev"), filepath.Join(tr.dir, "udev")}
}

func (tr *tree) file(name, data string) {
	tr.t.Helper()
	p := filepath.Join(tr.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

// disk adds a disk at a place in the device tree, with attributes as "name=value", and its node.
func (tr *tree) disk(place, number string, size int64, attrs ...string) {
	tr.t.Helper()
	name := filepath.Base(place)
	dir := "sys/devices/" + place
	tr.file(dir+"/dev", number+"\n")
	tr.file(dir+"/size", itoa(size/512)+"\n")
	tr.file(dir+"/queue/logical_block_size", "512\n")
	for _, a := range attrs {
		k, v, _ := strings.Cut(a, "=")
		tr.file(dir+"/"+k, v+"\n")
	}
	if err := os.Symlink(filepath.Join(tr.dir, dir), filepath.Join(tr.dir, "sys/block", name)); err != nil {
		tr.t.Fatal(err)
	}
	tr.file("dev/"+name, "")
}

// part adds a partition to a disk.
func (tr *tree) part(place, number string, n, start, size int64) {
	tr.t.Helper()
	name := filepath.Base(place)
	dir := "sys/devices/" + place
	tr.file(dir+"/dev", number+"\n")
	tr.file(dir+"/partition", itoa(n)+"\n")
	tr.file(dir+"/start", itoa(start/512)+"\n")
	tr.file(dir+"/size", itoa(size/512)+"\n")
	tr.file("dev/"+name, "")
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

const (
	usbHost = "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host7/target7:0:0/7:0:0:0/block/"
	ataHost = "pci0000:00/0000:00:17.0/ata1/host3/target3:0:0/3:0:0:0/block/"
	mmcHost = "pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:aaaa/block/"
	usbPort = "sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/"
	gib     = 1 << 30
)

// stick adds a USB stick sdb with a partition of FAT, as it is bought.
func (tr *tree) stick(size int64) {
	tr.t.Helper()
	tr.disk(usbHost+"sdb", "8:16", size, "removable=1", "device/vendor=SanDisk ", "device/model=Ultra\x1b[2J  ", "diskseq=9")
	tr.part(usbHost+"sdb/sdb1", "8:17", 1, 1<<20, gib)
	tr.file(usbPort+"idVendor", "0781\n")
	tr.file(usbPort+"serial", "4C530001\n")
	content := make([]byte, 1<<20+4096)
	content[446+4], content[510], content[511] = 0x0c, 0x55, 0xaa
	copy(content[1<<20+71:], "MY STICK   FAT32   ")
	tr.file("dev/sdb", string(content))
}

func list1(t *testing.T, tr *tree, image *Image) map[string]Device {
	t.Helper()
	all, err := tr.system().List(image)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Device{}
	for _, d := range all {
		out[d.Name] = d
	}
	return out
}

func TestDevicesAreListedWithWhatIsOnThemAndWhyTheyAreNotTaken(t *testing.T) {
	tr := newTree(t)
	tr.stick(16 * gib)
	tr.disk(ataHost+"sda", "8:0", 480*gib, "removable=0", "device/vendor=ATA", "device/model=MZ7L3", "device/vpd_pg80=\x00\x80\x00\x06  S3Z1")
	tr.part(ataHost+"sda/sda1", "8:1", 1, 1<<20, gib)
	tr.part(ataHost+"sda/sda2", "8:2", 2, gib, 400*gib)
	tr.file("sys/devices/"+ataHost+"sda/sda2/holders/dm-0/dev", "253:0\n")
	tr.disk("virtual/block/dm-0", "253:0", 100*gib, "dm/name=system-root", "dm/uuid=LVM-x", "slaves/sda2/dev=8:2")
	tr.disk("virtual/block/loop3", "7:3", gib, "loop/backing_file=/var/snap")
	tr.disk("pci0000:00/ata2/host4/target4:0:0/4:0:0:0/block/sr0", "11:0", gib, "removable=1")
	tr.disk(mmcHost+"mmcblk0", "179:0", 32*gib, "device/type=SD", "device/name=SC32G", "device/serial=0x1234")
	tr.disk("pci0000:00/mmc1/block/mmcblk1", "179:8", 32*gib, "device/type=MMC", "device/name=DF4032")
	tr.disk("pci0000:00/usb2/2-1/host8/target8:0:0/8:0:0:0/block/sdc", "8:32", 0, "removable=1", "device/model=Card Reader")
	tr.disk("pci0000:00/usb2/2-2/host9/target9:0:0/9:0:0:0/block/sdd", "8:48", gib, "ro=1", "device/model=Locked")
	tr.file("proc/self/mountinfo", "27 1 253:0 / / rw - xfs /dev/mapper/system-root rw\n28 27 8:1 / /boot rw - ext4 /dev/sda1 rw\n29 27 0:4 / /proc rw - proc proc rw\n")
	tr.file("udev/b179:8", "N:mmcblk1\nE:ID_PART_TABLE_TYPE=gpt\nE:ID_FS_TYPE=ext4\nE:ID_FS_LABEL=vendor\x1b[0m\n")
	if err := os.Remove(filepath.Join(tr.dir, "dev/mmcblk1")); err != nil { // as good as one that may not be read
		t.Fatal(err)
	}
	all, err := tr.system().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Print(&b, all); err != nil {
		t.Fatal(err)
	}
	want := `DEVICE        SIZE       BUS  REMOVABLE  MODEL               SERIAL    HOLDS
/dev/sdb      16.00 GiB  usb  yes        SanDisk Ultra [2J   4C530001  MBR partition table, sdb1: vfat "MY STICK"
/dev/mmcblk0  32.00 GiB  mmc  no         SC32G               0x1234    nothing that is known here

Not taken:
/dev/sda: ATA MZ7L3, serial S3Z1, 480.00 GiB, sata
  holds sda1: something unknown, sda2: something unknown
  - is a disk of the running system: LVM volume system-root (dm-0) is mounted at /, sda1 is mounted at /boot, sda2 is held by LVM volume system-root (dm-0); name another
  - is an internal disk (sata); --force-internal takes it nevertheless
/dev/sdc: Card Reader, no serial number, no medium, usb, removable
  holds nothing that is known here
  - has no medium in it; put the card in
/dev/sdd: Locked, no serial number, 1.00 GiB, usb
  holds nothing that is known here
  - is read-only; take off its write protection
/dev/mmcblk1: DF4032, no serial number, 32.00 GiB, mmc
  holds GPT partition table, ext4 "vendor [0m"
  - is soldered storage (eMMC); --force-internal takes it nevertheless
`
	// Widths come from the table; columns are compared without them.
	if got := strings.Join(strings.Fields(b.String()), " "); got != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got:\n%s", b.String())
	}
}

func TestWhateverUsesADeviceIsAReasonAgainstIt(t *testing.T) {
	const sdb = "sys/devices/" + usbHost + "sdb/"
	for name, c := range map[string]struct {
		prepare func(tr *tree)
		says    string
		system  bool
	}{
		"a partition is mounted, at a place with a blank": {
			func(tr *tree) {
				tr.file("proc/self/mountinfo", "30 1 8:17 / /media/my\\040stick rw shared:2 - vfat /dev/sdb1 rw\n")
			}, "sdb1 is mounted at /media/my stick", false,
		},
		"the disk itself is mounted at more places than anybody reads": {
			func(tr *tree) {
				tr.file("proc/self/mountinfo", "1 1 8:16 / /a rw - ext4 x rw\n2 1 8:16 / /b rw - ext4 x rw\n3 1 8:16 / /b rw - ext4 x rw\n4 1 8:16 / /c rw - ext4 x rw\n5 1 8:16 / /d rw - ext4 x rw\n")
			}, "sdb is mounted at /a and /b and /c and 1 more", false,
		},
		"it is where the running system boots from": {
			func(tr *tree) { tr.file("proc/self/mountinfo", "30 1 8:17 / /boot/efi rw - vfat /dev/sdb1 rw\n") }, "sdb1 is mounted at /boot/efi", true,
		},
		"a file system with an invented number is mounted from it": {
			func(tr *tree) {
				tr.file("proc/self/mountinfo", "30 1 0:45 /sub /srv rw - btrfs /dev/sdb1 rw\n")
			}, "sdb1 is mounted at /srv", false,
		},
		"it is one of several members of a Btrfs": {
			func(tr *tree) { tr.file("sys/fs/btrfs/uuid/devices/sdb1/dev", "8:17\n") }, "sdb1 belongs to a mounted Btrfs file system", false,
		},
		"swap is on it": {
			func(tr *tree) {
				tr.file("proc/swaps", "Filename Type Size Used Priority\n/dev/sdb1 partition 1024 0 -2\n/swap\\040file file 1024 0 -3\n")
			}, "sdb1 is used as swap", true,
		},
		"a volume on encryption on it is mounted": {
			func(tr *tree) {
				tr.file(sdb+"sdb1/holders/dm-0/dev", "253:0\n")
				tr.disk("virtual/block/dm-0", "253:0", gib, "dm/name=luks-1", "dm/uuid=CRYPT-LUKS2-1", "slaves/sdb1/dev=8:17", "holders/dm-1/dev=253:1")
				tr.disk("virtual/block/dm-1", "253:1", gib, "dm/name=vg-home", "dm/uuid=LVM-1", "slaves/dm-0/dev=253:0")
				tr.file("proc/self/mountinfo", "30 1 253:1 / /home rw - xfs /dev/mapper/vg-home rw\n")
			}, "LVM volume vg-home (dm-1) is mounted at /home, encrypted volume luks-1 (dm-0) is held by LVM volume vg-home (dm-1), sdb1 is held by encrypted volume luks-1 (dm-0)", true,
		},
		"an array that is not mounted": {
			func(tr *tree) {
				tr.file(sdb+"holders/md127/dev", "9:127\n")
				tr.disk("virtual/block/md127", "9:127", gib, "slaves/sdb/dev=8:16")
			}, "sdb is held by RAID array md127", false,
		},
		"a loop device": {
			func(tr *tree) { tr.disk("virtual/block/loop0", "7:0", gib, "loop/backing_file=/dev/sdb1") }, "loop device loop0 stands on sdb1", false,
		},
		"a loop device that is mounted": {
			func(tr *tree) {
				tr.disk("virtual/block/loop0", "7:0", gib, "loop/backing_file=/dev/sdb1")
				tr.file("proc/self/mountinfo", "30 1 7:0 / /x rw - ext4 /dev/loop0 rw\n")
			}, "loop device loop0 is mounted at /x, loop device loop0 stands on sdb1", false,
		},
		"bcache": {
			func(tr *tree) { tr.file(sdb+"sdb1/bcache/label", "\n") }, "sdb1 is registered with bcache", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			tr.stick(16 * gib)
			c.prepare(tr)
			d := list1(t, tr, nil)["sdb"]
			if got := strings.Join(d.Uses, ", "); got != c.says || d.System != c.system {
				t.Errorf("got %q, system %v", got, d.System)
			}
			if len(d.Refused) != 1 || !strings.Contains(d.Refused[0], c.says) {
				t.Errorf("refused: %q", d.Refused)
			}
		})
	}
}

func TestAnImageHasToFitAndToLieElsewhere(t *testing.T) {
	tr := newTree(t)
	tr.stick(gib)
	tr.file("live.iso", "image")
	image, err := OpenImage(filepath.Join(tr.dir, "live.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if d := list1(t, tr, image)["sdb"]; len(d.Refused) > 0 {
		t.Errorf("refused: %q", d.Refused)
	}
	image.Size = gib + 1
	image.dev = "8:17"
	got := list1(t, tr, image)["sdb"].Refused
	want := []string{"has 1.00 GiB, and the image 1.00 GiB (1 bytes too little); take a larger one", "has the image itself on it; copy that elsewhere first"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestDisksOfOthersAreNeverTaken(t *testing.T) {
	for name, c := range map[string]struct {
		d    Device
		says string
	}{
		"a CD drive":              {Device{Size: gib, never: true, Removable: true}, "is no disk or stick"},
		"an LVM volume":           {Device{Size: gib, stacked: true, virtual: true}, "stands on other disks"},
		"a disk of unknown kind":  {Device{Size: gib}, "is neither removable nor on USB; --force-internal"},
		"a loop device":           {Device{Size: gib, virtual: true, Bus: "virtual"}, "is a virtual device; --force-internal"},
		"an internal hot-plugged": {Device{Size: gib, Bus: "nvme"}, "is an internal disk (nvme); --force-internal"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.d.problems(1, false); len(got) != 1 || !strings.Contains(got[0], c.says) {
				t.Errorf("got %q", got)
			}
			if got := c.d.problems(1, true); (len(got) == 0) != strings.Contains(c.says, "--force-internal") {
				t.Errorf("with force: %q", got)
			}
		})
	}
}

func TestDevicesAreFoundByWhatAPersonNames(t *testing.T) {
	tr := newTree(t)
	tr.stick(gib)
	tr.file("live.iso", "image")
	image, err := OpenImage(filepath.Join(tr.dir, "live.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	for name, c := range map[string]struct{ path, says string }{
		"nothing is there": {filepath.Join(tr.dir, "dev/sdx"), "there is no device"},
		"a file":           {filepath.Join(tr.dir, "live.iso"), "is no block device"},
		"a terminal":       {"/dev/null", "is no block device"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tr.system().Claim(image, c.path, true); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestImagesThatCannotBeWrittenAreRefused(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.iso")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, says string }{
		"it is missing":     {filepath.Join(dir, "none.iso"), "there is no such file"},
		"it is empty":       {empty, "it is empty"},
		"it is a directory": {dir, "it is no regular file"},
		"it is a device":    {"/dev/null", "name the ISO first"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := OpenImage(c.path); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestImagesThatStartNothingAreTold(t *testing.T) {
	blank := make([]byte, 40<<10)
	mbr := slices.Clone(blank)
	mbr[446], mbr[446+4], mbr[510], mbr[511] = 0x80, 0x17, 0x55, 0xaa
	cd := slices.Clone(blank)
	copy(cd[32769:], "CD001")
	large := slices.Clone(mbr)
	copy(large[4096:], gptSignature)
	for name, c := range map[string]struct {
		content []byte
		sector  int
		says    string
	}{
		"a hybrid image":                          {mbr, 512, ""},
		"a CD's":                                  {cd, 512, "hardly from a stick"},
		"any file":                                {blank, 512, "no partition table"},
		"a table for small sectors":               {mbr, 4096, "sectors of 4096 bytes"},
		"a table for large sectors":               {large, 4096, ""},
		"a file shorter than a partition table":   {[]byte("x"), 512, "no partition table"},
		"a boot sector of FAT is no table at all": {append(bytes.Repeat([]byte{0x41}, 510), 0x55, 0xaa), 512, "no partition table"},
	} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "i")
			if err := os.WriteFile(p, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			i, err := OpenImage(p)
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			if got := i.boots(c.sector); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestContentsAreKnownByTheirSignatures(t *testing.T) {
	put := func(at int, s string) func([]byte) { return func(b []byte) { copy(b[at:], s) } }
	ext := func(compat, incompat uint32) func([]byte) {
		return func(b []byte) {
			copy(b[1024+0x38:], "\x53\xef")
			binary.LittleEndian.PutUint32(b[1024+0x5c:], compat)
			binary.LittleEndian.PutUint32(b[1024+0x60:], incompat)
			copy(b[1024+0x78:], "a label")
		}
	}
	for want, fill := range map[string]func([]byte){
		"":               func([]byte) {},
		`ext2 "a label"`: ext(0, 2),
		`ext3 "a label"`: ext(4, 2),
		`ext4 "a label"`: ext(4, 0x42),
		"LUKS":           put(0, "LUKS\xba\xbe\x00\x02"),
		"LVM":            put(536, "LVM2 001"),
		"ZFS member":     put(128<<10+5*1024, "\x0c\xb1\xba\x00\x00\x00\x00\x00"),
		"vfat":           put(43, "NO NAME    FAT16   "),
		`vfat "BOOT"`:    put(43, "BOOT       FAT12   "),
	} {
		t.Run(want, func(t *testing.T) {
			b := make([]byte, 300<<10)
			fill(b)
			if got := probe(bytes.NewReader(b)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func FuzzContents(f *testing.F) {
	f.Add([]byte("LUKS\xba\xbe"))
	f.Add(make([]byte, 260<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range []string{probe(bytes.NewReader(b)), table(bytes.NewReader(b))} {
			if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q is not for a terminal", s)
			}
		}
	})
}
