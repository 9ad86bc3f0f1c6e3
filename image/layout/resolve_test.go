package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// ssd is a disk as servers have it.
func ssd(name string, size int64) Candidate {
	return Candidate{ID: name, Path: "/dev/" + name, Model: "SAMSUNG MZ7L3480", Serial: "S66" + name, Size: size, Sector: 512, PhysicalSector: 4096, Transport: "sata"}
}

// machine is an Input with n disks of one size, for a machine with both loaders.
func machine(l Layout, fw Firmware, size int64) Input {
	in := Input{Firmware: fw, Arch: "x86_64", RootMin: 2 << 30, Extlinux: true, GRUB: true}
	for i := range l.Expand(fw).Disks {
		in.Disks = append(in.Disks, ssd(fmt.Sprintf("sd%c", 'a'+i), size))
	}
	return in
}

const (
	gib       = int64(1) << 30
	disk480GB = 480103981056
)

func TestPrintedSchemes(t *testing.T) {
	for name, c := range map[string]struct {
		l    Layout
		fw   Firmware
		edit func(*Input)
	}{
		"simple-uefi":    {Layout{}, UEFI, nil},
		"simple-bios":    {Layout{}, BIOS, nil},
		"simple-grub":    {Layout{BIOSLoader: GRUB, SwapSize: "4GiB"}, BIOS, nil},
		"simple-mbr":     {Layout{Table: MBR}, BIOS, nil},
		"lvm-both":       {Layout{Preset: LVM, Firmware: Both, SwapSize: "8GiB"}, UEFI, nil},
		"server-uefi":    {Layout{Preset: Server, SwapSize: "8GiB"}, UEFI, nil},
		"server-12gib":   {Layout{Preset: Server}, BIOS, func(in *Input) { in.Disks[0].Size = 12 * gib }},
		"mirror-both":    {Layout{Preset: Mirror, Firmware: Both, BIOSLoader: GRUB}, BIOS, nil},
		"mirror-4kn":     {Layout{Preset: Mirror}, UEFI, func(in *Input) { in.Disks[0].Sector, in.Disks[1].Sector = 4096, 4096 }},
		"thin-on-mirror": {goodLVM(), BIOS, nil},
		"data": {Layout{Preset: LVM, Data: &Data{When: "firstboot"}}, UEFI, func(in *Input) {
			in.Data = []Candidate{ssd("sdb", 4000787030016), ssd("sdc", 4000787030016)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			in := machine(c.l, c.fw, disk480GB)
			if c.edit != nil {
				c.edit(&in)
			}
			s, err := c.l.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			check(t, s)
			var b bytes.Buffer
			if err := s.Write(&b); err != nil {
				t.Fatal(err)
			}
			for _, line := range strings.Split(b.String(), "\n") {
				if len([]rune(line)) > 80 {
					t.Errorf("a line has more than 80 columns: %s", line)
				}
			}
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, b.Bytes()) {
				t.Errorf("printed is\n%s\nand should be\n%s", b.Bytes(), want)
			}
		})
	}
}

