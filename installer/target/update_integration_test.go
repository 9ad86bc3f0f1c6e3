//go:build integration

package target

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image/layout"
)

// TestTheSystemsOwnKernelInstallUpdatesAndRemoves runs systemd's kernel-install with its own plugin that makes entries, and ours
// behind it: a second kernel comes, the first one goes with the entry that the installer made, and both loaders follow.
func TestTheSystemsOwnKernelInstallUpdatesAndRemoves(t *testing.T) {
	tool, err := exec.LookPath("kernel-install")
	const own = "/usr/lib/kernel/install.d/90-loaderentry.install"
	if _, serr := os.Stat(own); err != nil || serr != nil {
		t.Skip("kernel-install of systemd is not installed:", errors.Join(err, serr))
	}
	dir := booted(t, map[string]string{"boot/vmlinuz-5.14": "k", "boot/initramfs-5.14.img": "i", "new/vmlinuz": "k2", "new/initrd": "i2"})
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c := config("9")
	c.Args = []string{"root=UUID=R", "ro"}
	c.Manifest.BootLoader.GRUB.BLS = false
	if err := Configure(root, c); err != nil {
		t.Fatal(err)
	}
	plugin := filepath.Join(dir, pluginFile)
	if err := os.WriteFile(plugin, []byte(c.script(dir, true)), 0o755); err != nil { // the one that is there works in /
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "etc/kernel")
	if err := os.WriteFile(filepath.Join(conf, "install.conf"), []byte("layout=bls\nBOOT_ROOT="+filepath.Join(dir, "boot")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	install := func(args ...string) {
		t.Helper()
		cmd := exec.Command(tool, args...)
		cmd.Env = append(os.Environ(), "KERNEL_INSTALL_CONF_ROOT="+conf, "MACHINE_ID="+machine, "KERNEL_INSTALL_PLUGINS="+own+" "+plugin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("kernel-install %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	labels := func() (out []string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "boot/extlinux/extlinux.conf"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if l, ok := strings.CutPrefix(line, "LABEL "); ok {
				out = append(out, strings.TrimSpace(l))
			}
		}
		return out
	}
	install("add", "5.15", filepath.Join(dir, "new/vmlinuz"), filepath.Join(dir, "new/initrd"))
	if got := strings.Join(labels(), " "); got != machine+"-5.15 "+machine+"-5.14" {
		t.Errorf("after the update there are %s", got)
	}
	b, err := os.ReadFile(filepath.Join(dir, "boot/grub2/grub.cfg"))
	// systemd's plugin names files from the mount point of /boot on, which here is none.
	if want := machine + "/5.15/linux root=UUID=R ro systemd.machine_id=" + machine; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("%v; grub.cfg does not have %q:\n%s", err, want, b)
	}
	install("remove", "5.14")
	if got := strings.Join(labels(), " "); got != machine+"-5.15" {
		t.Errorf("after the first kernel is gone there are %s", got)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "boot/loader/entries")); err != nil || len(list) != 1 || list[0].Name() != machine+"-5.15.conf" {
		t.Errorf("the first kernel's entry is still there: %v, %v", list, err)
	}
}

// TestTheScriptsOfEL7sKernelPackageUpdateAndRemove runs CentOS 7's own new-kernel-pkg, which a kernel package's scriptlets call,
// on a tree: what it calls / is the tree here.
func TestTheScriptsOfEL7sKernelPackageUpdateAndRemove(t *testing.T) {
	rpms, err := filepath.Glob("../../../shared/el7/os/Packages/grubby-*.rpm")
	if err != nil || len(rpms) == 0 {
		t.Skip("there are no CentOS 7 packages in ../shared/el7")
	}
	for _, tool := range []string{"bash", "rpm2cpio", "cpio"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	payload, err := exec.Command("rpm2cpio", rpms[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) []byte {
		t.Helper()
		c := exec.Command("cpio", "-i", "--quiet", "--to-stdout", name)
		c.Stdin = bytes.NewReader(payload)
		b, err := c.Output()
		if err != nil || len(b) == 0 {
			t.Fatalf("extract %s: %d bytes, %v", name, len(b), err)
		}
		return b
	}
	dir := booted(t, map[string]string{"boot/vmlinuz-3.10.0-1": "k", "boot/initramfs-3.10.0-1.img": "i", "boot/vmlinuz-3.10.0-2": "k", "boot/initramfs-3.10.0-2.img": "i"})
	tool := filepath.Join(dir, "new-kernel-pkg")
	if err := os.WriteFile(tool, []byte(strings.NewReplacer("/etc/", dir+"/etc/", "/boot", dir+"/boot").Replace(string(file("./usr/sbin/new-kernel-pkg")))), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "grubby"), file("./usr/sbin/grubby"), 0o755); err != nil { // which is taken from where it runs
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c := config("7.9")
	c.Scheme.BIOSLoader = layout.Extlinux
	if err := Configure(root, c); err != nil {
		t.Fatal(err)
	}
	for _, hook := range []string{addedFile, removedFile} {
		if err := os.WriteFile(filepath.Join(dir, hook), []byte(c.script(dir, false)), 0o755); err != nil { // those that are there work in /
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"--package", "kernel", "--rpmposttrans", "3.10.0-2"}, "DEFAULT linux-3.10.0-2"},
		{[]string{"--package", "kernel", "--remove", "3.10.0-2"}, "DEFAULT linux-3.10.0-1"},
	} {
		cmd := exec.Command("bash", append([]string{tool}, step.args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("new-kernel-pkg %s: %v\n%s", strings.Join(step.args, " "), err, out)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "boot/extlinux/extlinux.conf")); err != nil || !strings.Contains(string(b), step.want+"\n") {
			t.Errorf("%v; extlinux.conf has not %q:\n%s\n%s", err, step.want, b, out)
		}
	}
}
