package bootloader

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/installer/tool"
)

var update = flag.Bool("update", false, "write the golden files anew")

func manifest() *image.Manifest {
	return &image.Manifest{
		Name: "demo", Version: "1", Arch: "x86_64", Distro: image.Distro{Name: "CentOS Stream 9", Release: "9"},
		KernelRelease: "5.14.0-503.el9.x86_64", KernelArgs: []string{"console=tty0", "console=ttyS1,57600n8", "quiet"},
		FixedLayout: image.Layout{Partitions: []image.Partition{
			{Name: "esp", Role: image.RoleESP, FS: "vfat", Mount: "/boot/efi"}, {Name: "boot", Role: image.RoleBoot, FS: "ext4", Mount: "/boot"},
			{Name: "root", Role: image.RoleRoot, FS: "xfs", Mount: "/"}}},
		BootLoader: image.BootLoader{Extlinux: &image.Extlinux{Modules: []string{"/usr/share/syslinux/libutil.c32"}}, GRUB: &image.GRUB{
			Shim: "/boot/efi/EFI/centos/shimx64.efi", Loader: "/boot/efi/EFI/centos/grubx64.efi", MokManager: "/usr/lib/shim/mmx64.efi",
			Fallback: "/usr/lib/shim/fbx64.efi", ConfigDir: "EFI/centos", Label: "CentOS Stream"}},
	}
}

func target(m *image.Manifest) Target {
	return Target{Manifest: m, RootUUID: "11111111-2222-3333-4444-555555555555", BootUUID: "66666666-7777-8888-9999-aaaaaaaaaaaa", BootCode: make([]byte, 440)}
}

func TestConfigurationsAreAsTheyWere(t *testing.T) {
	odd := manifest()
	odd.Distro.Name = "Evil\" {\n  reboot\n} $x '"
	odd.KernelArgs = []string{`dyndbg="file a.c +p"`, "a=$b", "crashkernel=1G-4G:192M,4G-64G:256M", "x='y'"}
	el7 := manifest()
	el7.BootLoader.GRUB.LinuxEFI = true
	el7.KernelArgs = []string{"console=ttyS0"}
	whole := target(manifest())
	whole.BootPrefix = "/boot"
	for name, got := range map[string]string{
		"extlinux.conf":       extlinuxConf(target(manifest())),
		"extlinux-odd.conf":   extlinuxConf(target(odd)),
		"extlinux-whole.conf": extlinuxConf(whole),
		"grub.cfg":            grubConf(target(manifest())),
		"grub-odd.cfg":        grubConf(target(odd)),
		"grub-el7.cfg":        grubConf(target(el7)),
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
	tg := target(manifest())
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
	tg := target(m)
	tg.Root, _ = tree(t, map[string]string{"usr/lib/grub/grubaa64.efi": "grub"})
	var esp string
	tg.ESP, esp = tree(t, nil)
	if err := (GRUB{}).Install(t.Context(), tg); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, esp), []string{"EFI/BOOT/BOOTAA64.EFI", "EFI/BOOT/grub.cfg", "EFI/x/grub.cfg", "EFI/x/grubaa64.efi"}; !slices.Equal(got, want) {
		t.Errorf("the ESP has %v, want %v", got, want)
	}
	if f, err := FirstStage(m); err != nil || f != "EFI/x/grubaa64.efi" {
		t.Errorf("NVRAM starts %s, %v", f, err)
	}
}

func TestExtlinuxIsInstalledWithItsModules(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\n[ \"$1\" = --install ] && : > \"$2/ldlinux.sys\"\n"
	if err := os.WriteFile(filepath.Join(bin, "extlinux"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	tg := target(manifest())
	tg.Run = tool.Runner{Dirs: []string{bin, "/bin"}}
	if err := (Extlinux{}).Probe(tg); err != nil {
		t.Fatal(err)
	}
	tg.Root, tg.Dir = tree(t, map[string]string{"usr/share/syslinux/libutil.c32": "c32"})
	if err := (Extlinux{}).Install(t.Context(), tg); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, filepath.Join(tg.Dir, "boot")), []string{"extlinux/extlinux.conf", "extlinux/ldlinux.sys", "extlinux/libutil.c32"}; !slices.Equal(got, want) {
		t.Errorf("/boot has %v, want %v", got, want)
	}
	if err := errors.Join((Extlinux{}).Revert(tg), (Extlinux{}).Revert(tg)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "extlinux"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tg.Root, tg.Dir = tree(t, map[string]string{"usr/share/syslinux/libutil.c32": "c32"})
	if err := (Extlinux{}).Install(t.Context(), tg); err == nil || !strings.Contains(err.Error(), "ldlinux.sys is not there") {
		t.Errorf("a program that does nothing gives %v", err)
	}
}

func TestLoadersThatCannotWorkAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "extlinux"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		loader Loader
		change func(*Target)
		says   string
	}{
		"no extlinux in the image":       {Extlinux{}, func(t *Target) { t.Manifest.BootLoader.Extlinux = nil }, "does not carry"},
		"extlinux on ARM":                {Extlinux{}, func(t *Target) { t.Manifest.Arch = "aarch64" }, "does not carry"},
		"no extlinux program":            {Extlinux{}, func(t *Target) { t.Run.Dirs = []string{"/nonexistent"} }, "not in the initramfs"},
		"MBR code for a disk without":    {Extlinux{}, func(t *Target) { t.BootCode = make([]byte, 512) }, "512 bytes"},
		"arguments longer than a line":   {Extlinux{}, func(t *Target) { t.Manifest.KernelArgs = []string{strings.Repeat("x", 2048)} }, "kernels take 2047"},
		"no GRUB in the image":           {GRUB{}, func(t *Target) { t.Manifest.BootLoader.GRUB = nil }, "does not carry"},
		"no ESP":                         {GRUB{}, func(t *Target) { t.Manifest.FixedLayout.Partitions[0].Role = image.RoleBoot }, "no EFI system partition"},
		"a directory outside of the ESP": {GRUB{}, func(t *Target) { t.Manifest.BootLoader.GRUB.ConfigDir = "../x" }, "not a directory on the ESP"},
	} {
		t.Run(name, func(t *testing.T) {
			tg := target(manifest())
			tg.Run.Dirs = []string{bin}
			if err := c.loader.Probe(tg); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			c.change(&tg)
			err := c.loader.Probe(tg)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
			if strings.Contains(c.says, "does not carry") != errors.Is(err, ErrNotInImage) {
				t.Errorf("is it ErrNotInImage? %v", err)
			}
		})
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
