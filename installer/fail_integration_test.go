//go:build integration

package installer

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/disk"
	"imgbuild/installer/hw"
	"imgbuild/installer/looptest"
	"imgbuild/installer/tool"
)

// Everything that can be known before the first write ends in one sentence and an untouched disk.
func TestWhatIsKnownBeforehandLeavesTheDiskUntouched(t *testing.T) {
	for name, c := range map[string]struct {
		size   int64
		change func(*machine)
		says   string // LOOP stands for the disk
	}{
		"the disk is too small": {size: 700 << 20,
			says: "lay out disks: LOOP is too small for disk1: it has 700 MiB, and its partitions need 859 MiB; LOOP was not touched"},
		"the disk is not empty": {change: func(m *machine) { looptest.Command(m.t, "mkfs.ext4", "-q", "-F", "-L", "precious", m.loop) },
			says: `check disk: LOOP (1 GiB) is not empty: ext4 file system "precious"; to destroy that, boot with imgbuild.wipe=LOOP; LOOP was not touched`},
		"the disk has data that nobody knows": {change: func(m *machine) { m.disks[0].writeAt([]byte("data"), 1<<30-5) },
			says: `check disk: LOOP (1 GiB) is not empty: unknown data in the last MiB; to destroy that, boot with imgbuild.wipe=LOOP; LOOP was not touched`},
		"no such disk": {change: func(m *machine) { m.config.Args.Disks = []string{"WD-1234"} },
			says: `choose disks: "WD-1234" names no disk of this machine`},
		"the wipe argument names another disk": {change: func(m *machine) { m.config.Args.Wipe = []string{"/dev/vda"} },
			says: "but the installation would go to LOOP (1 GiB); name the same disks to install to and to wipe; LOOP was not touched"},
		"the wipe argument names nothing": {change: func(m *machine) { m.config.Args.Wipe = []string{"WD-1234"} },
			says: "check disks: imgbuild.wipe=WD-1234 names no disk of this machine, and the installation would go to LOOP (1 GiB); correct the argument or leave it out; LOOP was not touched"},
		"a manifest that was changed": {change: func(m *machine) { m.flip(image.ManifestFile, 40) },
			says: "check manifest: the manifest's signature was not made by a key that this program trusts"},
		"a manifest signed by somebody else": {change: func(m *machine) { m.key, _ = image.GenerateKey(); m.sign() },
			says: "; no disk was touched"},
		"a release for another architecture": {change: func(m *machine) { m.manifest.Arch = "aarch64"; m.sign() },
			says: "check release: it is for aarch64 and this machine is x86_64; give the URL of a release for this machine; no disk was touched"},
		"too little memory": {change: func(m *machine) {
			m.config.System.MemInfo = filepath.Join(m.work, "meminfo")
			if err := os.WriteFile(m.config.System.MemInfo, []byte("MemTotal: 262144 kB\nMemAvailable: 102400 kB\n"), 0o644); err != nil {
				m.t.Fatal(err)
			}
		}, says: "check memory: the installation needs 129 MiB of free memory and this machine has 100 MiB free of 256 MiB; add memory, or use a smaller image; no disk was touched"},
		"no mkfs": {change: func(m *machine) { m.config.System.Tools = tool.Runner{Dirs: []string{m.t.TempDir()}} },
			says: "check tools: the layout needs what the release does not carry: find mkfs.xfs in "},
		"no boot loader for this firmware": {change: func(m *machine) { m.manifest.BootLoader.GRUB = nil; m.sign(); m.config.Machine.Firmware = hw.UEFI },
			says: "choose boot loaders: GRUB for UEFI: the image does not carry this boot loader; add grub2-efi-x64 and shim-x64 to the profile; LOOP was not touched"},
		"a layout for the other firmware": {change: func(m *machine) {
			m.config.Machine.Firmware, m.config.Layout = hw.UEFI, &layout.Layout{Firmware: layout.BIOS, BootSize: "256MiB"}
		}, says: "check boot loaders: this machine was started by UEFI and the layout's disks boot with BIOS only; change the layout's firmware to auto or both, or the machine's; LOOP was not touched"},
		"no boot loader at all": {change: func(m *machine) { m.manifest.BootLoader = image.BootLoader{}; m.sign(); m.config.Machine.Firmware = "" },
			says: "lay out disks: the layout says bios_loader: extlinux, and the image has none; add the package syslinux-extlinux to it, or take grub; LOOP was not touched"},
		"/boot where extlinux cannot read": {change: func(m *machine) {
			m.config.Layout = &layout.Layout{Firmware: layout.BIOS, BIOSLoader: layout.Extlinux, Disks: []layout.Disk{{Partitions: []layout.Partition{
				{Extent: layout.Extent{Size: "400MiB"}, Content: layout.Content{FS: "xfs", Mount: "/boot"}}, {Content: layout.Content{FS: "ext4", Mount: "/"}}}}}}
		}, says: "check layout: layout: disks[0].partitions[0].mount: extlinux cannot read /boot: it is XFS on a GPT"},
		"a mounted disk": {change: func(m *machine) {
			looptest.Command(m.t, "mkfs.ext4", "-q", "-F", m.loop)
			dir := m.t.TempDir()
			looptest.Command(m.t, "mount", m.loop, dir)
			m.t.Cleanup(func() { looptest.Command(m.t, "umount", dir) })
		}, says: "is mounted at "},
		"a release without volume groups, and a layout that has them": {change: func(m *machine) {
			m.config.Args.Preset = layout.LVM
			m.config.System.Tools.Dirs = []string{m.t.TempDir()}
			for _, name := range []string{"mkfs.xfs", "mkfs.ext4", "mkfs.vfat"} {
				if err := os.Symlink("/sbin/"+name, filepath.Join(m.config.System.Tools.Dirs[0], name)); err != nil {
					m.t.Fatal(err)
				}
			}
		}, says: "check tools: the layout needs what the release does not carry: find lvm in "},
		"a kernel module that is not there": {change: func(m *machine) {
			m.config.System.LoadModule = func(_ context.Context, name string) error {
				if name == "xfs" {
					return errors.New("module xfs is unknown")
				}
				return nil
			}
		}, says: "check drivers: the layout needs a kernel module: module xfs is unknown; rebuild the release with this layout in its profile; no disk was touched"},
		"a server's layout that contradicts itself": {change: func(m *machine) {
			m.config.Layout = &layout.Layout{Preset: layout.LVM, Groups: []layout.Group{{Name: "vg"}}}
		}, says: "check layout: layout: "},
		"two disks of one": {change: func(m *machine) { m.config.Args.Preset, m.config.Args.Disks = layout.Simple, []string{m.loop, m.loop} },
			says: "choose disks: 2 disks are named and the layout has 1; name as many"},
		"one of two disks is not empty": {change: func(m *machine) {
			m.twoDisks()
			looptest.Command(m.t, "mkfs.ext4", "-q", "-F", "-L", "precious", m.disks[1].dev)
		}, says: `check disk: LOOP2 (1 GiB) is not empty: ext4 file system "precious"; to destroy that, boot with imgbuild.wipe=LOOP2; LOOP and LOOP2 were not touched`},
		"neither of two disks is empty": {change: func(m *machine) {
			m.twoDisks()
			for _, d := range m.disks {
				looptest.Command(m.t, "mkfs.ext4", "-q", "-F", "-L", "precious", d.dev)
			}
		}, says: `check disks: LOOP (1 GiB) is not empty: ext4 file system "precious"; LOOP2 (1 GiB) is not empty: ext4 file system "precious"; ` +
			`to destroy all of that, boot with imgbuild.wipe=LOOP imgbuild.wipe=LOOP2; LOOP and LOOP2 were not touched`},
		"the disk of another machine": {change: func(m *machine) { m.seal(seal.Record{Serial: "SN-OTHER", Image: "web/1"}); m.wipe() },
			says: `check seals: LOOP (1 GiB): its seal says that it is the disk of another machine, with serial number "SN-OTHER"`},
		"a protected disk": {change: func(m *machine) { m.seal(seal.Record{Serial: serial, Image: "web/1", Protect: true}); m.wipe() },
			says: `check seals: LOOP (1 GiB): its seal protects it`},
		"a protected disk, another serial number named": {change: func(m *machine) {
			m.seal(seal.Record{Serial: serial, Image: "web/1", Protect: true})
			m.wipe()
			m.config.Args.Unseal = []string{"SN-OTHER"}
		}, says: `check seals: LOOP (1 GiB): its seal protects it`},
		"a damaged seal": {change: func(m *machine) {
			m.seal(seal.Record{Serial: serial, Image: "web/1"})
			m.disks[0].writeAt([]byte{0xff}, mib-seal.Size+200)
			m.disks[0].writeAt([]byte{0xff}, mib-seal.Size/2+200)
		}, says: `check disk: LOOP (1 GiB) is not empty: unknown data in the first MiB; damaged seal (read seal: both of its copies are damaged`},
	} {
		t.Run(name, func(t *testing.T) {
			if c.size == 0 {
				c.size = 1 << 30
			}
			m := newMachine(t, c.size, 512)
			if c.change != nil {
				c.change(m)
			}
			before := m.digest()
			err := m.run()
			if err == nil {
				t.Fatal("it was installed")
			}
			want := c.says
			if len(m.disks) > 1 {
				want = strings.ReplaceAll(want, "LOOP2", m.disks[1].dev)
			}
			if want = strings.ReplaceAll(want, "LOOP", m.loop); !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if m.digest() != before {
				t.Error("the disk has been written to")
			}
			if strings.Contains(m.said(), "writing to") {
				t.Errorf("it said that it writes:\n%s", m.said())
			}
		})
	}
}

