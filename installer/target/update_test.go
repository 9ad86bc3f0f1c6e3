package target

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	extlinuxHead = "SERIAL 0 115200\n# Written by imgbuild when demo 2 was installed.\nDEFAULT linux\nPROMPT 1\nTIMEOUT 30\n\nLABEL linux\n  MENU LABEL first\n  LINUX /vmlinuz-5.14.0-9\n  APPEND root=UUID=R\n"
	grubHead     = "set timeout=3\n### BEGIN imgbuild entries ###\nmenuentry 'first' {\n  linux /vmlinuz-5.14.0-9 root=UUID=R\n}\n### END imgbuild entries ###\nset after=1\n"
)

func blsEntry(version, options string) string {
	return "title Demo (" + version + ")\nversion " + version + "\nlinux /vmlinuz-" + version + "\ninitrd /initramfs-" + version + ".img $tuned_initrd\noptions " + options +
		"\ngrub_users $grub_users\ngrub_arg --unrestricted\n"
}

// shells are those that sh is on EL and on Debian.
func shells(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, s := range []string{"bash", "dash"} {
		if p, err := exec.LookPath(s); err == nil {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		t.Skip("neither bash nor dash is installed")
	}
	return out
}

// booted is a system with kernels in /boot, whose entries are files by their names.
func booted(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), mode), os.Chmod(p, mode)); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/kernel/cmdline", "root=UUID=R ro quiet\n", 0o644)
	put("etc/os-release", "NAME=Demo\nPRETTY_NAME=\"Demo Linux 7\"\n", 0o644)
	put("boot/extlinux/extlinux.conf", extlinuxHead, 0o644)
	put("boot/grub2/grub.cfg", grubHead, 0o600)
	for name, text := range files {
		put(name, text, 0o644)
	}
	return dir
}

func has(t *testing.T, dir, name, want string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
		t.Errorf("/%s is\n%s\n%v, want\n%s", name, b, err, want)
	}
}

// call runs the script at where it lies in the system dir.
func call(t *testing.T, shell, dir, at, prefix string, args ...string) (string, error) {
	t.Helper()
	p := filepath.Join(dir, at)
	script := Config{BootPrefix: prefix}.script(dir, strings.Contains(at, "install.d"))
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(shell, append([]string{p}, args...)...).CombinedOutput()
	return string(out), err
}

