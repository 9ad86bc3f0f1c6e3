package installer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/bootloader"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/disk"
	"imgbuild/installer/hw"
	"imgbuild/installer/report"
)

func TestMemoryIsCheckedWithBothFigures(t *testing.T) {
	m := &image.Manifest{UnpackedBytes: 1 << 30, Files: map[string]image.File{image.RootfsFile: {Size: 400 * mib}}}
	for name, c := range map[string]struct {
		total, available int64
		blob             int64
		says             string
	}{
		"a large machine":             {64 << 30, 63 << 30, 8 << 30, ""},
		"a machine that just does it": {320 * mib, 218 * mib, blob.MinMemory, ""},
		"a machine that does not": {320 * mib, 217 * mib, 0,
			"check memory: the installation needs 218 MiB of free memory and this machine has 217 MiB free of 320 MiB; add memory, or use a smaller image"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := planMemory(m, c.total, c.available)
			if b.blob != c.blob || (err == nil) != (c.says == "") || err != nil && err.Error() != c.says {
				t.Errorf("got %+v, %v", b, err)
			}
		})
	}
	small := &image.Manifest{UnpackedBytes: 1 << 20, Files: map[string]image.File{image.RootfsFile: {Size: mib}}}
	if _, err := planMemory(small, 256*mib, 130*mib); err != nil {
		t.Errorf("a small image needs no more chunks than it has: %v", err)
	}
}

func TestMemoryIsReadFromMeminfo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meminfo")
	for text, ok := range map[string]bool{
		"MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:   1000 kB\n": true,
		"MemTotal:  2000 kB\n": false, "": false, "MemTotal: x kB\nMemAvailable:\n": false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		total, available, err := memory(file)
		if (err == nil) != ok || ok && (total != 2000<<10 || available != 1000<<10) {
			t.Errorf("%q gives %d, %d, %v", text, total, available, err)
		}
	}
	if _, _, err := memory(file + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestAnErrorSaysInWhatStateTheDisksAre(t *testing.T) {
	cause := errors.New("something failed")
	for says, disks := range map[string][]DiskState{
		"something failed; no disk was touched":                                           nil,
		"something failed; /dev/sda was not touched":                                      {{"/dev/sda", Untouched}},
		"something failed; /dev/sda and /dev/sdb were not touched":                        {{"/dev/sda", Untouched}, {"/dev/sdb", Untouched}},
		"something failed; /dev/sda was left without a partition table and does not boot": {{"/dev/sda", Cleared}},
		"something failed; the state of /dev/sda is unknown: do not boot from it":         {{"/dev/sda", Unknown}},
		"something failed; /dev/sda, /dev/sdb and /dev/sdc were left without a partition table and do not boot; /dev/sdd was left with nothing but what the layout keeps and does not boot; /dev/sde still has its old first sector": {
			{"/dev/sda", Cleared}, {"/dev/sdb", Cleared}, {"/dev/sdd", Kept}, {"/dev/sdc", Cleared}, {"/dev/sde", Old}},
	} {
		if e := (&Error{Err: cause, Disks: disks}); e.Error() != says || !errors.Is(e, cause) {
			t.Errorf("got %v, want %s", e, says)
		}
	}
}

func TestWhatAFailureLeftIsSeenOnTheDisk(t *testing.T) {
	sector := func(text string, signed bool) []byte {
		b := make([]byte, 4096)
		if copy(b, text); signed {
			b[510], b[511] = 0x55, 0xaa
		}
		return b
	}
	for name, c := range map[string]struct {
		before, now []byte
		kept        bool
		state       State
	}{
		"a disk that was wiped":              {sector("old", true), sector("", false), false, Cleared},
		"a disk that was empty before":       {sector("", false), sector("", false), false, Cleared},
		"a disk that holds a file system":    {sector("old", true), sector("XFSB", false), false, Cleared},
		"a disk that nobody has come to":     {sector("old", true), sector("old", true), false, Old},
		"a disk on which something is kept":  {sector("old", true), sector("stub", true), true, Kept},
		"a disk with a table of unknown use": {sector("old", true), sector("new", true), false, Unknown},
		"a disk that cannot be read":         {sector("old", true), nil, false, Unknown},
	} {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, c.now, 0o600); err != nil {
			t.Fatal(err)
		}
		l := &look{disk: disk.Disk{Path: file}, first: c.before[:512]}
		if got := l.state(c.kept); got != c.state {
			t.Errorf("%s: %v, want %v", name, got, c.state)
		}
	}
}

// broken mounts nothing and says so.
type broken struct{ err error }

func (b broken) Supports(string) error                      { return b.err }
func (b broken) Mount(string, string, string, string) error { return b.err }
func (b broken) Unmount(target string) error                { return errors.New("cannot unmount " + target) }

// warnings keeps what is warned of.
type warnings []string

func (w *warnings) Line(c report.Class, text string) {
	if c == report.ClassWarn {
		*w = append(*w, text)
	}
}

func TestAMachineOnWhichKexecIsForbiddenReboots(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, c := range map[string]struct {
		done, want cmdline.Done
		denied     []string
		says       string
	}{
		"its model is listed":    {cmdline.DoneKexec, cmdline.DoneReboot, []string{"HPE *", "dell inc. poweredge r6?0"}, `so the machine reboots: start another kernel: the image forbids that on machines like "dell inc. poweredge r6?0"`},
		"another one is":         {cmdline.DoneKexec, cmdline.DoneReboot, []string{"HPE *"}, "so the machine reboots: "}, // there is no kernel
		"it is to be turned off": {cmdline.DonePoweroff, cmdline.DonePoweroff, []string{"*"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var said warnings
			r := &run{Config: Config{Args: cmdline.Args{Done: c.done}, Report: report.New(&said), Machine: hw.Machine{Vendor: "Dell Inc.", Product: "PowerEdge R640"}},
				manifest: &image.Manifest{NoKexec: c.denied, KernelRelease: "5"}}
			r.loadKernel(bootloader.Target{Root: root})
			got := strings.Join(said, "\n")
			if r.done != c.want || !strings.Contains(got, c.says) || (got == "") != (c.says == "") || strings.Contains(got, "forbids") != strings.Contains(c.says, "forbids") {
				t.Errorf("it ends with %v and says %q", r.done, got)
			}
		})
	}
}

func TestUnmountingGoesOnAfterAnError(t *testing.T) {
	m := mounts{"/nonexistent/a", "/nonexistent/b"}
	err := m.unmountAll(broken{})
	if err == nil || !strings.Contains(err.Error(), "cannot unmount /nonexistent/b") || !strings.Contains(err.Error(), "cannot unmount /nonexistent/a") || m != nil {
		t.Errorf("got %v, %v", err, m)
	}
	if err := m.mount(broken{errors.New("no such device")}, "x", t.TempDir(), "xfs", ""); err == nil || len(m) != 0 {
		t.Errorf("got %v, %v", err, m)
	}
}
