//go:build integration

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/disk"
	"imgbuild/installer/looptest"
	"imgbuild/installer/report"
	"imgbuild/installer/tool"
)

func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices and mounts need root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// loop makes a disk of a sparse file.
func loop(t *testing.T, size int64, sector int) disk.Disk {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	node := strings.TrimSpace(looptest.Command(t, "losetup", "-f", "--show", "--sector-size", fmt.Sprint(sector), file))
	d := disk.Disk{Name: filepath.Base(node), Path: node, Size: size, Sector: sector}
	t.Cleanup(func() {
		if err := deletePartitions("/sys", d); err != nil {
			t.Error(err)
		}
		looptest.Command(t, "losetup", "-d", node)
	})
	return d
}

func candidate(d disk.Disk) layout.Candidate {
	return layout.Candidate{ID: d.Name, Path: d.Path, Size: d.Size, Sector: d.Sector}
}

// lines are what a reporter says, for the test's log.
type lines struct{ t *testing.T }

func (l lines) Line(_ report.Class, text string) { l.t.Log(text) }

func system(t *testing.T) System {
	return System{Sys: "/sys", Run: tool.Runner{}, Scratch: t.TempDir(), Report: report.New(lines{t})}
}

func resolve(t *testing.T, l layout.Layout, found []layout.Existing, disks, data []disk.Disk) (*layout.Scheme, map[string]disk.Disk) {
	t.Helper()
	in := layout.Input{Firmware: layout.BIOS, Arch: "x86_64", RootMin: 64 * mib, Extlinux: true, GRUB: true, Existing: found}
	for _, d := range disks {
		in.Disks = append(in.Disks, candidate(d))
	}
	for _, d := range data {
		in.Data = append(in.Data, candidate(d))
	}
	s, err := l.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]disk.Disk{}
	for _, sd := range append(s.Disks[:len(s.Disks):len(s.Disks)], s.DataFirstBoot...) {
		for _, d := range append(disks[:len(disks):len(disks)], data...) {
			if d.Name == sd.ID {
				by[sd.Name] = d
			}
		}
	}
	return s, by
}

// blkid reads what a device holds.
func blkid(t *testing.T, node string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(looptest.Command(t, "blkid", "-p", "-o", "export", node)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			out[k] = v
		}
	}
	return out
}

// compare looks with blkid at everything that a scheme has.
func compare(t *testing.T, m *Made, s *layout.Scheme, ids *IDs) {
	t.Helper()
	for _, f := range s.Filesystems() {
		is := blkid(t, m.Node(f.Device))
		want := f.FS
		if is["TYPE"] != want || is["UUID"] != ids.FS(f.Device) || is["LABEL"] != strings.ReplaceAll(f.Label, " ", `\ `) {
			t.Errorf("%s holds %v and is to hold %s %q with %s", f.Device, is, f.FS, f.Label, ids.FS(f.Device))
		}
	}
}

func TestBootLoadersCanReadTheExt4ThatIsMadeForThem(t *testing.T) {
	need(t, "mkfs.ext4", "dumpe2fs")
	for loader, forbidden := range map[layout.Loader][]string{
		layout.Extlinux: {"64bit", "metadata_csum", "metadata_csum_seed", "orphan_file", "casefold", "inline_data"},
		layout.GRUB:     {"metadata_csum_seed", "casefold", "inline_data", "encrypt"},
	} {
		file := filepath.Join(t.TempDir(), "boot")
		if err := os.WriteFile(file, make([]byte, 64*mib), 0o600); err != nil {
			t.Fatal(err)
		}
		d := layout.SchemeDisk{Name: "d", Candidate: layout.Candidate{Sector: 512}, Content: layout.Content{FS: "ext4", Mount: "/boot"}}
		s := &layout.Scheme{BIOSLoader: loader, Disks: []layout.SchemeDisk{d}}
		m := &Made{sys: system(t), scheme: s, ids: Identify(s), disks: []*work{{SchemeDisk: d}}, nodes: map[layout.Device]string{"disk/d": file}}
		if err := m.mkfs(t.Context(), m.holders()[0]); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(looptest.Command(t, "dumpe2fs", "-h", file)) {
			features, ok := strings.CutPrefix(line, "Filesystem features:")
			for _, f := range strings.Fields(features) {
				if ok && slices.Contains(forbidden, f) {
					t.Errorf("%s cannot read %s", loader, f)
				}
			}
			if ok && (!strings.Contains(features, "has_journal") || !strings.Contains(features, "extent")) {
				t.Errorf("made for %s has only %s", loader, features)
			}
		}
	}
}

