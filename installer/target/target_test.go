package target

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
)

func tree(t *testing.T, files map[string]string) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o600)); err != nil {
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

// ids are the identifiers of made-up devices: their last element.
type ids struct{}

func (ids) FS(d layout.Device) string { return "id-of-" + strings.ReplaceAll(string(d), "/", "-") }
func (ids) Array(name string) string  { return "11111111:22222222:33333333:" + name }

const (
	buildsID = "ffffffffffffffffffffffffffffffff"
	machine  = "0123456789abcdef0123456789abcdef"
)

func config(release string) Config {
	return Config{
		Manifest: &image.Manifest{Name: "demo", Version: "2", Distro: image.Distro{ID: "centos", Name: "CentOS", Release: release}, KernelRelease: "5.14",
			BootLoader: image.BootLoader{GRUB: &image.GRUB{BLS: true}, GRUBPC: &image.GRUBPC{BLS: true}}},
		Raw: []byte("raw"), Signature: []byte("sig"), IDs: ids{}, MachineID: machine,
		Args: []string{"root=UUID=R", "ro", "rd.lvm.lv=system/root", "console=tty0", `a="$x y"`},
		Scheme: &layout.Scheme{Firmware: layout.Both, BIOSLoader: layout.GRUB, Disks: []layout.SchemeDisk{{Name: "disk1", Table: layout.GPT, Parts: []layout.Part{
			{Number: 1, Role: layout.RoleESP, Content: layout.Content{FS: "vfat", Mount: "/boot/efi", Options: "umask=0077"}},
			{Number: 2, Content: layout.Content{FS: "ext4", Mount: "/boot"}},
			{Number: 3, Content: layout.Content{FS: "ext4", Mount: "/", Options: "noatime"}},
			{Number: 4, Content: layout.Content{FS: "swap"}},
		}}}},
	}
}

func TestTheTreeBecomesTheSystemOfItsDisks(t *testing.T) {
	root, dir := installed(t, map[string]string{"etc/fstab": "old and much longer than what comes, so that a remainder would show\n" + strings.Repeat("x", 500),
		"etc/machine-id": "0123\n", "boot/loader/entries/" + buildsID + "-5.14.conf": "old",
		"boot/loader/entries/" + buildsID + "-5.13.conf": "title other\nversion 5.13\noptions root=/dev/build\nlinux /vmlinuz-5.13\n",
		"etc/lvm/devices/system.devices":                 "another machine's"})
	if err := os.Symlink("/opt/kernel", filepath.Join(dir, "etc/kernel")); err != nil {
		t.Fatal(err)
	}
	c := config("9")
	c.Scheme.Arrays = []layout.SchemeArray{{Array: layout.Array{Name: "pv"}}}
	if err := Configure(root, c); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"etc/fstab": "# Written by imgbuild when demo 2 was installed. See fstab(5).\nUUID=id-of-part-disk1-3 / ext4 noatime 1 1\nUUID=id-of-part-disk1-2 /boot ext4 defaults 1 2\n" +
			"UUID=id-of-part-disk1-1 /boot/efi vfat umask=0077 0 2\nUUID=id-of-part-disk1-4 none swap defaults 0 0\n",
		"etc/mdadm.conf":     "# Written by imgbuild when demo 2 was installed. See mdadm.conf(5).\nMAILADDR root\nAUTO +imsm +1.x -all\nARRAY /dev/md/pv UUID=11111111:22222222:33333333:pv\n",
		"etc/machine-id":     machine + "\n",
		"opt/kernel/cmdline": "root=UUID=R ro rd.lvm.lv=system/root console=tty0 a=\"$x y\"\n", // links stay inside the tree
		"etc/default/grub": "GRUB_TIMEOUT=3\nGRUB_DISTRIBUTOR=\"$(sed 's, release .*$,,g' /etc/system-release)\"\nGRUB_DEFAULT=saved\nGRUB_DISABLE_SUBMENU=true\n" +
			"GRUB_DISABLE_RECOVERY=\"true\"\nGRUB_CMDLINE_LINUX=\"rd.lvm.lv=system/root console=tty0 a=\\\"\\$x y\\\"\"\nGRUB_ENABLE_BLSCFG=\"true\"\n",
		"boot/loader/entries/" + machine + "-5.14.conf": "title CentOS (5.14)\nversion 5.14\nlinux /vmlinuz-5.14\ninitrd /initramfs-5.14.img\n" +
			"options root=UUID=R ro rd.lvm.lv=system/root console=tty0 a=\"$x y\"\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class centos\n",
		"boot/loader/entries/" + machine + "-5.13.conf": "title other\nversion 5.13\nlinux /vmlinuz-5.13\noptions root=UUID=R ro rd.lvm.lv=system/root console=tty0 a=\"$x y\"\n",
		"var/lib/imgbuild/manifest.json":                "raw",
		"var/lib/imgbuild/manifest.json.sig":            "sig",
		"etc/sysconfig/kernel":                          "# Whether a new kernel becomes the default.\nUPDATEDEFAULT=yes\n\n# The package whose kernels may become the default.\nDEFAULTKERNEL=kernel-core\n",
	} {
		if b, err := root.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s is\n%s\n%v, want\n%s", name, b, err, want)
		}
	}
	if list, err := os.ReadDir(filepath.Join(dir, "boot/loader/entries")); err != nil || len(list) != 2 {
		t.Errorf("the build's boot entries are still there: %v, %v", list, err)
	}
	for _, name := range []string{"etc/lvm/devices/system.devices", "boot/grub2/grubenv", "opt/kernel/install.d"} {
		if _, err := root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("/%s is there: %v", name, err)
		}
	}
	if st, err := root.Stat("etc/fstab"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("a file that was there did not keep its mode: %v, %v", st.Mode(), err)
	}
}

