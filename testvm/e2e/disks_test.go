//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/testvm"
)

// releaseKey is the key that the profile demo is signed with on this machine: its initramfs trusts it.
const releaseKey = "/etc/imgbuild/release.key"

// withLayout serves the release with another layout in its manifest, signed again.
func withLayout(t *testing.T, l layout.Layout) func(*testvm.Network) {
	t.Helper()
	data, err := os.ReadFile(releaseKey)
	if err != nil {
		t.Skipf("the release's key is not here to sign another layout with: %v", err)
	}
	key, err := image.ParsePrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	m := *shared.manifest
	m.Layout = l
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return func(n *testvm.Network) {
		n.Web().Put(image.ManifestFile, raw)
		n.Web().Put(image.SignatureFile, image.Sign(raw, key))
	}
}

// candidates are the machine's disks as its kernel will name them.
func candidates(t *testing.T, disks []testvm.Disk) []layout.Candidate {
	t.Helper()
	var all []layout.Candidate
	for i, d := range disks {
		fi, err := os.Stat(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		c := layout.Candidate{ID: guestName(disks, i), Serial: d.Serial, Size: fi.Size(), Sector: sectorOf(d), PhysicalSector: sectorOf(d), Transport: string(d.Bus)}
		c.Path = "/dev/" + c.ID
		all = append(all, c)
	}
	return all
}

func sectorOf(d testvm.Disk) int {
	if d.BlockSize == 0 {
		return 512
	}
	return d.BlockSize
}

// guestName is what Linux calls the disk: each bus counts for itself.
func guestName(disks []testvm.Disk, i int) string {
	n := 0
	for _, d := range disks[:i] {
		if d.Bus == disks[i].Bus {
			n++
		}
	}
	switch disks[i].Bus {
	case testvm.NVMe:
		return fmt.Sprintf("nvme%dn1", n)
	case testvm.SATA, testvm.SCSI:
		return "sd" + string(rune('a'+n))
	}
	return "vd" + string(rune('a'+n))
}

// schemeOf is what the layout has to become on the machine.
func schemeOf(t *testing.T, s testvm.Scenario, l layout.Layout) *layout.Scheme {
	t.Helper()
	fw := layout.UEFI
	if s.Firmware == testvm.BIOS || s.Firmware == "" {
		fw = layout.BIOS
	}
	disks, data, err := l.Choose(candidates(t, s.Disks), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := shared.manifest
	scheme, err := l.Resolve(layout.Input{Disks: disks, Data: data, Firmware: fw, Arch: m.Arch, RootMin: m.RootMin(),
		Extlinux: m.BootLoader.Extlinux != nil, GRUB: m.BootLoader.GRUBPC != nil})
	if err != nil {
		t.Fatal(err)
	}
	return scheme
}

// sfdiskTable is what sfdisk -J prints.
type sfdiskTable struct {
	Table struct {
		Label      string `json:"label"`
		SectorSize int64  `json:"sectorsize"`
		Partitions []struct {
			Start int64  `json:"start"`
			Size  int64  `json:"size"`
			Type  string `json:"type"`
			Name  string `json:"name"`
		} `json:"partitions"`
	} `json:"partitiontable"`
}

// mustHaveTables compares the partition tables on the powered-off disks with the scheme.
func mustHaveTables(t *testing.T, s testvm.Scenario, scheme *layout.Scheme) {
	t.Helper()
	for _, want := range scheme.Disks {
		if want.Table == "" {
			continue
		}
		d := diskOf(t, s, want.ID)
		path := d.Path
		if d.BlockSize != 0 {
			path = attach(t, place{d, 0, want.Size}) // a file says nothing of its sectors
		}
		var got sfdiskTable
		if err := json.Unmarshal(tool(t, "sfdisk", "-J", path), &got); err != nil {
			t.Fatal(err)
		}
		sector := int64(sectorOf(d))
		if len(got.Table.Partitions) != len(want.Parts) {
			t.Errorf("%s has %d partitions and not %d", want.Path, len(got.Table.Partitions), len(want.Parts))
			continue
		}
		for i, p := range got.Table.Partitions {
			w := want.Parts[i]
			if p.Start*sector != w.Start || p.Size*sector != w.Size || !strings.EqualFold(p.Type, w.Type) || want.Table == layout.GPT && p.Name != w.Name {
				t.Errorf("partition %d of %s is %+v and not %+v", w.Number, want.Path, p, w)
			}
		}
		if want.Table == layout.GPT {
			if out := string(tool(t, "sgdisk", "--verify", path)); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk says of %s: %s", want.Path, out)
			}
		}
	}
}

func diskOf(t *testing.T, s testvm.Scenario, id string) testvm.Disk {
	t.Helper()
	for i := range s.Disks {
		if guestName(s.Disks, i) == id {
			return s.Disks[i]
		}
	}
	t.Fatalf("the machine has no disk %s", id)
	return testvm.Disk{}
}

// place is where the bytes of a device lie: on one disk, in one piece.
type place struct {
	disk        testvm.Disk
	start, size int64
}

// placeOf follows a device down to a disk. Striped arrays, thin volumes and volumes of several pieces have no one place.
func placeOf(t *testing.T, s testvm.Scenario, scheme *layout.Scheme, st testvm.Storage, dev layout.Device, size int64) (place, bool) {
	t.Helper()
	kind, rest, _ := strings.Cut(string(dev), "/")
	switch kind {
	case "part":
		name, number, _ := strings.Cut(rest, "/")
		for _, d := range scheme.Disks {
			for _, p := range d.Parts {
				if d.Name == name && fmt.Sprint(p.Number) == number {
					return place{diskOf(t, s, d.ID), p.Start, p.Size}, true
				}
			}
		}
	case "disk":
		for _, d := range scheme.Disks {
			if d.Name == rest {
				return place{diskOf(t, s, d.ID), 0, d.Size}, true
			}
		}
	case "md":
		for _, a := range scheme.Arrays {
			if a.Name != rest || a.Level != 1 {
				continue
			}
			p, ok := placeOf(t, s, scheme, st, a.Members[0], 0)
			if !ok {
				return p, false
			}
			p.start, p.size = p.start+dataOffset(t, p), size
			return p, true
		}
	case "lv":
		group, volume, _ := strings.Cut(rest, "/")
		for _, v := range st.Volumes {
			if v.Group != group || v.Volume != volume || v.Segments != 1 || v.Device == "" {
				continue
			}
			pv, ok := deviceOf(s, scheme, st, v.Device)
			if !ok {
				t.Fatalf("nothing in the layout is %s", v.Device)
			}
			p, ok := placeOf(t, s, scheme, st, pv, 0)
			p.start, p.size = p.start+v.PEStart+v.First*v.Extent, v.Size
			return p, ok
		}
	}
	return place{}, false
}

// dataOffset is where an array's data begin on a member.
func dataOffset(t *testing.T, p place) int64 {
	t.Helper()
	var sectors int64
	loop := attach(t, p)
	for line := range strings.Lines(string(tool(t, "mdadm", "--examine", loop))) {
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "Data Offset : %d sectors", &sectors); err == nil {
			return sectors * 512
		}
	}
	return 0 // metadata 1.0 lies at the end
}