const hello = "this stays"

// withFile mounts a file system and gives its path to do.
func withFile(t *testing.T, node, fs string, do func(file string)) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(node, dir, fs, 0, ""); err != nil {
		t.Fatalf("mount %s: %v", node, err)
	}
	do(filepath.Join(dir, "hello"))
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}

func TestASchemeIsMadeAndCommittedAndMadeAgainAroundWhatIsKept(t *testing.T) {
	need(t, "losetup", "sgdisk", "sfdisk", "blkid", "mkfs.ext4", "mkfs.xfs", "mkfs.vfat", "mkswap")
	gib := layout.Size("1GiB")
	parts := func(esp bool) []layout.Partition {
		list := []layout.Partition{
			{Name: "boot", Extent: layout.Extent{Size: "256MiB"}, Content: layout.Content{FS: "ext4", Mount: "/boot", Label: "boot"}},
			{Name: "root", Extent: layout.Extent{Size: gib}, Content: layout.Content{FS: "xfs", Mount: "/", Label: "root"}},
			{Name: "data", Extent: layout.Extent{Size: layout.Rest}, Content: layout.Content{FS: "ext4", Mount: "/srv", Label: "data", Keep: true}},
		}
		if esp {
			list = append([]layout.Partition{{Name: "esp", Role: layout.RoleESP, Extent: layout.Extent{Size: "300MiB"}, Content: layout.Content{FS: "vfat", Mount: "/boot/efi", Label: "ESP"}}}, list...)
			list[3].Extent.Size = layout.Rest
			list = append(list[:3:3], layout.Partition{Name: "swap", Extent: layout.Extent{Size: "64MiB"}, Content: layout.Content{FS: "swap", Label: "swap"}}, list[3])
		}
		return list
	}
	for name, c := range map[string]struct {
		sector int
		l      layout.Layout
	}{
		"GPT, both firmwares":              {512, layout.Layout{Firmware: layout.Both, Disks: []layout.Disk{{Partitions: parts(true)}}}},
		"GPT, sectors of 4096 bytes, UEFI": {4096, layout.Layout{Firmware: layout.UEFI, Disks: []layout.Disk{{Partitions: parts(true)}}}},
		"MBR":                              {512, layout.Layout{Firmware: layout.BIOS, Table: layout.MBR, Disks: []layout.Disk{{Partitions: parts(false)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := loop(t, 4<<30, c.sector)
			all := []disk.Disk{d}
			found, err := Existing(t.Context(), system(t), c.l, all)
			if err != nil {
				t.Fatal(err)
			}
			s, by := resolve(t, c.l, found, all, nil)
			ids := Identify(s)
			m, err := Make(t.Context(), system(t), s, ids, by)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, m, s, ids)
			kept := s.On("/srv")
			withFile(t, m.Node(kept.Device), "ext4", func(file string) {
				if err := os.WriteFile(file, []byte(hello), 0o600); err != nil {
					t.Fatal(err)
				}
			})
			code := map[string]BootCode{s.Disks[0].Name: {MBR: []byte("old boot code"), Seal: bytes.Repeat([]byte("s"), seal.Size)}}
			if err := m.Commit(code); err == nil {
				t.Error("the table was written while the kernel had partitions")
			}
			if err := errors.Join(m.Stop(t.Context()), m.Stop(t.Context())); err != nil {
				t.Fatal(err)
			}
			if err := m.Commit(code); err != nil {
				t.Fatal(err)
			}
			verify(t, d, s.Disks[0])

			if found, err = Existing(t.Context(), system(t), c.l, all); err != nil {
				t.Fatal(err)
			}
			if have, err := kernelPartitions("/sys", d.Name); err != nil || len(have) > 0 {
				t.Errorf("looking left partitions: %v, %v", have, err)
			}
			again, by := resolve(t, c.l, found, all, nil)
			if k := again.On("/srv"); k.Kept == nil || k.Kept.UUID != ids.FS(kept.Device) || k.Kept.Label != "data" {
				t.Fatalf("%+v of %+v is not kept", k, found)
			}
			more := Identify(again)
			if m, err = Make(t.Context(), system(t), again, more, by); err != nil {
				t.Fatal(err)
			}
			compare(t, m, again, more)
			withFile(t, m.Node(again.On("/srv").Device), "ext4", func(file string) {
				if b, err := os.ReadFile(file); err != nil || string(b) != hello {
					t.Errorf("what was kept is %q, %v", b, err)
				}
			})
			if more.FS(again.On("/").Device) == ids.FS(s.On("/").Device) {
				t.Error("the new root has the old one's identifier")
			}
			if err := errors.Join(m.Stop(t.Context()), m.Commit(nil)); err != nil {
				t.Fatal(err)
			}
			verify(t, d, again.Disks[0])
			// Without the old table nothing can be kept, and nothing is touched.
			if err := os.Truncate(backing(t, d), 0); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(backing(t, d), d.Size); err != nil {
				t.Fatal(err)
			}
			looptest.Command(t, "blockdev", "--flushbufs", d.Path)
			if _, err := Make(t.Context(), system(t), again, more, by); !errors.Is(err, ErrUntouched) || !strings.Contains(err.Error(), `"data"`) {
				t.Errorf("with nothing there to keep: %v", err)
			}
		})
	}
}

func backing(t *testing.T, d disk.Disk) string {
	t.Helper()
	b, err := os.ReadFile("/sys/block/" + d.Name + "/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// verify lets other tools read the partition table.
func verify(t *testing.T, d disk.Disk, s layout.SchemeDisk) {
	t.Helper()
	if s.Table == layout.GPT {
		if out := looptest.Command(t, "sgdisk", "--verify", d.Path); !strings.Contains(out, "No problems found") {
			t.Errorf("sgdisk says %s", out)
		}
	} else if out := looptest.Command(t, "sfdisk", "--verify", d.Path); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk says %s", out)
	}
	out := looptest.Command(t, "sfdisk", "--dump", d.Path)
	for _, p := range s.Parts {
		want := fmt.Sprintf("start=%12d, size=%12d", p.Start/int64(d.Sector), p.Size/int64(d.Sector))
		if !strings.Contains(out, want) {
			t.Errorf("sfdisk shows no partition with %s in\n%s", want, out)
		}
	}
}

func TestDataDisksAreMadeBesidesAndThoseOfTheFirstBootHaveOnlyTheirTable(t *testing.T) {
	need(t, "losetup", "sgdisk", "blkid", "mkfs.ext4", "mkfs.xfs")
	for _, when := range []string{"install", "firstboot"} {
		t.Run(when, func(t *testing.T) {
			system1, data1, data2 := loop(t, 3<<30, 512), loop(t, 1<<30, 512), loop(t, 1<<30, 4096)
			looptest.Command(t, "mkfs.ext4", "-q", data2.Path)
			l := layout.Layout{Firmware: layout.BIOS, Data: &layout.Data{When: when}}
			s, by := resolve(t, l, nil, []disk.Disk{system1}, []disk.Disk{data1, data2})
			ids := Identify(s)
			m, err := Make(t.Context(), system(t), s, ids, by)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, m, s, ids)
			if err := errors.Join(m.Stop(t.Context()), m.Commit(nil)); err != nil {
				t.Fatal(err)
			}
			for _, d := range []disk.Disk{data1, data2} {
				if is := blkid(t, d.Path); is["PTTYPE"] != "gpt" {
					t.Errorf("%s shows %v", d.Path, is)
				}
				if err := holdsNothing(d); (when == "install") == (err == nil) {
					t.Errorf("partition 1 of %s: %v", d.Path, err)
				}
			}
			for _, f := range s.FirstBoot() {
				if ids.FS(f.Device) == "" {
					t.Errorf("%s has no identifier", f.Device)
				}
			}
		})
	}
}

// holdsNothing looks into the first partition.
func holdsNothing(d disk.Disk) error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	list, err := readTable(f, d)
	if err != nil || len(list) == 0 {
		return fmt.Errorf("there is no partition: %w", err)
	}
	id, err := identify(io.NewSectionReader(f, list[0].Start, list[0].Size), list[0].Size)
	if err == nil && id.fs != "" {
		err = fmt.Errorf("it holds %s", id.fs)
	}
	return err
}

func TestADiskInUseIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	need(t, "losetup", "mkfs.ext4", "mkfs.xfs")
	d := loop(t, 3<<30, 512)
	looptest.Command(t, "mkfs.ext4", "-q", d.Path)
	s, by := resolve(t, layout.Layout{Firmware: layout.BIOS}, nil, []disk.Disk{d}, nil)
	withFile(t, d.Path, "ext4", func(string) {
		if _, err := Make(t.Context(), system(t), s, Identify(s), by); !errors.Is(err, ErrUntouched) {
			t.Errorf("got %v", err)
		}
	})
	if is := blkid(t, d.Path); is["TYPE"] != "ext4" {
		t.Errorf("the disk holds %v", is)
	}
}
