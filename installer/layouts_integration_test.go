//go:build integration

package installer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/looptest"
)

// tree mounts partitions and calls f with the directory: what is mounted where, root first.
func (m *machine) tree(f func(dir string), on ...[3]string) {
	m.t.Helper()
	dir := m.t.TempDir()
	var mounted mounts
	defer func() {
		if err := mounted.unmountAll(KernelMounter{}); err != nil {
			m.t.Error(err)
		}
		for _, d := range m.disks {
			d.forget()
		}
	}()
	for _, p := range on {
		if err := mounted.mount(KernelMounter{}, p[0], filepath.Join(dir, p[1]), p[2], ""); err != nil {
			m.t.Fatal(err)
		}
	}
	f(dir)
}

// two mounts what twoDisks makes.
func (m *machine) two(f func(dir string)) {
	m.t.Helper()
	first, second := m.disks[0].partitions(), m.disks[1].partitions()
	m.tree(f, [3]string{second["root"], "/", "ext4"}, [3]string{first["boot"], "/boot", "ext4"}, [3]string{first["var"], "/var", "xfs"}, [3]string{second["srv"], "/srv", "xfs"})
}

func uuidOf(t *testing.T, node string) string {
	t.Helper()
	return strings.TrimSpace(looptest.Command(t, "blkid", "-p", "-o", "value", "-s", "UUID", node))
}

func (m *machine) mustRun() {
	m.t.Helper()
	if err := m.run(); err != nil {
		m.t.Fatal(err)
	}
}

func TestASystemIsInstalledOnTwoDisksAndKeepsWhatItIsToKeep(t *testing.T) {
	m := newMachine(t, 1<<30, 512)
	m.twoDisks()
	m.mustRun()
	for _, d := range m.disks {
		if out := looptest.Command(t, "sgdisk", "-v", d.dev); !strings.Contains(out, "No problems found") || !d.bootable() {
			t.Errorf("sgdisk says of %s:\n%s", d.dev, out)
		}
	}
	m.disks[1].keeps = true
	first, second := m.disks[0].partitions(), m.disks[1].partitions()
	m.checkSeal(first["seal"], 0)
	if _, ok := second["seal"]; ok {
		t.Error("the disk that nothing starts from is sealed")
	}
	srv := uuidOf(t, second["srv"])
	fstab := strings.Join([]string{
		"UUID=" + uuidOf(t, second["root"]) + " / ext4 defaults 1 1", "UUID=" + uuidOf(t, first["boot"]) + " /boot ext4 defaults 1 2",
		"UUID=" + srv + " /srv xfs nodev 0 0", "UUID=" + uuidOf(t, first["var"]) + " /var xfs defaults 0 0", "UUID=" + uuidOf(t, first["swap"]) + " none swap defaults 0 0",
	}, "\n")
	for _, d := range m.disks {
		d.forget()
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil || strings.Contains(string(swaps), m.loop) {
		t.Errorf("swap space is on: %s, %v", swaps, err)
	}
	m.two(func(dir string) {
		b, err := os.ReadFile(filepath.Join(dir, "etc/fstab"))
		if _, got, _ := strings.Cut(string(b), "\n"); err != nil || strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(fstab), " ") {
			t.Errorf("fstab is %v\n%s\nwant\n%s", err, b, fstab)
		}
		for _, name := range []string{"var/lib/imgbuild/manifest.json", "srv/www/index.html", "boot/extlinux/ldlinux.sys"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(os.Remove(filepath.Join(dir, "srv/www/index.html")), os.WriteFile(filepath.Join(dir, "srv/precious"), []byte("data"), 0o600)); err != nil {
			t.Fatal(err)
		}
	})

	before := m.digest()
	if err := m.run(); !errors.Is(err, ErrNotEmpty) || m.digest() != before || strings.Contains(err.Error(), `"srv"`) {
		t.Errorf("again, and nobody allows it: %v", err)
	}
	m.wipe()
	m.mustRun()
	if said := m.said(); !strings.Contains(said, "| kept:\nimgbuild: |   of "+m.disks[1].dev) || !strings.Contains(said, `"srv" at /srv`) {
		t.Errorf("it said\n%s", said)
	}
	if got := uuidOf(t, m.disks[1].partitions()["srv"]); got != srv {
		t.Errorf("what is kept was %s and is %s", srv, got)
	}
	m.disks[1].forget()
	m.two(func(dir string) {
		if b, err := os.ReadFile(filepath.Join(dir, "srv/precious")); err != nil || string(b) != "data" {
			t.Errorf("what was to be kept: %q, %v", b, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "srv/www")); err == nil {
			if list, _ := os.ReadDir(filepath.Join(dir, "srv/www")); len(list) > 0 {
				t.Errorf("the image's files are among those that were kept: %v", list)
			}
		}
	})
	root := m.disks[1].partitions()["root"]
	m.tree(func(dir string) {
		if list, err := os.ReadDir(filepath.Join(dir, "srv")); err != nil || len(list) > 0 {
			t.Errorf("below the mount point lies %v, %v", list, err)
		}
	}, [3]string{root, "/", "ext4"})

	m.config.Args.Fresh, m.disks[1].keeps = true, false
	m.mustRun()
	m.two(func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "srv/precious")); err == nil {
			t.Error("it was kept against what was asked")
		}
	})
}