// check holds a scheme against what every scheme has to be.
func check(t *testing.T, s *Scheme) {
	t.Helper()
	for _, d := range slices.Concat(s.Disks, s.DataFirstBoot) {
		numbers := map[int]bool{}
		for i, p := range d.Parts {
			if p.Kept == nil && (p.Start%mib != 0 || p.Size%mib != 0 || p.Start < mib || p.Start+p.Size > d.Candidate.Size-mib) {
				t.Errorf("%s: partition %d from %d with %d bytes is not aligned or not on the disk", d.Name, p.Number, p.Start, p.Size)
			}
			if p.Size <= 0 || p.Number < 1 || numbers[p.Number] {
				t.Errorf("%s: partition %d has %d bytes, or its number is there twice", d.Name, p.Number, p.Size)
			}
			if least := leastSize(p.Content.FS, d.Sector); p.Kept == nil && p.Content.FS != "" && p.Size < least {
				t.Errorf("%s: partition %d is too small for %s", d.Name, p.Number, p.Content.FS)
			}
			numbers[p.Number] = true
			for _, o := range d.Parts[:i] {
				if p.Start < o.Start+o.Size && o.Start < p.Start+p.Size {
					t.Errorf("%s: partitions %d and %d overlap", d.Name, o.Number, p.Number)
				}
			}
			if d.Table == MBR && (len(d.Parts) > 4 || p.Start+p.Size > int64(d.Sector)<<32 || p.Role == RoleSeal || len(p.Type) != 2) {
				t.Errorf("%s: partition %d cannot be on an MBR", d.Name, p.Number)
			}
			if d.Table == GPT && len(p.Type) != 36 {
				t.Errorf("%s: partition %d has the type %q", d.Name, p.Number, p.Type)
			}
		}
		seals := 0
		for _, p := range d.Parts {
			if p.Role == RoleSeal {
				seals++
			}
		}
		if want := d.Boot && d.Table == GPT; (seals == 1) != want || seals > 1 {
			t.Errorf("%s has %d seals", d.Name, seals)
		}
	}
	for _, g := range s.Groups {
		used, spare := int64(0), int64(0)
		for _, v := range g.Volumes {
			if v.Size <= 0 || v.Size%g.Extent != 0 {
				t.Errorf("volume %s has %d bytes", v.Name, v.Size)
			}
			if v.Thin == "" {
				used += v.Size + v.Metadata
			}
			spare = max(spare, v.Metadata)
		}
		if used+spare > g.Size {
			t.Errorf("the volumes of %s have %d bytes and the group %d", g.Name, used+spare, g.Size)
		}
	}
	for _, f := range s.Filesystems() {
		if len(s.Holder(f.Device)) == 0 {
			t.Errorf("%s lies on no disk", f.Device)
		}
	}
	if s.On("/") == nil || s.Boot() == nil {
		t.Error("there is no root")
	}
	if !slices.ContainsFunc(s.Disks, func(d SchemeDisk) bool { return d.Boot }) {
		t.Error("no disk boots")
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Scheme
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&back); err != nil || !equal(s, &back) {
		t.Errorf("written as JSON and read back (%v), the scheme is another:\n%s", err, data)
	}
}

func TestWhatDisksCannotHoldIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		l     Layout
		fw    Firmware
		edit  func(*Input)
		small bool
		want  string
	}{
		"a small disk":          {Layout{}, UEFI, func(in *Input) { in.Disks[0].Size = 3 * gib }, true, "/dev/sda is too small for disk1: it has 3 GiB, and its partitions need 3.5 GiB"},
		"an empty disk":         {Layout{}, UEFI, func(in *Input) { in.Disks[0].Size = 0 }, true, "is too small"},
		"a small volume group":  {Layout{Preset: Server}, BIOS, func(in *Input) { in.Disks[0].Size = 5 * gib }, true, "volume group system has 4 GiB on /dev/sda (5 GiB), and its volumes need"},
		"a small data disk":     {Layout{Data: &Data{}}, UEFI, func(in *Input) { in.Data = []Candidate{ssd("sdb", 100*mib)} }, true, "/dev/sdb is too small for a data disk"},
		"a small fixed root":    {edited(good, func(l *Layout) { root(l).Size = "1GiB" }), UEFI, nil, false, `partition "root" of disk1 has 1GiB and needs at least 2 GiB, what the image's files need; change its size`},
		"a small max of root":   {edited(good, func(l *Layout) { root(l).Max = "1GiB" }), UEFI, nil, false, "has at most 1GiB and needs at least 2 GiB"},
		"a small ESP on 4Kn":    {Layout{ESPSize: "128MiB"}, UEFI, func(in *Input) { in.Disks[0].Sector = 4096 }, false, `partition "esp" of disk1 has 128MiB and needs at least 264 MiB`},
		"a small root volume":   {edited(goodLVM, func(l *Layout) { volume(l, 0).Size = "1GiB" }), UEFI, nil, false, "volume root of system has 1GiB and needs at least 2 GiB"},
		"a small thin volume":   {edited(goodLVM, func(l *Layout) { volume(l, 2).Size = "1MiB" }), UEFI, nil, false, "volume thin of system has 1MiB and needs at least 300 MiB"},
		"an MBR above 2 TiB":    {Layout{Table: MBR}, BIOS, func(in *Input) { in.Disks[0].Size = 3 << 40 }, false, "/dev/sda has 3 TiB, and an MBR reaches only 2 TiB; take table: gpt"},
		"BIOS and 4Kn":          {Layout{}, BIOS, func(in *Input) { in.Disks[0].Sector = 4096 }, false, "a BIOS starts only disks with sectors of 512"},
		"sectors of 520 bytes":  {Layout{}, UEFI, func(in *Input) { in.Disks[0].Sector = 520 }, false, "has sectors of 520 bytes"},
		"one disk for two":      {Layout{Preset: Mirror}, UEFI, func(in *Input) { in.Disks = in.Disks[:1] }, false, "the layout has 2 disks and 1 were chosen"},
		"one disk twice":        {Layout{Preset: Mirror}, UEFI, func(in *Input) { in.Disks[1] = in.Disks[0] }, false, "/dev/sda was chosen twice"},
		"no firmware":           {Layout{}, "", nil, false, "the machine's firmware is"},
		"BIOS on aarch64":       {Layout{Firmware: Both}, UEFI, func(in *Input) { in.Arch = "aarch64" }, false, "machines with aarch64 have no BIOS"},
		"no loader":             {Layout{}, BIOS, func(in *Input) { in.Extlinux, in.GRUB = false, false }, false, "neither extlinux nor GRUB"},
		"no extlinux":           {Layout{BIOSLoader: Extlinux}, BIOS, func(in *Input) { in.Extlinux = false }, false, "bios_loader: extlinux, and the image has none"},
		"no GRUB":               {Layout{BIOSLoader: GRUB}, BIOS, func(in *Input) { in.GRUB = false }, false, "bios_loader: grub, and the image has no GRUB for BIOS"},
		"only extlinux for LVM": {edited(good, func(l *Layout) { lvmBoot(l) }), BIOS, func(in *Input) { in.GRUB = false }, false, "extlinux for BIOS, which cannot read /: it is on LVM"},
		"GRUB without biosboot": {edited(good, func(l *Layout) { l.Disks[0].Partitions[0] = swap("1GiB") }), BIOS, func(in *Input) { in.Extlinux = false }, false, "GRUB is to start the machine by BIOS: disks[0]: has no partition with role: biosboot"},
		"mistakes":              {Layout{Preset: "x"}, BIOS, nil, false, "lay out disks: layout: preset: is"},
	} {
		t.Run(name, func(t *testing.T) {
			in := machine(c.l, c.fw, disk480GB)
			if c.edit != nil {
				c.edit(&in)
			}
			s, err := c.l.Resolve(in)
			if err == nil {
				t.Fatalf("it is %+v", s)
			}
			if errors.Is(err, ErrTooSmall) != c.small || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error (too small: %t) is\n  %v\nand should have\n  %s", errors.Is(err, ErrTooSmall), err, c.want)
			}
		})
	}
}