// What goes wrong later ends with a disk that no firmware boots, and that the next installation takes for empty.
func TestAnInstallationThatFailsLeavesAnUnbootableDisk(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*machine)
		says   string
	}{
		"a root file system that was changed": {func(m *machine) { m.flip(image.RootfsFile, 3000) }, "install root file system: "},
		"a root file system that ends early":  {func(m *machine) { m.truncate(image.RootfsFile, 4096) }, "install root file system: "},
		"a root file system that is gone":     {func(m *machine) { m.remove(image.RootfsFile) }, "install root file system: "},
		"an image without its kernel":         {func(m *machine) { m.manifest.KernelRelease = "6.0"; m.sign() }, "write boot loader: the image has no /boot/vmlinuz-6.0; it was not built completely"},
		"a boot loader that is not in the image": {func(m *machine) { m.manifest.BootLoader.GRUB.Loader = "/boot/none.efi"; m.sign() },
			"write GRUB: copy boot/none.efi: "},
		"a failing mkfs": {func(m *machine) { m.brokenTool("mkfs.ext4") },
			"make ext4 on LOOPp3: run mkfs.ext4 -q -F -U "},
		"a failing mkfs of the second disk": {func(m *machine) { m.twoDisks(); m.brokenTool("mkfs.ext4") },
			"make ext4 on /dev/loop"},
		"a failing extlinux": {func(m *machine) { m.brokenTool("extlinux") }, "write extlinux: run extlinux --install "},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, 1<<30, 512)
			tools := m.config.System.Tools
			good := *m.manifest
			goodLoader := *m.manifest.BootLoader.GRUB
			rootfs, err := os.ReadFile(filepath.Join(m.release, image.RootfsFile))
			if err != nil {
				t.Fatal(err)
			}
			c.change(m)
			err = m.run()
			if err == nil {
				t.Fatal("it was installed")
			}
			t.Log(err)
			want := strings.ReplaceAll(c.says, "LOOP", m.loop)
			end := "; " + m.loop + " was left without a partition table and does not boot"
			if len(m.disks) > 1 {
				end = "; " + m.loop + " and " + m.disks[1].dev + " were left without a partition table and do not boot"
			}
			if !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), end) {
				t.Errorf("got  %v\nwant %s%s", err, want, end)
			}
			if m.bootable() {
				t.Error("the disk is bootable")
			}
			for _, d := range m.disks {
				found, _, err := disk.Inspect(disk.Disk{Path: d.dev, Size: d.size})
				if err != nil || len(found) != 0 {
					t.Errorf("%s has %v, %v", d.dev, found, err)
				}
			}
			m.config.System.Tools = tools
			m.manifest = &good
			m.manifest.BootLoader.GRUB = &goodLoader
			if err := os.WriteFile(filepath.Join(m.release, image.RootfsFile), rootfs, 0o644); err != nil {
				t.Fatal(err)
			}
			m.sign()
			if err := m.run(); err != nil {
				t.Errorf("the second try: %v", err)
			}
		})
	}
}

