package worker

import (
	"os"
	"path/filepath"
	"testing"
	"time"
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
