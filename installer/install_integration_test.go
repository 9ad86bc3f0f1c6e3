//go:build integration

package installer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/hw"
	"imgbuild/installer/report"
	"imgbuild/installer/tool"
)

const mbrCode = "/usr/lib/syslinux/mbr/gptmbr.bin"

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
	if _, err := os.Stat(mbrCode); err != nil {
		t.Skipf("syslinux-common is not installed: %v", err)
	}
}

func command(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
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

// machine is a loop device as a disk, a release on a web server, and everything that Run says.
type machine struct {
	t        *testing.T
	file     string
	loop     string
	work     string
	release  string // directory
	manifest *image.Manifest
	key      image.PrivateKey
	server   *httptest.Server
	config   Config

	mu    sync.Mutex
	lines []string
	last  string // the last step that began
}

// Line keeps what is said, and looks each time whether the disk boots: from the moment at which it has been wiped to the
// moment at which the partition table is written it must not.
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
	case "5", "6", "7", "8", "9":
		if m.bootable() {
			m.t.Errorf("the disk is bootable in step %s", m.last)
		}
	}
}

func (m *machine) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.lines, "\n")
}

func newMachine(t *testing.T, size int64, sector int) *machine {
	t.Helper()
	need(t, "losetup", "mksquashfs", "mkfs.xfs", "mkfs.ext4", "mkfs.vfat", "extlinux", "mcopy")
	m := &machine{t: t, work: t.TempDir(), release: t.TempDir()}
	m.file = filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(m.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	m.loop = strings.TrimSpace(command(t, "losetup", "--find", "--show", "--partscan", "--sector-size", fmt.Sprint(sector), m.file))
	t.Cleanup(func() {
		d := disk.Disk{Name: filepath.Base(m.loop), Path: m.loop}
		if err := disk.DeletePartitions("/sys", d); err != nil {
			t.Error(err)
		}
		command(t, "losetup", "--detach", m.loop)
		mounts, _ := os.ReadFile("/proc/self/mounts")
		if strings.Contains(string(mounts), m.work) {
			t.Errorf("something stayed mounted:\n%s", mounts)
		}
	})
	m.makeRelease()
	m.server = httptest.NewServer(http.FileServer(http.Dir(m.release)))
	t.Cleanup(m.server.Close)
	m.config = Config{
		Args:    cmdline.Args{Mode: cmdline.ModeInstall, Manifest: m.server.URL + "/manifest.json", Disks: []string{m.loop}},
		Keys:    []image.PublicKey{m.key.Public()},
		Machine: hw.Machine{Firmware: hw.BIOS},
		Report:  report.New(m),
		System: System{
			Work: m.work, BootCode: mbrCode, Mounter: mtoolsMounter{vfat: map[string]string{}},
			Tools: tool.Runner{Output: func(argv []string, out string) {
				t.Logf("%s\n%s", strings.Join(argv, " "), out)
				m.mu.Lock()
				defer m.mu.Unlock()
				m.mustNotBoot()
			}},
		},
	}
	return m
}

const release = "5.14.0-1.el9.x86_64"

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
	command(t, "mksquashfs", tree, rootfs, "-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-no-progress", "-quiet")
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
		KernelRelease: release, KernelArgs: []string{"console=tty0", "console=ttyS0,115200n8"},
		LockDigest: strings.Repeat("0", 64), SELinux: "disabled", NetworkFormat: image.NMKeyfile, Created: 1,
		FixedLayout: image.Layout{Partitions: []image.Partition{
			{Name: "biosboot", Role: image.RoleBIOSBoot, SizeMiB: 1},
			{Name: "esp", Role: image.RoleESP, SizeMiB: 300, FS: "vfat", Label: "ESP", Mount: "/boot/efi", Options: "umask=0077,shortname=winnt"},
			{Name: "boot", Role: image.RoleBoot, SizeMiB: 128, FS: "ext4", Label: "boot", Mount: "/boot"},
			{Name: "root", Role: image.RoleRoot, FS: "xfs", Label: "root", Mount: "/"},
		}},
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
	err := Run(ctx, m.config)
	if m.t.Failed() || testing.Verbose() {
		m.t.Log("\n" + m.said())
	}
	return err
}

