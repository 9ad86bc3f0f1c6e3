//go:build integration

package bootloader

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image/layout"
	"imgbuild/installer/tool"
)

const (
	debianModules = "/usr/lib/grub/i386-pc"
	diskSize      = 448 * mib
)

// program skips the test where a program is missing.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	t.Skipf("there is no %s here", strings.Join(names, " or "))
	return ""
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop makes a part of a file a block device.
func loop(t *testing.T, file string, start, size int64) string {
	t.Helper()
	dev := run(t, "losetup", "--find", "--show", fmt.Sprintf("--offset=%d", start), fmt.Sprintf("--sizelimit=%d", size), file)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev
}

// biosScheme is a disk that boots with BIOS: with GPT from a BIOS boot partition, with MBR from the gap.
func biosScheme(loader layout.Loader, table layout.Table, fs string) *layout.Scheme {
	d := layout.SchemeDisk{Name: "disk1", Candidate: layout.Candidate{Path: "/dev/sda", Size: diskSize, Sector: 512}, Table: table, Boot: true}
	start := int64(mib)
	if table == layout.GPT {
		d.Parts = append(d.Parts, layout.Part{Number: 1, Role: layout.RoleBIOSBoot, Start: mib, Size: mib})
		start = 2 * mib
	}
	d.Parts = append(d.Parts, layout.Part{Number: len(d.Parts) + 1, Start: start, Size: diskSize - 3*mib, LegacyBoot: true,
		Content: layout.Content{FS: fs, Mount: "/boot"}})
	root := layout.SchemeDisk{Name: "disk2", Table: layout.GPT, Parts: []layout.Part{{Number: 1, Content: layout.Content{FS: "xfs", Mount: "/"}}}}
	return &layout.Scheme{Firmware: layout.BIOS, BIOSLoader: loader, Disks: []layout.SchemeDisk{d, root}}
}

// bed is a disk image with the scheme's partitions, whose /boot is mounted in a tree that has GRUB's or Syslinux's files.
type bed struct {
	Target
	image string
	nodes map[layout.Device]string
}

func newBed(t *testing.T, s *layout.Scheme, mkfs ...string) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, p := range []string{"sgdisk", "sfdisk", "losetup", mkfs[0]} {
		program(t, p)
	}
	dir := t.TempDir()
	b := &bed{image: filepath.Join(dir, "disk.img"), nodes: map[layout.Device]string{}}
	if err := errors.Join(os.WriteFile(b.image, nil, 0o600), os.Truncate(b.image, diskSize)); err != nil {
		t.Fatal(err)
	}
	d := s.Disks[0]
	partitionTable(t, d, b.image)
	for _, p := range d.Parts {
		b.nodes[part(d, p)] = loop(t, b.image, p.Start, p.Size)
	}
	boot := s.Boot()
	if len(s.Groups) > 0 {
		b.volume(t, d.Parts[len(d.Parts)-1], s.Groups[0])
	}
	b.mount(t, dir, s, b.nodes[boot.Device], boot.FS, mkfs)
	return b
}

// volume makes a volume group of the last partition with one linear volume, and a loop device where that lies: this works
// where the kernel has no device mapper.
func (b *bed) volume(t *testing.T, p layout.Part, g layout.SchemeGroup) {
	t.Helper()
	program(t, "lvcreate")
	const extent, first = 4 * mib, mib // pvcreate aligns the first extent to 1 MiB
	dev := loop(t, b.image, p.Start, p.Size)
	config := fmt.Sprintf(`activation{udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0} devices{use_devicesfile=0 global_filter=["a|^%s$|","r|.*|"]}`, dev)
	name, size := g.Volumes[0].Name, p.Size-64*mib
	run(t, "pvcreate", "--config", config, "-y", dev)
	run(t, "vgcreate", "--config", config, g.Name, dev)
	run(t, "lvcreate", "--config", config, "--driverloaded", "n", "-an", "-Zn", "-Wn", "-y", "-n", name, "-l", fmt.Sprint(size/extent), g.Name)
	b.nodes[layout.Device("lv/"+g.Name+"/"+name)] = loop(t, b.image, p.Start+first, size)
}

