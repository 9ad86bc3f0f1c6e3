//go:build e2e

package e2e_test

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/server/registry"
	"imgbuild/testvm"
	"imgbuild/testvm/standin"
)

// An installed system takes a second kernel from its repository by rpm, whose scriptlet runs kernel-install, and boots it; when
// that is removed again, the first one is booted.
func TestTheNextKernelIsBootedAndTheFirstOneStays(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	for _, tt := range []layoutCase{
		{name: "update-extlinux", firmware: testvm.BIOS, layout: layout.Layout{BIOSLoader: layout.Extlinux}},
		{name: "update-uefi", firmware: testvm.UEFI, layout: layout.Layout{Preset: layout.LVM}},
		{name: "update-grub", firmware: testvm.BIOS, layout: layout.Layout{Preset: layout.LVM, BIOSLoader: layout.GRUB}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := layoutScenario(t, tt)
			s.Prepare = withLayout(t, tt.layout)
			if _, err := shared.host.Install(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			packages := filepath.Join(standin.DefaultDir, "repo/Packages")
			list, err := filepath.Glob(filepath.Join(packages, "kernel-cloud-core-*.rpm"))
			if err != nil || len(list) != 1 {
				t.Fatalf("the stand-in has %d kernels to update to: %v", len(list), err)
			}
			n, err := shared.host.NewNetwork(t.Context(), testvm.NetworkConfig{Dir: packages})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 3*finish)
			defer cancel()
			m, err := n.Start(ctx, testvm.Config{Name: s.Name, Firmware: s.Firmware, Disks: s.Disks, NICs: []testvm.NIC{{}}, SMBIOS: s.SMBIOS,
				VarsFile: testvm.VarsFile(s.Disks[0].Path), KeepOnReset: true}, testvm.ConsoleConfig{Transcript: transcript(t, s, "update")})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			first := booted(t, ctx, m)
			if first != shared.manifest.KernelRelease {
				t.Fatalf("%s runs and not %s", first, shared.manifest.KernelRelease)
			}
			mustRun(t, ctx, m, "rpm -i --nosignature "+n.URL(filepath.Base(list[0])))
			second := strings.TrimSpace(mustRun(t, ctx, m, "ls /lib/modules | grep cloud"))
			restart(t, m)
			if got := booted(t, ctx, m); got != second {
				t.Fatalf("after the update %s runs and not %s; the loader has: %s", got, second,
					mustRun(t, ctx, m, "cat /boot/loader/entries/* /boot/extlinux/extlinux.conf /boot/grub2/grub.cfg 2>/dev/null; true"))
			}
			mustRun(t, ctx, m, "rpm -e kernel-cloud-core")
			restart(t, m)
			if got := booted(t, ctx, m); got != first {
				t.Errorf("after the second kernel was removed %s runs and not %s", got, first)
			}
		})
	}
}

// transcript is where a machine's console goes.
func transcript(t *testing.T, s testvm.Scenario, phase string) string {
	t.Helper()
	dir := shared.logs
	if dir == "" {
		dir = t.TempDir()
	}
	return filepath.Join(dir, s.Name+"-"+phase+".log")
}

// booted waits for the login prompt and returns what uname -r says.
func booted(t *testing.T, ctx context.Context, m *testvm.Machine) string {
	t.Helper()
	if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(mustRun(t, ctx, m, "uname -r"))
}

func restart(t *testing.T, m *testvm.Machine) {
	t.Helper()
	if err := m.Console().Send("systemctl reboot\n"); err != nil {
		t.Fatal(err)
	}
}

