package hw

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func link(t *testing.T, dir, name, target string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		t.Fatal(err)
	}
}

func TestAMachineIsReadFromSysfs(t *testing.T) {
	sys := write(t, map[string]string{
		"class/dmi/id/sys_vendor": "Dell Inc.\n", "class/dmi/id/product_name": "PowerEdge R750\n", "class/dmi/id/product_serial": " ABC1234 \n",
		"class/dmi/id/product_uuid":                                            "4C4C4544-0042-4310-8056-B4C04F4A3532\n",
		"firmware/efi/fw_platform_size":                                        "64\n",
		"firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\x16\x00\x00\x00\x01",
		"bus/acpi/devices/IPI0001:00/hid":                                      "IPI0001\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/address":                   "52:54:00:aa:bb:cc\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/type":                      "1\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/carrier":                   "1\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/speed":                     "-1\n",
		"devices/pci0/0000:01:00.0/net/ens1/address":                           "00:11:22:33:44:55\n",
		"devices/pci0/0000:01:00.0/net/ens1/type":                              "1\n",
		"devices/pci0/0000:01:00.0/net/ens1/speed":                             "25000\n",
		"devices/virtual/net/lo/type":                                          "772\n",
		"bus/virtio/drivers/virtio_net/x":                                      "",
	})
	link(t, sys, "class/net/eth0", "../../devices/pci0/0000:00:03.0/virtio0/net/eth0")
	link(t, sys, "class/net/ens1", "../../devices/pci0/0000:01:00.0/net/ens1")
	link(t, sys, "class/net/lo", "../../devices/virtual/net/lo")
	link(t, sys, "devices/pci0/0000:00:03.0/virtio0/net/eth0/device", "../../../virtio0")
	link(t, sys, "devices/pci0/0000:00:03.0/virtio0/driver", filepath.Join(sys, "bus/virtio/drivers/virtio_net"))
	link(t, sys, "devices/pci0/0000:01:00.0/net/ens1/device", "../../../0000:01:00.0")
	proc := write(t, map[string]string{"cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  CPU\nmodel name\t: other\n", "meminfo": "MemTotal:        2048000 kB\nMemFree: 1 kB\n", "sys/kernel/osrelease": "6.1.0-56-amd64\n"})
	m, err := inspect(sys, proc)
	if err != nil {
		t.Fatal(err)
	}
	if m.Vendor != "Dell Inc." || m.Product != "PowerEdge R750" || m.Serial != "ABC1234" || m.SerialProblem != "" || m.SerialSource != "system" || m.Firmware != UEFI ||
		!m.SecureBoot || !m.BMC || m.CPUModel != "Intel(R) Xeon(R) CPU" ||
		m.UUID != "4c4c4544-0042-4310-8056-b4c04f4a3532" || m.MemoryBytes != 2048000<<10 || m.Kernel != "6.1.0-56-amd64" {
		t.Errorf("%+v", m)
	}
	if len(m.NICs) != 2 || m.NICs[0].Name != "ens1" || m.NICs[0].SpeedMbit != 25000 || m.NICs[1].Driver != "virtio_net" || m.NICs[1].Bus != "0000:00:03.0" ||
		!m.NICs[1].Carrier || m.NICs[1].SpeedMbit != 0 || m.NICs[1].MAC.String() != "52:54:00:aa:bb:cc" {
		t.Errorf("%+v", m.NICs)
	}
}

func TestAMachineThatSaysNothingIsStillAMachine(t *testing.T) {
	m, err := inspect(t.TempDir(), write(t, map[string]string{"meminfo": "MemTotal: 1024 kB\n"}))
	if err != nil || m.Serial != "" || m.SerialProblem == "" || m.Firmware != BIOS || len(m.NICs) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range []string{"", "MemTotal: x kB\n", "MemTotal: -5 kB\n", "MemTotal: 99999999999999999999 kB\n"} {
		if _, err := inspect(t.TempDir(), write(t, map[string]string{"meminfo": text})); err == nil || !strings.Contains(err.Error(), "MemTotal") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTheSerialNumberIsTheFirstThatIdentifiesTheMachine(t *testing.T) {
	for name, c := range map[string]struct {
		f              firmware
		serial, source string
		says           string
	}{
		"the system's": {firmware{system: " S-1234 ", chassis: "C-1234", board: "B-1234"}, "S-1234", "system", ""},
		"the chassis's where the system has junk":  {firmware{system: "Default string", chassis: "C-1234", board: "B-1234"}, "C-1234", "chassis", ""},
		"the board's where nothing else is":        {firmware{system: "", chassis: "None", board: "B-1234"}, "B-1234", "baseboard", ""},
		"not that of a chassis with many machines": {firmware{system: "", chassis: "C-1234", board: "B-1234", sharedChassis: true}, "B-1234", "baseboard", ""},
		"nothing at all":                           {firmware{}, "", "", "the firmware gives no serial number"},
		"junk everywhere says the system's":        {firmware{system: "Default string", chassis: "0", board: "0123456789"}, "", "", `"Default string"`},
		"junk of the board only":                   {firmware{board: "0123456789"}, "", "", `"0123456789" only counts (of its baseboard)`},
	} {
		serial, source, problem := c.f.identify()
		if serial != c.serial || source != c.source || (problem == "") != (serial != "") || !strings.Contains(problem, c.says) {
			t.Errorf("%s: %q of the %q, %q", name, serial, source, problem)
		}
	}
}

// table is one SMBIOS structure: its type, what follows the header, and its strings.
func table(kind byte, body []byte, texts ...string) []byte {
	b := append([]byte{kind, byte(4 + len(body)), kind, 0}, body...)
	for _, s := range texts {
		b = append(append(b, s...), 0)
	}
	if len(texts) == 0 {
		b = append(b, 0)
	}
	return append(b, 0)
}

func TestSMBIOSTablesAreReadWhereTheKernelMakesNothingOfThem(t *testing.T) {
	system := append([]byte{1, 2, 0, 0, 0x44, 0x45, 0x4c, 0x4c, 0x42, 0x00, 0x10, 0x43, 0x80, 0x56, 0xb4, 0xc0, 0x4f, 0x4a, 0x35, 0x32}, 6, 0, 0)
	chassis := []byte{0, 0x80 | bladeEnclosure, 0, 1, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	board := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 10, 0}
	var tables []byte
	for _, b := range [][]byte{table(1, system, "Vendor", "Model 1"), table(3, chassis, "ENCLOSURE1"), table(2, board, "BOARD42"), table(38, make([]byte, 14)), table(127, nil)} {
		tables = append(tables, b...)
	}
	entry := make([]byte, 24) // DSP0134, 5.2.2
	copy(entry, "_SM3_")
	entry[6], entry[7], entry[10] = 24, 3, 1
	entry[12], entry[13] = byte(len(tables)), byte(len(tables)>>8)
	sum := byte(0)
	for _, b := range entry {
		sum += b
	}
	entry[5] = -sum
	sys := write(t, map[string]string{"firmware/dmi/tables/smbios_entry_point": string(entry), "firmware/dmi/tables/DMI": string(tables)})
	m, err := inspect(sys, write(t, map[string]string{"meminfo": "MemTotal: 1024 kB\n"}))
	if err != nil || m.Vendor != "Vendor" || m.Product != "Model 1" || m.Serial != "BOARD42" || m.SerialSource != "baseboard" || !m.BMC ||
		m.UUID != "4c4c4544-0042-4310-8056-b4c04f4a3532" {
		t.Errorf("%+v, %v", m, err)
	}
}
