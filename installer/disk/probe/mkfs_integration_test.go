//go:build integration

package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What real tools write is found, and under a name that goes with the one that blkid has for it.
func TestWhatRealToolsWriteIsFound(t *testing.T) {
	for _, c := range []struct {
		argv  []string
		size  int64
		want  string
		blkid string
	}{
		{[]string{"mkfs.ext4", "-q", "-F", "-L", "lab"}, 64 << 20, `ext4 file system "lab"`, "ext4"},
		{[]string{"mkfs.ext3", "-q", "-F"}, 64 << 20, `ext3 file system`, "ext3"},
		{[]string{"mkfs.ext2", "-q", "-F", "-L", "lab"}, 64 << 20, `ext2 file system "lab"`, "ext2"},
		{[]string{"mkfs.xfs", "-q", "-L", "lab"}, 512 << 20, `XFS file system "lab"`, "xfs"},
		{[]string{"mkfs.vfat", "-F", "32", "-n", "LAB"}, 64 << 20, `FAT32 file system "LAB"`, "vfat"},
		{[]string{"mkfs.vfat", "-F", "16"}, 64 << 20, `FAT file system`, "vfat"},
		{[]string{"mkfs.btrfs", "-q", "-L", "lab"}, 256 << 20, `Btrfs file system "lab"`, "btrfs"},
		{[]string{"mkfs.exfat"}, 64 << 20, `exFAT file system`, "exfat"},
		{[]string{"mkfs.ntfs", "-q", "-F"}, 64 << 20, `NTFS file system`, "ntfs"},
		{[]string{"mkfs.f2fs", "-q"}, 64 << 20, `F2FS file system`, "f2fs"},
		{[]string{"mkswap", "-L", "lab"}, 64 << 20, `swap space "lab"`, "swap"},
		{[]string{"cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--label", "lab", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
			"--key-file", "/etc/os-release"}, 64 << 20, `LUKS2 encrypted volume "lab"`, "crypto_LUKS"},
		{[]string{"sgdisk", "-n", "1:2048:+8M", "-n", "2:0:0"}, 64 << 20,
			`GUID partition table with 2 partitions; partition 1: nothing known (8 MiB); partition 2: nothing known (55 MiB)`, ""},
	} {
		t.Run(strings.Join(c.argv, " "), func(t *testing.T) {
			tool, err := exec.LookPath(c.argv[0])
			if err != nil {
				t.Skipf("%s is not installed", c.argv[0])
			}
			file := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(c.size); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(tool, append(c.argv[1:len(c.argv):len(c.argv)], file)...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			found, _, err := Disk(f, c.size)
			if err != nil {
				t.Fatal(err)
			}
			if got := join(found); got != c.want {
				t.Errorf("found %s, want %s", got, c.want)
			}
			if c.blkid == "" {
				return
			}
			out, err := exec.Command("blkid", "-p", "-o", "value", "-s", "TYPE", file).Output()
			if err == nil && strings.TrimSpace(string(out)) != c.blkid {
				t.Errorf("blkid says %q", out)
			}
		})
	}
}