// deviceOf turns a name that the machine uses into the layout's.
func deviceOf(s testvm.Scenario, scheme *layout.Scheme, st testvm.Storage, path string) (layout.Device, bool) {
	for _, a := range st.Arrays {
		if path == "/dev/"+a.KName || path == "/dev/md/"+a.Name {
			return layout.Device("md/" + a.Name), true
		}
	}
	for _, d := range scheme.Disks {
		if path == "/dev/"+d.ID {
			return layout.Device("disk/" + d.Name), true
		}
		for _, p := range d.Parts {
			sep := ""
			if strings.HasPrefix(d.ID, "nvme") {
				sep = "p"
			}
			if path == fmt.Sprintf("/dev/%s%s%d", d.ID, sep, p.Number) {
				return layout.Device(fmt.Sprintf("part/%s/%d", d.Name, p.Number)), true
			}
		}
	}
	return "", false
}

// attach makes a read-only loop device of a place.
func attach(t *testing.T, p place) string {
	t.Helper()
	args := []string{"--find", "--show", "--read-only", "--offset", fmt.Sprint(p.start), "--sizelimit", fmt.Sprint(p.size)}
	if p.disk.BlockSize != 0 {
		args = append(args, "--sector-size", fmt.Sprint(p.disk.BlockSize))
	}
	loop := strings.TrimSpace(string(tool(t, "losetup", append(args, p.disk.Path)...)))
	t.Cleanup(func() { tool(t, "losetup", "--detach", loop) })
	return loop
}

