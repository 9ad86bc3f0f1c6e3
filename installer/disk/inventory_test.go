package disk

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sysfs makes a tree like the kernel's: attribute files by path, and a link in block/ for each disk.
func sysfs(t *testing.T, disks map[string]map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	if err := os.MkdirAll(filepath.Join(sys, "block"), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, attrs := range disks {
		isDisk := strings.Contains(dir, "block/") || regexp.MustCompile(`nvme\d+(c\d+)?n\d+$`).MatchString(dir)
		if _, ok := attrs["dev"]; !ok && isDisk {
			attrs["dev"] = "240:0\n"
		}
		for name, data := range attrs {
			p := filepath.Join(sys, dir, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if isDisk {
			if err := os.Symlink(filepath.Join("..", dir), filepath.Join(sys, "block", filepath.Base(dir))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return sys
}

func mountinfo(t *testing.T, mounts string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "self/mountinfo")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(mounts), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// link makes a link below sys to another directory below it.
func link(t *testing.T, sys, name, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(sys, to), filepath.Join(sys, name)); err != nil {
		t.Fatal(err)
	}
}

// inventory is what Inventory makes of a tree, by name.
func inventory(t *testing.T, dirs map[string]map[string]string) map[string]Disk {
	t.Helper()
	disks, err := Inventory(sysfs(t, dirs), mountinfo(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Disk{}
	for _, d := range disks {
		out[d.Name] = d
	}
	return out
}

const pci = "devices/pci0000:00/"

func TestDisksAreReadFromSysfs(t *testing.T) {
	scsi := func(serial string) map[string]string {
		return map[string]string{"size": "937703088\n", "ro": "0\n", "removable": "0\n", "queue/logical_block_size": "512\n", "queue/physical_block_size": "4096\n",
			"queue/rotational": "0\n", "device/model": "Samsung SSD 883 \n", "device/vendor": "ATA     \n", "device/wwid": "naa.5002538e40a1b2c3\n",
			"device/vpd_pg80": "\x00\x80\x00\x08" + serial, "dev": "8:0\n", "sda1/partition": "1\n", "sda1/dev": "8:1\n"}
	}
	sys := sysfs(t, map[string]map[string]string{
		pci + "0000:00:17.0/ata1/host3/target3:0:0/3:0:0:0/block/sda": scsi("    S3Z1"),
		pci + "0000:00:17.0/ata1/ata_port/ata1":                       {"port_no": "1\n"},
		pci + "0000:00:01.0/0000:65:00.0/nvme/nvme0/nvme0n1": {"size": "4294967296\n", "queue/logical_block_size": "4096\n", "nsid": "1\n", "wwid": "eui.01\n",
			"device/model": "INTEL SSD\n", "device/serial": "PHL1   \n", "nvme0n1p2/holders/dm-3/dev": "253:3\n", "nvme0n1p2/dev": "259:2\n", "nvme0n1p2/partition": "2\n"},
		pci + "0000:00:01.0/0000:65:00.0/nvme/nvme0/nvme0c0n1": {"size": "4294967296\n", "hidden": "1\n"},
		pci + "0000:00:04.0/virtio1/block/vda":                 {"size": "41943040\n", "serial": "DISK\x1b[2J0\n", "removable": "0\n"},
		pci + "0000:00:05.0/virtio2/block/vdb":                 {"size": "0\n"},
		pci + "0000:00:14.0/usb1/1-2/1-2:1.0/host7/target7:0:0/7:0:0:0/block/sdb": {"size": "30310400\n", "removable": "1\n", "device/model": "Virtual HDisk0\n",
			"device/vendor": "AMI\n", "ro": "1\n"},
		"devices/virtual/block/loop3":                                 {"size": "100\n"},
		"devices/virtual/block/zram0":                                 {"size": "100\n"},
		"devices/virtual/block/dm-3":                                  {"size": "100\n", "dm/name": "ceph--osd\n"},
		pci + "0000:00:17.0/ata2/host4/target4:0:0/4:0:0:0/block/sr0": {"size": "2097151\n"},
	})
	mounts := mountinfo(t, "24 1 8:1 / /srv rw - xfs /dev/sda1 rw\n25 1 0:4 / /proc rw - proc proc rw\n")
	got, err := Inventory(sys, mounts)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range got {
		names = append(names, d.Name)
	}
	if want := []string{"loop3", "dm-3", "vda", "sdb", "sda", "nvme0n1"}; !slices.Equal(names, want) && !slices.Equal(names, []string{"dm-3", "loop3", "vda", "sdb", "sda", "nvme0n1"}) {
		t.Fatalf("found %v, want %v", names, want)
	}
	by := map[string]Disk{}
	for _, d := range got {
		by[d.Name] = d
	}
	for name, want := range map[string]string{
		"sda":     "/dev/sda (ATA Samsung SSD 883, serial S3Z1, 447.1 GiB, sata)",
		"nvme0n1": "/dev/nvme0n1 (INTEL SSD, serial PHL1, 2 TiB, nvme)",
		"vda":     "/dev/vda (serial DISK [2J0, 20 GiB, virtio)",
		"sdb":     "/dev/sdb (AMI Virtual HDisk0, no serial, 14.5 GiB, usb)",
		"loop3":   "/dev/loop3 (no serial, 50 KiB, virtual)",
	} {
		if got := by[name].Describe(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if d := by["sda"]; d.PhysicalSector != 4096 || d.Sector != 512 || !slices.Equal(d.ByPath, []string{"pci-0000:00:17.0-ata-1", "pci-0000:00:17.0-ata-1.0"}) ||
		!slices.Contains(d.ByID, "ata-Samsung_SSD_883_S3Z1") || !slices.Contains(d.ByID, "wwn-0x5002538e40a1b2c3") || !slices.Equal(d.Users, []string{"partition sda1 is mounted at /srv"}) || d.HCTL != "3:0:0:0" {
		t.Errorf("sda is %+v", d)
	}
	if d := by["nvme0n1"]; d.Sector != 4096 || !slices.Equal(d.ByPath, []string{"pci-0000:65:00.0-nvme-1"}) || !slices.Equal(d.Holders, []string{"device-mapper device ceph--osd (dm-3)"}) || d.unusable() != "" ||
		!slices.Contains(d.ByID, "nvme-INTEL_SSD_PHL1") || !slices.Contains(d.ByID, "nvme-eui.01") {
		t.Errorf("nvme0n1 is %+v", d)
	}
	if d := by["vda"]; !slices.Equal(d.ByPath, []string{"pci-0000:00:04.0", "virtio-pci-0000:00:04.0"}) || d.Sector != 512 {
		t.Errorf("vda is %+v", d)
	}
	if d := by["sdb"]; !slices.Equal(d.ByPath, []string{"pci-0000:00:14.0-usb-0:2:1.0-scsi-0:0:0:0"}) || d.unfit() != "it is a virtual medium of the management controller" || !d.ReadOnly {
		t.Errorf("sdb is %+v", d)
	}
}
