package disk

import (
	"slices"
	"strings"
	"testing"
)

func TestPathsAreNamedAsUdevNamesThem(t *testing.T) {
	const sas = pci + "0000:00:02.0/0000:03:00.0/host0/"
	for name, c := range map[string]struct {
		dirs map[string]map[string]string
		disk string
		want []string
	}{
		"a SAS disk on the controller": {map[string]map[string]string{
			sas + "port-0:2/end_device-0:2/target0:0:2/0:0:2:0/block/sdc": {"size": "8\n"},
			sas + "port-0:2/sas_port/port-0:2":                            {"num_phys": "1\n"},
			sas + "port-0:2/end_device-0:2/sas_device/end_device-0:2":     {"phy_identifier": "5\n", "sas_address": "0x5000c500a1b2c3d5\n"},
		}, "sdc", []string{"pci-0000:03:00.0-sas-phy5-lun-0"}},
		"a SAS disk on an expander": {map[string]map[string]string{
			sas + "port-0:0/expander-0:0/port-0:0:7/end_device-0:0:7/target0:0:9/0:0:9:0/block/sdj": {"size": "8\n"},
			sas + "port-0:0/expander-0:0/sas_device/expander-0:0":                                   {"sas_address": "0x500304801234567f\n"},
			sas + "port-0:0/expander-0:0/port-0:0:7/sas_port/port-0:0:7":                            {"num_phys": "1\n"},
			sas + "port-0:0/expander-0:0/port-0:0:7/end_device-0:0:7/sas_device/end_device-0:0:7":   {"phy_identifier": "7\n"},
			sas + "port-0:0/sas_port/port-0:0":                                                      {"num_phys": "4\n"},
		}, "sdj", []string{"pci-0000:03:00.0-sas-exp0x500304801234567f-phy7-lun-0"}},
		"a LUN behind a wide port": {map[string]map[string]string{
			sas + "port-0:1/end_device-0:1/target0:0:1/0:0:1:300/block/sdk": {"size": "8\n"},
			sas + "port-0:1/sas_port/port-0:1":                              {"num_phys": "4\n"},
			sas + "port-0:1/end_device-0:1/sas_device/end_device-0:1":       {"phy_identifier": "0\n", "sas_address": "0x500a09\n"},
		}, "sdk", []string{"pci-0000:03:00.0-sas-0x500a09-lun-0x012c000000000000"}},
		"a SAS disk of which sysfs says too little": {map[string]map[string]string{
			sas + "port-0:2/end_device-0:2/target0:0:2/0:0:2:0/block/sdc": {"size": "8\n"}}, "sdc", nil},
		"a LUN over Fibre Channel": {map[string]map[string]string{
			pci + "0000:05:00.1/host4/rport-4:0-2/target4:0:1/4:0:1:3/block/sdd":        {"size": "8\n"},
			pci + "0000:05:00.1/host4/rport-4:0-2/target4:0:1/fc_transport/target4:0:1": {"port_name": "0x500507680120ad21\n"},
		}, "sdd", []string{"pci-0000:05:00.1-fc-0x500507680120ad21-lun-3"}},
		"a LUN over iSCSI": {map[string]map[string]string{
			"devices/platform/host6/session2/target6:0:0/6:0:0:1/block/sde":                {"size": "8\n"},
			"devices/platform/host6/session2/iscsi_session/session2":                       {"targetname": "iqn.2001-04.example:store\n"},
			"devices/platform/host6/session2/connection2:0/iscsi_connection/connection2:0": {"persistent_address": "192.0.2.9\n", "persistent_port": "3260\n"},
		}, "sde", []string{"ip-192.0.2.9:3260-iscsi-iqn.2001-04.example:store-lun-1"}},
		"a disk behind a SATA port multiplier": {map[string]map[string]string{
			pci + "0000:00:17.0/ata5/host4/target4:3:0/4:3:0:0/block/sdf": {"size": "8\n"},
			pci + "0000:00:17.0/ata5/ata_port/ata5":                       {"port_no": "2\n"},
		}, "sdf", []string{"pci-0000:00:17.0-ata-2.3.0"}},
		"the second controller host of a RAID card": {map[string]map[string]string{
			pci + "0000:02:00.0/host9/target9:2:0/9:2:0:0/block/sdg": {"size": "8\n"},
			pci + "0000:02:00.0/host8/scsi_host/host8":               {"unique_id": "1\n"},
		}, "sdg", []string{"pci-0000:02:00.0-scsi-1:2:0:0"}},
		"NVMe behind Intel's VMD": {map[string]map[string]string{
			pci + "0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme/nvme3/nvme3n1": {"size": "8\n", "nsid": "1\n"},
		}, "nvme3n1", []string{"pci-0000:00:0e.0-pci-10000:e1:00.0-nvme-1"}},
		"the second NVMe namespace": {map[string]map[string]string{
			pci + "0000:00:01.0/0000:65:00.0/nvme/nvme0/nvme0n2": {"size": "8\n", "nsid": "16\n"},
		}, "nvme0n2", []string{"pci-0000:65:00.0-nvme-16"}},
		"virtio-scsi": {map[string]map[string]string{
			pci + "0000:00:04.0/virtio1/host2/target2:0:0/2:0:0:1/block/sdh": {"size": "8\n"},
		}, "sdh", []string{"pci-0000:00:04.0-scsi-0:0:0:1", "virtio-pci-0000:00:04.0-scsi-0:0:0:1"}},
		"nothing that udev names": {map[string]map[string]string{"devices/virtual/block/loop0": {"size": "8\n"}}, "loop0", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := inventory(t, c.dirs)
			d, ok := got[c.disk]
			if !ok || !slices.Equal(d.ByPath, c.want) {
				t.Errorf("%v is named %q, want %q", ok, d.ByPath, c.want)
			}
		})
	}
}