// mustBeClean checks every file system that lies in one piece with its own checker, the machine being off.
func mustBeClean(t *testing.T, s testvm.Scenario, scheme *layout.Scheme, st testvm.Storage) {
	t.Helper()
	checked := 0
	for _, f := range scheme.Filesystems() {
		check, ok := map[string][]string{"ext4": {"e2fsck", "-fn"}, "xfs": {"xfs_repair", "-n"}, "vfat": {"fsck.vfat", "-n"}}[f.FS]
		p, found := placeOf(t, s, scheme, st, f.Device, f.Size)
		if !ok || !found {
			continue
		}
		checked++
		tool(t, check[0], append(check[1:], attach(t, p))...)
	}
	if checked == 0 {
		t.Error("no file system could be checked")
	}
	t.Logf("%d of %d file systems checked", checked, len(scheme.Filesystems()))
}

// layoutCase is one machine with one layout.
type layoutCase struct {
	name     string
	firmware testvm.Firmware
	layout   layout.Layout
	disks    []testvm.Disk // one of 8 GiB where there is none
	// without boots again with one disk taken away, each in turn.
	without bool
	short   bool
}

func layoutCases() []layoutCase {
	two := []testvm.Disk{{Serial: "MIRRORA"}, {Serial: "MIRRORB"}}
	preset := func(p layout.Preset, loader layout.Loader) layout.Layout {
		return layout.Layout{Preset: p, BIOSLoader: loader, SwapSize: "256MiB"}
	}
	return []layoutCase{
		{name: "bios-lvm-extlinux", firmware: testvm.BIOS, layout: preset(layout.LVM, layout.Extlinux)},
		{name: "bios-server-extlinux", firmware: testvm.BIOS, layout: preset(layout.Server, layout.Extlinux)},
		{name: "bios-mirror-extlinux", firmware: testvm.BIOS, layout: preset(layout.Mirror, layout.Extlinux), disks: two, without: true},
		{name: "bios-simple-grub", firmware: testvm.BIOS, layout: preset(layout.Simple, layout.GRUB)},
		{name: "bios-lvm-grub", firmware: testvm.BIOS, layout: preset(layout.LVM, layout.GRUB)},
		{name: "bios-server-grub", firmware: testvm.BIOS, layout: preset(layout.Server, layout.GRUB), short: true},
		{name: "bios-mirror-grub", firmware: testvm.BIOS, layout: preset(layout.Mirror, layout.GRUB), disks: two, without: true},
		{name: "bios-mbr-extlinux", firmware: testvm.BIOS, layout: mbr(layout.Extlinux)},
		{name: "bios-mbr-grub", firmware: testvm.BIOS, layout: mbr(layout.GRUB)},
		{name: "uefi-lvm", firmware: testvm.UEFI, layout: preset(layout.LVM, "")},
		{name: "uefi-server", firmware: testvm.UEFI, layout: preset(layout.Server, "")},
		{name: "uefi-mirror", firmware: testvm.UEFI, layout: preset(layout.Mirror, ""), disks: two, without: true, short: true},
		{name: "uefi-4kn", firmware: testvm.UEFI, layout: preset(layout.LVM, ""), disks: []testvm.Disk{{Serial: "4KN", Bus: testvm.NVMe, BlockSize: 4096}}},
		{name: "uefi-raid5-data", firmware: testvm.UEFI, layout: raid5(), disks: []testvm.Disk{{Serial: "SYSTEM"}, {Serial: "R1"}, {Serial: "R2"}, {Serial: "R3"}, {Serial: "D1"}, {Serial: "D2"}}},
		{name: "bios-raid10-raid6-later", firmware: testvm.BIOS, layout: striped(), disks: []testvm.Disk{{Serial: "SYSTEM"}, {Serial: "R1"}, {Serial: "R2"}, {Serial: "R3"}, {Serial: "R4"}, {Serial: "D1"}, {Serial: "D2"}}},
		{name: "both-simple-grub", firmware: testvm.BIOS, layout: layout.Layout{Firmware: layout.Both, BIOSLoader: layout.GRUB}},
		{name: "secure-simple", firmware: testvm.SecureBoot, layout: preset(layout.Simple, "")},
		{name: "secure-lvm", firmware: testvm.SecureBoot, layout: preset(layout.LVM, "")},
		{name: "secure-server", firmware: testvm.SecureBoot, layout: preset(layout.Server, "")},
		{name: "secure-mirror", firmware: testvm.SecureBoot, layout: preset(layout.Mirror, ""), disks: two, without: true},
	}
}

