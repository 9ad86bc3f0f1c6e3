package testvm

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
)

func goodFacts() Facts {
	return Facts{
		OSRelease: map[string]string{"ID": "centos", "PRETTY_NAME": "CentOS Stream 9"}, KernelRelease: "5.14.0-1.el9.x86_64",
		KernelArgs: "BOOT_IMAGE=/vmlinuz root=UUID=1-2 ro console=ttyS0,115200n8", Firmware: UEFI, Hostname: "n1",
		MachineID: strings.Repeat("a", 32), Serial: "S1", Packages: 300, State: "running", BootTime: 42 * time.Second,
		Mounts:    []Mount{{"/", "/dev/vda4", "xfs", "rw"}, {"/boot", "/dev/vda3", "ext4", "rw"}},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.130/24")},
		Changed:   []Change{{"S.5....T.", 'c', "/etc/fstab"}},
	}
}

func testManifest() *image.Manifest {
	return &image.Manifest{Distro: image.Distro{ID: "centos"}, KernelRelease: "5.14.0-1.el9.x86_64", KernelArgs: []string{"console=ttyS0,115200n8"},
		Layout: layout.Layout{Disks: []layout.Disk{{Partitions: []layout.Partition{{Role: layout.RoleBIOSBoot}, {Content: layout.Content{FS: "ext4", Mount: "/boot"}}, {Content: layout.Content{FS: "xfs", Mount: "/"}}}}}}}
}

