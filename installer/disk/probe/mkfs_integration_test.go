//go:build integration

package probe

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func file(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// blkid is what blkid says of a file, by key, without the prefix ID_FS_.
func blkid(t *testing.T, name string) map[string]string {
	t.Helper()
	out, err := exec.Command("blkid", "-p", "-o", "udev", name).Output()
	if err != nil {
		t.Fatalf("blkid knows nothing: %v", err)
	}
	says := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			says[strings.TrimPrefix(k, "ID_FS_")] = v
		}
	}
	// Blanks and the like are written as \x20.
	if label, err := strconv.Unquote(`"` + says["LABEL_ENC"] + `"`); err == nil {
		says["LABEL"] = label
	}
	return says
}

// same compares one finding with what blkid says: type, UUID and label. blkid makes up a UUID for UDF.
func same(t *testing.T, f Finding, name string) {
	t.Helper()
	says := blkid(t, name)
	if f.Type != says["TYPE"] || f.Type != "udf" && f.UUID != says["UUID"] {
		t.Errorf("found type %q and UUID %q, blkid says %q and %q", f.Type, f.UUID, says["TYPE"], says["UUID"])
	}
	if label := says["LABEL"]; label != "" && f.Label != label {
		t.Errorf("found label %q, blkid says %q", f.Label, label)
	}
}

// What real tools write is found, with the type, UUID and label that blkid has for it.
func TestWhatRealToolsWriteIsFound(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		argv []string
		size int64
		want string
	}{
		{[]string{"mkfs.ext4", "-q", "-F", "-L", "lab"}, 64 * mib, `ext4 file system "lab"`},
		{[]string{"mkfs.ext4", "-q", "-F", "-O", "64bit", "-L", "fs-OST0001"}, 64 * mib, `Lustre target (ext4) "fs-OST0001"`},
		{[]string{"mkfs.ext4", "-q", "-F", "-O", "journal_dev"}, 64 * mib, `ext4 journal`},
		{[]string{"mkfs.ext3", "-q", "-F"}, 64 * mib, `ext3 file system`},
		{[]string{"mkfs.ext2", "-q", "-F", "-L", "lab"}, 64 * mib, `ext2 file system "lab"`},
		{[]string{"mkfs.xfs", "-q", "-L", "lab"}, 512 * mib, `XFS file system "lab"`},
		{[]string{"mkfs.vfat", "-F", "32", "-n", "LAB"}, 64 * mib, `FAT32 file system "LAB"`},
		{[]string{"mkfs.vfat", "-F", "16"}, 64 * mib, `FAT file system`},
		{[]string{"mkfs.vfat", "-F", "12", "-n", "FLOPPY"}, 1440 << 10, `FAT file system "FLOPPY"`},
		{[]string{"mkfs.btrfs", "-q", "-L", "lab"}, 256 * mib, `Btrfs file system "lab"`},
		{[]string{"mkfs.exfat", "-L", "Läbel"}, 64 * mib, `exFAT file system "Läbel"`},
		{[]string{"mkfs.ntfs", "-q", "-F", "-L", "Läbel 1"}, 64 * mib, `NTFS file system "Läbel 1"`},
		{[]string{"mkfs.f2fs", "-q", "-l", "lab"}, 64 * mib, `F2FS file system "lab"`},
		{[]string{"mkfs.jfs", "-q", "-L", "lab"}, 64 * mib, `JFS file system "lab"`},
		{[]string{"mkreiserfs", "-q", "-f", "-f", "-l", "lab"}, 64 * mib, `ReiserFS file system "lab"`},
		{[]string{"mkudffs", "-l", "läb"}, 64 * mib, `UDF file system "läb"`},
		{[]string{"mkudffs", "-b", "2048", "-l", "Ωmega"}, 64 * mib, `UDF file system "Ωmega"`},
		{[]string{"mkfs.nilfs2", "-q", "-L", "lab"}, 256 * mib, `NILFS2 file system "lab"`},
		{[]string{"mkfs.gfs2", "-q", "-O", "-p", "lock_dlm", "-t", "rack:fs", "-j", "1", "-J", "8"}, 256 * mib, `GFS2 file system "rack:fs"`},
		{[]string{"mkfs.ocfs2", "-q", "-F", "--fs-feature-level=max-compat", "-M", "local", "-L", "lab"}, 256 * mib, `OCFS2 file system "lab"`},
		{[]string{"mkfs.minix"}, 16 * mib, `Minix file system`},
		{[]string{"mkfs.minix", "-3"}, 16 * mib, `Minix file system`},
		{[]string{"mkswap", "-L", "lab"}, 64 * mib, `swap space "lab"`},
		{[]string{"make-bcache", "-B", "--wipe-bcache"}, 64 * mib, `bcache device`},
		{[]string{"cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--label", "lab", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
			"--key-file", "/etc/os-release"}, 64 * mib, `LUKS2 encrypted volume "lab"`},
		{[]string{"cryptsetup", "luksFormat", "--type", "luks1", "--batch-mode", "--pbkdf-force-iterations", "1000", "--key-file", "/etc/os-release"}, 64 * mib,
			`LUKS encrypted volume`},
	} {
		t.Run(strings.Join(c.argv, " "), func(t *testing.T) {
			tool, err := exec.LookPath(c.argv[0])
			if err != nil {
				t.Skipf("%s is not installed", c.argv[0])
			}
			f := file(t, c.size)
			cmd := exec.Command(tool, append(c.argv[1:len(c.argv):len(c.argv)], f.Name())...)
			cmd.Stdin = strings.NewReader("y\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			found, _, err := Disk(f, c.size)
			if err != nil {
				t.Fatal(err)
			}
			if got := join(found); got != c.want {
				t.Fatalf("found %s, want %s", got, c.want)
			}
			if found[0].Size < c.size*9/10 || found[0].Size > c.size {
				t.Errorf("it has %d of %d bytes", found[0].Size, c.size)
			}
			same(t, found[0], f.Name())
		})
	}
}

