package builder

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/image/layout"
)

func TestDisksAreReadAsPeopleDescribeThem(t *testing.T) {
	for name, c := range map[string]struct {
		texts []string
		want  string // id path size sector/physical transport serial, one disk a line
		says  []string
	}{
		"only a size":           {[]string{"size=480G"}, "sda /dev/sda 480000000000 512/512 sata", nil},
		"sectors of 4096 bytes": {[]string{"size=1TiB,sector=4096,serial=X"}, "sda /dev/sda 1099511627776 4096/4096 sata X", nil},
		"512e":                  {[]string{"size=1TiB,physical=4096"}, "sda /dev/sda 1099511627776 512/4096 sata", nil},
		"disks of all kinds, and several of one": {
			[]string{"size=1GB,transport=nvme,count=2", "size=1GB", "size=1GB,transport=virtio", "size=1GB,transport=sas", "size=1GB,transport=mmc,path=/dev/x"},
			"nvme0n1 /dev/nvme0n1 1000000000 512/512 nvme\nnvme1n1 /dev/nvme1n1 1000000000 512/512 nvme\nsda /dev/sda 1000000000 512/512 sata\n" +
				"vda /dev/vda 1000000000 512/512 virtio\nsdb /dev/sdb 1000000000 512/512 sas\nmmcblk0 /dev/x 1000000000 512/512 mmc", nil,
		},
		"a size that is no whole number of sectors": {[]string{"size=1000000001"}, "sda /dev/sda 1000000000 512/512 sata", nil},
		"everything wrong is said at once": {
			[]string{"sise=1G", "model=x", "size=1G,size=2G", "size=", "size=much", "size=1G,sector=520", "size=1G,count=0", "size=1G,rotational=maybe", "size=1G,serial=a,count=2", "size=1G,sector=4096,physical=512"}, "",
			[]string{`no key "sise"`, "no size", "size is there twice", "size has no value", `"much"`, `"520" is neither`, `"0" is not a number`, `"maybe"`, "count stands for", "smaller than the logical"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			disks, err := ParseDisks(c.texts)
			if (err != nil) != (len(c.says) > 0) {
				t.Fatal(err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("it does not say %q: %v", s, err)
				}
			}
			var got []string
			for _, d := range disks {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %d %d/%d %s %s", d.ID, d.Path, d.Size, d.Sector, d.PhysicalSector, d.Transport, d.Serial)))
			}
			if err == nil && strings.Join(got, "\n") != c.want {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), c.want)
			}
		})
	}
	disks, err := ParseDisks([]string{"size=1G,count=800"})
	if err != nil || disks[25].ID != "sdz" || disks[26].ID != "sdaa" || disks[701].ID != "sdzz" || disks[702].ID != "sdaaa" {
		t.Errorf("the names after sdz are %s %s %s, %v", disks[26].ID, disks[701].ID, disks[702].ID, err)
	}
}

func TestALayoutIsShownWithoutAMachine(t *testing.T) {
	release := t.TempDir()
	rootfs, err := image.Describe(strings.NewReader("x"), true)
	if err != nil {
		t.Fatal(err)
	}
	m := image.Manifest{
		Schema: image.Schema, Name: "x", Version: "1", Arch: "x86_64", KernelRelease: "5", LockDigest: strings.Repeat("0", 64), SELinux: "disabled",
		NetworkFormat: image.NMKeyfile, UnpackedBytes: 30 << 30, Files: map[string]image.File{image.RootfsFile: rootfs}, Tools: []string{"mkfs.xfs", "mkfs.ext4", "mkfs.vfat"},
		BootLoader: image.BootLoader{GRUBPC: &image.GRUBPC{}},
	}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(release, image.ManifestFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o     PreviewOptions
		disks string
		want  []string
		not   []string
		err   string
	}{
		"the profile's, for UEFI where nobody says": {PreviewOptions{}, "size=100G", []string{`xfs "root" at /`, "UEFI with GRUB", "--firmware bios", "--release DIR"}, []string{"cannot make"}, ""},
		"for BIOS": {PreviewOptions{Firmware: layout.BIOS}, "size=100G", []string{"BIOS with extlinux"}, []string{"--firmware"}, ""},
		"another layout, for which the initramfs has no tools": {
			PreviewOptions{Layout: &layout.Layout{Preset: layout.Mirror}}, "size=100G,count=2", []string{"each alone", "no mdadm", "no lvm", "initramfs.tools"}, nil, "",
		},
		"a release that is too large":      {PreviewOptions{Release: release}, "size=30GiB", nil, nil, "too small"},
		"a release that fits":              {PreviewOptions{Release: release, Firmware: layout.BIOS}, "size=40GiB", []string{"BIOS with GRUB", "no grub2-mkimage"}, []string{"--release", "no mkfs.xfs"}, ""},
		"a release that is not there":      {PreviewOptions{Release: release + "x"}, "size=40GiB", nil, nil, "read the release"},
		"a disk on USB, that nobody named": {PreviewOptions{}, "size=100G,transport=usb", nil, nil, "it is on USB"},
		"a disk on USB, that is named": {
			PreviewOptions{Layout: &layout.Layout{Match: layout.Hints{Serial: "U1"}}}, "size=100G,transport=usb,serial=U1", []string{"serial U1"}, nil, "",
		},
		"disks between which nobody chose": {PreviewOptions{}, "size=100G,count=2", nil, nil, "2 fit"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Profile = profileWith(9, "x86_64", layout.Layout{})
			if c.o.Disks, err = ParseDisks([]string{c.disks}); err != nil {
				t.Fatal(err)
			}
			p, err := NewPreview(c.o)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want something that says %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range c.want {
				if !strings.Contains(p.String(), s) {
					t.Errorf("it does not say %q:\n%s", s, p)
				}
			}
			for _, s := range c.not {
				if strings.Contains(p.String(), s) {
					t.Errorf("it says %q:\n%s", s, p)
				}
			}
		})
	}
}