func TestAnInstallationCanBeCancelled(t *testing.T) {
	m := newMachine(t, 1<<30, 512)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("somebody pressed a key")
	m.config.System.Transport = cancelling{func(path string) {
		if strings.HasSuffix(path, image.RootfsFile) {
			cancel(gone)
		}
	}}
	_, err := Run(ctx, m.config)
	if !errors.Is(err, gone) || m.bootable() || !strings.HasSuffix(err.Error(), "does not boot") {
		t.Errorf("got %v", err)
	}
}

type cancelling struct{ seen func(path string) }

func (c cancelling) RoundTrip(r *http.Request) (*http.Response, error) {
	c.seen(r.URL.Path)
	return http.DefaultTransport.RoundTrip(r)
}

// twoDisks makes the layout one of two disks: / is on the second.
func (m *machine) twoDisks() {
	m.t.Helper()
	m.add(1<<30, 512)
	m.config.Layout = &layout.Layout{Firmware: layout.BIOS, BIOSLoader: layout.Extlinux, Disks: []layout.Disk{
		{Name: "first", Partitions: []layout.Partition{
			{Name: "boot", Extent: layout.Extent{Size: "256MiB"}, Content: layout.Content{FS: "ext4", Label: "boot", Mount: "/boot"}},
			{Name: "swap", Extent: layout.Extent{Size: "64MiB"}, Content: layout.Content{FS: "swap", Label: "swap"}},
			{Name: "var", Content: layout.Content{FS: "xfs", Label: "var", Mount: "/var"}}}},
		{Name: "second", Partitions: []layout.Partition{
			{Name: "root", Extent: layout.Extent{Size: "500MiB"}, Content: layout.Content{FS: "ext4", Label: "root", Mount: "/"}},
			{Name: "srv", Content: layout.Content{FS: "xfs", Label: "srv", Mount: "/srv", Options: "nodev", Keep: true}}}},
	}}
}

// seal seals the first disk as it is on one with an MBR.
func (m *machine) seal(r seal.Record) {
	m.t.Helper()
	b, err := seal.Unsigned(r)
	if err != nil {
		m.t.Fatal(err)
	}
	m.disks[0].writeAt(b, mib-seal.Size)
}

func (m *machine) flip(name string, at int) {
	m.t.Helper()
	p := filepath.Join(m.release, name)
	b, err := os.ReadFile(p)
	if err != nil {
		m.t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(p, b, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) truncate(name string, n int64) {
	m.t.Helper()
	if err := os.Truncate(filepath.Join(m.release, name), n); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) remove(name string) {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.release, name)); err != nil {
		m.t.Fatal(err)
	}
}

// brokenTool puts a program that always fails in front of the real one.
func (m *machine) brokenTool(name string) {
	m.t.Helper()
	dir := m.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho no space left >&2\nexit 1\n"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.config.System.Tools.Dirs = []string{dir, "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}