func TestFirmwareDecides(t *testing.T) {
	for name, c := range map[string]struct {
		l      Layout
		fw     Firmware
		edit   func(*Input)
		fwWant Firmware
		loader Loader
		roles  string
	}{
		"BIOS with extlinux":             {Layout{}, BIOS, nil, BIOS, Extlinux, "seal"},
		"BIOS with GRUB":                 {Layout{}, BIOS, func(in *Input) { in.Extlinux = false }, BIOS, GRUB, "seal biosboot"},
		"UEFI":                           {Layout{}, UEFI, nil, UEFI, "", "seal esp"},
		"both, on a machine with UEFI":   {Layout{Firmware: Both}, UEFI, nil, Both, Extlinux, "seal esp"},
		"both with GRUB":                 {Layout{Firmware: Both, BIOSLoader: GRUB}, BIOS, nil, Both, GRUB, "seal biosboot esp"},
		"UEFI, whatever the machine has": {Layout{Firmware: UEFI}, BIOS, nil, UEFI, "", "seal esp"},
		"a BIOS loader on UEFI":          {Layout{BIOSLoader: GRUB}, UEFI, func(in *Input) { in.GRUB = false }, UEFI, "", "seal esp"},
		"MBR":                            {Layout{Table: MBR, BIOSLoader: GRUB}, BIOS, nil, BIOS, GRUB, ""},
		"MBR by UEFI":                    {Layout{Table: MBR}, UEFI, nil, UEFI, "", "esp"},
	} {
		t.Run(name, func(t *testing.T) {
			in := machine(c.l, c.fw, disk480GB)
			if c.edit != nil {
				c.edit(&in)
			}
			s, err := c.l.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			check(t, s)
			var roles []string
			legacy := 0
			for _, p := range s.Disks[0].Parts {
				if p.Role != RoleNone {
					roles = append(roles, string(p.Role))
				}
				if p.LegacyBoot {
					legacy++
				}
			}
			if s.Firmware != c.fwWant || s.BIOSLoader != c.loader || strings.Join(roles, " ") != c.roles {
				t.Errorf("it is %s with %q and %v", s.Firmware, s.BIOSLoader, roles)
			}
			if want := s.Firmware.HasBIOS(); (legacy == 1) != want {
				t.Errorf("%d partitions are marked for boot code", legacy)
			}
		})
	}
}

