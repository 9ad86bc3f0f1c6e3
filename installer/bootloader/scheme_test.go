package bootloader

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/layout"
)

func TestArgumentsNameWhatRootIsMadeOf(t *testing.T) {
	lvm := simple()
	lvm.Disks[0].Parts[3].Content = layout.Content{Group: "vg"}
	lvm.Groups = []layout.SchemeGroup{{Group: layout.Group{Name: "vg"}, Physical: []layout.Device{"part/disk1/4"},
		Volumes: []layout.SchemeVolume{{Volume: layout.Volume{Name: "root", Content: layout.Content{FS: "xfs", Mount: "/"}}}}}}
	raid := mirror()
	raid.Groups, raid.Arrays[2].Content = nil, layout.Content{FS: "xfs", Mount: "/"}
	for name, c := range map[string]struct {
		scheme *layout.Scheme
		want   string
	}{
		"a partition": {simple(), "root=UUID=uuid-of-part/disk1/4 ro"},
		"LVM":         {lvm, "root=UUID=uuid-of-lv/vg/root ro rd.lvm.lv=vg/root"},
		"RAID":        {raid, "root=UUID=uuid-of-md/pv ro rd.md.uuid=12345678:9abcdef0:12345678:pv"},
		"LVM on RAID, with /usr": {mirror(), "root=UUID=uuid-of-lv/system/root ro rd.md.uuid=12345678:9abcdef0:12345678:pv " +
			"rd.lvm.lv=system/root rd.lvm.lv=system/usr"},
	} {
		if got := strings.Join(Arguments(manifest(), c.scheme, ids{}), " "); got != c.want+" console=tty0 console=ttyS1,57600n8 quiet" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestLoadersFollowFirmwareAndLayout(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*image.Manifest, *layout.Scheme)
		want   string
	}{
		"both":              {func(*image.Manifest, *layout.Scheme) {}, "extlinux (BIOS), GRUB (UEFI)"},
		"UEFI":              {func(_ *image.Manifest, s *layout.Scheme) { s.Firmware, s.BIOSLoader = layout.UEFI, "" }, "GRUB (UEFI)"},
		"BIOS":              {func(_ *image.Manifest, s *layout.Scheme) { s.Firmware = layout.BIOS }, "extlinux (BIOS)"},
		"GRUB for BIOS":     {func(_ *image.Manifest, s *layout.Scheme) { s.BIOSLoader = layout.GRUB }, "GRUB (BIOS), GRUB (UEFI)"},
		"no extlinux":       {func(m *image.Manifest, _ *layout.Scheme) { m.BootLoader.Extlinux = nil }, "add syslinux-extlinux"},
		"no GRUB for UEFI":  {func(m *image.Manifest, _ *layout.Scheme) { m.BootLoader.GRUB = nil }, "add grub2-efi-x64"},
		"no GRUB for BIOS":  {func(m *image.Manifest, s *layout.Scheme) { s.BIOSLoader, m.BootLoader.GRUBPC = layout.GRUB, nil }, "add grub2-pc"},
		"ARM with BIOS":     {func(m *image.Manifest, _ *layout.Scheme) { m.Arch = "aarch64" }, "have no BIOS"},
		"an unknown loader": {func(_ *image.Manifest, s *layout.Scheme) { s.BIOSLoader = layout.AutoLoader }, `"auto"`},
		"unknown firmware":  {func(_ *image.Manifest, s *layout.Scheme) { s.Firmware = layout.Auto }, `"auto"`},
	} {
		m, s := manifest(), simple()
		c.change(m, s)
		list, err := For(m, s)
		var names []string
		for _, l := range list {
			names = append(names, l.Name())
		}
		if got := strings.Join(names, ", "); err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if err != nil && strings.Contains(c.want, "add ") != errors.Is(err, ErrNotInImage) {
			t.Errorf("%s: is it ErrNotInImage? %v", name, err)
		}
	}
}

