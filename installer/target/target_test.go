package target

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
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

func config(release string) Config {
	return Config{
		Manifest: &image.Manifest{Name: "demo", Version: "2", Distro: image.Distro{Name: "CentOS", Release: release}, KernelRelease: "5.14",
			KernelArgs: []string{"console=tty0", `a="$x y"`}, BootLoader: image.BootLoader{GRUB: &image.GRUB{}}},
		Raw: []byte("raw"), Signature: []byte("sig"), RootUUID: "R",
		FileSystems: []FileSystem{{"E-1", "/boot/efi", "vfat", "umask=0077"}, {"B", "/boot", "ext4", ""}, {"R", "/", "ext4", "noatime"}},
	}
}

func TestTheTreeBecomesTheSystemOfItsDisk(t *testing.T) {
	root, dir := tree(t, map[string]string{"etc/fstab": "old and much longer than what comes, so that a remainder would show\n" + strings.Repeat("x", 500),
		"etc/machine-id": "0123\n", "boot/loader/entries/0123-5.14.conf": "old", "boot/loader/entries/0123-5.13.conf": "other kernel"})
	if err := os.Symlink("/nowhere", filepath.Join(dir, "etc/kernel")); err != nil {
		t.Fatal(err)
	}
	if err := Configure(root, config("9")); err == nil {
		t.Error("a link out of the tree was followed")
	}
	if err := root.Remove("etc/kernel"); err != nil {
		t.Fatal(err)
	}
	if err := Configure(root, config("9")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"etc/fstab":          "# Written by imgbuild when demo 2 was installed. See fstab(5).\nUUID=R / ext4 noatime 1 1\nUUID=B /boot ext4 defaults 1 2\nUUID=E-1 /boot/efi vfat umask=0077 0 2\n",
		"etc/machine-id":     "",
		"etc/kernel/cmdline": "root=UUID=R ro console=tty0 a=\"$x y\"\n",
		"etc/default/grub":   "GRUB_CMDLINE_LINUX=\"console=tty0 a=\\\"\\$x y\\\"\"\n",
		"boot/loader/entries/ffffffffffffffffffffffffffffffff-5.14.conf": "title CentOS (5.14)\nversion 5.14\nlinux /vmlinuz-5.14\n" +
			"initrd /initramfs-5.14.img\noptions root=UUID=R ro console=tty0 a=\"$x y\"\n",
		"boot/loader/entries/0123-5.13.conf": "other kernel",
		"var/lib/imgbuild/manifest.json":     "raw",
		"var/lib/imgbuild/manifest.json.sig": "sig",
	} {
		if b, err := root.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s is\n%s\n%v, want\n%s", name, b, err, want)
		}
	}
	if _, err := root.Stat("boot/loader/entries/0123-5.14.conf"); err == nil {
		t.Error("the build's boot entry is still there")
	}
	if st, err := root.Stat("etc/fstab"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("a file that was there did not keep its mode: %v, %v", st.Mode(), err)
	}
}

func TestEL7HasNoBootLoaderEntries(t *testing.T) {
	root, _ := tree(t, map[string]string{"etc/x": ""})
	if err := Configure(root, config("7.9")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"boot/loader", "etc/kernel"} {
		if _, err := root.Stat(name); err == nil {
			t.Errorf("/%s was written", name)
		}
	}
}

func TestADefaultIsReplacedAndAllElseKept(t *testing.T) {
	for old, want := range map[string]string{
		"": "GRUB_CMDLINE_LINUX=\"q\"\n",
		"A=1\nGRUB_CMDLINE_LINUX=\"rhgb\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"x\"\nGRUB_CMDLINE_LINUX=\"twice\"\nB=2": "A=1\nGRUB_CMDLINE_LINUX=\"q\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"x\"\nB=2",
		"A=1": "A=1\nGRUB_CMDLINE_LINUX=\"q\"\n",
	} {
		if got := defaultGrub(old, "q"); got != want {
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
