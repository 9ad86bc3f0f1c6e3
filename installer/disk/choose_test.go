package disk

import (
	"errors"
	"strings"
	"testing"

	"imgbuild/installer/disk/probe"
)

func machine() []Disk {
	return []Disk{
		{Sector: 512, Name: "sda", Path: "/dev/sda", Size: 480103981056, Model: "ATA Samsung SSD", Serial: "S3Z1", WWN: "naa.5002538e40a1b2c3", Transport: "sata",
			ByPath: []string{"pci-0000:00:17.0-ata-1", "pci-0000:00:17.0-ata-1.0"}, ByID: []string{"ata-Samsung_SSD_S3Z1", "wwn-0x5002538e40a1b2c3"}},
		{Sector: 512, Name: "nvme0n1", Path: "/dev/nvme0n1", Size: 2 << 40, Model: "INTEL", Serial: "PHL 1", Transport: "nvme", ByPath: []string{"pci-0000:65:00.0-nvme-1"}},
		{Sector: 512, Name: "sdb", Path: "/dev/sdb", Size: 16 << 30, Model: "AMI Virtual HDisk0", Serial: "AAAABBBB", Transport: "usb"},
		{Sector: 512, Name: "loop0", Path: "/dev/loop0", Size: 1 << 30, virtual: true},
	}
}

func nothing(Disk) ([]probe.Finding, error) { return nil, nil }

func TestTheDiskThatWasMeantIsTaken(t *testing.T) {
	for want, takes := range map[string]string{
		"S3Z1": "sda", "/dev/sda": "sda", "sda": "sda", "/dev/disk/by-path/pci-0000:00:17.0-ata-1": "sda", "pci-0000:00:17.0-ata-1.0": "sda",
		"/dev/disk/by-id/ata-Samsung_SSD_S3Z1": "sda", "wwn-0x5002538e40a1b2c3": "sda", "naa.5002538E40A1B2C3": "sda", "0x5002538e40a1b2c3": "sda",
		"PHL 1": "nvme0n1", "AAAABBBB": "sdb", "/dev/loop0": "loop0",
	} {
		d, err := Choose(machine(), want, nothing)
		if err != nil || d.Name != takes {
			t.Errorf("%s takes %s, %v", want, d.Name, err)
		}
	}
	for _, none := range []string{"s3z1", "/dev/sd", "sd", "5002538e", "/dev/disk/by-path/x", "vda", "/dev/disk/by-id/S3Z1"} {
		if d, err := Choose(machine(), none, nothing); !errors.Is(err, ErrChoice) {
			t.Errorf("%s takes %s, %v", none, d.Name, err)
		}
	}
}

func TestWithoutANameOnlyTheOnlyEligibleDiskIsTaken(t *testing.T) {
	all := machine()
	if d, err := Choose(append([]Disk{all[0]}, all[2:]...), "", nothing); err != nil || d.Name != "sda" {
		t.Errorf("beside USB and loop devices %s is taken, %v", d.Name, err)
	}
	look := func(d Disk) ([]probe.Finding, error) {
		switch d.Name {
		case "sda":
			return []probe.Finding{{Kind: "LVM physical volume"}}, nil
		case "sdb":
			return nil, errors.New("I/O error")
		}
		return nil, nil
	}
	_, err := Choose(all, "", look)
	want := "choose disk: there are 2 disks and nobody said which; choose with imgbuild.disk=" +
		"\n  S3Z1: /dev/sda (ATA Samsung SSD, serial S3Z1, 447.1 GiB, sata): LVM physical volume" +
		"\n  /dev/disk/by-path/pci-0000:65:00.0-nvme-1: /dev/nvme0n1 (INTEL, serial PHL 1, 2 TiB, nvme): empty"
	if !errors.Is(err, ErrChoice) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	_, err = Choose(all[2:], "", look)
	if err == nil || !strings.Contains(err.Error(), "no disk may be taken without being named") || !strings.Contains(err.Error(), "it is on USB; cannot be read: I/O error") {
		t.Errorf("got %v", err)
	}
	if _, err = Choose(nil, "", look); err == nil || !strings.Contains(err.Error(), "no disk that the kernel knows") {
		t.Errorf("got %v", err)
	}
	_, err = Choose(nil, "X", look)
	if err == nil || !strings.Contains(err.Error(), "imgbuild.disk=X names no disk, and this machine has no disk") {
		t.Errorf("got %v", err)
	}
}