func TestImagesThatRealToolsPackAreFound(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"mksquashfs", dir, "IMAGE", "-quiet", "-no-progress", "-noappend"}, `squashfs`},
		{[]string{"mkfs.erofs", "IMAGE", dir}, `erofs`},
		{[]string{"mkfs.cramfs", dir, "IMAGE"}, `cramfs`},
		{[]string{"xorriso", "-as", "mkisofs", "-quiet", "-V", "DISC", "-o", "IMAGE", dir}, `ISO 9660 file system "DISC"`},
	} {
		t.Run(c.argv[0], func(t *testing.T) {
			tool, err := exec.LookPath(c.argv[0])
			if err != nil {
				t.Skipf("%s is not installed", c.argv[0])
			}
			image := filepath.Join(t.TempDir(), "image")
			argv := append([]string(nil), c.argv[1:]...)
			for i, a := range argv {
				if a == "IMAGE" {
					argv[i] = image
				}
			}
			if out, err := exec.Command(tool, argv...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			found, _, err := Disk(f, st.Size())
			if err != nil || join(found) != c.want {
				t.Fatalf("found %s, %v, want %s", join(found), err, c.want)
			}
			if says := blkid(t, image); says["TYPE"] != found[0].Type || found[0].Label != "" && says["LABEL"] != found[0].Label {
				t.Errorf("found %+v, blkid says %v", found[0], says)
			}
		})
	}
}

func TestTablesOfRealTools(t *testing.T) {
	for _, c := range []struct {
		argv  []string
		stdin string
		want  string
	}{
		{[]string{"sgdisk", "-n", "1:2048:+8M", "-c", "1:data", "-n", "2:0:0", "-t", "2:ef02"}, "",
			`GUID partition table with 2 partitions; partition 1 "data": nothing known (8 MiB); partition 2: BIOS boot partition (55 MiB)`},
		{[]string{"sfdisk", "--quiet"}, "label: dos\n,8M\n,20M,E\n,,\n,4M\n", "MBR partition table with 3 partitions; partition 1: nothing known (8 MiB); " +
			"partition 3: nothing known (35 MiB); partition 5: nothing known (4 MiB)"},
		{[]string{"sfdisk", "--quiet"}, "label: dos\n", "MBR partition table with 0 partitions"},
		{[]string{"sfdisk", "--quiet"}, "label: sun\n", "Sun disk label"},
		{[]string{"sfdisk", "--quiet"}, "label: sgi\n", "SGI partition table"},
		{[]string{"parted", "--script", "DISK", "mklabel", "bsd"}, "", `BSD disk label`},
		{[]string{"parted", "--script", "DISK", "mklabel", "mac"}, "", `Apple partition table`},
	} {
		t.Run(strings.Join(c.argv, " ")+c.stdin, func(t *testing.T) {
			tool, err := exec.LookPath(c.argv[0])
			if err != nil {
				t.Skipf("%s is not installed", c.argv[0])
			}
			f := file(t, 64<<20)
			argv, named := append([]string(nil), c.argv[1:]...), false
			for i, a := range argv {
				if a == "DISK" {
					argv[i], named = f.Name(), true
				}
			}
			if !named {
				argv = append(argv, f.Name())
			}
			cmd := exec.Command(tool, argv...)
			cmd.Stdin = strings.NewReader(c.stdin)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			found, _, err := Disk(f, 64<<20)
			if err != nil || join(found) != c.want {
				t.Errorf("found %s, %v, want %s", join(found), err, c.want)
			}
		})
	}
}