func TestADiskWithAnMBRIsInstalled(t *testing.T) {
	m := newMachine(t, 1<<30, 512)
	m.config.Layout = &layout.Layout{Table: layout.MBR, Firmware: layout.BIOS, BIOSLoader: layout.Extlinux, BootSize: "256MiB", Filesystem: "ext4"}
	m.mustRun()
	if out := looptest.Command(t, "sfdisk", "--verify", m.loop); !strings.Contains(out, "No errors detected") || !m.bootable() {
		t.Errorf("sfdisk says:\n%s", out)
	}
	out := looptest.Command(t, "sfdisk", "--dump", m.loop)
	if !strings.Contains(out, "label: dos") || strings.Count(out, "bootable") != 1 || strings.Count(out, "type=83") != 2 {
		t.Errorf("sfdisk says:\n%s", out)
	}
	m.checkSeal(m.loop, mib-seal.Size)
	boot := m.disks[0].partition(1, 1<<20, 256<<20)
	m.tree(func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "extlinux/ldlinux.sys")); err != nil {
			t.Error(err)
		}
	}, [3]string{boot, "/", "ext4"})
	// The seal is found again.
	m.wipe()
	m.config.Machine.Serial = "SN-OTHER"
	before := m.digest()
	if err := m.run(); !errors.Is(err, ErrSealed) || m.digest() != before {
		t.Errorf("installed as another machine: %v", err)
	}
	m.config.Args.Unseal = []string{serial}
	m.mustRun()
}

func TestAPreviewSaysWhatWouldBeDoneAndWritesNothing(t *testing.T) {
	m := newMachine(t, 1<<30, 512)
	m.twoDisks()
	m.config.Args.Mode, m.config.Args.Done = cmdline.ModePreview, cmdline.DoneWait
	m.config.BeforeWrite = func(context.Context) error { t.Error("it was about to write"); return nil }
	looptest.Command(t, "mkfs.ext4", "-q", "-F", "-L", "precious", m.disks[1].dev)
	before := m.digest()
	m.mustRun()
	o := m.result.Outlook
	if o == nil || m.result.Done != cmdline.DoneWait || m.digest() != before {
		t.Fatalf("got %+v", m.result)
	}
	if !strings.Contains(o.Refused, "check disk: "+m.disks[1].dev+" (1 GiB) is not empty") || o.Scheme == nil || len(o.Scheme.Disks) != 2 {
		t.Errorf("got %+v", o)
	}
	for _, want := range []string{"erased:\n", `ext4 file system "precious"`, "written:\n", "swap", `"root" at /`} {
		if !strings.Contains(o.Text, want) {
			t.Errorf("%q is not in\n%s", want, o.Text)
		}
	}
	for line := range strings.Lines(o.Text) {
		if !strings.Contains(m.said(), "imgbuild: | "+strings.TrimSpace(line)[:min(3, len(strings.TrimSpace(line)))]) && !strings.HasPrefix(line, " ") && strings.TrimSpace(line) != "" {
			t.Errorf("%q was not shown", line)
		}
	}
	m.wipe()
	m.mustRun()
	if o := m.result.Outlook; o.Refused != "" || m.digest() != before {
		t.Errorf("got %+v", o)
	}
	for name, change := range map[string]func(){
		"no such disk":                func() { m.config.Args.Disks = []string{"WD-1234"} },
		"a layout that does not fit":  func() { m.config.Layout.Disks[0].Partitions[0].Size = "4GiB" },
		"a tool that is not there":    func() { m.config.System.Tools.Dirs = []string{t.TempDir()} },
		"a manifest that was changed": func() { m.flip("manifest.json", 40) },
	} {
		if name != "a manifest that was changed" {
			change()
			m.mustRun()
			if o := m.result.Outlook; o == nil || o.Refused == "" || o.Disks == nil {
				t.Errorf("%s: %+v", name, o)
			}
		}
	}
	m.flip("manifest.json", 40)
	if err := m.run(); err == nil || m.result.Outlook != nil || m.digest() != before {
		t.Errorf("a manifest that nobody signed: %v, %+v", err, m.result)
	}
}