func TestDisksThatCannotBeWrittenAreRefusedEvenByName(t *testing.T) {
	all := machine()
	all[0].ReadOnly = true
	if _, err := Choose(all, "S3Z1", nothing); err == nil || !strings.Contains(err.Error(), "is read-only") {
		t.Errorf("got %v", err)
	}
	all = machine()
	all[0].Users = []string{"RAID array md127 is mounted at /srv", "partition sda1 is used as swap"}
	if _, err := Choose(all, "S3Z1", nothing); err == nil || err.Error() != "choose disk: /dev/sda (serial S3Z1, 447.1 GiB): it is in use: RAID array md127 is mounted at /srv, partition sda1 is used as swap; release it first" {
		t.Errorf("got %v", err)
	}
}

func TestSerialNumbersThatTwoDisksShareNameNeither(t *testing.T) {
	all := machine()
	all[1].Serial = "S3Z1"
	_, err := Choose(all, "S3Z1", nothing)
	if err == nil || !strings.Contains(err.Error(), "names 2 disks") || !strings.Contains(err.Error(), "/dev/disk/by-path/pci-0000:65:00.0-nvme-1: ") {
		t.Errorf("got %v", err)
	}
	if err := MayWrite(all[0], all, nil, []string{"S3Z1"}); err == nil || !strings.Contains(err.Error(), "names 2 disks; write imgbuild.wipe=/dev/disk/by-path/pci-0000:00:17.0-ata-1") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheNamedDiskMayBeWiped(t *testing.T) {
	all := machine()
	found := []probe.Finding{{Kind: "GUID partition table with 1 partition"}, {Partition: 1, Kind: "XFS file system", Label: "data", Size: 1 << 30}}
	for name, c := range map[string]struct {
		found []probe.Finding
		wipe  []string
		says  string
	}{
		"an empty disk":                     {nil, nil, ""},
		"a full disk, named by serial":      {found, []string{"S3Z1"}, ""},
		"a full disk, named twice":          {found, []string{"S3Z1", "/dev/sda"}, ""},
		"an empty disk, named all the same": {nil, []string{"S3Z1"}, ""},
		"a full disk": {found, nil, `check disk: /dev/sda (serial S3Z1, 447.1 GiB) is not empty: GUID partition table with 1 partition; ` +
			`partition 1: XFS file system "data" (1 GiB); to destroy that, boot with imgbuild.wipe=S3Z1`},
		"another disk is named": {found, []string{"PHL 1"}, "check disk: imgbuild.wipe=PHL 1 names /dev/nvme0n1 (serial PHL 1, 2 TiB), " +
			"but the installation would go to /dev/sda (serial S3Z1, 447.1 GiB); make imgbuild.disk= and imgbuild.wipe= name the same disk"},
		"another disk is named as well": {nil, []string{"S3Z1", "PHL 1"}, "imgbuild.wipe=PHL 1 names /dev/nvme0n1"},
		"nobody's disk is named":        {nil, []string{"X"}, "imgbuild.wipe=X names no disk of this machine"},
	} {
		t.Run(name, func(t *testing.T) {
			err := MayWrite(all[0], all, c.found, c.wipe)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if (name == "a full disk") != errors.Is(err, ErrNotEmpty) {
				t.Errorf("is it ErrNotEmpty? %v", err)
			}
		})
	}
}

func TestALongListOfFindingsIsCut(t *testing.T) {
	var found []probe.Finding
	for i := range 130 {
		found = append(found, probe.Finding{Partition: i + 1, Kind: "swap space", Size: 1})
	}
	if s := Findings(found); !strings.HasSuffix(s, "; and 118 more") {
		t.Errorf("got %s", s)
	}
}