// mount makes the file system of /boot on a device and mounts it.
func (b *bed) mount(t *testing.T, dir string, s *layout.Scheme, node, fs string, mkfs []string) {
	t.Helper()
	run(t, append(mkfs, node)...)
	b.Dir = filepath.Join(dir, "root")
	if err := os.MkdirAll(b.Dir+"/boot", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(node, b.Dir+"/boot", fs, 0, ""); err != nil {
		t.Skipf("this kernel does not mount %s: %v", fs, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.Dir+"/boot", 0); err != nil && err != unix.EINVAL {
			t.Error(err)
		}
	})
	var err error
	if b.Root, err = os.OpenRoot(b.Dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Root.Close() })
	id := run(t, program(t, "blkid"), "-p", "-o", "value", "-s", "UUID", node)
	b.Manifest, b.Scheme = manifest(), s
	b.Manifest.BootLoader.GRUBPC.BLS = false
	b.Args = []string{"root=UUID=none", "ro", "console=ttyS0,115200"}
	b.FSUUID = func(string) string { return id }
	b.Node = func(d layout.Device) string { return b.nodes[d] }
	b.Scratch = dir
}

func partitionTable(t *testing.T, d layout.SchemeDisk, image string) {
	t.Helper()
	if d.Table == layout.GPT {
		argv := []string{"sgdisk"}
		for _, p := range d.Parts {
			argv = append(argv, fmt.Sprintf("--new=%d:%d:%d", p.Number, p.Start/512, (p.Start+p.Size)/512-1))
			if p.Role == layout.RoleBIOSBoot {
				argv = append(argv, fmt.Sprintf("--typecode=%d:ef02", p.Number))
			}
			if p.LegacyBoot {
				argv = append(argv, fmt.Sprintf("--attributes=%d:set:2", p.Number))
			}
		}
		run(t, append(argv, image)...)
		return
	}
	c := exec.Command("sfdisk", "--quiet", image)
	c.Stdin = strings.NewReader(fmt.Sprintf("label: dos\nstart=%d,size=%d,type=83,bootable\n", d.Parts[0].Start/512, d.Parts[0].Size/512))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
}

// grub puts a GRUB's modules into the tree, and its grub2-mkimage where the initramfs has it.
func (b *bed) grub(t *testing.T, modules, mkimageProgram string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(mkimageProgram, filepath.Join(bin, mkimage)); err != nil {
		t.Fatal(err)
	}
	b.Run = tool.Runner{Dirs: []string{bin, "/usr/bin", "/bin"}}
	if err := os.CopyFS(filepath.Join(b.Dir, "usr/lib/grub/i386-pc"), os.DirFS(modules)); err != nil {
		t.Fatal(err)
	}
}

// install does what the installer does, sector 0 and the gap last.
func (b *bed) install(t *testing.T, l Loader) {
	t.Helper()
	if err := l.Probe(b.Target); err != nil {
		t.Fatal(err)
	}
	if err := l.Install(t.Context(), b.Target); err != nil {
		t.Fatal(err)
	}
	code, err := l.Code(b.Target)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(b.image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := code["disk1"]
	if _, err := f.WriteAt(c.MBR, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(c.Gap, sector); err != nil {
		t.Fatal(err)
	}
}

// serial boots the image with BIOS and returns what the serial console says up to the last of the texts.
func serial(t *testing.T, image string, texts ...string) {
	t.Helper()
	qemu := program(t, "qemu-system-x86_64")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "nice", qemu, "-machine", "pc", "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-vga", "none", "-no-reboot",
		"-serial", "stdio", "-drive", "file="+image+",format=raw,if=virtio,snapshot=on")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var diag bytes.Buffer
	c.Stderr = &diag
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		c.Wait()
	}()
	var said strings.Builder
	r := bufio.NewReader(out)
	for len(texts) > 0 {
		x, err := r.ReadByte()
		if err != nil {
			if err != io.EOF {
				t.Log(err)
			}
			t.Fatalf("the console never said %q, but:\n%s\n%s", texts[0], said.String(), diag.String())
		}
		said.WriteByte(x)
		if strings.Contains(said.String(), texts[0]) {
			texts = texts[1:]
		}
	}
}

