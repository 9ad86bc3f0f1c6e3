package bootloader

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"imgbuild/image"
	"imgbuild/image/layout"
)

var update = flag.Bool("update", false, "write the golden files anew")

func manifest() *image.Manifest {
	return &image.Manifest{
		Name: "demo", Version: "1", Arch: "x86_64", Distro: image.Distro{Name: "CentOS Stream 9", Release: "9"},
		KernelRelease: "5.14.0-503.el9.x86_64", KernelArgs: []string{"console=tty0", "console=ttyS1,57600n8", "quiet"},
		BootLoader: image.BootLoader{Extlinux: &image.Extlinux{Modules: []string{"/usr/share/syslinux/libutil.c32"}}, GRUB: &image.GRUB{
			Shim: "/boot/efi/EFI/centos/shimx64.efi", Loader: "/boot/efi/EFI/centos/grubx64.efi", MokManager: "/usr/lib/shim/mmx64.efi",
			Fallback: "/usr/lib/shim/fbx64.efi", ConfigDir: "EFI/centos", Label: "CentOS Stream", BLS: true},
			GRUBPC: &image.GRUBPC{ModuleDir: "/usr/lib/grub/i386-pc", BootImage: "/usr/lib/grub/i386-pc/boot.img", BLS: true}},
	}
}

const mib = 1 << 20

// simple is one disk with a BIOS boot partition, an ESP, /boot and /.
func simple() *layout.Scheme {
	return &layout.Scheme{Firmware: layout.Both, BIOSLoader: layout.Extlinux, Disks: []layout.SchemeDisk{disk("disk1")}}
}

func disk(name string) layout.SchemeDisk {
	return layout.SchemeDisk{Name: name, Candidate: layout.Candidate{ID: "sda", Path: "/dev/sda", Serial: "S-" + name, Size: 64 << 30, Sector: 512},
		Table: layout.GPT, Boot: true, Parts: []layout.Part{
			{Number: 1, Name: "biosboot", Role: layout.RoleBIOSBoot, Start: mib, Size: mib},
			{Number: 2, Name: "esp", Role: layout.RoleESP, Start: 2 * mib, Size: 512 * mib, Content: layout.Content{FS: "vfat", Mount: "/boot/efi"}},
			{Number: 3, Name: "boot", Start: 514 * mib, Size: 1024 * mib, LegacyBoot: true, Content: layout.Content{FS: "ext4", Mount: "/boot"}},
			{Number: 4, Name: "root", Start: 1538 * mib, Size: 4096 * mib, Content: layout.Content{FS: "xfs", Mount: "/"}}}}
}

// mirror is two disks with all on RAID 1, and / on LVM.
func mirror() *layout.Scheme {
	s := &layout.Scheme{Firmware: layout.Both, BIOSLoader: layout.Extlinux}
	for _, name := range []string{"disk1", "disk2"} {
		d := disk(name)
		for i, a := range []string{"", "esp", "boot", "pv"} {
			d.Parts[i].Content = layout.Content{Array: a}
		}
		s.Disks = append(s.Disks, d)
	}
	add := func(n int, name, metadata string, c layout.Content) {
		s.Arrays = append(s.Arrays, layout.SchemeArray{Array: layout.Array{Name: name, Level: 1, Metadata: metadata, Content: c},
			Members: []layout.Device{layout.Device("part/disk1/" + strconv.Itoa(n)), layout.Device("part/disk2/" + strconv.Itoa(n))}})
	}
	add(2, "esp", "1.0", layout.Content{FS: "vfat", Mount: "/boot/efi"})
	add(3, "boot", "1.0", layout.Content{FS: "ext4", Mount: "/boot"})
	add(4, "pv", "1.2", layout.Content{Group: "system"})
	volume := func(name, fs, mount string) layout.SchemeVolume {
		return layout.SchemeVolume{Volume: layout.Volume{Name: name, Content: layout.Content{FS: fs, Mount: mount}}}
	}
	s.Groups = []layout.SchemeGroup{{Group: layout.Group{Name: "system"}, Physical: []layout.Device{"md/pv"},
		Volumes: []layout.SchemeVolume{volume("root", "xfs", "/"), volume("usr", "xfs", "/usr"), volume("var", "xfs", "/var"), volume("swap", "swap", "")}}}
	return s
}

type ids struct{}

func (ids) FS(d layout.Device) string { return "uuid-of-" + string(d) }
func (ids) Array(name string) string  { return "12345678:9abcdef0:12345678:" + name }

func target(m *image.Manifest, s *layout.Scheme) Target {
	return Target{Manifest: m, Scheme: s, Args: Arguments(m, s, ids{}), FSUUID: func(mount string) string { return "uuid-of-" + mount }}
}