func TestDataDisksAreFormattedNowOrLater(t *testing.T) {
	for _, when := range []string{"install", "firstboot"} {
		t.Run(when, func(t *testing.T) {
			m := newMachine(t, 1<<30, 512)
			data := newLoop(t, 1<<30, 512)
			m.config.Layout = &layout.Layout{Firmware: layout.BIOS, BIOSLoader: layout.Extlinux, BootSize: "256MiB", Filesystem: "ext4",
				Data: &layout.Data{Match: layout.Hints{Path: data.dev}, When: when, Keep: when == "install"}}
			m.disks = append(m.disks, data)
			m.mustRun()
			nodes := data.partitions()
			if len(nodes) != 1 {
				t.Fatalf("the data disk has %v", nodes)
			}
			var node string
			for _, node = range nodes {
			}
			root := m.disks[0].partitions()["root"]
			m.tree(func(dir string) {
				if st, err := os.Stat(filepath.Join(dir, "data1")); err != nil || !st.IsDir() {
					t.Error(err)
				}
				fstab, err1 := os.ReadFile(filepath.Join(dir, "etc/fstab"))
				_, err2 := os.Stat(filepath.Join(dir, "etc/systemd/system/multi-user.target.wants/imgbuild-data.service"))
				if now := when == "install"; err1 != nil || now != strings.Contains(string(fstab), " /data1 xfs ") {
					t.Errorf("fstab is %v\n%s; %v", err1, fstab, err2)
				}
			}, [3]string{root, "/", "ext4"})
			if when == "firstboot" {
				if !strings.Contains(m.said(), "formats its data disks when it starts") {
					t.Errorf("it said\n%s", m.said())
				}
				return
			}
			node = data.partition(1, 1<<20, 1022<<20)
			m.tree(func(dir string) {
				if err := os.WriteFile(filepath.Join(dir, "precious"), []byte("data"), 0o600); err != nil {
					t.Fatal(err)
				}
			}, [3]string{node, "/", "xfs"})
			data.forget()
			data.keeps = true
			m.config.Args.Wipe = []string{m.loop} // the data disk is not named
			m.mustRun()
			m.tree(func(dir string) {
				if b, err := os.ReadFile(filepath.Join(dir, "precious")); err != nil || string(b) != "data" {
					t.Errorf("what was to be kept: %q, %v", b, err)
				}
			}, [3]string{data.partition(1, 1<<20, 1022<<20), "/", "xfs"})
		})
	}
}

func TestAnOrderThatIsWithdrawnLeavesTheDisksUntouched(t *testing.T) {
	m := newMachine(t, 1<<30, 512)
	m.twoDisks()
	gone := errors.New("the order is gone")
	m.config.BeforeWrite = func(context.Context) error { return gone }
	before := m.digest()
	err := m.run()
	var e *Error
	if !errors.Is(err, gone) || !errors.As(err, &e) || len(e.Disks) != 2 || e.Disks[0].State != Untouched || e.Disks[1].Path != m.disks[1].dev || m.digest() != before {
		t.Errorf("got %v", err)
	}
	if e != nil && !slices.Equal(e.NoKexec, []string{"HPE *"}) {
		t.Errorf("the old system would be started directly but on %q", e.NoKexec)
	}
}