func TestConfigurationsThatDoNotFollowKernelsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*image.Manifest, *layout.Scheme)
		want   []string
	}{
		"extlinux, and GRUB that reads entries": {func(*image.Manifest, *layout.Scheme) {}, []string{extlinuxFile}},
		"extlinux, and GRUB that does not":      {func(m *image.Manifest, _ *layout.Scheme) { m.BootLoader.GRUB.BLS = false }, []string{extlinuxFile, grubFile}},
		"GRUB that reads entries on both":       {func(_ *image.Manifest, s *layout.Scheme) { s.BIOSLoader = layout.GRUB }, nil},
		"GRUB that reads entries on one only": {func(m *image.Manifest, s *layout.Scheme) {
			s.BIOSLoader, m.BootLoader.GRUBPC.BLS = layout.GRUB, false
		}, []string{grubFile}},
		"EL7, whose grub.cfg grubby edits": {func(m *image.Manifest, _ *layout.Scheme) { m.Distro.Release = "7.9" }, []string{extlinuxFile}},
	} {
		m, s := manifest(), simple()
		c.change(m, s)
		if got := Rewritten(m, s); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFirmwareGetsAnEntryForEachDisk(t *testing.T) {
	guid := func(disk string, n int) uuid.UUID { return uuid.NewSHA1(uuid.Nil, []byte{disk[4], byte(n)}) }
	for name, c := range map[string]struct {
		scheme *layout.Scheme
		labels []string
	}{
		"one disk": {simple(), []string{"CentOS Stream"}},
		"a mirror": {mirror(), []string{"CentOS Stream (disk1 S-disk1)", "CentOS Stream (disk2 S-disk2)"}},
	} {
		got, err := BootEntries(manifest(), c.scheme, guid)
		if err != nil || len(got) != len(c.labels) {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		for i, e := range got {
			if e.Label != c.labels[i] || e.Group != "CentOS Stream" || e.File != "EFI/centos/shimx64.efi" || e.Partition != 2 ||
				e.First != 4096 || e.Sectors != 1048576 || e.GUID != guid(c.scheme.Disks[i].Name, 2) {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
	for says, change := range map[string]func(*layout.Scheme){
		"level 1 with metadata 1.0":  func(s *layout.Scheme) { s.Arrays[0].Metadata = "1.2" },
		"no EFI system partition":    func(s *layout.Scheme) { s.Arrays[0].Mount = "" },
		"firmware reads partitions":  func(s *layout.Scheme) { s.Arrays[0].Members[1] = "disk/disk2" },
		"has no GPT, so firmware ha": func(s *layout.Scheme) { s.Disks[1].Table = layout.MBR },
	} {
		s := mirror()
		change(s)
		if _, err := BootEntries(manifest(), s, guid); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

func TestGRUBForUEFIIsRefusedWhereItCannotWork(t *testing.T) {
	for says, change := range map[string]func(*Target){
		"does not carry":          func(t *Target) { t.Manifest.BootLoader.GRUB = nil },
		"no EFI system partition": func(t *Target) { t.Scheme.Disks[0].Parts[1].Content.FS = "ext4" },
		"not a directory on":      func(t *Target) { t.Manifest.BootLoader.GRUB.ConfigDir = "../x" },
		"architecture riscv64":    func(t *Target) { t.Manifest.Arch = "riscv64" },
		"/boot is on btrfs":       func(t *Target) { t.Scheme.Disks[0].Parts[2].Content.FS = "btrfs" },
	} {
		tg := target(manifest(), simple())
		if err := (GRUB{}).Probe(tg); err != nil {
			t.Fatal(err)
		}
		change(&tg)
		if err := (GRUB{}).Probe(tg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

func TestALinkInTheWayOfAFileIsReplacedByIt(t *testing.T) {
	root, _ := tree(t, map[string]string{"boot/efi/EFI/centos/grubenv": "theirs", "boot/grub2/x": ""})
	if err := root.Symlink("../efi/EFI/centos/grubenv", "boot/grub2/grubenv"); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(root, "boot/grub2/grubenv", []byte("ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := root.Lstat("boot/grub2/grubenv"); err != nil || !st.Mode().IsRegular() {
		t.Errorf("it is %v, %v", st, err)
	}
	if b, err := root.ReadFile("boot/efi/EFI/centos/grubenv"); err != nil || string(b) != "theirs" {
		t.Errorf("what the link named is %q, %v", b, err)
	}
}

func TestNewFilesHaveTheLabelOfTheirDirectory(t *testing.T) {
	root, dir := tree(t, map[string]string{"boot/x": ""})
	label := []byte("system_u:object_r:boot_t:s0\x00")
	if err := unix.Setxattr(dir+"/boot", "security.selinux", label, 0); err != nil {
		t.Skipf("this user or file system sets no labels: %v", err)
	}
	if err := errors.Join(mkdirs(root, "boot/grub2/i386-pc", 0o755), writeFile(root, "boot/grub2/i386-pc/core.img", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"grub2", "grub2/i386-pc", "grub2/i386-pc/core.img"} {
		got := make([]byte, 100)
		n, err := unix.Getxattr(dir+"/boot/"+name, "security.selinux", got)
		if err != nil || string(got[:n]) != string(label) {
			t.Errorf("%s has %q, %v", name, got[:max(n, 0)], err)
		}
	}
	if _, err := os.Stat(dir + "/boot/grub2/i386-pc/core.img"); err != nil {
		t.Error(err)
	}
}