func TestGRUBIsEmbeddedAsGRUBsOwnToolDoes(t *testing.T) {
	setup := debianModules + "/grub-bios-setup"
	if _, err := os.Stat(setup); err != nil {
		t.Skipf("there is no grub-bios-setup here: %v", err)
	}
	grubMkimage := program(t, "grub-mkimage", mkimage)
	for name, c := range map[string]struct {
		table layout.Table
		fs    string
		mkfs  []string
	}{
		"GPT and ext4": {layout.GPT, "ext4", []string{"mkfs.ext4", "-q"}},
		"GPT and XFS":  {layout.GPT, "xfs", []string{"mkfs.xfs", "-q"}},
		"MBR and ext4": {layout.MBR, "ext4", []string{"mkfs.ext4", "-q"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, biosScheme(layout.GRUB, c.table, c.fs), c.mkfs...)
			b.grub(t, debianModules, grubMkimage)
			start := b.Scheme.Disks[0].Parts[len(b.Scheme.Disks[0].Parts)-1].Start
			before := head(t, b.image, start)
			b.install(t, GRUBPC{})
			boot := b.Scheme.Boot()
			theirs := filepath.Join(t.TempDir(), "theirs.img")
			devices := theirs + ".map"
			if err := errors.Join(os.WriteFile(theirs, before, 0o600), os.Truncate(theirs, diskSize),
				os.WriteFile(devices, []byte("(hd0) "+theirs+"\n(hd1) "+b.nodes[boot.Device]+"\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
			run(t, setup, "--no-rs-codes", "--directory="+filepath.Join(b.Dir, grubMods), "--device-map="+devices, "(hd0)")
			got, want := head(t, b.image, start), head(t, theirs, start)
			if i := firstDifference(got, want); i >= 0 {
				t.Errorf("byte %#x of the disk is %#x and GRUB's own tool writes %#x", i, got[i], want[i])
			}
			if bytes.Equal(want[sector:], before[sector:]) {
				t.Error("GRUB's own tool embedded nothing")
			}
		})
	}
}

func head(t *testing.T, file string, n int64) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func TestGRUBStartsFromTheDiskThatItWasEmbeddedIn(t *testing.T) {
	program(t, "qemu-system-x86_64")
	grubMkimage := program(t, "grub-mkimage", mkimage)
	if _, err := os.Stat(debianModules); err != nil {
		t.Skipf("there is no GRUB for BIOS here: %v", err)
	}
	lvm := biosScheme(layout.GRUB, layout.GPT, "xfs")
	last := &lvm.Disks[0].Parts[1].Content
	lvm.Groups = []layout.SchemeGroup{{Group: layout.Group{Name: "system"}, Physical: []layout.Device{"part/disk1/2"},
		Volumes: []layout.SchemeVolume{{Volume: layout.Volume{Name: "boot", Content: *last}}}}}
	*last = layout.Content{Group: "system"}
	for name, c := range map[string]struct {
		scheme  *layout.Scheme
		modules string
		mkfs    []string
	}{
		"GPT and XFS":              {biosScheme(layout.GRUB, layout.GPT, "xfs"), debianModules, []string{"mkfs.xfs", "-q"}},
		"MBR and ext4":             {biosScheme(layout.GRUB, layout.MBR, "ext4"), debianModules, []string{"mkfs.ext4", "-q"}},
		"GPT and XFS on LVM":       {lvm, debianModules, []string{"mkfs.xfs", "-q"}},
		"CentOS 7 on GPT and ext4": {biosScheme(layout.GRUB, layout.GPT, "ext4"), "", []string{"mkfs.ext4", "-q", "-O", "^metadata_csum"}},
	} {
		t.Run(name, func(t *testing.T) {
			modules := c.modules
			if modules == "" {
				modules = el7Modules(t)
			}
			b := newBed(t, c.scheme, c.mkfs...)
			b.grub(t, modules, grubMkimage)
			if c.modules == "" {
				b.Manifest.Distro.Release = "7"
			}
			b.install(t, GRUBPC{})
			if err := unix.Unmount(b.Dir+"/boot", 0); err != nil {
				t.Fatal(err)
			}
			// The menu is there, and after its three seconds the entry is tried: this /boot has no kernel.
			serial(t, b.image, "CentOS Stream 9 (5.14.0-503.el9.x86_64)", "vmlinuz-5.14.0-503.el9.x86_64' not found")
		})
	}
}

func TestGRUBsToolsReadWhatIsWrittenForIt(t *testing.T) {
	check, env := program(t, "grub-script-check", "grub2-script-check"), program(t, "grub-editenv", "grub2-editenv")
	files, err := filepath.Glob("testdata/*.cfg")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no configurations to check: %v", err)
	}
	for _, f := range files {
		run(t, check, f)
	}
	if got := run(t, env, "testdata/grubenv", "list"); got != "" {
		t.Errorf("a new environment has %q", got)
	}
	if got, want := run(t, env, "testdata/grubenv-el8", "list"), "kernelopts=root=UUID=uuid-of-part/disk1/4 ro console=tty0 console=ttyS1,57600n8 quiet"; got != want {
		t.Errorf("EL8's environment has %q, want %q", got, want)
	}
}

// el7Modules unpacks CentOS 7's GRUB 2.02 for BIOS.
func el7Modules(t *testing.T) string {
	t.Helper()
	packages, err := filepath.Glob(filepath.Join(os.Getenv("IMGBUILD_EL7"), "os/Packages/grub2-pc-modules-*.rpm"))
	if os.Getenv("IMGBUILD_EL7") == "" || err != nil || len(packages) == 0 {
		t.Skip("IMGBUILD_EL7 names no directory with real CentOS 7 packages")
	}
	dir := t.TempDir()
	unpack := exec.Command(program(t, "cpio"), "-idm", "--quiet", "--no-absolute-filenames")
	unpack.Dir = dir
	payload := exec.Command(program(t, "rpm2cpio"), packages[0])
	if unpack.Stdin, err = payload.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(payload.Start(), unpack.Run(), payload.Wait()); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "usr/lib/grub/i386-pc")
}