func TestEveryReleaseGetsItsOwnWays(t *testing.T) {
	for _, c := range []struct {
		name, release string
		change        func(*Config)
		has           []string
	}{
		{"EL7 with GRUB is grubby's", "7.9", nil, nil},
		{"EL7 with extlinux has hooks", "7.9", func(c *Config) { c.Scheme.BIOSLoader = layout.Extlinux }, []string{addedFile, removedFile}},
		{"EL9 with a GRUB that reads entries needs nothing", "9", nil, []string{entriesDir}},
		{"EL9 with extlinux has a plugin", "9", func(c *Config) { c.Scheme.BIOSLoader = layout.Extlinux }, []string{entriesDir, pluginFile}},
		{"EL9 with a GRUB for BIOS that reads none", "9", func(c *Config) { c.Manifest.BootLoader.GRUBPC.BLS = false }, []string{entriesDir, pluginFile}},
		{"EL9 with a GRUB for UEFI that reads none", "9", func(c *Config) { c.Manifest.BootLoader.GRUB.BLS = false }, []string{entriesDir, pluginFile}},
		{"EL9 with a GRUB that is not used", "9", func(c *Config) { c.Manifest.BootLoader.GRUB.BLS, c.Scheme.Firmware = false, layout.BIOS }, []string{entriesDir}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, _ := installed(t, nil)
			conf := config(c.release)
			if c.change != nil {
				c.change(&conf)
			}
			if err := Configure(root, conf); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{addedFile, removedFile, entriesDir, pluginFile} {
				if _, err := root.Stat(name); (err == nil) != slices.Contains(c.has, name) {
					t.Errorf("/%s: %v", name, err)
				}
			}
		})
	}
}

func TestAMachineIDIsMade(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		root, _ := installed(t, nil)
		c := config("9")
		c.MachineID = ""
		if err := Configure(root, c); err != nil {
			t.Fatal(err)
		}
		b, err := root.ReadFile("etc/machine-id")
		id := strings.TrimSuffix(string(b), "\n")
		if err != nil || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) || seen[id] {
			t.Errorf("%q, %v", b, err)
		}
		seen[id] = true
		if _, err := root.Stat("boot/loader/entries/" + id + "-5.14.conf"); err != nil {
			t.Error(err)
		}
	}
}

