//go:build integration

package installer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/hw"
	"imgbuild/installer/looptest"
)

func TestAReleaseIsInstalledOntoADisk(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprintf("with sectors of %d bytes", sector), func(t *testing.T) {
			m := newMachine(t, 1<<30, sector)
			if sector != 512 { // no BIOS boot loader reads such disks
				m.manifest.Layout.Firmware, m.manifest.Layout.BIOSLoader = layout.UEFI, ""
				m.config.Machine.Firmware, m.config.System.EFIVars = hw.UEFI, t.TempDir()
				m.sign()
			}
			if err := m.run(); err != nil {
				t.Fatal(err)
			}
			m.checkDisk()
			for i := 1; i <= Steps; i++ {
				if !strings.Contains(m.said(), fmt.Sprintf("imgbuild: step %d/%d ", i, Steps)) {
					t.Errorf("step %d was not reported:\n%s", i, m.said())
				}
			}
			if !strings.Contains(m.said(), "imgbuild: writing to "+m.loop+" (") {
				t.Errorf("the disk was not announced:\n%s", m.said())
			}
			// The disk is no longer empty: the same again is refused, and leaves it as it is.
			before := m.digest()
			err := m.run()
			if !errors.Is(err, ErrNotEmpty) || m.digest() != before {
				t.Errorf("the second installation: %v", err)
			}
			m.wipe()
			if err := m.run(); err != nil {
				t.Fatalf("with imgbuild.wipe=: %v", err)
			}
			if !strings.Contains(m.said(), "imgbuild: to be erased on "+m.loop+" (1 GiB): GUID partition table") {
				t.Errorf("what was erased was not said:\n%s", m.said())
			}
			m.checkDisk()
		})
	}
}

// checkSeal reads a seal that nobody signed.
func (m *machine) checkSeal(node string, at int64) {
	m.t.Helper()
	f, err := os.Open(node)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, seal.Size)
	if _, err := f.ReadAt(b, at); err != nil {
		m.t.Fatal(err)
	}
	s, err := seal.Parse(b)
	if err != nil || s.Serial != serial || s.Image != "test/1" || s.Signed() || s.Protect || time.Since(s.Time) > time.Hour {
		m.t.Errorf("the seal is %+v, %v", s, err)
	}
}

