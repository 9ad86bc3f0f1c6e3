package bootloader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/installer/tool"
)

// bootImage and coreImage have what GRUB's own have at the places that are checked or patched.
func bootImage() []byte {
	b := make([]byte, sector)
	copy(b, "\xeb\x63\x90")
	b[0x10], b[bootDrive], b[bootDriveCheck], b[0x1b0] = 'p', 0xff, 0xeb, 'x'
	copy(b[bootSignature:], "\x55\xaa")
	return b
}

func coreImage(n int) []byte {
	b := bytes.Repeat([]byte{'c'}, n)
	copy(b[blockListFirst-12:], make([]byte, 24))
	binary.LittleEndian.PutUint64(b[blockListFirst:], 2)
	binary.LittleEndian.PutUint16(b[blockListFirst+10:], 0x820)
	return b
}

func TestSectorZeroNamesTheSectorOfTheCore(t *testing.T) {
	got, err := patchBoot(bootImage(), 0x123456789a)
	if err != nil || len(got) != 440 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	want := bootImage()[:440]
	want[0x10], want[0x66], want[0x67] = 0, 0x90, 0x90
	copy(want[0x5c:], "\x9a\x78\x56\x34\x12\x00\x00\x00")
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestTheCoreIsPaddedAndNamesItsOtherSectors(t *testing.T) {
	got, err := patchCore(coreImage(3*sector+5), 2048)
	if err != nil || len(got) != 4*sector {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	want := append(coreImage(3*sector+5), make([]byte, sector-5)...)
	copy(want[0x1f4:], "\x01\x08\x00\x00\x00\x00\x00\x00\x03\x00\x20\x08")
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestImagesOfAnotherKindAreRefused(t *testing.T) {
	change := func(b []byte, at int, to byte) []byte { b[at] = to; return b }
	for says, img := range map[string][]byte{
		"has 511 bytes":                 bootImage()[:511],
		"no signature":                  change(bootImage(), bootSignature, 0),
		"boot.img is of a GRUB that":    change(bootImage(), bootDriveCheck, 0x90),
		"boot.img is of a GRUB that th": change(bootImage(), bootDrive, 0x80),
	} {
		if _, err := patchBoot(img, 1); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	other := coreImage(2 * sector)
	binary.LittleEndian.PutUint16(other[noRSLength:], 0xffff)
	for says, img := range map[string][]byte{
		"has 512 bytes":              coreImage(sector),
		"BIOS can load 454656":       coreImage(maxCore + 1),
		"core.img is of a GRUB":      change(coreImage(2*sector), blockListFirst+10, 0),
		"core.img is of a GRUB that": other,
	} {
		if _, err := patchCore(img, 1); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

func FuzzPatchCore(f *testing.F) {
	f.Add(coreImage(2*sector), uint64(1))
	f.Fuzz(func(t *testing.T, img []byte, first uint64) {
		if out, err := patchCore(img, first); err == nil && len(out)%sector != 0 {
			t.Errorf("%d bytes are not whole sectors", len(out))
		}
	})
}

// pcTarget has a grub2-mkimage that makes a core of two sectors and writes its arguments into it.
func pcTarget(t *testing.T, s *layout.Scheme) Target {
	t.Helper()
	s.Firmware, s.BIOSLoader = layout.BIOS, layout.GRUB
	dir := t.TempDir()
	script := "#!/bin/sh\nwhile [ \"$1\" != -o ]; do [ \"$1\" != -c ] || early=$2; shift; done\ncat " + filepath.Join(dir, "core") + " \"$early\" > \"$2\"\nshift 2\necho \"$@\" > " + filepath.Join(dir, "modules") + "\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, mkimage), []byte(script), 0o755), os.WriteFile(filepath.Join(dir, "core"), coreImage(2*sector), 0o644)); err != nil {
		t.Fatal(err)
	}
	tg := target(manifest(), s)
	tg.Run, tg.Scratch = tool.Runner{Dirs: []string{dir, "/bin", "/usr/bin"}}, dir
	tg.Root, tg.Dir = tree(t, map[string]string{"usr/lib/grub/i386-pc/boot.img": string(bootImage()), "usr/lib/grub/i386-pc/ext2.mod": "m",
		"usr/lib/grub/i386-pc/moddep.lst": "l", "usr/lib/grub/i386-pc/kernel.img": "k", "usr/lib/grub/i386-pc/fdt.lst": ""})
	tg.Node = func(d layout.Device) string {
		p := filepath.Join(dir, strings.ReplaceAll(string(d), "/", "-"))
		f, err := os.OpenFile(p, os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		return p
	}
	return tg
}

func TestGRUBIsWrittenToEveryBootDisk(t *testing.T) {
	s := mirror()
	s.Disks[1].Table, s.Disks[1].Parts = layout.MBR, s.Disks[1].Parts[1:]
	s.Disks[1].Parts[0].Start = 2 * mib
	tg := pcTarget(t, s)
	if err := (GRUBPC{}).Probe(tg); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := (GRUBPC{}).Install(t.Context(), tg); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"grub2/grub.cfg", "grub2/grubenv", "grub2/i386-pc/boot.img", "grub2/i386-pc/core.img", "grub2/i386-pc/ext2.mod", "grub2/i386-pc/moddep.lst"}
	if got := list(t, filepath.Join(tg.Dir, "boot")); !slices.Equal(got, want) {
		t.Errorf("/boot has %v, want %v", got, want)
	}
	modules, err := os.ReadFile(filepath.Join(tg.Scratch, "modules"))
	if want := "biosdisk part_gpt part_msdos diskfilter mdraid1x ext2 search_fs_uuid normal configfile search test loadenv serial terminal echo linux blscfg\n"; err != nil || string(modules) != want {
		t.Errorf("core.img has %q, %v, want %q", modules, err, want)
	}
	core := append(coreImage(2*sector), "search.fs_uuid uuid-of-/boot root\nset prefix=($root)/grub2\n"...)
	first, err1 := patchCore(core, 2048)
	second, err2 := patchCore(core, 1)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(tg.Node("part/disk1/1")); err != nil || !bytes.Equal(got, first) {
		t.Errorf("the BIOS boot partition has %d bytes, %v, want %d", len(got), err, len(first))
	}
	code, err := (GRUBPC{}).Code(tg)
	if err != nil || len(code) != 2 || code["disk1"].Gap != nil || !bytes.Equal(code["disk2"].Gap, second) {
		t.Fatalf("got %d disks, %v", len(code), err)
	}
	for name, at := range map[string]uint64{"disk1": 2048, "disk2": 1} {
		if b := code[name].MBR; len(b) != 440 || binary.LittleEndian.Uint64(b[bootKernelSector:]) != at {
			t.Errorf("sector 0 of %s has %d bytes and does not start sector %d", name, len(b), at)
		}
	}
	if err := errors.Join((GRUBPC{}).Revert(tg), (GRUBPC{}).Revert(tg)); err != nil {
		t.Error(err)
	}
	if got := list(t, filepath.Join(tg.Dir, "boot")); slices.Contains(got, "grub2/grub.cfg") {
		t.Errorf("after Revert /boot has %v", got)
	}
}

func TestGRUBForBIOSIsRefusedWhereItCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		scheme *layout.Scheme
		change func(*layout.Scheme, *Target)
		says   string
	}{
		"an image without it":   {simple(), func(_ *layout.Scheme, t *Target) { t.Manifest.BootLoader.GRUBPC = nil }, "does not carry"},
		"a machine without":     {simple(), func(_ *layout.Scheme, t *Target) { t.Manifest.Arch = "aarch64" }, "does not carry"},
		"no program":            {simple(), func(_ *layout.Scheme, t *Target) { t.Run.Dirs = []string{"/nonexistent"} }, "not in the initramfs"},
		"no BIOS boot":          {mirror(), func(s *layout.Scheme, _ *Target) { s.Disks[1].Parts[0].Role = "" }, "no BIOS boot partition"},
		"no gap":                {simple(), func(s *layout.Scheme, _ *Target) { s.Disks[0].Table, s.Disks[0].Parts[0].Start = layout.MBR, 512 }, "no room before"},
		"btrfs":                 {simple(), func(s *layout.Scheme, _ *Target) { s.Disks[0].Parts[2].Content.FS = "btrfs" }, "/boot is on btrfs"},
		"a thin volume":         {mirror(), func(s *layout.Scheme, _ *Target) { s.Arrays[1].Mount, s.Groups[0].Volumes[0].Thin = "", "pool" }, "does not read thin"},
		"sectors of 4096 bytes": {simple(), func(s *layout.Scheme, _ *Target) { s.Disks[0].Sector = 4096 }, "has sectors of 4096"},
		"too many arguments":    {simple(), func(_ *layout.Scheme, t *Target) { t.Args = []string{strings.Repeat("x", 2048)} }, "kernels take 2047"},
		"nothing at /":          {simple(), func(s *layout.Scheme, _ *Target) { s.Disks[0].Parts = s.Disks[0].Parts[:1] }, "nothing at /"},
	} {
		t.Run(name, func(t *testing.T) {
			tg := pcTarget(t, c.scheme)
			if err := (GRUBPC{}).Probe(tg); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			c.change(c.scheme, &tg)
			if err := (GRUBPC{}).Probe(tg); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
		})
	}
}

func TestACoreThatDoesNotFitIsNotEmbedded(t *testing.T) {
	s := simple()
	tg := pcTarget(t, s)
	s.Disks[0].Parts[0].Size = 2 * sector
	if err := (GRUBPC{}).Install(t.Context(), tg); err == nil || !strings.Contains(err.Error(), "there is room for 1024") {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(tg.Node("part/disk1/1")); err != nil || len(got) > 0 {
		t.Errorf("the partition has %d bytes, %v", len(got), err)
	}
}

func TestTheCoreHasWhatReadsBoot(t *testing.T) {
	lvm := mirror()
	lvm.Arrays[1].Mount = ""
	raid6 := mirror()
	raid6.Arrays[1].Level = 6
	raid5 := mirror()
	raid5.Arrays[2].Level, raid5.Arrays[1].Mount = 5, ""
	plain := simple()
	plain.Disks[0].Parts[2].Content.Mount = ""
	for name, c := range map[string]struct {
		scheme *layout.Scheme
		want   string
	}{
		"in root":               {plain, "biosdisk part_gpt xfs"},
		"on LVM over RAID":      {lvm, "biosdisk part_gpt lvm diskfilter mdraid1x xfs"},
		"on RAID 6":             {raid6, "biosdisk part_gpt diskfilter mdraid1x raid6rec ext2"},
		"on LVM over RAID 5":    {raid5, "biosdisk part_gpt lvm diskfilter mdraid1x raid5rec xfs"},
		"on a partition, plain": {simple(), "biosdisk part_gpt ext2"},
	} {
		got, err := coreModules(target(manifest(), c.scheme))
		if err != nil || !strings.HasPrefix(strings.Join(got, " "), c.want+" search_fs_uuid ") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
