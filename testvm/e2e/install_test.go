//go:build e2e

package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/testvm"
)

// scenario returns a machine of this test: its disk files are the test's, and its consoles go to the log if the test
// fails.
func scenario(t *testing.T, name string, disks ...testvm.Disk) testvm.Scenario {
	t.Helper()
	logs := shared.logs
	if logs == "" {
		logs = t.TempDir()
	}
	for i := range disks {
		if disks[i].Path == "" {
			disks[i].Path = filepath.Join(t.TempDir(), "disk.img")
		}
		if disks[i].Serial == "" {
			disks[i].Serial = "E2E" + strings.ToUpper(strings.ReplaceAll(name, "-", ""))
		}
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, phase := range []string{"install", "boot"} {
			if b, err := os.ReadFile(filepath.Join(logs, name+"-"+phase+".log")); err == nil {
				t.Logf("console, %s:\n%s", phase, b[max(0, len(b)-8000):])
			}
		}
	})
	return testvm.Scenario{Name: name, Release: shared.release, Disks: disks, Logs: logs}
}

// mustBeGood asks for everything that an installed system is to be.
func mustBeGood(t *testing.T, s testvm.Scenario, f testvm.Facts) {
	t.Helper()
	mustBeAs(t, s, f, shared.manifest)
}

func mustBeAs(t *testing.T, s testvm.Scenario, f testvm.Facts, m *image.Manifest) {
	t.Helper()
	var table strings.Builder
	if err := f.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("facts:\n%s", &table)
	for _, p := range f.Problems(m, cmp.Or(s.Firmware, testvm.BIOS)) {
		t.Error(p)
	}
	want := "TESTVM-" + strings.ToUpper(s.Name)
	if s.SMBIOS.Serial != "" {
		want = s.SMBIOS.Serial
	}
	if f.Serial != want {
		t.Errorf("serial number %q, want %q", f.Serial, want)
	}
}

