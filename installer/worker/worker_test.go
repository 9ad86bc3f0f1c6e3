package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/hw"
	"imgbuild/installer/report"
)

func TestAdaptersCountAsScannedWhenNothingWasAddedForAWhile(t *testing.T) {
	sys, now := t.TempDir(), time.Unix(0, 0)
	a := &adapters{sys: sys, quiet: 4 * time.Second, now: func() time.Time { return now }}
	add := func(path string) {
		if err := os.MkdirAll(filepath.Join(sys, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want bool) {
		t.Helper()
		if got := a.scanned(); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	check("without an adapter", true)
	add("class/scsi_host/host0")
	check("with a new adapter", false)
	now = now.Add(3 * time.Second)
	check("3 s later", false)
	add("class/scsi_device/0:0:0:0")
	now = now.Add(2 * time.Second)
	check("when a disk has just appeared", false)
	now = now.Add(4 * time.Second)
	check("4 s after that", true)
}

func TestOnlyDisksAndCardsThatAreHardwareCount(t *testing.T) {
	sys := t.TempDir()
	for _, p := range []string{"block/loop0", "block/sr0/device", "block/fd0/device", "class/net/lo"} {
		if err := os.MkdirAll(filepath.Join(sys, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if hasDisk(sys) || hasNIC(sys) {
		t.Error("a loop device, an optical drive or lo was taken for hardware")
	}
	for _, p := range []string{"block/vda/device", "class/net/eth0/device"} {
		if err := os.MkdirAll(filepath.Join(sys, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if !hasDisk(sys) || !hasNIC(sys) {
		t.Error("a disk or a card was not seen")
	}
}

func TestOnlyWhatHasToDoWithDisksWaitsForOne(t *testing.T) {
	const manifest = "imgbuild.manifest=http://10.0.0.1/manifest.json"
	for text, want := range map[string]bool{
		manifest:                            true,
		manifest + " imgbuild.mode=preview": true,
		manifest + " imgbuild.mode=live":    false,
		manifest + " imgbuild.mode=live imgbuild.live.persist=/var=LABEL": true,
		"imgbuild.medium=WEB-1":                     true,
		"imgbuild.medium=WEB-1 imgbuild.mode=live":  false,
		"imgbuild.medium=WEB-1 imgbuild.mode=check": false,
	} {
		t.Run(text, func(t *testing.T) {
			args, err := cmdline.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if w := (&worker{args: args}); w.needsDisk(t.TempDir()) != want {
				t.Errorf("it is %v", !want)
			}
		})
	}
}

func TestALiveStartWithAServerWaitsForADiskWhereThereCanBeOne(t *testing.T) {
	w := &worker{args: cmdline.Args{Mode: cmdline.ModeLive, Server: "http://10.0.0.1:8080"}}
	for classes, want := range map[string]bool{"0x020000": false, "0x020000 0x010601": false, "0x010180": false, "0x010802": true, "0x020000 0x010400": true, "0x010700": true} {
		sys := t.TempDir()
		for i, class := range strings.Fields(classes) {
			dir := filepath.Join(sys, fmt.Sprintf("bus/pci/devices/0000:00:%02d.0", i))
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "class"), []byte(class+"\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.needsDisk(sys); got != want {
			t.Errorf("with PCI devices of class %s: %v", classes, got)
		}
	}
}

// lines keeps what is said.
type lines []string

func (l *lines) Line(_ report.Class, text string) { *l = append(*l, text) }

func TestTheOldSystemIsStartedByARebootWhereKexecIsForbidden(t *testing.T) {
	for name, c := range map[string]struct {
		denied []string
		says   string
	}{
		"its model is listed": {[]string{"HPE *"}, report.Prefix + `warning: the old system is started by a reboot: start another kernel: the image forbids that on machines like "HPE *" (kernel.no_kexec), and this is HPE ProLiant DL360 Gen10`},
		"another one is":      {[]string{"Dell *"}, report.Prefix + "warning: the old system is started by a reboot: "}, // no disk was chosen
	} {
		t.Run(name, func(t *testing.T) {
			var said lines
			s := &served{worker: &worker{say: report.New(&said), machine: hw.Machine{Vendor: "HPE", Product: "ProLiant DL360 Gen10"}}}
			done := s.oldSystem(t.Context(), fmt.Errorf("stop: %w", &installer.Error{Err: &withdrawn{"cancelled"}, NoKexec: c.denied}))
			if got := strings.Join(said, "\n"); done != cmdline.DoneReboot || !strings.HasPrefix(got, c.says) || strings.Contains(got, "forbids") != strings.Contains(c.says, "forbids") {
				t.Errorf("it ends with %v and says %q", done, got)
			}
		})
	}
}

func TestAnIPv6ServerIsKnownByItsAddress(t *testing.T) {
	for url, want := range map[string]bool{"http://[2001:db8::1]:80/m.json": true, "http://10.0.0.1/m.json": false, "https://host/m.json": false, "http://[::ffff:1.2.3.4]/m": false, "%": false} {
		if got := isV6(hostOf(url)); got != want {
			t.Errorf("%s: %v", url, got)
		}
	}
}

func TestTheBuildTimeIsPast(t *testing.T) {
	if b := buildTime(); b.Year() < 2026 {
		t.Errorf("built %s", b)
	}
}
