package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/builder/dnf"
	"imgbuild/builder/progress"
	"imgbuild/builder/tree"
	"imgbuild/image"
	"imgbuild/profiles"
)

// treeOf makes a tree with these files.
func treeOf(t *testing.T, files ...string) *tree.Tree {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func TestBootLoadersAreFoundInTheVendorsDirectory(t *testing.T) {
	el := func(vendor string, more ...string) []string {
		dir := "boot/efi/EFI/" + vendor + "/"
		return append([]string{dir + "shimx64.efi", dir + "grubx64.efi", dir + "mmx64.efi", "boot/efi/EFI/BOOT/fbx64.efi", "boot/efi/EFI/BOOT/BOOTX64.EFI"}, more...)
	}
	syslinux := []string{"usr/sbin/extlinux", "usr/share/syslinux/ldlinux.c32", "usr/share/syslinux/menu.c32", "usr/share/syslinux/libutil.c32"}
	for name, c := range map[string]struct {
		files    []string
		major    int
		grub     *image.GRUB
		extlinux []string
		says     string
	}{
		"CentOS Stream with both": {
			append(el("centos"), syslinux...), 9,
			&image.GRUB{Shim: "/boot/efi/EFI/centos/shimx64.efi", Loader: "/boot/efi/EFI/centos/grubx64.efi", MokManager: "/boot/efi/EFI/centos/mmx64.efi", Fallback: "/boot/efi/EFI/BOOT/fbx64.efi", ConfigDir: "EFI/centos", Label: "N"},
			[]string{"/usr/share/syslinux/ldlinux.c32", "/usr/share/syslinux/libutil.c32", "/usr/share/syslinux/menu.c32"}, "",
		},
		"CentOS 7, whose GRUB has linuxefi": {
			append(el("centos"), syslinux...), 7,
			&image.GRUB{Shim: "/boot/efi/EFI/centos/shimx64.efi", Loader: "/boot/efi/EFI/centos/grubx64.efi", MokManager: "/boot/efi/EFI/centos/mmx64.efi", Fallback: "/boot/efi/EFI/BOOT/fbx64.efi", ConfigDir: "EFI/centos", Label: "N", LinuxEFI: true},
			[]string{"/usr/share/syslinux/ldlinux.c32", "/usr/share/syslinux/libutil.c32", "/usr/share/syslinux/menu.c32"}, "",
		},
		"Rocky without shim": {
			append([]string{"boot/efi/EFI/rocky/grubx64.efi"}, syslinux[:2]...), 9,
			&image.GRUB{Loader: "/boot/efi/EFI/rocky/grubx64.efi", ConfigDir: "EFI/rocky", Label: "N"},
			[]string{"/usr/share/syslinux/ldlinux.c32"}, "",
		},
		"only extlinux":             {syslinux, 9, nil, []string{"/usr/share/syslinux/ldlinux.c32", "/usr/share/syslinux/libutil.c32", "/usr/share/syslinux/menu.c32"}, ""},
		"GRUBs of two vendors":      {append(el("centos"), el("rocky")...), 9, nil, nil, "centos, rocky"},
		"a shim with no GRUB to it": {append([]string{"boot/efi/EFI/centos/shimx64.efi"}, syslinux...), 9, nil, []string{"/usr/share/syslinux/ldlinux.c32", "/usr/share/syslinux/libutil.c32", "/usr/share/syslinux/menu.c32"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &profiles.Profile{Arch: "x86_64", Distro: profiles.Distro{Major: c.major}}
			got, err := bootLoaders(treeOf(t, c.files...), p, "N")
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("got %v, want something that says %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got.GRUB == nil) != (c.grub == nil) || got.GRUB != nil && *got.GRUB != *c.grub {
				t.Errorf("GRUB is %+v", got.GRUB)
			}
			if got.Extlinux == nil || !slices.Equal(got.Extlinux.Modules, c.extlinux) {
				t.Errorf("extlinux is %+v", got.Extlinux)
			}
		})
	}
}

func TestTheKernelIsTheOneOfTheProfilesPackage(t *testing.T) {
	lock := &dnf.Lock{Packages: []dnf.Package{
		{NEVRA: "kernel-core-5.14.0-503.el9.x86_64"}, {NEVRA: "kernel-5.14.0-503.el9.x86_64"}, {NEVRA: "kernel-rt-core-5.14.0-503.el9.x86_64"},
	}}
	plain, rt := "usr/lib/modules/5.14.0-503.el9.x86_64/vmlinuz", "usr/lib/modules/5.14.0-503.el9.x86_64+rt/vmlinuz"
	for name, c := range map[string]struct {
		files     []string
		pkg, want string
	}{
		"the only one":                   {[]string{plain}, "kernel", "5.14.0-503.el9.x86_64"},
		"the package's, of two":          {[]string{plain, rt}, "kernel", "5.14.0-503.el9.x86_64"},
		"one that lies in /boot only":    {[]string{"usr/lib/modules/3.10/modules.dep", "boot/vmlinuz-3.10"}, "kernel", "3.10"},
		"modules without a kernel":       {[]string{"usr/lib/modules/3.10/modules.dep"}, "kernel", ""},
		"no modules at all":              {[]string{"etc/passwd"}, "kernel", ""},
		"two, and neither the package's": {[]string{plain, rt}, "kernel-uek", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := kernelRelease(treeOf(t, c.files...), c.pkg, lock)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestOsReleaseIsReadAsTheShellWould(t *testing.T) {
	tr := treeOf(t, "x")
	text := "# comment\nNAME=\"CentOS Stream\"\nID='centos'\nVERSION_ID=9\nPRETTY_NAME=\"CentOS Stream 9\"\n\nBROKEN\n"
	if err := tr.WriteFile("/etc/os-release", []byte(text), tree.RootFile()); err != nil {
		t.Fatal(err)
	}
	d, err := distro(tr, &profiles.Profile{})
	if err != nil || d != (image.Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"}) {
		t.Errorf("got %+v, %v", d, err)
	}
	if _, err := distro(treeOf(t, "x"), &profiles.Profile{}); err == nil {
		t.Error("an image without os-release was accepted")
	}
}

func TestNearMissesAreSuggested(t *testing.T) {
	names := []string{"httpd", "httpd-tools", "vim-enhanced", "NetworkManager", "openssh-server", "bash", "tar"}
	for name, want := range map[string]string{
		"htpd": "httpd", "networkmanager": "NetworkManager", "opensshserver": "openssh-server", "bahs": "bash", "httpd-tool": "httpd-tools",
		"NetworkManager-extra": "NetworkManager", "zzzzzz": "", "x": "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("%s suggests %q, want %q", name, got, want)
		}
	}
}

func TestMksquashfsGetsItsArguments(t *testing.T) {
	for name, c := range map[string]struct {
		pack profiles.Pack
		want string
	}{
		"zstd": {profiles.Pack{Compressor: "zstd", CompressionLevel: 9, BlockSize: "256KiB"}, "-b 262144 -comp zstd -Xcompression-level 9"},
		"lz4":  {profiles.Pack{Compressor: "lz4", BlockSize: "1MiB"}, "-b 1048576 -comp lz4 -Xhc"},
		"xz, with something left out": {
			profiles.Pack{Compressor: "xz", BlockSize: "1MiB", Exclude: []string{"/usr/share/doc/*", "var/x"}}, "-comp xz -wildcards -e usr/share/doc/* var/x",
		},
	} {
		argv, err := squashfsArgv("/r", "/o", c.pack, 2)
		if got := strings.Join(argv, " "); err != nil || !strings.HasSuffix(got, c.want) || !strings.HasPrefix(got, "mksquashfs /r /o -noappend") {
			t.Errorf("%s gives %s, %v", name, got, err)
		}
	}
}

// steps keeps what is reported.
type steps struct {
	progress.Reporter
	all []progress.Step
}

func (s *steps) Step(p progress.Step) { s.all = append(s.all, p) }

func TestMksquashfsBarBecomesProgress(t *testing.T) {
	s := &steps{}
	var rest []string
	o := &squashfsOutput{report: s, rest: func(l string) { rest = append(rest, l) }}
	for _, part := range []string{"Creating 4.0 filesystem\n\r[==-   ]  100/", "400  25%\r[======] 400/400 100%\n", "Exportable Squashfs\n"} {
		if n, err := o.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(s.all) != 2 || s.all[0].Done != 100 || s.all[0].Total != 400 || s.all[1].Done != 400 {
		t.Errorf("progress is %+v", s.all)
	}
	if !slices.Equal(rest, []string{"Creating 4.0 filesystem", "Exportable Squashfs"}) {
		t.Errorf("the log gets %q", rest)
	}
}

func FuzzSquashfsOutput(f *testing.F) {
	f.Add([]byte("\r[==] 1/2 50%\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := &squashfsOutput{report: &steps{}, rest: func(string) {}}
		if n, err := o.Write(data); n != len(data) || err != nil {
			t.Fatal(n, err)
		}
	})
}

func TestPreflightSaysEverythingAtOnce(t *testing.T) {
	good := func() host {
		return host{
			uid: func() int { return 0 }, goarch: "amd64",
			find:       func(n string) (string, error) { return "/usr/bin/" + n, nil },
			version:    func(context.Context, []string) (string, error) { return "4.18.1", nil },
			free:       func(string) (int64, error) { return 100 << 30, nil },
			repository: func(context.Context, profiles.Repository, func(string) string) error { return nil },
		}
	}
	plan := planned(t, shipped(t, "centos-stream-9"), func(o *Options) {
		o.Installer = func(string, bool) ([]byte, error) { return nil, nil }
		o.KeyFile = filepath.Join(t.TempDir(), "none")
	})
	if err := good().check(t.Context(), plan, true); err != nil {
		t.Fatalf("a good host is refused: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*host)
		says   []string
	}{
		"nothing is right": {
			func(h *host) {
				h.uid = func() int { return 1000 }
				h.find = func(n string) (string, error) { return "", errors.New("no") }
				h.free = func(string) (int64, error) { return 1 << 20, nil }
				h.repository = func(context.Context, profiles.Repository, func(string) string) error {
					return errors.New("no route to host")
				}
			},
			[]string{"needs root", "dnf, which installs packages, is missing", "package squashfs-tools", "1.0 MiB free", "repository appstream does not answer: no route to host", "repository baseos does not answer"},
		},
		"tools are too old": {
			func(h *host) {
				h.version = func(context.Context, []string) (string, error) { return "mksquashfs version 4.3 (2014/05/12)", nil }
			},
			[]string{"/usr/bin/mksquashfs is version 4.3 and 4.4 or later is needed", "/usr/bin/dnf is version 4.3 and 4.7"},
		},
		"dnf is the next one": {
			func(h *host) {
				h.version = func(context.Context, []string) (string, error) { return "dnf5 version 5.2.0", nil }
			},
			[]string{"has another command line"},
		},
		"the host is of another architecture": {
			func(h *host) { h.goarch = "arm64" }, []string{"the profile is for x86_64 and this host is aarch64"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			c.change(&h)
			err := h.check(t.Context(), plan, true)
			for _, s := range c.says {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("it does not say %q: %v", s, err)
				}
			}
		})
	}
	for name, c := range map[string]struct {
		shipped, level, compression string
		missing                     string
	}{
		"EL7 has xz":              {"centos-7", "fast", "auto", "xz"},
		"EL9 has zstd of our own": {"centos-stream-9", "normal", "auto", ""},
		"a release has the best":  {"centos-stream-9", "release", "auto", "zstd"},
		"a profile wants xz":      {"centos-stream-9", "fast", "xz", "xz"},
		"a profile wants gzip":    {"centos-7", "release", "gzip", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			h.find = func(n string) (string, error) {
				if n == "xz" || n == "zstd" {
					return "", errors.New("no")
				}
				return "/usr/bin/" + n, nil
			}
			p := shipped(t, c.shipped)
			p.Pack.Level, p.Initramfs.Compression = c.level, c.compression
			err := h.check(t.Context(), planned(t, p, func(o *Options) {
				o.Installer = func(string, bool) ([]byte, error) { return nil, nil }
				o.KeyFile = filepath.Join(t.TempDir(), "none")
			}), true)
			want := "the program " + c.missing + ", which packs the initramfs"
			if (err != nil) != (c.missing != "") || err != nil && !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
	h := good()
	h.repository = func(context.Context, profiles.Repository, func(string) string) error { panic("a repository was asked") }
	if err := h.check(t.Context(), plan, false); err != nil {
		t.Errorf("without repositories: %v", err)
	}
}

func TestVersionsAreComparedByNumber(t *testing.T) {
	for _, c := range []struct {
		a, b string
		less bool
	}{{"4.9", "4.10", true}, {"4.10", "4.9", false}, {"4.4", "4.4.1", true}, {"5", "4.99", false}} {
		if got := compareVersions(c.a, c.b) < 0; got != c.less {
			t.Errorf("%s < %s is %v", c.a, c.b, got)
		}
	}
}

func TestAReleaseIsReplacedInOneStep(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "1")
	for _, content := range []string{"old", "new"} {
		from := filepath.Join(dir, ".1.unfinished-x")
		if err := os.MkdirAll(from, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, "f"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := replaceDir(from, to); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(to, "f")); err != nil || string(got) != content {
			t.Errorf("the release has %q, %v", got, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("beside the release there is something: %v", entries)
		}
	}
}

func TestAKeyIsMadeOnceAndNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "release.key")
	key, made, err := loadKey(path)
	if err != nil || !made {
		t.Fatalf("%v, %v", made, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", st.Mode(), err)
	}
	again, made, err := loadKey(path)
	if err != nil || made || again.Public().ID() != key.Public().ID() {
		t.Errorf("it was not read back: %v, %v", made, err)
	}
	if _, err := Keygen(path); err == nil {
		t.Error("an existing key was replaced")
	}
	if pub, err := os.ReadFile(path + ".pub"); err != nil || !strings.Contains(string(pub), "PUBLIC KEY") {
		t.Errorf("the public part is %q, %v", pub, err)
	}
}

func TestTheManifestAndThePlanSayOnWhichModelsNoKernelIsStartedDirectly(t *testing.T) {
	p := shipped(t, "centos-stream-9")
	p.Kernel.NoKexec = []string{"Dell Inc. PowerEdge R6?0*", "HPE *"}
	plan := planned(t, p, nil)
	b := &build{Plan: plan, o: Options{Profile: p}}
	if got := b.newManifest(nil).NoKexec; !slices.Equal(got, p.Kernel.NoKexec) {
		t.Errorf("the manifest has %q", got)
	}
	if s := plan.String(); !strings.Contains(s, "no kexec on Dell Inc. PowerEdge R6?0*\n") || !strings.Contains(s, "no kexec on HPE *\n") {
		t.Errorf("the plan is\n%s", s)
	}
}

func TestBootScriptHasNoDiskInIt(t *testing.T) {
	p := &profiles.Profile{Name: "n", Version: "1", Kernel: profiles.Kernel{Serial: "ttyS0,115200n8"}}
	got := bootScript(p)
	want := "#!ipxe\n# n 1\nset base ${cwduri}\nisset ${base} || set base ${filename}/../\nkernel vmlinuz initrd=initramfs.img imgbuild.mode=install imgbuild.manifest=${base}manifest.json console=tty0 console=ttyS0,115200n8\ninitrd initramfs.img\nboot\n"
	if got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestTheKernelSaysWhichCompressorsItMounts(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "boot", "config-3.10")
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("CONFIG_SQUASHFS_ZLIB=y\nCONFIG_SQUASHFS_XZ=y\n# CONFIG_SQUASHFS_ZSTD is not set\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	for compressor, want := range map[string]bool{"gzip": true, "xz": true, "zstd": false, "lz4": false} {
		if got, err := kernelMounts(tr, "3.10", compressor); err != nil || got != want {
			t.Errorf("%s: %t, %v", compressor, got, err)
		}
	}
	if got, err := kernelMounts(tr, "another", "zstd"); err != nil || !got {
		t.Errorf("a kernel that nothing is known of: %t, %v", got, err)
	}
}

func TestToolsThatNoPackageBringsAreMissedAtOnce(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "usr/sbin"), 0o755), os.WriteFile(filepath.Join(dir, "usr/sbin/mkfs.xfs"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	at, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	b := &build{o: Options{Profile: &profiles.Profile{Arch: "x86_64", Distro: profiles.Distro{ID: "centos", Major: 9}}}, tree: at}
	err = b.checkTools()
	if err == nil || !strings.Contains(err.Error(), "mkfs.ext4, mkfs.vfat") || strings.Contains(err.Error(), "mkfs.xfs") || strings.Contains(err.Error(), "grub") {
		t.Errorf("got %v", err)
	}
}
