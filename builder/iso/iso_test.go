package iso

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/builder/tool"
	"imgbuild/image"
)

var update = flag.Bool("update", false, "write the golden files anew")

// release is a manifest of what EL's releases say of themselves.
func release(change func(*image.Manifest)) *image.Manifest {
	m := &image.Manifest{
		Name: "web", Version: "2026.11", Arch: "x86_64", Created: 1_790_000_000, KernelArgs: []string{"console=tty0", "console=ttyS1,57600n8", "crashkernel=1G"},
		BootLoader: image.BootLoader{GRUB: &image.GRUB{Loader: "/boot/efi/EFI/centos/grubx64.efi", ConfigDir: "EFI/centos"}},
		Files:      map[string]image.File{image.KernelFile: {Size: 6}, image.RootfsFile: {Size: 8}, image.InitramfsFile: {Size: 9}},
	}
	if change != nil {
		change(m)
	}
	return m
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed (go test -update writes it anew):\n%s", file, got)
	}
}

func TestConfigurationsOfGRUBAreTheGoldenOnes(t *testing.T) {
	for name, change := range map[string]func(*image.Manifest){
		"el9.cfg": nil,
		"el7.cfg": func(m *image.Manifest) { m.BootLoader.GRUB.LinuxEFI = true },
		"quoted.cfg": func(m *image.Manifest) {
			m.Version, m.KernelArgs = "1+1", []string{`dyndbg="file a.c +p"`, "hugepages='2'", "x=$y"}
		},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, menu(release(change))) })
	}
	golden(t, "finder.cfg", finder("WEB-2026.11"))
}

func TestTheMenusSerialPortIsTheImages(t *testing.T) {
	for name, c := range map[string]struct {
		args        string
		unit, speed int
	}{
		"none":                          {"quiet console=tty0", 0, 115200},
		"with a speed":                  {"console=ttyS1,57600", 1, 57600},
		"with parity and bits":          {"console=ttyS0,9600n8r", 0, 9600},
		"the kernel's default speed":    {"console=ttyS2", 2, 9600},
		"the last of two":               {"console=ttyS0,115200 console=ttyS1,19200n8 console=tty0", 1, 19200},
		"a port that GRUB has not":      {"console=ttyS4,57600", 0, 115200},
		"one of another kind":           {"console=ttyAMA0,57600", 0, 115200},
		"options that are not a number": {"console=ttyS3,fast", 3, 9600},
	} {
		t.Run(name, func(t *testing.T) {
			if unit, speed := serial(strings.Fields(c.args)); unit != c.unit || speed != c.speed {
				t.Errorf("it is port %d at %d baud", unit, speed)
			}
		})
	}
}

func TestFirmwareFindsItsLoaders(t *testing.T) {
	programs := UEFI{Shim: []byte("shim"), Loader: []byte("grub"), MokManager: []byte("mok")}
	for name, c := range map[string]struct {
		change func(*image.Manifest, *UEFI)
		want   string
	}{
		"with shim": {func(*image.Manifest, *UEFI) {}, "EFI/BOOT/BOOTX64.EFI=shim EFI/BOOT/grubx64.efi=grub EFI/BOOT/grub.cfg EFI/BOOT/mmx64.efi=mok EFI/centos/grub.cfg"},
		"without shim": {
			func(_ *image.Manifest, u *UEFI) { u.Shim, u.MokManager = nil, nil }, "EFI/BOOT/BOOTX64.EFI=grub EFI/BOOT/grub.cfg EFI/centos/grub.cfg",
		},
		"on arm": {
			func(m *image.Manifest, _ *UEFI) { m.Arch = "aarch64" },
			"EFI/BOOT/BOOTAA64.EFI=shim EFI/BOOT/grubaa64.efi=grub EFI/BOOT/grub.cfg EFI/BOOT/mmaa64.efi=mok EFI/centos/grub.cfg",
		},
		"with a GRUB that looks beside itself": {
			func(m *image.Manifest, _ *UEFI) { m.BootLoader.GRUB.ConfigDir = "efi/boot" },
			"EFI/BOOT/BOOTX64.EFI=shim EFI/BOOT/grubx64.efi=grub EFI/BOOT/grub.cfg EFI/BOOT/mmx64.efi=mok",
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := programs
			m := Medium{Manifest: release(func(m *image.Manifest) { c.change(m, &u) }), UEFI: &u}
			var got []string
			for _, f := range m.systemFiles() {
				s := f.name
				if !strings.HasSuffix(s, ".cfg") {
					s += "=" + string(f.data)
				} else if !strings.Contains(string(f.data), "--label WEB-2026.11;") {
					t.Errorf("%s does not look for the medium", f.name)
				}
				got = append(got, s)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("it has %s", s)
			}
		})
	}
}