// mbr is an old table with everything that it can hold.
func mbr(loader layout.Loader) layout.Layout {
	return layout.Layout{Table: layout.MBR, Firmware: layout.BIOS, BIOSLoader: loader, Disks: []layout.Disk{{Partitions: []layout.Partition{
		{Extent: layout.Extent{Size: "512MiB"}, Content: layout.Content{FS: "ext4", Mount: "/boot"}},
		{Extent: layout.Extent{Size: "256MiB"}, Content: layout.Content{FS: "swap"}},
		{Extent: layout.Extent{Size: "1GiB"}, Content: layout.Content{FS: "xfs", Mount: "/srv"}},
		{Extent: layout.Extent{Size: layout.Rest}, Content: layout.Content{FS: "ext4", Mount: "/"}},
	}}}}
}

// raid5 has a system disk, an array of three whole disks with a volume group and a thin pool on it, and data disks.
func raid5() layout.Layout {
	member := func(serial string) layout.Disk {
		return layout.Disk{Name: strings.ToLower(serial), Match: layout.Hints{Serial: serial}, Array: "big"}
	}
	return layout.Layout{
		Disks: []layout.Disk{{Name: "system", Match: layout.Hints{Serial: "SYS*"}, Partitions: []layout.Partition{
			{Role: layout.RoleESP, Extent: layout.Extent{Size: "256MiB"}, Content: layout.Content{FS: "vfat", Mount: "/boot/efi"}},
			{Extent: layout.Extent{Size: "512MiB"}, Content: layout.Content{FS: "ext4", Mount: "/boot"}},
			{Extent: layout.Extent{Size: "rest"}, Content: layout.Content{FS: "xfs", Mount: "/"}},
		}}, member("R1"), member("R2"), member("R3")},
		Arrays: []layout.Array{{Name: "big", Level: 5, Content: layout.Content{Group: "store"}}},
		Groups: []layout.Group{{Name: "store", Volumes: []layout.Volume{
			{Name: "pool", Extent: layout.Extent{Size: "50%"}, Pool: true},
			{Name: "images", Extent: layout.Extent{Size: "10GiB"}, Thin: "pool", Content: layout.Content{FS: "xfs", Mount: "/var/lib/images"}},
			{Name: "plain", Extent: layout.Extent{Size: "1GiB"}, Content: layout.Content{FS: "ext4", Mount: "/srv", Options: "nodev,noexec"}},
		}}},
		Data: &layout.Data{},
	}
}

