//go:build e2e

package e2e_test

import (
	"context"
	"regexp"
	"testing"
	"time"

	"imgbuild/testvm"
)

// A person at the serial console installs from the medium, with no network, and the disk alone boots as the person said.
func TestAPersonInstallsFromTheMedium(t *testing.T) {
	s := scenario(t, "dialog", testvm.Disk{Bus: testvm.SATA, Serial: "E2EDIALOG"})
	s.DiskBytes = 8 << 30
	target := s.Disks[0]
	if err := testvm.CreateDisk(target.Path, s.DiskBytes); err != nil {
		t.Fatal(err)
	}
	n, err := shared.host.NewNetwork(t.Context(), testvm.NetworkConfig{NoDHCP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	m, err := n.Start(ctx, testvm.Config{
		Name: s.Name, MemoryMiB: 1536, Disks: []testvm.Disk{{Path: medium(t), Bus: testvm.CD}, target},
		SMBIOS: testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: "TESTVM-DIALOG"},
	}, testvm.ConsoleConfig{Transcript: s.Logs + "/dialog-install.log"})
	if err != nil {
		t.Fatal(err)
	}
	const down, enter, tab = "\x1b[B", "\r", "\t"
	for _, step := range []struct{ await, send string }{
		{`Install .* on this machine`, down + enter},
		{`press Enter on the console`, enter},
		{`1 of 6`, " " + enter + enter},
		{`2 of 6`, enter + enter},
		{`3 of 6`, "from-medium.example.org" + tab + tab + enter},
		{`4 of 6`, "medium" + enter + "medium" + enter + enter + enter},
		{`host name: from-medium\.example\.org`, ""},
		{`Next >`, enter},
		{`Type sda`, "sda" + enter + enter},
		{`The installation is complete`, enter},
	} {
		if _, err := m.Console().Expect(ctx, regexp.MustCompile(step.await)); err != nil {
			t.Fatal(err)
		}
		if err := m.Console().Send(step.send); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	s.Password = "medium"
	f, err := shared.host.BootDisk(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	mustBeGood(t, s, f)
	if f.Hostname != "from-medium.example.org" {
		t.Errorf("its host name is %q", f.Hostname)
	}
}