func TestPathsWithEqualsSignsStayPaths(t *testing.T) {
	m := Medium{Manifest: release(func(m *image.Manifest) { m.Files["a=b"] = image.File{} }), BIOS: &BIOS{}}
	argv := m.argv(`/c=d\e`, "/out")
	for _, want := range []string{`/imgbuild/a\=b=./a\=b`, `/boot/grub2/grub.cfg=/c\=d\\e/grub.cfg`, `/boot/grub2/eltorito.img=/c\=d\\e/eltorito.img`, `/c=d\e/boot_hybrid.img`} {
		if !slices.Contains(argv, want) {
			t.Errorf("there is no %s in %q", want, argv)
		}
	}
}

func TestDiskGUIDsAreTheReleasesOwn(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		for _, change := range []func(*image.Manifest){
			nil, func(m *image.Manifest) { m.Name = "db" }, func(m *image.Manifest) { m.Version = "1" }, func(m *image.Manifest) { m.Created++ },
		} {
			id := diskGUID(release(change))
			if len(id) != 36 || id[14] != '8' || !strings.Contains("89ab", id[19:20]) {
				t.Errorf("%s is no UUID of version 8", id)
			}
			seen[id] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("four releases have %d GUIDs", len(seen))
	}
}

func TestNoMediumIsMadeOfWhatDoesNotBelongTogether(t *testing.T) {
	good := func(t *testing.T) Medium {
		m := Medium{Manifest: release(nil), Dir: t.TempDir(), UEFI: &UEFI{Loader: []byte("grub")}, BIOS: &BIOS{Core: []byte("core"), MBR: []byte("mbr")}}
		for name, data := range map[string]string{image.KernelFile: "kernel", image.InitramfsFile: "initramfs", image.RootfsFile: "squashfs", image.ManifestFile: "{}", image.SignatureFile: "sig"} {
			if err := os.WriteFile(filepath.Join(m.Dir, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	if m := good(t); m.check() != nil {
		t.Fatal(m.check())
	}
	for name, c := range map[string]struct {
		change func(*Medium) error
		says   string
	}{
		"no loader":    {func(m *Medium) error { m.UEFI, m.BIOS = nil, nil; return nil }, "no machine would start from it"},
		"no place":     {func(m *Medium) error { m.Manifest.BootLoader.GRUB = nil; return nil }, "does not say where the EFI GRUB looks"},
		"no signature": {func(m *Medium) error { return os.Remove(filepath.Join(m.Dir, image.SignatureFile)) }, "manifest.json.sig"},
		"a file too short": {
			func(m *Medium) error { return os.Truncate(filepath.Join(m.Dir, image.RootfsFile), 7) }, "rootfs.squashfs has 7 bytes, and the manifest says 8",
		},
		"loaders too large": {func(m *Medium) error { m.UEFI.Loader = make([]byte, 32<<20); return nil }, "no more than"},
	} {
		t.Run(name, func(t *testing.T) {
			m := good(t)
			if err := c.change(&m); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			err := m.Write(t.Context(), tool.NewRunner(t.Output()), dir, filepath.Join(dir, image.ISOFile), nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "write live.iso: ") {
				t.Errorf("it says %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

func TestProgressIsWhatXorrisoSays(t *testing.T) {
	var got []int
	line := progress(func(n int) { got = append(got, n) })
	for _, l := range []string{
		"xorriso : UPDATE :      10 files added in 1 seconds", "xorriso : UPDATE :  0.39% done", "xorriso : UPDATE :  57.01% done, estimate finish Sat",
		"xorriso : UPDATE :  100.00% done", "xorriso : NOTE : 99% done", "xorriso : UPDATE :  999% done",
	} {
		line(l)
	}
	if !slices.Equal(got, []int{0, 57, 100, 100}) {
		t.Errorf("it is %v", got)
	}
}
