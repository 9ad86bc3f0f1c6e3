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

// extlinuxTarget has a program that does as extlinux does, MBR code, and a node with an ext4 superblock.
func extlinuxTarget(t *testing.T, s *layout.Scheme, script string) Target {
	t.Helper()
	dir := t.TempDir()
	super := make([]byte, 4096)
	binary.LittleEndian.PutUint16(super[1024+0x38:], 0xef53)
	for name, data := range map[string]string{"extlinux": "#!/bin/sh\n" + script, "gptmbr.bin": "gpt", "mbr.bin": "mbr", "node": string(super)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tg := target(manifest(), s)
	tg.Run, tg.Syslinux = tool.Runner{Dirs: []string{dir, "/bin"}}, dir
	tg.Node = func(layout.Device) string { return filepath.Join(dir, "node") }
	return tg
}

func TestExtlinuxIsInstalledWithItsModules(t *testing.T) {
	for name, s := range map[string]*layout.Scheme{"": simple(), "--raid ": mirror()} {
		tg := extlinuxTarget(t, s, `[ "$1" = --install ] || exit 1; shift; [ "$1" != --raid ] || { raid="$1 "; shift; }; printf %s "$raid" > "$1/ldlinux.sys"`)
		if err := (Extlinux{}).Probe(tg); err != nil {
			t.Fatal(err)
		}
		tg.Root, tg.Dir = tree(t, map[string]string{"usr/share/syslinux/libutil.c32": "c32"})
		if err := (Extlinux{}).Install(t.Context(), tg); err != nil {
			t.Fatal(err)
		}
		if got, want := list(t, filepath.Join(tg.Dir, "boot")), []string{"extlinux/extlinux.conf", "extlinux/ldlinux.sys", "extlinux/libutil.c32"}; !slices.Equal(got, want) {
			t.Errorf("/boot has %v, want %v", got, want)
		}
		if b, err := tg.Root.ReadFile("boot/extlinux/ldlinux.sys"); err != nil || string(b) != name {
			t.Errorf("extlinux was told %q, %v, want %q", b, err, name)
		}
		if err := errors.Join((Extlinux{}).Revert(tg), (Extlinux{}).Revert(tg)); err != nil {
			t.Error(err)
		}
	}
	tg := extlinuxTarget(t, simple(), "")
	tg.Root, tg.Dir = tree(t, map[string]string{"usr/share/syslinux/libutil.c32": "c32"})
	if err := (Extlinux{}).Install(t.Context(), tg); err == nil || !strings.Contains(err.Error(), "ldlinux.sys is not there") {
		t.Errorf("a program that does nothing gives %v", err)
	}
}

func TestEveryBootDiskGetsTheCodeOfItsTable(t *testing.T) {
	s := mirror()
	s.Disks[1].Table = layout.MBR
	s.Disks = append(s.Disks, layout.SchemeDisk{Name: "data", Table: layout.GPT})
	got, err := (Extlinux{}).Code(extlinuxTarget(t, s, ""))
	if err != nil || len(got) != 2 || string(got["disk1"].MBR) != "gpt" || string(got["disk2"].MBR) != "mbr" || got["disk2"].Gap != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestExtlinuxIsRefusedWhereItCannotReadBoot(t *testing.T) {
	boot := func(s *layout.Scheme) *layout.Content { return &s.Disks[0].Parts[2].Content }
	for name, c := range map[string]struct {
		scheme *layout.Scheme
		change func(*layout.Scheme, *Target)
		says   string
	}{
		"an image without it":          {simple(), func(_ *layout.Scheme, t *Target) { t.Manifest.BootLoader.Extlinux = nil }, "does not carry"},
		"a machine without BIOS":       {simple(), func(_ *layout.Scheme, t *Target) { t.Manifest.Arch = "aarch64" }, "does not carry"},
		"no program":                   {simple(), func(_ *layout.Scheme, t *Target) { t.Run.Dirs = []string{"/nonexistent"} }, "not in the initramfs"},
		"no MBR code":                  {simple(), func(_ *layout.Scheme, t *Target) { t.Syslinux = "/nonexistent" }, "gptmbr.bin: no such file"},
		"btrfs":                        {simple(), func(s *layout.Scheme, _ *Target) { boot(s).FS = "btrfs" }, "/boot is on btrfs"},
		"XFS on GPT":                   {simple(), func(s *layout.Scheme, _ *Target) { boot(s).FS = "xfs" }, "XFS on a GPT disk"},
		"/boot in root on XFS":         {simple(), func(s *layout.Scheme, _ *Target) { boot(s).Mount = "" }, "XFS on a GPT disk"},
		"/boot on a logical volume":    {mirror(), func(s *layout.Scheme, _ *Target) { s.Arrays[1].Mount = "" }, "does not read LVM"},
		"a striped array":              {mirror(), func(s *layout.Scheme, _ *Target) { s.Arrays[1].Level = 10 }, "level 10"},
		"metadata at the beginning":    {mirror(), func(s *layout.Scheme, _ *Target) { s.Arrays[1].Metadata = "1.2" }, "metadata 1.2"},
		"a disk without the flag":      {mirror(), func(s *layout.Scheme, _ *Target) { s.Disks[1].Parts[2].LegacyBoot = false }, "no partition for /boot"},
		"sectors of 4096 bytes":        {simple(), func(s *layout.Scheme, _ *Target) { s.Disks[0].Sector = 4096 }, "has sectors of 4096"},
		"no disk to boot from":         {simple(), func(s *layout.Scheme, _ *Target) { s.Disks[0].Boot = false }, "no disk to boot from"},
		"a disk without a table":       {simple(), func(s *layout.Scheme, _ *Target) { s.Disks[0].Table = "" }, "no partition table"},
		"arguments longer than a line": {simple(), func(_ *layout.Scheme, t *Target) { t.Args = []string{strings.Repeat("x", 2048)} }, "kernels take 2047"},
	} {
		t.Run(name, func(t *testing.T) {
			tg := extlinuxTarget(t, c.scheme, "")
			if err := (Extlinux{}).Probe(tg); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			c.change(c.scheme, &tg)
			err := (Extlinux{}).Probe(tg)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
			if strings.Contains(c.says, "does not carry") != errors.Is(err, ErrNotInImage) {
				t.Errorf("is it ErrNotInImage? %v", err)
			}
		})
	}
}

func FuzzSuperblock(f *testing.F) {
	f.Add(make([]byte, 2048), "ext4")
	f.Add([]byte("XFSB"), "xfs")
	f.Fuzz(func(t *testing.T, data []byte, fs string) {
		_ = checkSuperblock(bytes.NewReader(data), fs)
	})
}

func TestXFSBootsFromAnMBRDisk(t *testing.T) {
	s := simple()
	s.Disks[0].Table, s.Disks[0].Parts[2].Content.FS = layout.MBR, "xfs"
	if err := (Extlinux{}).Probe(extlinuxTarget(t, s, "")); err != nil {
		t.Error(err)
	}
}

func TestFeaturesThatExtlinuxDoesNotKnowAreNamed(t *testing.T) {
	ext4 := func(incompat, ro uint32) []byte {
		b := make([]byte, 2048)
		binary.LittleEndian.PutUint16(b[1024+0x38:], 0xef53)
		binary.LittleEndian.PutUint32(b[1024+0x60:], incompat)
		binary.LittleEndian.PutUint32(b[1024+0x64:], ro)
		return b
	}
	xfs := func(block uint32, version uint16, incompat uint32) []byte {
		b := make([]byte, 2048)
		copy(b, "XFSB")
		binary.BigEndian.PutUint32(b[4:], block)
		binary.BigEndian.PutUint16(b[100:], version)
		binary.BigEndian.PutUint32(b[216:], incompat)
		return b
	}
	for name, c := range map[string]struct {
		fs   string
		data []byte
		says string
	}{
		"ext4 as the installer makes it":  {"ext4", ext4(0x246, 0x7b), ""},
		"ext4 with checksums of metadata": {"ext4", ext4(0x242, 0x47b), ""},
		"ext4 with 64 bits":               {"ext4", ext4(0x2c2, 0x7b), "-O ^64bit"},
		"ext4 with large clusters":        {"ext4", ext4(0x242, 0x27b), "bigalloc"},
		"ext4 of the future":              {"ext4", ext4(0x80000242, 0x7b), "0x80000000"},
		"no ext4":                         {"ext4", make([]byte, 2048), "not ext4"},
		"a short device":                  {"ext4", make([]byte, 100), "EOF"},
		"XFS without checksums":           {"xfs", xfs(4096, 0xb4b4, 0xffff), ""},
		"XFS as mkfs makes it":            {"xfs", xfs(4096, 0xb4b5, 0xb), ""},
		"XFS with small blocks":           {"xfs", xfs(1024, 0xb4b5, 0xb), "blocks of 1024"},
		"XFS with wide extent counters":   {"xfs", xfs(4096, 0xb4b5, 0x2b), "-i nrext64=0"},
		"XFS of the future":               {"xfs", xfs(4096, 0xb4b5, 0x8000000b), "0x80000000"},
		"no XFS":                          {"xfs", make([]byte, 2048), "not XFS"},
		"btrfs":                           {"btrfs", nil, "does not read btrfs"},
	} {
		err := checkSuperblock(bytes.NewReader(c.data), c.fs)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
