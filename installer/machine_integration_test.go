//go:build integration

package installer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/hw"
	"imgbuild/installer/looptest"
	"imgbuild/installer/report"
	"imgbuild/installer/tool"
)

// syslinux is where Debian has the code of first sectors.
const syslinux = "/usr/lib/syslinux/mbr"

func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices and mounts need root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
	if _, err := os.Stat(syslinux); err != nil {
		t.Skipf("syslinux-common is not installed: %v", err)
	}
}

// mtoolsMounter stands in for the vfat driver, which not every test machine's kernel has: what is written to the mount
// point is put on the partition with mtools when it is unmounted. All else the kernel mounts.
type mtoolsMounter struct {
	KernelMounter
	vfat map[string]string // source by target
}

func (m mtoolsMounter) Supports(fs string) error {
	if fs == "vfat" {
		return nil
	}
	return m.KernelMounter.Supports(fs)
}

func (m mtoolsMounter) Mount(source, target, fs, options string) error {
	if fs != "vfat" {
		return m.KernelMounter.Mount(source, target, fs, options)
	}
	m.vfat[target] = source
	return nil
}

func (m mtoolsMounter) Unmount(target string) error {
	source, ok := m.vfat[target]
	if !ok {
		return m.KernelMounter.Unmount(target)
	}
	delete(m.vfat, target)
	list, err := filepath.Glob(target + "/*")
	if err != nil || len(list) == 0 {
		return err
	}
	c := exec.Command("mcopy", append([]string{"-s", "-m", "-o", "-i", source}, append(list, "::/")...)...)
	c.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("mcopy: %w: %s", err, out)
	}
	return os.RemoveAll(target)
}

// machine is loop devices as disks, a release on a web server, and everything that Run says.
type machine struct {
	t        *testing.T
	disks    []*loop
	loop     string // the first disk
	work     string
	release  string // directory
	manifest *image.Manifest
	key      image.PrivateKey
	server   *httptest.Server
	config   Config
	result   Result // of the last run

	mu    sync.Mutex
	lines []string
	last  string // the last step that began
}

// Line keeps what is said, and looks each time whether a disk boots: from the moment at which they have been wiped to the
// moment at which the partition tables are written none must.
func (m *machine) Line(_ report.Class, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, text)
	if s, ok := strings.CutPrefix(text, "imgbuild: step "); ok {
		m.last, _, _ = strings.Cut(s, "/")
	}
	m.mustNotBoot()
}

func (m *machine) mustNotBoot() {
	switch m.last {
	case "5", "6", "7", "8":
		for _, d := range m.disks {
			if d.bootable() {
				m.t.Errorf("%s is bootable in step %s", d.dev, m.last)
			}
		}
	}
}

func (m *machine) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.lines, "\n")
}

// newMachine has one disk, which the arguments name.
func newMachine(t *testing.T, size int64, sector int) *machine {
	t.Helper()
	need(t, "losetup", "addpart", "delpart", "mksquashfs", "mkfs.xfs", "mkfs.ext4", "mkfs.vfat", "extlinux", "mcopy")
	m := &machine{t: t, work: t.TempDir(), release: t.TempDir()}
	t.Cleanup(func() {
		mounts, _ := os.ReadFile("/proc/self/mounts")
		if strings.Contains(string(mounts), m.work) {
			t.Errorf("something stayed mounted:\n%s", mounts)
		}
	})
	m.makeRelease()
	m.server = httptest.NewServer(http.FileServer(http.Dir(m.release)))
	t.Cleanup(m.server.Close)
	m.config = Config{
		Args:    cmdline.Args{Mode: cmdline.ModeInstall, Manifest: m.server.URL + "/manifest.json", Done: cmdline.DonePoweroff},
		Keys:    []image.PublicKey{m.key.Public()},
		Machine: hw.Machine{Serial: serial, Firmware: hw.BIOS},
		Report:  report.New(m),
		System: System{
			Work: m.work, Syslinux: syslinux, Mounter: mtoolsMounter{vfat: map[string]string{}},
			Tools: tool.Runner{Output: func(argv []string, out string) {
				t.Logf("%s\n%s", strings.Join(argv, " "), out)
				m.mu.Lock()
				defer m.mu.Unlock()
				m.mustNotBoot()
			}},
		},
	}
	m.loop = m.add(size, sector).dev
	return m
}