func TestLinesOfFstab(t *testing.T) {
	for want, f := range map[string]layout.Filesystem{
		"UUID=id-of-lv-s-x / xfs defaults 0 0\n":                     {Device: "lv/s/x", Content: layout.Content{FS: "xfs", Mount: "/"}},
		"UUID=id-of-disk-d /data1 xfs defaults,nofail 0 0\n":         {Device: "disk/d", Data: true, Content: layout.Content{FS: "xfs", Mount: "/data1"}},
		"UUID=id-of-disk-d /data1 ext4 nofail,noatime 1 2\n":         {Device: "disk/d", Data: true, Content: layout.Content{FS: "ext4", Mount: "/data1", Options: "nofail,noatime"}},
		"UUID=id-of-md-a /srv/a\\040b\\134c ext4 nodev,nosuid 1 2\n": {Device: "md/a", Content: layout.Content{FS: "ext4", Mount: `/srv/a b\c`, Options: "nodev,nosuid"}},
		"UUID=id-of-lv-s-swap none swap pri=1 0 0\n":                 {Device: "lv/s/swap", Content: layout.Content{FS: "swap", Options: "pri=1"}},
		"": {Device: "lv/s/raw", Content: layout.Content{FS: "xfs"}},
	} {
		if got := fstabLine(f, ids{}.FS(f.Device)); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestAShellVariableIsReplacedAndAllElseKept(t *testing.T) {
	for old, want := range map[string]string{
		"": "GRUB_CMDLINE_LINUX=\"q\"\n",
		"A=1\nGRUB_CMDLINE_LINUX=\"rhgb\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"x\"\nGRUB_CMDLINE_LINUX=\"twice\"\nB=2": "A=1\nGRUB_CMDLINE_LINUX=\"q\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"x\"\nB=2",
		"A=1": "A=1\nGRUB_CMDLINE_LINUX=\"q\"\n",
	} {
		if got := setShell(old, "GRUB_CMDLINE_LINUX", "q"); got != want {
			t.Errorf("%q became\n%q, want\n%q", old, got, want)
		}
	}
}

func TestTheESPGetsWhatPackagesPutThere(t *testing.T) {
	root, dir := tree(t, map[string]string{"boot/efi/EFI/centos/shimx64.efi": "shim", "boot/efi/EFI/BOOT/BOOTX64.EFI": "boot"})
	when := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(filepath.Join(dir, "boot/efi/EFI/BOOT/BOOTX64.EFI"), when, when); err != nil {
		t.Fatal(err)
	}
	esp, _ := tree(t, nil)
	n, err := CopyESP(root, esp)
	if err != nil || n != 2 {
		t.Fatalf("copied %d, %v", n, err)
	}
	if st, err := esp.Stat("EFI/BOOT/BOOTX64.EFI"); err != nil || !st.ModTime().Equal(when) {
		t.Errorf("%v, %v", st, err)
	}
	if err := ClearESP(root); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "boot/efi")); err != nil || len(list) != 0 {
		t.Errorf("/boot/efi has %v, %v", list, err)
	}
}

func TestAnImageWithoutESPFilesHasAMountPointAllTheSame(t *testing.T) {
	root, dir := tree(t, map[string]string{"boot/vmlinuz": ""})
	esp, _ := tree(t, nil)
	if n, err := CopyESP(root, esp); err != nil || n != 0 {
		t.Errorf("copied %d, %v", n, err)
	}
	if err := ClearESP(root); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "boot/efi")); err != nil || !st.IsDir() {
		t.Errorf("%v, %v", st, err)
	}
}

func TestWhatVfatCannotHoldIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		link  string
		says  string
	}{
		"two names that differ in case": {map[string]string{"boot/efi/EFI/a": "", "boot/efi/efi/b": ""}, "", "are the same name on vfat"},
		"a name with a colon":           {map[string]string{"boot/efi/EFI/a:b": ""}, "", "cannot hold this name"},
		"a symbolic link":               {map[string]string{"boot/efi/EFI/a": ""}, "boot/efi/EFI/l", "neither a file nor a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			root, dir := tree(t, c.files)
			if c.link != "" {
				if err := os.Symlink("a", filepath.Join(dir, c.link)); err != nil {
					t.Fatal(err)
				}
			}
			esp, _ := tree(t, nil)
			if _, err := CopyESP(root, esp); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
		})
	}
}