func TestAMultipathNamespaceIsNamedByItsController(t *testing.T) {
	const head = "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
	sys := sysfs(t, map[string]map[string]string{
		head: {"size": "8\n", "nsid": "1\n", "wwid": "eui.0025388b710052aa\n", "device/model": "SAMSUNG MZ\n", "device/serial": "S4\n"},
		pci + "0000:65:00.0/nvme/nvme0/nvme0c0n1": {"size": "8\n", "hidden": "1\n", "nsid": "1\n"},
	})
	link(t, sys, "class/nvme/nvme0", pci+"0000:65:00.0/nvme/nvme0")
	disks, err := Inventory(sys, mountinfo(t, ""))
	if err != nil || len(disks) != 1 {
		t.Fatalf("found %+v, %v", disks, err)
	}
	d := disks[0]
	if d.Name != "nvme0n1" || d.Transport != "nvme" || !slices.Equal(d.ByPath, []string{"pci-0000:65:00.0-nvme-1"}) || !slices.Contains(d.ByID, "nvme-SAMSUNG_MZ_S4_1") {
		t.Errorf("it is %+v", d)
	}
}

func TestWhatIsTakenOnlyByNameAndWhatIsNeverTaken(t *testing.T) {
	usb := func(vendor, model string) map[string]map[string]string {
		return map[string]map[string]string{
			pci + "0000:00:14.0/usb1/1-2/1-2:1.0/host7/target7:0:0/7:0:0:0/block/sdb": {"size": "8\n", "device/vendor": vendor, "device/model": model},
			pci + "0000:00:14.0/usb1/1-2": {"idVendor": "046b\n", "serial": "AAAABBBBCCCC1\n"},
		}
	}
	one := func(dir string, attrs map[string]string) map[string]map[string]string {
		attrs["size"] = "8\n"
		return map[string]map[string]string{dir: attrs}
	}
	const sata = pci + "0000:00:17.0/ata1/host3/target3:0:0/3:0:0:0/block/sda"
	const lent, onUSB = "it is a virtual medium of the management controller", "it is on USB"
	for name, c := range map[string]struct {
		dirs            map[string]map[string]string
		unfit, unusable string
	}{
		"AMI":                     {usb("AMI", "Virtual HDISK0"), lent, ""},
		"Dell":                    {usb("iDRAC", "LCDRIVE"), lent, ""},
		"HPE":                     {usb("HP iLO", "Internal SD-CARD"), lent, ""},
		"Cisco":                   {usb("Cisco", "vKVM-Mapped vHDD"), lent, ""},
		"a stick":                 {usb("SanDisk", "Ultra"), onUSB, ""},
		"a VMware disk":           {one(pci+"0000:00:10.0/host2/target2:0:0/2:0:0:0/block/sda", map[string]string{"device/vendor": "VMware", "device/model": "Virtual disk"}), "", ""},
		"eMMC":                    {one(pci+"0000:00:1a.0/mmc_host/mmc0/mmc0:0001/block/mmcblk0", map[string]string{"device/type": "MMC\n", "device/name": "DG4064\n"}), "", ""},
		"an SD card":              {one(pci+"0000:00:1a.0/mmc_host/mmc0/mmc0:aaaa/block/mmcblk1", map[string]string{"device/type": "SD\n"}), "it is a memory card", ""},
		"a hot-plug disk":         {one(sata, map[string]string{"removable": "1\n"}), "it is removable", ""},
		"a read-only disk":        {one(sata, map[string]string{"ro": "1\n"}), "", "it is read-only; remove its write protection"},
		"a host-managed disk":     {one(sata, map[string]string{"queue/zoned": "host-managed\n"}), "", "it is a host-managed zoned disk, which no file system here can be put on"},
		"a disk of 520-byte ones": {one(sata, map[string]string{"queue/logical_block_size": "520\n"}), "", "it has sectors of 520 bytes, and 512 and 4096 are supported; format it anew with its maker's tool"},
		"a 4Kn disk":              {one(sata, map[string]string{"queue/logical_block_size": "4096\n", "queue/physical_block_size": "4096\n"}), "", ""},
		"an array":                {one("devices/virtual/block/md127", map[string]string{}), "it is a virtual device", ""},
	} {
		t.Run(name, func(t *testing.T) {
			disks, err := Inventory(sysfs(t, c.dirs), mountinfo(t, ""))
			if err != nil || len(disks) != 1 {
				t.Fatalf("found %+v, %v", disks, err)
			}
			got := Candidates(disks)[0]
			if got.Unfit != c.unfit || got.Unusable != c.unusable || got.ID != disks[0].Name || got.Size != 4096 {
				t.Errorf("got %+v", got)
			}
			if strings.Contains(got.Transport, "usb") && got.Serial != "AAAABBBBCCCC1" {
				t.Errorf("its serial number is %q", got.Serial)
			}
		})
	}
	for _, never := range []string{"mmcblk0boot0", "mmcblk0boot1", "mmcblk0rpmb", "mmcblk0gp0", "sr0", "fd0", "zram0", "ram7"} {
		disks, err := Inventory(sysfs(t, one("devices/virtual/block/"+never, map[string]string{})), mountinfo(t, ""))
		if err != nil || len(disks) != 0 {
			t.Errorf("%s is a disk, %v", never, err)
		}
	}
}