func TestProblemsOfAnInstalledSystem(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Facts)
		want   string
	}{
		{"a good system has none", func(*Facts) {}, ""},
		{"a degraded one", func(f *Facts) { f.State = "degraded" }, `"degraded" and not running`},
		{"a failed unit", func(f *Facts) { f.FailedUnits = []string{"sshd.service"} }, "unit sshd.service failed"},
		{"the other firmware", func(f *Facts) { f.Firmware = BIOS }, "started by bios and not by uefi"},
		{"another kernel", func(f *Facts) { f.KernelRelease = "6" }, "kernel 6 runs"},
		{"another system", func(f *Facts) { f.OSRelease = nil }, `os-release says ""`},
		{"a lost kernel argument", func(f *Facts) { f.KernelArgs = "root=UUID=1" }, "console=ttyS0,115200n8 is missing"},
		{"a root by device name", func(f *Facts) { f.KernelArgs = "root=/dev/vda4 console=ttyS0,115200n8" }, "not named by UUID"},
		{"no machine ID", func(f *Facts) { f.MachineID = "" }, "machine-id"},
		{"no /boot", func(f *Facts) { f.Mounts = f.Mounts[:1] }, "/boot is not mounted"},
		{"another file system", func(f *Facts) { f.Mounts[0].FSType = "ext4" }, "/ is ext4 and not xfs"},
		{"no address", func(f *Facts) { f.Addresses = nil }, "no address"},
		{"no packages", func(f *Facts) { f.Packages = 0 }, "no package"},
		{"a changed program", func(f *Facts) { f.Changed = append(f.Changed, Change{"..5......", 0, "/usr/bin/ls"}) }, "rpm -Va finds ..5...... /usr/bin/ls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := goodFacts()
			tt.change(&f)
			got := strings.Join(f.Problems(testManifest(), UEFI), "\n")
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFactsAreShownAsATable(t *testing.T) {
	var b strings.Builder
	if err := goodFacts().WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "facts", strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"))
}

func TestVerifyReadsEveryLineOfRPM(t *testing.T) {
	got, err := parseVerify("S.5....T.  c /etc/fstab\n.M.......  g /run/x\r\nmissing     /usr/bin/a b\nmissing   d /usr/share/doc/x (Permission denied)\n" +
		"....L....    /usr/bin/ls\nUnsatisfied dependencies for x-1-1.noarch:\n\ty is needed by x-1-1.noarch\n")
	want := []Change{{"S.5....T.", 'c', "/etc/fstab"}, {".M.......", 'g', "/run/x"}, {"missing", 0, "/usr/bin/a b"},
		{"missing", 'd', "/usr/share/doc/x (Permission denied)"}, {"....L....", 0, "/usr/bin/ls"},
		{"dependency", 0, "x-1-1.noarch:"}, {"dependency", 0, "y is needed by x-1-1.noarch"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	got = append(got, Change{"missing", 0, "/boot/efi/EFI/BOOT/fbx64.efi"}, Change{"..5......", 0, "/boot/efi/EFI/BOOT/fbx64.efi"})
	if u := (Facts{Changed: got}).Unexpected(); len(u) != 6 {
		t.Errorf("unexpected %v", u)
	}
	if _, err := parseVerify("error: rpmdb: damaged\n"); err == nil {
		t.Error("a line that is none of rpm -V was overlooked")
	}
}

func TestAnswersOfTheMachineAreRead(t *testing.T) {
	if got := parseOSRelease("# x\nNAME=\"CentOS \\\"9\\\"\"\nID='centos'\nVERSION_ID=9\n\nbroken\n"); got["NAME"] != `CentOS "9"` || got["ID"] != "centos" ||
		got["VERSION_ID"] != "9" || len(got) != 3 {
		t.Errorf("os-release %q", got)
	}
	if got, err := parseMounts("/ /dev/vda4 xfs rw,relatime\n/mnt/a\\x20b /dev/vdb1 ext4 ro\n"); err != nil || len(got) != 2 || got[1].Target != "/mnt/a b" {
		t.Errorf("mounts %q, %v", got, err)
	}
	if _, err := parseMounts("/ /dev/vda4\n"); err == nil {
		t.Error("half a line of mounts was taken")
	}
	if got := parseAddresses("1: lo    inet 127.0.0.1/8 scope host lo\n2: ens2    inet 10.77.0.130/24 brd x\n2: ens2    inet6 fe80::1/64 scope link\n"); len(got) != 1 ||
		got[0].String() != "10.77.0.130/24" {
		t.Errorf("addresses %v", got)
	}
	if got, err := parseUptime("41.50 70.1\n"); err != nil || got != 41500*time.Millisecond {
		t.Errorf("uptime %v, %v", got, err)
	}
	if got := parseUnits("sshd.service loaded failed failed x\n\n"); len(got) != 1 || got[0] != "sshd.service" {
		t.Errorf("units %q", got)
	}
}

func FuzzAnswersOfTheMachine(f *testing.F) {
	f.Add("NAME=\"x\\\"\"\n/ /dev/vda4 xfs rw\nS.5....T.  c /etc/fstab\n2: e inet 1.2.3.4/8\n41.5 3\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseOSRelease(s)
		parseUnits(s)
		for _, a := range parseAddresses(s) {
			if !a.IsValid() {
				t.Error("an address that is none")
			}
		}
		if mounts, err := parseMounts(s); err == nil {
			for _, m := range mounts {
				if m.Target == "" || m.Options == "" {
					t.Errorf("a mount without fields from %q", s)
				}
			}
		}
		if d, err := parseUptime(s); err == nil && d < 0 {
			t.Errorf("an uptime of %v from %q", d, s)
		}
		if changes, err := parseVerify(s); err == nil {
			for _, c := range changes {
				if c.Path == "" || c.Flags == "" {
					t.Errorf("a change without a path from %q", s)
				}
			}
		}
	})
}

func TestGatherFactsAsksOverTheConsole(t *testing.T) {
	c, machine := testConsole(t, ConsoleConfig{})
	answers := map[string]string{
		"systemctl is-system-running --wait": "running", "cat /proc/uptime": "41.50 70.1", "cat /etc/os-release": "ID=centos\r\nPRETTY_NAME=\"CentOS Stream 9\"",
		"uname -r": "5.14", "cat /proc/cmdline": "root=UUID=1", "hostname": "n1", "cat /etc/machine-id": "abc", "cat /sys/class/dmi/id/product_serial": "S1",
		"test -d /sys/firmware/efi && echo uefi || echo bios": "uefi", "rpm -qa | wc -l": "235",
		"findmnt --real -rn -o TARGET,SOURCE,FSTYPE,OPTIONS": "/ /dev/vda4 xfs rw", "ip -o addr show": "2: e inet 10.77.0.130/24",
		"rpm -Va": "S.5....T.  c /etc/fstab",
	}
	go fakeGetty(machine, "x", answers)
	if err := c.Login(t.Context(), "root", "x"); err != nil {
		t.Fatal(err)
	}
	f, err := GatherFacts(t.Context(), c, FactsOptions{VerifyPackages: true})
	if err != nil {
		t.Fatal(err)
	}
	if f.State != "running" || f.Packages != 235 || f.Firmware != UEFI || len(f.Changed) != 1 || f.OSRelease["ID"] != "centos" || len(f.Mounts) != 1 {
		t.Errorf("got %+v", f)
	}
}

func TestTheInstallerIsFollowed(t *testing.T) {
	const start = "[    1.0] Linux\r\nimgbuild: step 1/2 manifest\r\nimgbuild: step 2/2 disk\r\n"
	for _, tt := range []struct {
		name, out string
		close     bool
		check     func(Installation, error) error
	}{
		{"to its success", start + "imgbuild: writing to /dev/vda (serial X, 8 GiB)\r\nimgbuild: done: all is well\r\n", false, func(in Installation, err error) error {
			if err != nil || in.Done != "all is well" || in.Writing != "/dev/vda" || !reflect.DeepEqual(in.Steps, []Step{{1, 2, "manifest"}, {2, 2, "disk"}}) {
				return fmt.Errorf("got %+v, %w", in, err)
			}
			return nil
		}},
		{"to a failure and a power off", start + "imgbuild: failed: the disk is too small\r\nimgbuild: what to do: take another", true, func(_ Installation, err error) error {
			var f *InstallerError
			if !errors.As(err, &f) || f.Sentence != "the disk is too small" || f.Advice != "take another" {
				return fmt.Errorf("got %#v, %w", f, err)
			}
			return nil
		}},
		{"to a failure and a countdown", "imgbuild: failed: no link\r\nimgbuild: rebooting in 600 s (imgbuild.onerror=wait)\r\n", false, func(_ Installation, err error) error {
			var f *InstallerError
			if !errors.As(err, &f) || f.Sentence != "no link" {
				return fmt.Errorf("got %w", err)
			}
			return nil
		}},
		{"to a kernel's death", start + "[ 2.0] Kernel panic - not syncing: Attempted to kill init!\r\n", false, func(_ Installation, err error) error {
			var f *InstallerError
			if err == nil || errors.As(err, &f) || !strings.Contains(err.Error(), "Attempted to kill init") {
				return fmt.Errorf("got %w", err)
			}
			return nil
		}},
		{"to a silent end", start, true, func(_ Installation, err error) error {
			if !errors.Is(err, ErrConsoleClosed) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, machine := testConsole(t, ConsoleConfig{})
			go func(m net.Conn) {
				w := bufio.NewWriterSize(m, 7)
				w.WriteString(tt.out)
				w.Flush()
				if tt.close {
					m.Close()
				}
			}(machine)
			in, err := FollowInstaller(t.Context(), c)
			if e := tt.check(in, err); e != nil {
				t.Error(e)
			}
		})
	}
}

func TestLiveLinesAreWhatASpectatorWants(t *testing.T) {
	var got []string
	show := LiveFilter(func(l string) { got = append(got, l) })
	for _, l := range []string{"SeaBIOS", "[    0.000000] Linux version", "", "imgbuild: step 1/9 x", "imgbuild: rootfs 1% 1 MiB", "imgbuild: rootfs 3% 2 MiB",
		"imgbuild: rootfs 12% 9 MiB", "imgbuild: rootfs 100% 9 MiB", "[  OK  ] Started x", "[12] not a stamp", strings.Repeat("é", 200)} {
		show(l)
	}
	want := []string{"SeaBIOS", "imgbuild: step 1/9 x", "imgbuild: rootfs 1% 1 MiB", "imgbuild: rootfs 12% 9 MiB", "imgbuild: rootfs 100% 9 MiB",
		"[  OK  ] Started x", "[12] not a stamp", strings.Repeat("é", 119) + "…"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestArgumentsAreAddedToTheReleasesBootScript(t *testing.T) {
	const script = "#!ipxe\n\nkernel vmlinuz initrd=initramfs.img imgbuild.manifest=${cwduri}manifest.json\ninitrd initramfs.img\nboot\n"
	got, err := scriptWithArgs(script, []string{"imgbuild.done=poweroff", "a=b"})
	want := strings.Replace(script, "manifest.json\n", "manifest.json imgbuild.done=poweroff a=b\n", 1)
	if err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for name, bad := range map[string][2]string{
		"a script that is none":         {"kernel vmlinuz\n", "a"},
		"a script without a kernel":     {"#!ipxe\nboot\n", "a"},
		"an argument with blanks":       {script, "a b"},
		"an argument that iPXE expands": {script, "${x}"},
	} {
		if _, err := scriptWithArgs(bad[0], []string{bad[1]}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestAReleaseThatIsNoneIsSaidSo(t *testing.T) {
	dir := t.TempDir()
	if _, err := Manifest(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(dir+"/manifest.json", []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Manifest(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}