func TestConfigurationsAreAsTheyWere(t *testing.T) {
	odd := target(manifest(), simple())
	odd.Manifest.Distro.Name = "Evil\" {\n  reboot\n} $x '"
	odd.Args = []string{`dyndbg="file a.c +p"`, "a=$b", "crashkernel=1G-4G:192M,4G-64G:256M", "x='y'"}
	static := target(manifest(), simple())
	static.Manifest.BootLoader.GRUB.BLS = false
	oddStatic := odd
	oddStatic.Manifest = manifest()
	oddStatic.Manifest.Distro.Name = odd.Manifest.Distro.Name
	oddStatic.Manifest.BootLoader.GRUB.BLS = false
	el7 := manifest()
	el7.Distro = image.Distro{Name: "CentOS Linux 7 (Core)", Release: "7"}
	el7.BootLoader.GRUB.LinuxEFI = true
	el7.KernelArgs = []string{"console=ttyS0"}
	whole := target(manifest(), simple())
	whole.Scheme.Disks[0].Parts[2].Content.Mount = ""
	whole.BootPrefix = "/boot"
	bios := target(manifest(), simple())
	bios.Scheme.Firmware, bios.Scheme.BIOSLoader = layout.BIOS, layout.GRUB
	el8 := target(manifest(), simple())
	el8.Manifest.Distro.Release = "8.10"
	text := func(s string, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, got := range map[string]string{
		"extlinux.conf":       extlinuxConf(target(manifest(), simple())),
		"extlinux-odd.conf":   extlinuxConf(odd),
		"extlinux-whole.conf": extlinuxConf(whole),
		"grub.cfg":            text(grubConf(target(manifest(), simple()), false)),
		"grub-bios.cfg":       text(grubConf(bios, false)),
		"grub-whole.cfg":      text(grubConf(whole, false)),
		"grub-odd.cfg":        text(grubConf(odd, false)),
		"grub-static.cfg":     text(grubConf(static, false)),
		"grub-static-odd.cfg": text(grubConf(oddStatic, false)),
		"grub-el7-bios.cfg":   text(grubConf(target(el7, simple()), false)),
		"grub-el7-uefi.cfg":   text(grubConf(target(el7, simple()), true)),
		"grub-mirror.cfg":     text(grubConf(target(manifest(), mirror()), false)),
		"stub.cfg":            text(grubStub(target(manifest(), simple()))),
		"stub-whole.cfg":      text(grubStub(whole)),
		"grubenv":             string(grubEnv(target(manifest(), simple()))),
		"grubenv-el8":         string(grubEnv(el8)),
	} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v; run go test -update if this is meant:\n%s", name, err, got)
		}
	}
}

func tree(t *testing.T, files map[string]string) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, dir
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGRUBBootsWithAndWithoutNVRAM(t *testing.T) {
	tg := target(manifest(), simple())
	tg.Root, _ = tree(t, map[string]string{"boot/efi/EFI/centos/shimx64.efi": "shim", "boot/efi/EFI/centos/grubx64.efi": "grub",
		"usr/lib/shim/mmx64.efi": "mm", "usr/lib/shim/fbx64.efi": "fb"})
	var esp string
	tg.ESP, esp = tree(t, map[string]string{"EFI/BOOT/fbx64.efi": "fb", "EFI/BOOT/BOOTX64.EFI": "old", "EFI/centos/BOOTX64.CSV": "csv"})
	for range 2 {
		if err := (GRUB{}).Install(t.Context(), tg); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grub.cfg", "EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi", "EFI/centos/BOOTX64.CSV",
		"EFI/centos/fbx64.efi", "EFI/centos/grub.cfg", "EFI/centos/grubx64.efi", "EFI/centos/mmx64.efi", "EFI/centos/shimx64.efi"}
	if got := list(t, esp); !slices.Equal(got, want) {
		t.Errorf("the ESP has %v", got)
	}
	if b, err := tg.ESP.ReadFile("EFI/BOOT/BOOTX64.EFI"); err != nil || string(b) != "shim" {
		t.Errorf("the removable path starts %q, %v", b, err)
	}
	if err := (GRUB{}).Revert(tg); err != nil {
		t.Fatal(err)
	}
	if got := list(t, esp); slices.Contains(got, "EFI/BOOT/BOOTX64.EFI") || slices.Contains(got, "EFI/centos/grub.cfg") {
		t.Errorf("after Revert the ESP has %v", got)
	}
	if err := (GRUB{}).Revert(tg); err != nil {
		t.Errorf("a second Revert: %v", err)
	}
}

func TestGRUBWithoutShimIsStartedDirectly(t *testing.T) {
	m := manifest()
	m.Arch = "aarch64"
	m.BootLoader.GRUB = &image.GRUB{Loader: "/usr/lib/grub/grubaa64.efi", ConfigDir: "EFI/x", Label: "x"}
	tg := target(m, simple())
	tg.Root, _ = tree(t, map[string]string{"usr/lib/grub/grubaa64.efi": "grub"})
	var esp string
	tg.ESP, esp = tree(t, nil)
	if err := (GRUB{}).Install(t.Context(), tg); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, esp), []string{"EFI/BOOT/BOOTAA64.EFI", "EFI/BOOT/grub.cfg", "EFI/x/grub.cfg", "EFI/x/grubaa64.efi"}; !slices.Equal(got, want) {
		t.Errorf("the ESP has %v, want %v", got, want)
	}
	if f, err := firstStage(m); err != nil || f != "EFI/x/grubaa64.efi" {
		t.Errorf("NVRAM starts %s, %v", f, err)
	}
}

func TestSerialConsolesAreReadAsTheKernelReadsThem(t *testing.T) {
	for arg, want := range map[string][3]int{
		"console=ttyS0,115200n8": {0, 115200, 1}, "console=ttyS1": {1, 9600, 1}, "console=ttyS2,57600": {2, 57600, 1},
		"console=tty0": {0, 0, 0}, "console=ttyAMA0,115200": {0, 0, 0}, "console=ttyS9": {0, 0, 0}, "console=ttySx": {0, 0, 0},
	} {
		u, s, ok := serialConsole([]string{arg})
		if u != want[0] || s != want[1] || ok != (want[2] == 1) {
			t.Errorf("%s is unit %d at %d, %v", arg, u, s, ok)
		}
	}
}