// lunAt is a disk behind a host, as two hosts see it.
func lunAt(host string, transport string, attrs map[string]string) (string, map[string]string) {
	a := map[string]string{"size": "2097152\n", "device/vendor": "NETAPP\n", "device/model": "LUN C-Mode\n"}
	for k, v := range attrs {
		a[k] = v
	}
	return pci + "0000:05:00." + host + "/host" + host + "/" + transport + host + ":0-1/target" + host + ":0:0/" + host + ":0:0:0/block/sd" + string('a'+host[0]-'0'), a
}

func TestSeveralPathsToOneDiskAreOneDisk(t *testing.T) {
	const naa = "naa.600a098038303634\n"
	type seen struct {
		host, transport string
		attrs           map[string]string
	}
	for name, c := range map[string]struct {
		disks []seen
		taken string
		says  string // of the others
	}{
		"the same name over Fibre Channel": {[]seen{{"0", "rport-", map[string]string{"device/wwid": naa}}, {"1", "rport-", map[string]string{"device/wwid": naa}}},
			"sda", "it is another path to sda, which is the one to take"},
		"the first path is passive": {[]seen{{"0", "rport-", map[string]string{"device/wwid": naa, "device/access_state": "standby\n"}},
			{"1", "rport-", map[string]string{"device/wwid": naa, "device/access_state": "active/optimized\n"}}}, "sdb", "it is another path to sdb"},
		"the first path is offline": {[]seen{{"0", "rport-", map[string]string{"device/wwid": naa, "device/state": "offline\n"}},
			{"1", "rport-", map[string]string{"device/wwid": naa, "device/state": "running\n"}}}, "sdb", "it is another path to sdb"},
		"three paths without names, by serial number": {[]seen{{"0", "rport-", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x048Fk2"}},
			{"1", "rport-", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x048Fk2"}}, {"2", "rport-", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x048Fk2"}}},
			"sda", "it is another path to sda"},
		"two LUNs of one array": {[]seen{{"0", "rport-", map[string]string{"device/wwid": naa, "device/vpd_pg80": "\x00\x80\x00\x048Fk2"}},
			{"1", "rport-", map[string]string{"device/wwid": "naa.600a098038303635\n", "device/vpd_pg80": "\x00\x80\x00\x048Fk2"}}}, "sda sdb", ""},
		"one serial number, different sizes": {[]seen{{"0", "rport-", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x048Fk2"}},
			{"1", "rport-", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x048Fk2", "size": "4096\n"}}}, "sda sdb", ""},
		"serial numbers that are none": {[]seen{{"0", "rport-", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x080000 000"}},
			{"1", "rport-", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x040000"}}}, "sda sdb", ""},
		"virtual disks with one serial number": {[]seen{{"0", "virtio", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x048Fk2"}},
			{"1", "virtio", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x048Fk2"}}}, "sda sdb", ""},
		"virtual disks with one name": {[]seen{{"0", "virtio", map[string]string{"device/wwid": naa}}, {"1", "virtio", map[string]string{"device/wwid": naa}}},
			"sda", "it is another path to sda"},
		"one name and different serial numbers": {[]seen{{"0", "rport-", map[string]string{"device/wwid": naa, "device/vpd_pg80": "\x00\x80\x00\x04abcd"}},
			{"1", "rport-", map[string]string{"device/wwid": naa, "device/vpd_pg80": "\x00\x80\x00\x04abce"}}}, "sda sdb", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := map[string]map[string]string{}
			for _, s := range c.disks {
				dir, attrs := lunAt(s.host, s.transport, s.attrs)
				dirs[dir] = attrs
			}
			check(t, dirs, c.taken, c.says)
		})
	}
}

// check compares the disks that may be taken, and what is said of those that may not.
func check(t *testing.T, dirs map[string]map[string]string, taken, says string) {
	t.Helper()
	disks, err := Inventory(sysfs(t, dirs), mountinfo(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range Candidates(disks) {
		switch {
		case c.Unusable == "":
			names = append(names, c.ID)
		case says == "" || !strings.Contains(c.Unusable, says):
			t.Errorf("%s: %s", c.ID, c.Unusable)
		}
	}
	if got := strings.Join(names, " "); got != taken {
		t.Errorf("taken may be %s, want %s", got, taken)
	}
}

func TestAMultipathMapIsTheDisk(t *testing.T) {
	const naa = "naa.600a098038303634\n"
	dirs := map[string]map[string]string{"devices/virtual/block/dm-0": {"size": "2097152\n", "dm/name": "mpatha\n", "dm/uuid": "mpath-3600a098038303634\n",
		"slaves/sda/dev": "", "slaves/sdb/dev": "", "dev": "253:0\n"}}
	for _, host := range []string{"0", "1", "2"} { // the third path is not in the map
		dir, attrs := lunAt(host, "rport-", map[string]string{"device/wwid": naa, "device/vpd_pg80": "\x00\x80\x00\x048Fk2"})
		if host != "2" {
			attrs["holders/dm-0/x"] = ""
		}
		dirs[dir] = attrs
	}
	check(t, dirs, "dm-0", "it is another path to dm-0")
	d := inventory(t, dirs)["dm-0"]
	if d.Path != "/dev/mapper/mpatha" || d.Serial != "8Fk2" || d.Transport != "fc" || d.WWN != "naa.600a098038303634" || d.Model != "NETAPP LUN C-Mode" || d.unfit() != "" ||
		!slices.Contains(d.ByID, "dm-name-mpatha") || !slices.Contains(d.ByID, "wwn-0x600a098038303634") || len(d.Paths) != 0 || len(d.Holders) != 0 {
		t.Errorf("the map is %+v", d)
	}
}

func TestOneNVMeDriveSeenByTwoControllers(t *testing.T) {
	drive := func(n, serial string) (string, map[string]string) {
		return pci + "0000:6" + n + ":00.0/nvme/nvme" + n + "/nvme" + n + "n1", map[string]string{"size": "8\n", "nsid": "1\n", "wwid": "eui.01\n",
			"device/model": "X\n", "device/serial": serial + "\n"}
	}
	for name, c := range map[string]struct{ second, taken, says string }{
		"two ports":                          {"S1", "nvme0n1", "it is another path to nvme0n1"},
		"cheap drives that share their name": {"S2", "nvme0n1 nvme1n1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := map[string]map[string]string{}
			for _, s := range [][2]string{{"0", "S1"}, {"1", c.second}} {
				dir, attrs := drive(s[0], s[1])
				dirs[dir] = attrs
			}
			check(t, dirs, c.taken, c.says)
		})
	}
}

func TestWhatUsesAPathUsesTheDisk(t *testing.T) {
	disks := []Disk{{Name: "sda", Size: 1, Serial: "8Fk2", Transport: "fc"}, {Name: "sdb", Size: 1, Serial: "8Fk2", Transport: "fc",
		Users: []string{"partition sdb1 is mounted at /srv"}, Holders: []string{"RAID array md0"}, ReadOnly: true}}
	joinPaths(disks)
	if d := disks[0]; len(d.Users) != 1 || len(d.Holders) != 1 || !d.ReadOnly || disks[1].PathOf != "sda" || !slices.Equal(d.Paths, []string{"sdb"}) {
		t.Errorf("got %+v", disks)
	}
}