// checkDisk asks other people's tools, then looks at the files.
func (m *machine) checkDisk() {
	t, d := m.t, m.disks[0]
	t.Helper()
	bios := d.sector == 512
	if !m.bootable() || m.result.Done != cmdline.DonePoweroff || m.result.Outlook != nil {
		t.Fatalf("the disk is not bootable, or %+v", m.result)
	}
	if out := looptest.Command(t, "sgdisk", "-v", m.loop); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk says:\n%s", out)
	}
	if _, err := exec.LookPath("sfdisk"); err == nil {
		if out := looptest.Command(t, "sfdisk", "--verify", m.loop); !strings.Contains(out, "No errors detected") {
			t.Errorf("sfdisk says:\n%s", out)
		}
	}
	var names []string
	for _, p := range d.table().Partitions {
		names = append(names, p.Name)
		if legacy := p.Attributes == gpt.AttrLegacyBoot; legacy != (bios && p.Name == "boot") {
			t.Errorf("partition %s has attributes %x", p.Name, p.Attributes)
		}
	}
	if table := d.table(); !table.Primary || !table.Backup || strings.Join(names, " ") != "seal esp boot root" {
		t.Fatalf("the table is %+v", table)
	}
	nodes := d.partitions()
	defer d.forget()
	m.checkSeal(nodes["seal"], 0)
	esp, boot, root := nodes["esp"], nodes["boot"], nodes["root"]
	looptest.Command(t, "fsck.vfat", "-n", esp)
	looptest.Command(t, "e2fsck", "-fn", boot)
	looptest.Command(t, "xfs_repair", "-n", root)
	if out := looptest.Command(t, "dumpe2fs", "-h", boot); bios && strings.Contains(out, "64bit") || strings.Contains(out, "metadata_csum") {
		t.Errorf("extlinux cannot read this /boot:\n%s", out)
	}

	out := looptest.Command(t, "mdir", "-b", "-/", "-i", esp, "::/")
	for _, name := range []string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/grub.cfg", "EFI/BOOT/mmx64.efi",
		"EFI/test/shimx64.efi", "EFI/test/grubx64.efi", "EFI/test/grub.cfg", "EFI/test/mmx64.efi"} {
		if !strings.Contains(out, "::/"+name) {
			t.Errorf("%s is not on the ESP:\n%s", name, out)
		}
	}
	if strings.Contains(out, "EFI/BOOT/fbx64") {
		t.Error("shim's fallback loader is on the removable path")
	}
	dir := t.TempDir()
	var mounted mounts
	k := KernelMounter{}
	defer func() {
		if err := mounted.unmountAll(k); err != nil {
			t.Error(err)
		}
	}()
	for _, p := range []struct{ node, at, fs string }{{root, dir, "xfs"}, {boot, dir + "/boot", "ext4"}} {
		if p.at != dir {
			if st, err := os.Stat(p.at); err != nil || st.Mode().Perm() != 0o555 {
				t.Errorf("below its mount /boot is %v, %v", st.Mode(), err)
			}
		}
		if err := mounted.mount(k, p.node, p.at, p.fs, ""); err != nil {
			t.Fatal(err)
		}
	}
	uuids := map[string]string{}
	for name, node := range map[string]string{"root": root, "boot": boot, "esp": esp} {
		uuids[name] = strings.TrimSpace(looptest.Command(t, "blkid", "-p", "-o", "value", "-s", "UUID", node))
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	fstab := "# Written by imgbuild when test 1 was installed. See fstab(5).\n" +
		"UUID=" + uuids["root"] + " / xfs defaults 0 0\n" +
		"UUID=" + uuids["boot"] + " /boot ext4 defaults 1 2\n" +
		"UUID=" + uuids["esp"] + " /boot/efi vfat umask=0077,shortname=winnt 0 2\n"
	if got := read("etc/fstab"); got != fstab {
		t.Errorf("fstab is\n%s\nwant\n%s", got, fstab)
	}
	id := strings.TrimSpace(read("etc/machine-id"))
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("machine-id is %q", id)
	}
	want := "root=UUID=" + uuids["root"] + " ro console=tty0 console=ttyS0,115200n8"
	names = []string{"boot/grub2/grub.cfg", "etc/kernel/cmdline", "boot/loader/entries/" + id + "-" + release + ".conf"}
	if bios {
		names = append(names, "boot/extlinux/extlinux.conf")
	}
	for _, name := range names {
		if got := read(name); !strings.Contains(got, want) {
			t.Errorf("%s does not have %q:\n%s", name, want, got)
		}
	}
	if got := read("etc/default/grub"); !strings.HasPrefix(got, "GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200n8\"\n") {
		t.Errorf("/etc/default/grub is\n%s", got)
	}
	if got := read("var/lib/imgbuild/manifest.json"); !strings.Contains(got, `"name": "test"`) {
		t.Errorf("the manifest was not kept: %.100s", got)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "boot/efi")); err != nil || len(list) != 0 {
		t.Errorf("/boot/efi below the ESP has %v, %v", list, err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "boot/loader/entries")); err != nil || len(list) != 1 {
		t.Errorf("boot entries: %v, %v", list, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "usr/bin/su")); err != nil || st.Mode() != 0o755|os.ModeSetuid {
		t.Errorf("su is %v, %v", st, err)
	}
	cfg := looptest.Command(t, "mtype", "-i", esp, "::/EFI/test/grub.cfg")
	if !strings.Contains(cfg, "--set=dev "+uuids["boot"]+"\n") || !strings.Contains(cfg, "configfile $prefix/grub.cfg") {
		t.Errorf("grub.cfg on the ESP is\n%s", cfg)
	}
	if cfg := read("boot/grub2/grub.cfg"); !strings.Contains(cfg, "linux /vmlinuz-"+release+" "+want) {
		t.Errorf("grub.cfg in /boot is\n%s", cfg)
	}
	if _, err := os.Stat(filepath.Join(dir, "boot/extlinux/ldlinux.sys")); bios != (err == nil) {
		t.Error(err)
	}
}
