package kexec

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// disks are file systems of a disk as directories, each by its files.
func volumes(t *testing.T, list ...map[string]string) []*os.Root {
	t.Helper()
	var out []*os.Root
	for _, files := range list {
		dir := t.TempDir()
		for name, text := range files {
			p := filepath.Join(dir, name)
			err := os.MkdirAll(filepath.Dir(p), 0o755)
			if to, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
				err = os.Symlink(to, p)
			} else if err == nil {
				err = os.WriteFile(p, []byte(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		out = append(out, r)
	}
	return out
}

func testdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const el9 = "title CentOS Stream (5.14.0-%) 9\nversion 5.14.0-%\nlinux /vmlinuz-5.14.0-%\ninitrd /initramfs-5.14.0-%.img $tuned_initrd\noptions root=UUID=R ro crashkernel=1G-4G:192M $tuned_params\n" +
	"grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class centos\n"

func entry(version string) string { return strings.ReplaceAll(el9, "%", version) }

func TestTheOldSystemIsWhatItsBootLoaderWouldStart(t *testing.T) {
	kernels := func(more map[string]string) map[string]string {
		for _, v := range []string{"9", "10"} {
			more["vmlinuz-5.14.0-"+v], more["initramfs-5.14.0-"+v+".img"] = "kernel "+v, "initrd "+v
		}
		return more
	}
	for _, c := range []struct {
		name                        string
		disk                        []map[string]string
		title, kernel, initrd, args string
	}{
		{"EL9: the newest entry", []map[string]string{kernels(map[string]string{"loader/entries/m-5.14.0-9.conf": entry("9"), "loader/entries/m-5.14.0-10.conf": entry("10")})},
			"CentOS Stream (5.14.0-10) 9", "kernel 10", "initrd 10", "root=UUID=R ro crashkernel=1G-4G:192M "},
		{"EL9: the saved entry", []map[string]string{kernels(map[string]string{"loader/entries/m-5.14.0-9.conf": entry("9"), "loader/entries/m-5.14.0-10.conf": entry("10"),
			"grub2/grubenv": "# GRUB Environment Block\nsaved_entry=m-5.14.0-9\n###"})},
			"CentOS Stream (5.14.0-9) 9", "kernel 9", "initrd 9", "root=UUID=R ro crashkernel=1G-4G:192M "},
		{"EL9: the newest entry has no initrd any more", []map[string]string{{"vmlinuz-5.14.0-9": "kernel 9", "initramfs-5.14.0-9.img": "initrd 9", "vmlinuz-5.14.0-10": "kernel 10",
			"loader/entries/m-5.14.0-9.conf": entry("9"), "loader/entries/m-5.14.0-10.conf": entry("10")}},
			"CentOS Stream (5.14.0-9) 9", "kernel 9", "initrd 9", "root=UUID=R ro crashkernel=1G-4G:192M "},
		{"EL8 on UEFI: the arguments are on the ESP", []map[string]string{{"EFI/redhat/grubenv": "# GRUB Environment Block\nkernelopts=root=/dev/mapper/rhel-root ro\n##"},
			kernels(map[string]string{"loader/entries/m.conf": "title RHEL\nversion 5.14.0-9\nlinux /vmlinuz-5.14.0-9\ninitrd /initramfs-5.14.0-9.img\noptions $kernelopts quiet\n",
				"grub2/grubenv": "-> ../efi/EFI/redhat/grubenv"})},
			"RHEL", "kernel 9", "initrd 9", "root=/dev/mapper/rhel-root ro quiet"},
		{"/boot in the root, by a link", []map[string]string{{"sbin/init": "x"}, {"boot/vmlinuz": "-> vmlinuz-5.14.0-9", "boot/vmlinuz-5.14.0-9": "kernel 9",
			"boot/loader/entries/m.conf": "title t\nversion 1\nlinux /vmlinuz\noptions root=/dev/sda1\n"}},
			"t", "kernel 9", "", "root=/dev/sda1"},
		{"EL7, not its newest", []map[string]string{{"vmlinuz-3.10.0-1160.el7.x86_64": "k", "initramfs-3.10.0-1160.el7.x86_64.img": "i", "vmlinuz-3.10.0-957.el7.x86_64": "kernel 957", "initramfs-3.10.0-957.el7.x86_64.img": "initrd 957", "grub2/grub.cfg": testdata(t, "el7.cfg"),
			"grub2/grubenv": "# GRUB Environment Block\nsaved_entry=CentOS Linux (3.10.0-957.el7.x86_64) 7 (Core)\n"}},
			"CentOS Linux (3.10.0-957.el7.x86_64) 7 (Core)", "kernel 957", "initrd 957", "root=/dev/mapper/centos-root ro crashkernel=auto rd.lvm.lv=centos/root rhgb quiet LANG=en_US.UTF-8"},
		{"EL7, where nothing is saved", []map[string]string{{"vmlinuz-3.10.0-1160.el7.x86_64": "kernel 1160", "initramfs-3.10.0-1160.el7.x86_64.img": "initrd 1160", "grub2/grub.cfg": testdata(t, "el7.cfg")}},
			"CentOS Linux (3.10.0-1160.el7.x86_64) 7 (Core)", "kernel 1160", "initrd 1160", "root=/dev/mapper/centos-root ro crashkernel=auto rd.lvm.lv=centos/root rhgb quiet LANG=en_US.UTF-8"},
		{"Debian, with its submenu", []map[string]string{{"boot/vmlinuz-6.1.0-18-amd64": "kernel 18", "boot/initrd.img-6.1.0-18-amd64": "initrd 18", "boot/grub/grub.cfg": testdata(t, "debian.cfg")}},
			"Debian GNU/Linux", "kernel 18", "initrd 18", "root=UUID=11111111-2222-3333-4444-555555555555 ro quiet"},
		{"Debian, a saved entry of the submenu", []map[string]string{{"boot/vmlinuz-6.1.0-13-amd64": "kernel 13", "boot/initrd.img-6.1.0-13-amd64": "initrd 13",
			"boot/grub/grub.cfg": strings.Replace(testdata(t, "debian.cfg"), `set default="0"`, `set default="gnulinux-advanced-1>gnulinux-6.1.0-13-amd64-advanced-1"`, 1)}},
			"Debian GNU/Linux, with Linux 6.1.0-13-amd64", "kernel 13", "initrd 13", "root=UUID=11111111-2222-3333-4444-555555555555 ro single"},
		{"ours with extlinux", []map[string]string{{"vmlinuz-4": "kernel 4", "a.img": "A", "b.img": "B",
			"extlinux/extlinux.conf": "SERIAL 0 115200\nDEFAULT linux\nPROMPT 1\nTIMEOUT 30\n\nLABEL linux\n  MENU LABEL Demo\n  LINUX /vmlinuz-4\n  INITRD /a.img,/b.img\n  APPEND root=UUID=R ro console=ttyS0\n"}},
			"Demo", "kernel 4", "AB", "root=UUID=R ro console=ttyS0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := choose(volumes(t, c.disk...))
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			k, err := io.ReadAll(e.Kernel)
			if err != nil {
				t.Fatal(err)
			}
			var i []byte
			if e.Initrd != nil {
				if i, err = io.ReadAll(e.Initrd); err != nil {
					t.Fatal(err)
				}
			}
			if e.Title != c.title || string(k) != c.kernel || string(i) != c.initrd || e.Args != c.args {
				t.Errorf("got %q %q %q %q\nwant %q %q %q %q", e.Title, k, i, e.Args, c.title, c.kernel, c.initrd, c.args)
			}
		})
	}
}

func TestWhatCannotBeStartedRightIsLeftToTheFirmware(t *testing.T) {
	for name, c := range map[string]struct {
		disk map[string]string
		says string
	}{
		"nothing there":              {map[string]string{"etc/passwd": "x"}, "no boot configuration"},
		"no root in the arguments":   {map[string]string{"vmlinuz": "k", "loader/entries/m.conf": "title t\nlinux /vmlinuz\noptions $kernelopts\n"}, `the entry "t" does not say what its root is`},
		"no kernel":                  {map[string]string{"loader/entries/m.conf": "title t\nlinux /vmlinuz\noptions root=x\n"}, `the entry "t": `},
		"a kernel that is a way out": {map[string]string{"vmlinuz": "-> ../../../../../../../../etc/passwd", "loader/entries/m.conf": "title t\nlinux /vmlinuz\noptions root=x\n"}, `the entry "t": `},
		"a kernel that is a directory": {map[string]string{"vmlinuz/x": "", "loader/entries/m.conf": "title t\nlinux /vmlinuz\noptions root=x\n"},
			`the entry "t": /vmlinuz is not a file`},
		"Windows starts": {map[string]string{"vmlinuz": "k", "grub2/grub.cfg": "set default=1\nmenuentry Linux {\nlinux /vmlinuz root=x\n}\nmenuentry Windows {\nchainloader +1\n}\n"}, "no boot configuration"},
		"Xen starts":     {map[string]string{"vmlinuz": "k", "grub2/grub.cfg": "menuentry Xen {\nmultiboot2 /xen.gz\nmodule2 /vmlinuz root=x\n}\nmenuentry Linux {\nlinux /vmlinuz root=x\n}\n"}, "no boot configuration"},
		"a menu of extlinux starts": {map[string]string{"vmlinuz": "k", "extlinux/extlinux.conf": "DEFAULT menu.c32\nLABEL l\nLINUX /vmlinuz\nAPPEND root=x\n"},
			"no boot configuration"},
	} {
		e, err := choose(volumes(t, c.disk))
		if err == nil {
			e.Close()
			t.Errorf("%s: it is started", name)
		} else if !strings.Contains(err.Error(), c.says) || !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGRUBsWordsAreSplitAsGRUBDoes(t *testing.T) {
	for text, want := range map[string][][]string{
		"linux /vmlinuz 'a b' c\"d e\"f g\\ h # no": {{"linux", "/vmlinuz", "a b", "cd ef", "g h"}},
		"a; b\nc \\\n d":                {{"a"}, {"b"}, {"c", "d"}},
		"menuentry 'x' {\n  linux y\n}": {{"menuentry", "x", "{"}, {"linux", "y"}, {"}"}},
		"set a=${b}; if [ x ]; then":    {{"set", "a=${b}"}, {"if", "[", "x", "]"}, {"then"}},
		"'open":                         {{"open"}},
		"\"a\\\"b\\$c\\d\" ''":          {{"a\"b$c\\d", ""}},
		"":                              nil,
	} {
		if got := grubStatements(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestExtlinuxHasItsOwnWays(t *testing.T) {
	m := parseExtlinux("default b\nappend root=/dev/all\nlabel a\n kernel vmlinuz\n append - \nlabel b\n linux ../vmlinuz\n menu label B\nlabel c\n kernel memdisk.bin\n initrd x\nlabel d\n menu default\n linux /v\n append initrd=i,/j root=/dev/d BOOT_IMAGE=v\n", "/extlinux")
	want := []candidate{{id: "a", title: "a", kernel: "/extlinux/vmlinuz"}, {id: "b", title: "B", kernel: "/vmlinuz", args: "root=/dev/all"},
		{id: "c", title: "c", initrds: []string{"/extlinux/x"}, args: "root=/dev/all"}, {id: "d", title: "d", kernel: "/v", initrds: []string{"/extlinux/i", "/j"}, args: "root=/dev/d"}}
	if !reflect.DeepEqual(m.list, want) || m.start != 3 {
		t.Errorf("%d of %+v", m.start, m.list)
	}
}

func TestVersionsAreOrderedAsPeopleDo(t *testing.T) {
	list := []string{"0-rescue", "3.10.0-957.el7", "3.10.0-1160.el7", "5.14.0-9", "5.14.0-10", "5.14.0-10.1", "5.14.0-010.2", "6.1"}
	mixed := slices.Clone(list)
	slices.Reverse(mixed)
	if slices.SortFunc(mixed, compareVersions); !slices.Equal(mixed, list) {
		t.Errorf("got %q", mixed)
	}
}

func TestVariablesDoNotGrowForEver(t *testing.T) {
	text := "set a=xxxxxxxxxxxxxxxx\n" + strings.Repeat("set a=$a$a\n", 64) + "menuentry x {\nlinux /k " + strings.Repeat("$a", 100) + "\n}\n"
	if m := parseGRUB(text, nil); len(m.list) != 1 || len(m.list[0].args) != 100*maxValue {
		t.Errorf("%d entries, %d bytes", len(m.list), len(m.list[0].args))
	}
}

func FuzzGRUB(f *testing.F) {
	f.Add(testdata(f, "el7.cfg"), "saved_entry=1>2\n")
	f.Add(testdata(f, "debian.cfg"), "")
	f.Add("menuentry x { linux (hd0)/a ${b} }", "b=c")
	f.Fuzz(func(t *testing.T, text, env string) {
		m := parseGRUB(text, parseEnv([]byte(env)))
		check(t, m)
	})
}

func FuzzExtlinux(f *testing.F) {
	f.Add("DEFAULT a\nLABEL a\n LINUX /x\n INITRD y,z\n APPEND initrd=q root=1\n")
	f.Fuzz(func(t *testing.T, text string) { check(t, parseExtlinux(text, "/extlinux")) })
}

func FuzzEntries(f *testing.F) {
	f.Add([]byte(entry("1")), []byte(entry("2")), []byte("tuned_params=x\n"))
	f.Fuzz(func(t *testing.T, a, b, env []byte) {
		list := parseEntries(map[string][]byte{"a": a, "b": b}, parseEnv(env))
		check(t, menu{list: list})
	})
}

func check(t *testing.T, m menu) {
	t.Helper()
	if m.start < -1 || m.start >= len(m.list) && len(m.list) > 0 {
		t.Fatalf("%d of %d starts", m.start, len(m.list))
	}
}