// digest is the SHA-256 of the disk's contents, holes skipped.
func (m *machine) digest() string {
	m.t.Helper()
	f, err := os.Open(m.file)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	var off int64
	for {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err != nil {
			break
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			m.t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(f, start, end-start))
		if err != nil {
			m.t.Fatal(err)
		}
		for i := 0; i < len(data); i += 4096 {
			if b := data[i:min(i+4096, len(data))]; len(bytes.Trim(b, "\x00")) > 0 {
				fmt.Fprintf(h, "%d:%x\n", start+int64(i), b)
			}
		}
		off = end
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// bootable says whether firmware would look at the disk at all.
func (m *machine) bootable() bool {
	m.t.Helper()
	f, err := os.Open(m.loop)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	if _, err := io.ReadFull(f, b); err != nil {
		m.t.Fatal(err)
	}
	return b[510] == 0x55 && b[511] == 0xaa
}

func TestAReleaseIsInstalledOntoADisk(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprintf("with sectors of %d bytes", sector), func(t *testing.T) {
			m := newMachine(t, 1<<30, sector)
			if err := m.run(); err != nil {
				t.Fatal(err)
			}
			m.checkDisk(sector)
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
			if !errors.Is(err, disk.ErrNotEmpty) || m.digest() != before {
				t.Errorf("the second installation: %v", err)
			}
			m.config.Args.Wipe = []string{m.loop}
			if err := m.run(); err != nil {
				t.Fatalf("with imgbuild.wipe=: %v", err)
			}
			m.checkDisk(sector)
		})
	}
}

// checkDisk asks other people's tools, then looks at the files.
func (m *machine) checkDisk(sector int) {
	t := m.t
	t.Helper()
	if !m.bootable() {
		t.Fatal("the disk is not bootable")
	}
	if out := command(t, "sgdisk", "-v", m.loop); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk says:\n%s", out)
	}
	if _, err := exec.LookPath("sfdisk"); err == nil {
		if out := command(t, "sfdisk", "--verify", m.loop); !strings.Contains(out, "No errors detected") {
			t.Errorf("sfdisk says:\n%s", out)
		}
	}
	f, err := os.Open(m.loop)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, 1<<30)
	if err != nil || !table.Primary || !table.Backup || len(table.Partitions) != 4 || table.Partitions[2].Attributes != gpt.AttrLegacyBoot {
		t.Fatalf("the table is %+v, %v", table, err)
	}
	d := disk.Disk{Name: filepath.Base(m.loop), Path: m.loop}
	var placed []disk.Placed
	for _, p := range table.Partitions {
		placed = append(placed, disk.Placed{Number: p.Number, Start: int64(p.First) * int64(sector), Size: int64(p.Last-p.First+1) * int64(sector)})
	}
	nodes, err := disk.AddPartitions("/sys", d, placed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := disk.DeletePartitions("/sys", d); err != nil {
			t.Error(err)
		}
	}()
	esp, boot, root := nodes[1], nodes[2], nodes[3]
	command(t, "fsck.vfat", "-n", esp)
	command(t, "e2fsck", "-fn", boot)
	command(t, "xfs_repair", "-n", root)
	if out := command(t, "dumpe2fs", "-h", boot); strings.Contains(out, "64bit") || strings.Contains(out, "metadata_csum") {
		t.Errorf("extlinux cannot read this /boot:\n%s", out)
	}

	out := command(t, "mdir", "-b", "-/", "-i", esp, "::/")
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
		uuids[name] = strings.TrimSpace(command(t, "blkid", "-p", "-o", "value", "-s", "UUID", node))
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
	if got := read("etc/machine-id"); got != "" {
		t.Errorf("machine-id is %q", got)
	}
	want := "root=UUID=" + uuids["root"] + " ro console=tty0 console=ttyS0,115200n8"
	for _, name := range []string{"boot/extlinux/extlinux.conf", "etc/kernel/cmdline", "boot/loader/entries/ffffffffffffffffffffffffffffffff-" + release + ".conf"} {
		if got := read(name); !strings.Contains(got, want) {
			t.Errorf("%s does not have %q:\n%s", name, want, got)
		}
	}
	if got := read("etc/default/grub"); got != "GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200n8\"\n" {
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
	cfg := command(t, "mtype", "-i", esp, "::/EFI/test/grub.cfg")
	if !strings.Contains(cfg, "--set=root "+uuids["boot"]+"\n") || !strings.Contains(cfg, "linux /vmlinuz-"+release+" "+want) {
		t.Errorf("grub.cfg is\n%s", cfg)
	}
	if _, err := os.Stat(filepath.Join(dir, "boot/extlinux/ldlinux.sys")); err != nil {
		t.Error(err)
	}
}