// striped has a system disk, two arrays over four disks that share them, and data disks that the installed system formats when it starts
// for the first time.
func striped() layout.Layout {
	l := layout.Layout{
		Firmware: layout.BIOS,
		Disks: []layout.Disk{{Name: "system", Match: layout.Hints{Serial: "SYS*"}, Partitions: []layout.Partition{
			{Extent: layout.Extent{Size: "512MiB"}, Content: layout.Content{FS: "ext4", Mount: "/boot"}},
			{Extent: layout.Extent{Size: "rest"}, Content: layout.Content{FS: "xfs", Mount: "/"}},
		}}},
		Arrays: []layout.Array{
			{Name: "fast", Level: 10, Content: layout.Content{FS: "xfs", Mount: "/srv"}},
			{Name: "safe", Level: 6, Content: layout.Content{FS: "ext4", Mount: "/opt"}},
		},
		Data: &layout.Data{When: "firstboot"},
	}
	for _, serial := range []string{"R1", "R2", "R3", "R4"} {
		l.Disks = append(l.Disks, layout.Disk{Name: strings.ToLower(serial), Match: layout.Hints{Serial: serial}, Partitions: []layout.Partition{
			{Extent: layout.Extent{Size: "2GiB"}, Content: layout.Content{Array: "fast"}},
			{Extent: layout.Extent{Size: "2GiB"}, Content: layout.Content{Array: "safe"}},
		}})
	}
	return l
}

func TestEveryLayoutComesOutAsDeclaredAndBootsFromItsDisks(t *testing.T) {
	for _, tt := range layoutCases() {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.short && testing.Short() {
				t.Skip("only in make e2e")
			}
			t.Parallel()
			s := layoutScenario(t, tt)
			s.Prepare = withLayout(t, tt.layout)
			scheme := schemeOf(t, s, tt.layout)
			if _, err := shared.host.Install(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			mustHaveTables(t, s, scheme)
			st := mustBoot(t, s, scheme, 0)
			mustBeClean(t, s, scheme, st)
			// Whoever waits for the second disk waits for minutes.
			if !tt.without || testing.Short() {
				return
			}
			for i := range s.Disks {
				alone := s
				alone.Name, alone.FreshVariables = fmt.Sprintf("%s-without-%d", s.Name, i+1), true
				alone.SMBIOS.Serial = "TESTVM-" + strings.ToUpper(alone.Name)
				alone.Disks = copies(t, append(append([]testvm.Disk(nil), s.Disks[:i]...), s.Disks[i+1:]...))
				mustBoot(t, alone, scheme, 1)
			}
		})
	}
}

// layoutScenario is the case's machine, with its disks made.
func layoutScenario(t *testing.T, tt layoutCase) testvm.Scenario {
	t.Helper()
	disks := append([]testvm.Disk(nil), tt.disks...)
	if disks == nil {
		disks = []testvm.Disk{{Serial: "E2EDISK"}}
	}
	for i := range disks {
		made := emptyDisk(t, disks[i].Serial, 8<<30)
		disks[i].Path = made.Path
	}
	s := scenario(t, tt.name, disks...)
	s.Firmware, s.Via = tt.firmware, testvm.BootKernel
	return s
}

// mustBoot boots the disks alone and compares what the machine says with the scheme.
func mustBoot(t *testing.T, s testvm.Scenario, scheme *layout.Scheme, missing int) testvm.Storage {
	t.Helper()
	var st testvm.Storage
	s.Ask = func(ctx context.Context, c *testvm.Console) (err error) {
		st, err = testvm.GatherStorage(ctx, c)
		return err
	}
	f, err := shared.host.BootDisk(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	// Where things are mounted is the scheme's to say.
	m := *shared.manifest
	m.Layout = layout.Layout{Disks: []layout.Disk{{Partitions: []layout.Partition{{Content: layout.Content{FS: scheme.On("/").FS, Mount: "/"}}}}}}
	mustBeAs(t, s, f, &m)
	for _, p := range st.Problems(scheme, missing) {
		t.Error(p)
	}
	return st
}

// copies are disks with the same contents: what a boot writes does not reach the originals.
func copies(t *testing.T, disks []testvm.Disk) []testvm.Disk {
	t.Helper()
	for i := range disks {
		to := filepath.Join(t.TempDir(), "copy.img")
		tool(t, "cp", "--sparse=always", disks[i].Path, to)
		disks[i].Path = to
	}
	return disks
}
