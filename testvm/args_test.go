package testvm

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	text := strings.Join(got, "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestQEMUArgs(t *testing.T) {
	ovmf := FirmwareFiles{"/fw/code.fd", "/tmp/my,vars.fd"}
	for _, tt := range []struct {
		name   string
		config Config
		wiring wiring
	}{
		{"bios-boots-its-disk-alone", Config{Name: "m", Disks: []Disk{{Path: "/d/a.img", Serial: "D1"}}, NICs: []NIC{{MAC: "52:54:00:77:00:01"}}},
			wiring{accel: TCG, taps: []string{"tap1"}}},
		{"bios-boots-from-the-network", Config{Name: "m", NICs: []NIC{{MAC: "52:54:00:77:00:01"}, {MAC: "52:54:00:77:00:02"}},
			Boot: Boot{Kind: BootNetwork}}, wiring{accel: KVM, taps: []string{"tap1", "tap2"}}},
		{"uefi-has-every-kind-of-disk", Config{Name: "m", Firmware: UEFI, MemoryMiB: 4096, CPUs: 4, Watchdog: true, KeepOnReset: true, Disks: []Disk{
			{Path: "/d/a,b.img", Bus: Virtio, Serial: "V,1"}, {Path: "/d/n.qcow2", Format: Qcow2, Bus: NVMe}, {Path: "/d/s0", Bus: SATA, Serial: "S0"},
			{Path: "/d/s1", Bus: SATA, BlockSize: 4096}, {Path: "/d/c0", Bus: SCSI, Serial: "C0", ReadOnly: true}, {Path: "/d/c1", Bus: SCSI}}},
			wiring{accel: TCG, firmware: ovmf}},
		{"secure-boot-kernel-with-a-name", Config{Name: "m", Firmware: SecureBoot, SMBIOS: SMBIOS{Manufacturer: "ACME, Inc.", Product: "Node", Serial: "SN-1"},
			Boot: Boot{Kind: BootKernel, Kernel: "/r/vmlinuz", Initrd: "/r/initramfs.img", Append: "console=ttyS0 imgbuild.mode=install"}},
			wiring{accel: TCG, firmware: ovmf}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.config.withDefaults()
			if err := c.validate(); err != nil {
				t.Fatal(err)
			}
			tt.wiring.consoleFD, tt.wiring.qmpFD = 3, 4
			golden(t, tt.name, qemuArgs(c, tt.wiring))
		})
	}
}

func TestAMachineThatCannotBeIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		want   string
	}{
		{"a name that would be a path", Config{Name: "../m"}, "small letters"},
		{"an unknown firmware", Config{Name: "m", Firmware: "coreboot"}, "none of bios, uefi, secureboot"},
		{"a network boot without a card", Config{Name: "m", Boot: Boot{Kind: BootNetwork}}, "no network card"},
		{"a kernel boot without a kernel", Config{Name: "m", Boot: Boot{Kind: BootKernel}}, "none is given"},
		{"a disk without a file", Config{Name: "m", Disks: []Disk{{}}}, "disk 0 has no file"},
		{"a disk on an unknown bus", Config{Name: "m", Disks: []Disk{{Path: "x", Bus: "floppy"}}}, "none of virtio"},
		{"a disk with odd sectors", Config{Name: "m", Disks: []Disk{{Path: "x", BlockSize: 520}}}, "neither 512 nor 4096"},
		{"too little memory", Config{Name: "m", MemoryMiB: 8}, "too little"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.config.withDefaults().validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something with %q", err, tt.want)
			}
		})
	}
}

func TestDnsmasqArgs(t *testing.T) {
	c := dnsmasqConfig{iface: "br0", first: netip.MustParseAddr("10.0.0.2"), last: netip.MustParseAddr("10.0.0.9"), mask: "255.255.255.0",
		leaseFile: "/n/leases", tftpRoot: "/n/tftp", efiLoader: "ipxe.efi", biosLoader: "undionly.kpxe", bootURL: "http://10.0.0.1/boot.ipxe"}
	golden(t, "dnsmasq", dnsmasqArgs(c))
	c.efiLoader, c.biosLoader, c.bootURL = "", "", ""
	golden(t, "dnsmasq-without-boot-files", dnsmasqArgs(c))
}

func TestLeasesAreReadAndOtherLinesSkipped(t *testing.T) {
	got := parseLeases("1700000000 52:54:00:77:00:0A 10.77.0.130 web1 01:52:54\nduid 00:01:00\n1700000000 52:54:00:77:00:02 10.77.0.131 * *\n")
	want := []Lease{{"52:54:00:77:00:0a", netip.MustParseAddr("10.77.0.130"), "web1"}, {"52:54:00:77:00:02", netip.MustParseAddr("10.77.0.131"), ""}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseLeases(f *testing.F) {
	f.Add("1700000000 52:54:00:77:00:01 10.77.0.130 web1 01:52:54\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, l := range parseLeases(s) {
			if !l.IP.IsValid() {
				t.Errorf("a lease without an address from %q", s)
			}
		}
	})
}