func TestAReleaseIsInstalledAndBootsFromItsDisk(t *testing.T) {
	for _, tt := range []struct {
		name     string
		firmware testvm.Firmware
		bus      testvm.Bus
		via      testvm.BootKind
		long     bool
	}{
		{"bios-virtio", testvm.BIOS, testvm.Virtio, testvm.BootNetwork, false},
		{"uefi-nvme", testvm.UEFI, testvm.NVMe, testvm.BootNetwork, false},
		{"bios-sata", testvm.BIOS, testvm.SATA, testvm.BootKernel, true},
		{"uefi-scsi", testvm.UEFI, testvm.SCSI, testvm.BootKernel, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.long && testing.Short() {
				t.Skip("only in make e2e")
			}
			t.Parallel()
			s := scenario(t, tt.name, testvm.Disk{Bus: tt.bus})
			s.Firmware, s.Via, s.VerifyPackages = tt.firmware, tt.via, true
			f, in, err := shared.host.InstallAndBoot(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			mustBeGood(t, s, f)
			if in.Writing == "" || len(in.Steps) == 0 {
				t.Errorf("the installer announced neither what it does nor where it writes: %+v", in)
			}
			mustBeStreamed(t, in)
			if tt.firmware == testvm.BIOS {
				return
			}
			// A firmware that has never seen the disk must find the removable path.
			s.Name, s.FreshVariables, s.VerifyPackages = tt.name+"-fresh", true, false
			if f, err = shared.host.BootDisk(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			mustBeGood(t, s, f)
		})
	}
}

// mustBeStreamed checks that the root file system came in ranges and about once: no second copy, no whole download.
func mustBeStreamed(t *testing.T, in testvm.Installation) {
	t.Helper()
	var sent int64
	for _, r := range in.Requests {
		if r.Path != "/"+image.RootfsFile {
			continue
		}
		sent += r.Bytes
		if r.Method == "GET" && r.Range == "" {
			t.Errorf("a request for the whole root file system: %v", r)
		}
	}
	size := shared.manifest.Files[image.RootfsFile].Size
	if sent < size || sent > size+size/4 {
		t.Errorf("%d bytes were sent for a root file system of %d", sent, size)
	}
}

func TestTheDiskThatIsNamedIsTheOneThatIsWritten(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	s := scenario(t, "named-disk", testvm.Disk{Serial: "FIRST"}, testvm.Disk{Serial: "SECOND"})
	s.Via, s.Args = testvm.BootKernel, []string{"imgbuild.disk=SECOND"}
	if _, err := shared.host.Install(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	mustBeUntouchedEmpty(t, s.Disks[0].Path)
	slices.Reverse(s.Disks)
	f, err := shared.host.BootDisk(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	mustBeGood(t, s, f)
}

// The power fails while the root file system is being written: the disk boots nowhere, and can be installed to when it is
// named.
func TestAPowerFailureLeavesADiskThatNoFirmwareBoots(t *testing.T) {
	t.Parallel()
	s := scenario(t, "power-cut", testvm.Disk{})
	s.Via = testvm.BootKernel
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	s.Live = func(line string) {
		if strings.Contains(line, "imgbuild: rootfs ") && !strings.Contains(line, " 0% ") {
			cut()
		}
	}
	if _, err := shared.host.Install(ctx, s); !errors.Is(err, context.Canceled) {
		t.Fatalf("the machine ended before its power was cut: %v", err)
	}
	mustBeUnbootable(t, s.Disks[0].Path)
	if testing.Short() {
		return
	}
	s.Live, s.Name, s.Args = nil, "power-back", []string{"imgbuild.wipe=" + s.Disks[0].Serial}
	f, _, err := shared.host.InstallAndBoot(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	mustBeGood(t, s, f)
}

func mustBeUnbootable(t *testing.T, disk string) {
	t.Helper()
	found, err := testvm.Bootable(disk)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		t.Errorf("a firmware finds on the disk: %s", strings.Join(found, ", "))
	}
}

// mustBeUntouchedEmpty checks that a disk that was made empty takes no space: not even zeros were written.
func mustBeUntouchedEmpty(t *testing.T, disk string) {
	t.Helper()
	fi, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	if used := allocated(fi); used != 0 {
		t.Errorf("%d bytes were written to the empty disk %s", used, filepath.Base(disk))
	}
}

// longTimeout is for what must fail: a machine that neither fails nor succeeds by then hangs.
const longTimeout = 10 * time.Minute

// Bonds, VLANs and LACP need kernel modules that a build host seldom has: the tests of package netconf run in the installed
// system, whose kernel has them.
func TestHostNetworksAreTriedOnARealKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "integration", "-o", filepath.Join(dir, "netconf.test"), "../../installer/netconf")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS("../../installer/netconf/testdata")); err != nil {
		t.Fatal(err)
	}
	tests := emptyDisk(t, "TESTS", 256<<20)
	tool(t, "mkfs.ext4", "-q", "-F", "-L", "tests", "-d", dir, tests.Path)
	s := scenario(t, "netconf", emptyDisk(t, "E2ENETCONF", 8<<30))
	s.Via = testvm.BootKernel
	if _, err := shared.host.Install(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	n, err := shared.host.NewNetwork(t.Context(), testvm.NetworkConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*longTimeout)
	defer cancel()
	m, err := n.Start(ctx, testvm.Config{Name: s.Name, Disks: append(s.Disks, tests), NICs: []testvm.NIC{{}}}, testvm.ConsoleConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
		t.Fatal(err)
	}
	const run = `mkdir -p /run/t && mount LABEL=tests /run/t && modprobe -a bonding 8021q veth && cd /run/t && ./netconf.test -test.v -test.run 'LACP|Bond|VLAN|Team' -test.skip Fuzz`
	out, status, err := m.Console().Run(ctx, run)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("in the machine:\n%s", out)
	if status != 0 || !strings.Contains(out, "--- PASS: ") {
		t.Errorf("the tests ended with status %d", status)
	}
}