func mustRun(t *testing.T, ctx context.Context, m *testvm.Machine, command string) string {
	t.Helper()
	out, status, err := m.Console().Run(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	if status != 0 {
		t.Fatalf("%s ended with status %d: %s", command, status, out)
	}
	return out
}

// With done=kexec the installed kernel starts without the firmware: a reset would end the machine.
func TestTheInstalledKernelIsStartedWithoutTheFirmware(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	s := scenario(t, "kexec", emptyDisk(t, "KEXEC", 8<<30))
	n, err := shared.host.NewNetwork(t.Context(), testvm.NetworkConfig{Dir: shared.release})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*finish)
	defer cancel()
	m, err := n.Start(ctx, testvm.Config{Name: s.Name, Disks: s.Disks, NICs: []testvm.NIC{{}}, Boot: testvm.Boot{Kind: testvm.BootKernel,
		Kernel: filepath.Join(shared.release, "vmlinuz"), Initrd: filepath.Join(shared.release, "initramfs.img"),
		Append: "imgbuild.mode=install imgbuild.done=kexec console=ttyS0,115200n8 imgbuild.manifest=" + n.URL("manifest.json")}},
		testvm.ConsoleConfig{Transcript: transcript(t, s, "install")})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got := booted(t, ctx, m); got != shared.manifest.KernelRelease {
		t.Errorf("%s runs", got)
	}
	if args := mustRun(t, ctx, m, "cat /proc/cmdline; findmnt -n -o SOURCE /"); !strings.Contains(args, "root=UUID=") || strings.Contains(args, "imgbuild.") || !strings.Contains(args, "/dev/vda") {
		t.Errorf("it was started with %s", args)
	}
}

// A machine in a rack is looked at before it is installed again, and keeps its system when the order is withdrawn in time.
func TestAMachineIsPreviewedAndKeepsItsSystemWhenTheOrderIsWithdrawn(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	r := newRack(t, "withdrawn")
	const sn = "SN-WITHDRAWN"
	r.know(sn, "  hostname: first.example.org\n  layout:\n    preset: lvm\n")
	r.ctl("order", "install", sn, "--image", shared.manifest.Name, "--reason", "a new machine")
	s := scenario(t, "withdrawn", emptyDisk(t, "WITHDRAWN", 8<<30))
	s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sn}
	m := r.machine(s, "install")
	ctx, cancel := context.WithTimeout(t.Context(), 4*finish)
	defer cancel()
	r.expect(m, finish, `imgbuild: done: `)
	r.expect(m, reach, `imgserve: machine `+sn+` .*boots its own disk`)
	if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
		t.Fatal(err)
	}
	r.awaitState(sn, registry.Installed)
	if err := m.Console().Send("systemctl poweroff\n"); err != nil {
		t.Fatal(err)
	}
	if exit, err := m.Wait(ctx); err != nil || !exit.PoweredOff() {
		t.Fatalf("it did not power off: %+v, %v", exit, err)
	}
	m.Close()

	before := digests(t, s.Disks)
	r.ctl("plan", sn, "--image", shared.manifest.Name, "--layout", "server", "--wipe", "WITHDRAWN", "--reason", "what would happen", "--no-wait")
	m = r.machine(s, "preview")
	r.expect(m, finish, `imgbuild: step 1/`)
	r.expect(m, reach, `imgserve: machine `+sn+` .*boots its own disk`)
	m.Close()
	out := r.ctl("order", "show", sn)
	t.Logf("imgctl order show:\n%s", out)
	for _, want := range []string{"volume group system", "/var/log/audit", "xfs"} {
		if !strings.Contains(out, want) {
			t.Errorf("the preview does not speak of %q", want)
		}
	}
	if after := digests(t, s.Disks); !slices.Equal(before, after) {
		t.Error("a preview changed the disk")
	}

	r.ctl("order", "install", sn, "--image", shared.manifest.Name, "--reason", "a mistake", "--wipe", "WITHDRAWN")
	m = r.machine(s, "withdrawn")
	r.expect(m, finish, `imgbuild: step 1/`)
	r.ctl("order", "cancel", sn, "--reason", "it was the wrong machine")
	r.expect(m, finish, `imgbuild: .*nothing was written.*`)
	// No firmware comes before the old system: its kernel starts at once.
	match, err := m.Console().Expect(ctx, regexp.MustCompile(`login: `), regexp.MustCompile(`iPXE|SeaBIOS`))
	if err != nil {
		t.Fatal(err)
	}
	if match.Index != 0 {
		t.Error("the old system was started by a reboot and not by kexec")
	}
}