func TestFilesystemsInTheOrderOfMounting(t *testing.T) {
	l := Layout{Preset: Server, SwapSize: "2GiB", Data: &Data{}}
	in := machine(l, UEFI, disk480GB)
	in.Data = []Candidate{ssd("sdb", disk480GB)}
	s, err := l.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range s.Filesystems() {
		got = append(got, f.FS+f.Mount+" "+string(f.Device))
	}
	want := []string{
		"xfs/ lv/system/root", "ext4/boot part/disk1/3", "vfat/boot/efi part/disk1/2", "xfs/data1 part/data1/1", "xfs/home lv/system/home", "xfs/opt lv/system/opt", "xfs/tmp lv/system/tmp",
		"xfs/var lv/system/var", "xfs/var/crash lv/system/var_crash", "xfs/var/log lv/system/var_log", "xfs/var/log/audit lv/system/var_log_audit", "xfs/var/tmp lv/system/var_tmp",
		"swap lv/system/swap",
	}
	if !slices.Equal(got, want) {
		t.Errorf("they are\n%s", strings.Join(got, "\n"))
	}
	if f := s.On("/data1"); f == nil || !f.Data || !slices.Equal(s.Holder(f.Device), []string{"sdb"}) {
		t.Errorf("/data1 is %+v", f)
	}
	if s.On("/srv") != nil || s.On("") != nil || s.Boot().Mount != "/boot" {
		t.Error("there is a file system where none is")
	}
	if got := s.Holder("lv/system/nothing"); got != nil {
		t.Errorf("what is not there lies on %v", got)
	}
}

func TestHoldersOfAMirror(t *testing.T) {
	l := goodLVM()
	s, err := l.Resolve(machine(l, UEFI, disk480GB))
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range []string{"/", "/boot", "/boot/efi", "/srv"} {
		if got := s.Holder(s.On(mount).Device); !slices.Equal(got, []string{"sda", "sdb"}) {
			t.Errorf("%s lies on %v", mount, got)
		}
	}
	if s.On("/boot/efi").Role != RoleESP || s.On("/boot").Role != RoleNone {
		t.Error("the roles of the arrays are wrong")
	}
}

func TestNeeds(t *testing.T) {
	for name, c := range map[string]struct {
		l                        Layout
		fw                       Firmware
		tools, modules, packages string
	}{
		"simple on UEFI":    {Layout{}, UEFI, "mkfs.xfs mkfs.ext4 mkfs.vfat", "xfs ext4 vfat nls_cp437 nls_iso8859-1 nls_ascii nls_utf8", "xfsprogs e2fsprogs dosfstools"},
		"simple on BIOS":    {Layout{}, BIOS, "mkfs.xfs mkfs.ext4 extlinux grub2-mkimage", "xfs ext4", "xfsprogs e2fsprogs"},
		"lvm with extlinux": {Layout{Preset: LVM, BIOSLoader: Extlinux, SwapSize: "1GiB", Filesystem: "ext4"}, BIOS, "mkfs.ext4 mkswap lvm extlinux", "ext4 dm-mod", "e2fsprogs util-linux lvm2"},
		"thin on a mirror": {goodLVM(), Auto, "mkfs.xfs mkfs.ext4 mkfs.vfat lvm mdadm extlinux grub2-mkimage",
			"xfs ext4 vfat nls_cp437 nls_iso8859-1 nls_ascii nls_utf8 dm-mod dm-thin-pool raid1", "xfsprogs e2fsprogs dosfstools lvm2 device-mapper-persistent-data mdadm"},
		"/boot on RAID 5": {raid5Boot(), BIOS, "mkfs.xfs mkfs.ext4 mdadm grub2-mkimage", "xfs ext4 raid456", "xfsprogs e2fsprogs mdadm"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, x := range []struct {
				got  []string
				want string
			}{{c.l.Tools(c.fw), c.tools}, {c.l.Modules(c.fw), c.modules}, {c.l.Packages(c.fw), c.packages}} {
				if got := strings.Join(x.got, " "); got != x.want {
					t.Errorf("needed are\n  %s\nand should be\n  %s", got, x.want)
				}
			}
		})
	}
}