// Arrays cannot be made here without the kernel's driver: superblocks are laid out by hand, and mdadm and blkid read them.
func TestArraysMembersAreReadAsMdadmReadsThem(t *testing.T) {
	mdadm, err := exec.LookPath("mdadm")
	if err != nil {
		t.Skip("mdadm is not installed")
	}
	const size = 64 << 20
	id := uuid.MustParse("01234567-89ab-cdef-0123-456789abcdef")
	for version, off := range map[string]int64{"1.0": size - 8192, "1.1": 0, "1.2": 4096} {
		t.Run(version, func(t *testing.T) {
			f := file(t, size)
			if _, err := f.WriteAt(superblock1(id, "host:boot", off, size), off); err != nil {
				t.Fatal(err)
			}
			found, _, err := Disk(f, size)
			if want := `Linux RAID member (metadata ` + version + `) "host:boot"`; err != nil || join(found) != want {
				t.Fatalf("found %s, %v, want %s", join(found), err, want)
			}
			same(t, found[0], f.Name())
			out, err := exec.Command(mdadm, "--examine", f.Name()).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "Array UUID : 01234567:89abcdef:01234567:89abcdef") || !strings.Contains(string(out), "Name : host:boot") ||
				!strings.Contains(string(out), "- correct") {
				t.Errorf("mdadm: %v\n%s", err, out)
			}
		})
	}
	t.Run("0.90", func(t *testing.T) {
		f := file(t, size)
		sb := make([]byte, 4096)
		le := binary.LittleEndian
		for at, n := range map[int]uint32{0: 0xa92b4efc, 8: 90, 20: 0x01234567, 24: 1, 28: 1, 32: (size - 65536) / 1024, 40: 2, 52: 0x89abcdef, 56: 0x01234567, 60: 0x89abcdef} {
			le.PutUint32(sb[at:], n)
		}
		if _, err := f.WriteAt(sb, size-65536); err != nil {
			t.Fatal(err)
		}
		found, _, err := Disk(f, size)
		if want := `Linux RAID member (metadata 0.90)`; err != nil || join(found) != want {
			t.Fatalf("found %s, %v, want %s", join(found), err, want)
		}
		same(t, found[0], f.Name())
		out, err := exec.Command(mdadm, "--examine", f.Name()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "UUID : 01234567:89abcdef:01234567:89abcdef") {
			t.Errorf("mdadm: %v\n%s", err, out)
		}
	})
}

// superblock1 is a version 1 superblock (linux/raid/md_p.h) of a RAID 1 of two members.
func superblock1(id uuid.UUID, name string, off, size int64) []byte {
	sb := make([]byte, 4096)
	le := binary.LittleEndian
	le.PutUint32(sb[0:], 0xa92b4efc)
	le.PutUint32(sb[4:], 1)
	copy(sb[16:], id[:])
	copy(sb[32:], name)
	le.PutUint32(sb[72:], 1)                   // level
	le.PutUint64(sb[80:], uint64(size/512/2))  // component size, sectors
	le.PutUint32(sb[92:], 2)                   // disks
	le.PutUint64(sb[128:], uint64(size/512/4)) // data offset
	if off > size/2 {
		le.PutUint64(sb[128:], 0)
	}
	le.PutUint64(sb[136:], uint64(size/512/2)) // data size
	le.PutUint64(sb[144:], uint64(off/512))    // where this superblock is
	le.PutUint32(sb[220:], 2)                  // roles that follow
	le.PutUint16(sb[258:], 1)
	sum := uint64(0)
	for i := 0; i < 256+4; i += 4 {
		sum += uint64(le.Uint32(sb[i:]))
	}
	le.PutUint32(sb[216:], uint32(sum)+uint32(sum>>32))
	return sb
}

// pvcreate and vgcreate write to a loop device without asking the kernel for device-mapper.
func TestPhysicalVolumesHaveTheirGroupsName(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	for _, tool := range []string{"pvcreate", "vgcreate", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	f := file(t, 64<<20)
	out, err := exec.Command("losetup", "--find", "--show", f.Name()).CombinedOutput()
	if err != nil {
		t.Skipf("losetup cannot make a loop device here: %v: %s", err, out)
	}
	node := strings.TrimSpace(string(out))
	defer func() {
		if out, err := exec.Command("losetup", "--detach", node).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", node, err, out)
		}
	}()
	config := `devices{filter=["a|^` + node + `$|","r|.*|"] use_devicesfile=0} global{use_lvmpolld=0} backup{backup=0 archive=0} activation{udev_sync=0 udev_rules=0}`
	for _, argv := range [][]string{{"pvcreate", "--config", config, node}, {"vgcreate", "--config", config, "data-1", node}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s does not work here: %v: %s", argv[0], err, out)
		}
	}
	found, _, err := Disk(f, 64<<20)
	if want := `LVM physical volume "data-1"`; err != nil || join(found) != want {
		t.Fatalf("found %s, %v, want %s", join(found), err, want)
	}
	same(t, found[0], f.Name())
}