func TestExtlinuxStartsFromTheDiskThatItWasInstalledOn(t *testing.T) {
	program(t, "qemu-system-x86_64")
	program(t, "extlinux")
	dir := "/usr/lib/syslinux/mbr"
	if _, err := os.Stat(dir + "/gptmbr.bin"); err != nil {
		dir = "/usr/share/syslinux"
	}
	if _, err := os.Stat(dir + "/gptmbr.bin"); err != nil {
		t.Skipf("there is no MBR code of Syslinux here: %v", err)
	}
	for name, c := range map[string]struct {
		table layout.Table
		fs    string
		mkfs  []string
	}{
		"GPT and ext4": {layout.GPT, "ext4", []string{"mkfs.ext4", "-q", "-O", "^64bit,^metadata_csum"}},
		"MBR and ext4": {layout.MBR, "ext4", []string{"mkfs.ext4", "-q", "-O", "^64bit,^metadata_csum"}},
		"MBR and XFS":  {layout.MBR, "xfs", []string{"mkfs.xfs", "-q"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, biosScheme(layout.Extlinux, c.table, c.fs), c.mkfs...)
			b.Run = tool.Runner{}
			b.Syslinux = dir
			b.Manifest.BootLoader.Extlinux.Modules = nil // Debian's extlinux writes ldlinux.c32 itself
			b.install(t, Extlinux{})
			if err := unix.Unmount(b.Dir+"/boot", 0); err != nil {
				t.Fatal(err)
			}
			serial(t, b.image, "boot:", "Loading /vmlinuz-5.14.0-503.el9.x86_64")
		})
	}
}