func TestAnAddedKernelComesFirstAndARemovedOneGoes(t *testing.T) {
	for _, shell := range shells(t) {
		t.Run(filepath.Base(shell), func(t *testing.T) {
			dir := booted(t, map[string]string{
				"boot/vmlinuz-5.14.0-9": "k", "boot/initramfs-5.14.0-9.img": "i", "boot/vmlinuz-5.14.0-10": "k", "boot/initramfs-5.14.0-10.img": "i",
				"boot/vmlinuz-0-rescue": "k", "boot/initramfs-0-rescue.img": "i",
				"boot/loader/entries/m-5.14.0-9.conf":  blsEntry("5.14.0-9", `root=UUID=R ro a="x  $ y" dyndbg="file a.c +p"`),
				"boot/loader/entries/m-5.14.0-10.conf": blsEntry("5.14.0-10", "$kernelopts $tuned_params"),
				"boot/loader/entries/m-0-rescue.conf":  blsEntry("0-rescue", "root=UUID=R"),
				"boot/loader/entries/m-5.15.conf":      blsEntry("5.15", "root=UUID=R"), // its kernel is gone
			})
			out, err := call(t, shell, dir, pluginFile, "", "add", "5.14.0-10", "/boot/m/5.14.0-10", "/lib/modules/5.14.0-10/vmlinuz")
			if err != nil || !strings.Contains(out, "m-5.15 is left out: /vmlinuz-5.15 is not in /boot") {
				t.Fatalf("%v\n%s", err, out)
			}
			rescue := "\nLABEL m-0-rescue\n  MENU LABEL Demo (0-rescue)\n  LINUX /vmlinuz-0-rescue\n  INITRD /initramfs-0-rescue.img\n  APPEND root=UUID=R\n"
			old := "\nLABEL m-5.14.0-9\n  MENU LABEL Demo (5.14.0-9)\n  LINUX /vmlinuz-5.14.0-9\n  INITRD /initramfs-5.14.0-9.img\n  APPEND root=UUID=R ro a=\"x   y\" dyndbg=\"file a.c +p\"\n"
			head := "SERIAL 0 115200\n# Written by imgbuild when demo 2 was installed.\nPROMPT 1\nTIMEOUT 30\nDEFAULT "
			has(t, dir, "boot/extlinux/extlinux.conf", head+"m-5.14.0-10\n\nLABEL m-5.14.0-10\n  MENU LABEL Demo (5.14.0-10)\n  LINUX /vmlinuz-5.14.0-10\n"+
				"  INITRD /initramfs-5.14.0-10.img\n  APPEND root=UUID=R ro quiet \n"+old+rescue)
			has(t, dir, "boot/grub2/grub.cfg", "set timeout=3\n### BEGIN imgbuild entries ###\n"+
				"menuentry 'Demo (5.14.0-10)' --class gnu-linux --unrestricted --id 'm-5.14.0-10' {\n  linux /vmlinuz-5.14.0-10 root=UUID=R ro quiet\n  initrd /initramfs-5.14.0-10.img\n}\n"+
				"menuentry 'Demo (5.14.0-9)' --class gnu-linux --unrestricted --id 'm-5.14.0-9' {\n  linux /vmlinuz-5.14.0-9 root=UUID=R ro 'a=x   y' 'dyndbg=file a.c +p'\n  initrd /initramfs-5.14.0-9.img\n}\n"+
				"menuentry 'Demo (0-rescue)' --class gnu-linux --unrestricted --id 'm-0-rescue' {\n  linux /vmlinuz-0-rescue root=UUID=R\n  initrd /initramfs-0-rescue.img\n}\n"+
				"### END imgbuild entries ###\nset after=1\n")
			if st, err := os.Stat(filepath.Join(dir, "boot/grub2/grub.cfg")); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("grub.cfg: %v, %v", st.Mode(), err)
			}
			if tool, err := exec.LookPath("grub-script-check"); err == nil {
				if out, err := exec.Command(tool, filepath.Join(dir, "boot/grub2/grub.cfg")).CombinedOutput(); err != nil {
					t.Errorf("GRUB says: %v\n%s", err, out)
				}
			}
			// The kernel and its entry are still there, as with a plugin that comes later.
			if out, err := call(t, shell, dir, pluginFile, "", "remove", "5.14.0-10", "/boot/m/5.14.0-10"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			has(t, dir, "boot/extlinux/extlinux.conf", head+"m-5.14.0-9\n"+old+rescue)
			if left, err := filepath.Glob(filepath.Join(dir, "boot/*/*.imgbuild")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestWhereBootIsNoFileSystemOfItsOwnPathsBeginWithIt(t *testing.T) {
	for _, shell := range shells(t) {
		dir := booted(t, map[string]string{
			"boot/vmlinuz-1": "k", "boot/initramfs-1.img": "i", "boot/vmlinuz-2": "k", "boot/initramfs-2.img": "i", "boot/m/3/linux": "k", "boot/m/3/initrd": "i",
			"boot/loader/entries/m-1.conf": blsEntry("1", "root=UUID=R"),
			"boot/loader/entries/m-3.conf": "title three\nversion 3\nlinux\t/m/3/linux\ninitrd /m/3/initrd\ninitrd /initramfs-1.img\noptions ${kernelopts}\n",
			"boot/grub2/grubenv":           "# GRUB Environment Block\nkernelopts=root=UUID=E ro\n####",
		})
		// As a kernel-install writes it that names files from the mount point of /boot on.
		whole := strings.ReplaceAll(blsEntry("2", "root=UUID=R"), " /", " "+dir+"/boot/")
		if err := os.WriteFile(filepath.Join(dir, "boot/loader/entries/m-2.conf"), []byte(whole), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := call(t, shell, dir, pluginFile, "/boot", "add", "3"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		has(t, dir, "boot/extlinux/extlinux.conf", "SERIAL 0 115200\n# Written by imgbuild when demo 2 was installed.\nPROMPT 1\nTIMEOUT 30\nDEFAULT m-3\n"+
			"\nLABEL m-3\n  MENU LABEL three\n  LINUX /boot/m/3/linux\n  INITRD /boot/m/3/initrd,/boot/initramfs-1.img\n  APPEND root=UUID=E ro\n"+
			"\nLABEL m-2\n  MENU LABEL Demo (2)\n  LINUX /boot/vmlinuz-2\n  INITRD /boot/initramfs-2.img\n  APPEND root=UUID=R\n"+
			"\nLABEL m-1\n  MENU LABEL Demo (1)\n  LINUX /boot/vmlinuz-1\n  INITRD /boot/initramfs-1.img\n  APPEND root=UUID=R\n")
	}
}

func TestEL7sKernelsAreThoseInBoot(t *testing.T) {
	for _, shell := range shells(t) {
		dir := booted(t, map[string]string{
			"boot/vmlinuz-3.10.0-957.el7.x86_64": "k", "boot/initramfs-3.10.0-957.el7.x86_64.img": "i", "boot/initramfs-3.10.0-957.el7.x86_64kdump.img": "i",
			"boot/vmlinuz-3.10.0-1160.el7.x86_64": "k", "boot/initramfs-3.10.0-1160.el7.x86_64.img": "i",
		})
		old := "\nLABEL linux-3.10.0-957.el7.x86_64\n  MENU LABEL Demo Linux 7 (3.10.0-957.el7.x86_64)\n  LINUX /vmlinuz-3.10.0-957.el7.x86_64\n  INITRD /initramfs-3.10.0-957.el7.x86_64.img\n  APPEND root=UUID=R ro quiet\n"
		head := "SERIAL 0 115200\n# Written by imgbuild when demo 2 was installed.\nPROMPT 1\nTIMEOUT 30\nDEFAULT linux-"
		if out, err := call(t, shell, dir, addedFile, "", "3.10.0-1160.el7.x86_64", "/boot/vmlinuz-3.10.0-1160.el7.x86_64"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		has(t, dir, "boot/extlinux/extlinux.conf", head+"3.10.0-1160.el7.x86_64\n"+strings.ReplaceAll(old, "957", "1160")+old)
		if out, err := call(t, shell, dir, removedFile, "", "3.10.0-1160.el7.x86_64", "/boot/vmlinuz-3.10.0-1160.el7.x86_64"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		has(t, dir, "boot/extlinux/extlinux.conf", head+"3.10.0-957.el7.x86_64\n"+old)
	}
}

func TestAConfigurationIsLeftAloneWhereNothingCouldStart(t *testing.T) {
	for _, shell := range shells(t) {
		dir := booted(t, map[string]string{"boot/loader/entries/m-1.conf": blsEntry("1", "root=UUID=R"), "boot/vmlinuz-1": "k"})
		out, err := call(t, shell, dir, pluginFile, "", "remove", "2")
		if err == nil || !strings.Contains(out, "no kernel could be started") || !strings.Contains(out, "m-1 is left out: /initramfs-1.img is not in /boot") {
			t.Errorf("%v\n%s", err, out)
		}
		has(t, dir, "boot/extlinux/extlinux.conf", extlinuxHead)
		has(t, dir, "boot/grub2/grub.cfg", grubHead)
	}
}

func TestWhatIsNotThereIsNotWritten(t *testing.T) {
	for _, shell := range shells(t) {
		dir := booted(t, map[string]string{"boot/loader/entries/m-1.conf": blsEntry("1", "root=UUID=R"), "boot/vmlinuz-1": "k", "boot/initramfs-1.img": "i",
			"boot/grub2/grub.cfg": "blscfg\n### BEGIN imgbuild entries ###\nno end\n"})
		if err := os.Remove(filepath.Join(dir, "boot/extlinux/extlinux.conf")); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"add", "inspect"} {
			if out, err := call(t, shell, dir, pluginFile, "", verb, "1"); err != nil || out != "" {
				t.Errorf("%v\n%s", err, out)
			}
		}
		has(t, dir, "boot/grub2/grub.cfg", "blscfg\n### BEGIN imgbuild entries ###\nno end\n")
		if _, err := os.Stat(filepath.Join(dir, "boot/extlinux/extlinux.conf")); err == nil {
			t.Error("extlinux.conf was made")
		}
	}
}

func TestShellcheckHasNothingToSay(t *testing.T) {
	tool, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed")
	}
	for _, entries := range []bool{true, false} {
		c := exec.Command(tool, "-s", "sh", "-")
		c.Stdin = strings.NewReader(Config{BootPrefix: "/boot"}.script("", entries))
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
