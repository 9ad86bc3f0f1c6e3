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
	"imgbuild/installer/disk"
	"imgbuild/installer/hw"
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
			says: "lay out disk: the disk is too small: the image needs 731 MiB and the disk has 700 MiB; LOOP was not touched"},
		"the disk is not empty": {change: func(m *machine) { command(m.t, "mkfs.ext4", "-q", "-F", "-L", "precious", m.loop) },
			says: `check disk: LOOP (1 GiB) is not empty: ext4 file system "precious"; to destroy that, boot with imgbuild.wipe=LOOP; LOOP was not touched`},
		"the disk has data that nobody knows": {change: func(m *machine) { m.writeAt([]byte("data"), 1<<30-5) },
			says: `check disk: LOOP (1 GiB) is not empty: unknown data in the last MiB; to destroy that, boot with imgbuild.wipe=LOOP; LOOP was not touched`},
		"no such disk": {change: func(m *machine) { m.config.Args.Disks = []string{"WD-1234"} },
			says: "choose disk: imgbuild.disk=WD-1234 names no disk of this machine"},
		"the wipe argument names another disk": {change: func(m *machine) { m.config.Args.Wipe = []string{"/dev/vda"} },
			says: "but the installation would go to LOOP (1 GiB); make imgbuild.disk= and imgbuild.wipe= name the same disk; LOOP was not touched"},
		"the wipe argument names nothing": {change: func(m *machine) { m.config.Args.Wipe = []string{"WD-1234"} },
			says: "check disk: imgbuild.wipe=WD-1234 names no disk of this machine, and the installation would go to LOOP (1 GiB); correct the argument or leave it out; LOOP was not touched"},
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
			says: "check tools: find mkfs.vfat in "},
		"no boot loader for this firmware": {change: func(m *machine) { m.manifest.BootLoader.GRUB = nil; m.sign(); m.config.Machine.Firmware = hw.UEFI },
			says: "check boot loaders: this machine was started by UEFI and the image has no boot loader for that; add one to the profile; LOOP was not touched"},
		"no boot loader at all": {change: func(m *machine) { m.manifest.BootLoader = image.BootLoader{}; m.sign(); m.config.Machine.Firmware = "" },
			says: "check boot loaders: the image has none; the installed system could not start; LOOP was not touched"},
		"/boot where extlinux cannot read": {change: func(m *machine) {
			m.manifest.FixedLayout.Partitions[2].FS = "xfs"
			m.manifest.FixedLayout.Partitions[2].SizeMiB = 300
			m.sign()
		},
			says: "prepare extlinux: /boot is on xfs and extlinux reads ext4; give the layout an ext4 /boot; LOOP was not touched"},
		"a mounted disk": {change: func(m *machine) {
			command(m.t, "mkfs.ext4", "-q", "-F", m.loop)
			dir := m.t.TempDir()
			command(m.t, "mount", m.loop, dir)
			m.t.Cleanup(func() { command(m.t, "umount", dir) })
		}, says: "is in use: mounted at "},
	} {
		t.Run(name, func(t *testing.T) {
			if c.size == 0 {
				c.size = 1 << 30
			}
			m := newMachine(t, c.size, 512)
			if c.change != nil {
				c.change(m)
			}
			command(t, "sync", m.loop)
			before := m.digest()
			err := m.run()
			if err == nil {
				t.Fatal("it was installed")
			}
			if want := strings.ReplaceAll(c.says, "LOOP", m.loop); !strings.Contains(err.Error(), want) {
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
			"make ext4 file system for /boot on LOOPp3: run mkfs.ext4 -q -F -U "},
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
			if !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), end) {
				t.Errorf("got  %v\nwant %s%s", err, want, end)
			}
			if m.bootable() {
				t.Error("the disk is bootable")
			}
			found, _, err := disk.Inspect(disk.Disk{Path: m.loop, Size: 1 << 30})
			if err != nil || len(found) != 0 {
				t.Errorf("the disk has %v, %v", found, err)
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
	err := Run(ctx, m.config)
	if !errors.Is(err, gone) || m.bootable() || !strings.HasSuffix(err.Error(), "does not boot") {
		t.Errorf("got %v", err)
	}
}

type cancelling struct{ seen func(path string) }

func (c cancelling) RoundTrip(r *http.Request) (*http.Response, error) {
	c.seen(r.URL.Path)
	return http.DefaultTransport.RoundTrip(r)
}

func (m *machine) writeAt(data []byte, off int64) {
	m.t.Helper()
	f, err := os.OpenFile(m.loop, os.O_WRONLY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = f.WriteAt(data, off)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		m.t.Fatal(err)
	}
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