// add adds a disk, which the arguments name after the others.
func (m *machine) add(size int64, sector int) *loop {
	m.t.Helper()
	d := newLoop(m.t, size, sector)
	m.disks = append(m.disks, d)
	m.config.Args.Disks = append(m.config.Args.Disks, d.dev)
	return d
}

// wipe allows everything on all disks to be destroyed.
func (m *machine) wipe() {
	m.config.Args.Wipe = m.config.Args.Disks
}

// digest is that of all disks.
func (m *machine) digest() string {
	var b strings.Builder
	for _, d := range m.disks {
		b.WriteString(d.digest())
	}
	return b.String()
}

// bootable says whether firmware would look at any of the disks.
func (m *machine) bootable() bool {
	return slices.ContainsFunc(m.disks, (*loop).bootable)
}

const (
	serial  = "SN-LOOP-1"
	release = "5.14.0-1.el9.x86_64"
)

func (m *machine) makeRelease() {
	t := m.t
	t.Helper()
	tree := t.TempDir()
	put := func(name, data string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(p, []byte(data), mode), os.Chmod(p, mode)); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/os-release", "ID=test\n", 0o644)
	put("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444)
	put("etc/default/grub", "GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX=\"rhgb\"\n", 0o644)
	put("boot/vmlinuz-"+release, strings.Repeat("kernel", 300_000), 0o755)
	put("boot/initramfs-"+release+".img", strings.Repeat("initramfs", 900_000), 0o600)
	put("boot/loader/entries/0123456789abcdef0123456789abcdef-"+release+".conf", "title old\n", 0o644)
	put("boot/efi/EFI/BOOT/BOOTX64.EFI", "the shim", 0o700)
	put("boot/efi/EFI/BOOT/fbx64.efi", "the fallback", 0o700)
	put("boot/efi/EFI/test/shimx64.efi", "the shim", 0o700)
	put("boot/efi/EFI/test/mmx64.efi", "the key manager", 0o700)
	put("boot/efi/EFI/test/grubx64.efi", strings.Repeat("grub", 500_000), 0o700)
	put("srv/www/index.html", "hello\n", 0o644)
	put("usr/bin/su", "setuid", 0o755|os.ModeSetuid)
	put("usr/share/big", string(bytes.Repeat([]byte("0123456789abcdef"), 1<<18)), 0o644)
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(tree, "boot"), 0o555); err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(m.release, image.RootfsFile)
	looptest.Command(t, "mksquashfs", tree, rootfs, "-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-no-progress", "-quiet")
	f, err := os.Open(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	desc, err := image.Describe(f, true)
	if err != nil {
		t.Fatal(err)
	}
	if m.key, err = image.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	m.manifest = &image.Manifest{
		Schema: image.Schema, Name: "test", Version: "1", Arch: "x86_64",
		Distro:        image.Distro{ID: "test", Name: "Test Linux 9", Release: "9"},
		KernelRelease: release, KernelArgs: []string{"console=tty0", "console=ttyS0,115200n8"}, NoKexec: []string{"HPE *"},
		LockDigest: strings.Repeat("0", 64), SELinux: "disabled", NetworkFormat: image.NMKeyfile, Created: 1,
		Layout: layout.Layout{Firmware: layout.Both, BIOSLoader: layout.Extlinux, ESPSize: "300MiB", BootSize: "256MiB"},
		BootLoader: image.BootLoader{Extlinux: &image.Extlinux{}, GRUB: &image.GRUB{
			Shim: "/boot/efi/EFI/test/shimx64.efi", Loader: "/boot/efi/EFI/test/grubx64.efi", MokManager: "/boot/efi/EFI/test/mmx64.efi",
			ConfigDir: "EFI/test", Label: "Test Linux"}},
		UnpackedBytes: 20 << 20,
		Files:         map[string]image.File{image.RootfsFile: desc},
	}
	m.sign()
}

// sign writes the manifest as it is now.
func (m *machine) sign() {
	m.t.Helper()
	data, err := m.manifest.Marshal()
	if err != nil {
		m.t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(filepath.Join(m.release, image.ManifestFile), data, 0o644),
		os.WriteFile(filepath.Join(m.release, image.SignatureFile), image.Sign(data, m.key), 0o644))
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) run() error {
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Minute)
	defer cancel()
	var err error
	m.result, err = Run(ctx, m.config)
	if m.t.Failed() || testing.Verbose() {
		m.t.Log("\n" + m.said())
	}
	return err
}
