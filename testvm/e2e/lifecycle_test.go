//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/testvm"
)

// keepHome is the preset server with /home kept, and /srv on a partition that is kept too.
func keepHome(fw layout.Firmware) layout.Layout {
	l := layout.Layout{Preset: layout.Server}.Expand(fw)
	for i := range l.Groups {
		for j := range l.Groups[i].Volumes {
			if v := &l.Groups[i].Volumes[j]; v.Mount == "/home" {
				v.Keep = true
			}
		}
	}
	return l
}

// A machine is installed, used, previewed and installed again: what the layout keeps is there, what it does not is new, and a
// look at what would happen changes nothing.
func TestWhatALayoutKeepsOutlivesAnInstallation(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	s := scenario(t, "keep", emptyDisk(t, "KEEP", 10<<30))
	s.Firmware, s.Via = testvm.UEFI, testvm.BootKernel
	l := keepHome(layout.UEFI)
	s.Prepare = withLayout(t, l)
	if _, err := shared.host.Install(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	first := ask(t, s, "echo precious > /home/file && echo gone > /opt/file && sync && cat /etc/machine-id")

	before := digests(t, s.Disks)
	preview := s
	preview.Name, preview.Args = "keep-preview", []string{"imgbuild.mode=preview", "imgbuild.wipe=KEEP"}
	preview.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: "TESTVM-KEEP"} // the seal is this machine's
	text := previewed(t, preview)
	for _, want := range []string{"home", "xfs", "LVM", "KEEP"} {
		if !strings.Contains(text, want) {
			t.Errorf("the preview does not speak of %s:\n%s", want, text)
		}
	}
	if after := digests(t, s.Disks); !slices.Equal(before, after) {
		t.Error("a preview changed the disk")
	}

	again := s
	again.Name, again.Args = "keep-again", []string{"imgbuild.wipe=KEEP"}
	again.SMBIOS = preview.SMBIOS
	if _, err := shared.host.Install(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	second := ask(t, again, "cat /home/file && ! test -e /opt/file && cat /etc/machine-id")
	if !strings.HasPrefix(second, "precious") || strings.TrimSpace(strings.TrimPrefix(second, "precious")) == strings.TrimSpace(first) {
		t.Errorf("first %q, then %q", first, second)
	}
}

// ask boots the disk and runs one command, which must succeed.
func ask(t *testing.T, s testvm.Scenario, command string) string {
	t.Helper()
	var out string
	s.Ask = func(ctx context.Context, c *testvm.Console) error {
		var status int
		var err error
		if out, status, err = c.Run(ctx, command); err == nil && status != 0 {
			t.Errorf("%s ended with status %d: %s", command, status, out)
		}
		return err
	}
	if _, err := shared.host.BootDisk(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return out
}

// previewed runs a preview and returns what the console showed.
func previewed(t *testing.T, s testvm.Scenario) string {
	t.Helper()
	var mu sync.Mutex
	var lines []string
	s.Live = func(l string) { mu.Lock(); lines = append(lines, l); mu.Unlock() }
	if _, err := shared.host.Install(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return strings.Join(lines, "\n")
}

// A disk that belongs to another machine is not written to until somebody names that machine.
func TestADiskThatIsSealedForAnotherMachineIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	s := scenario(t, "sealed", emptyDisk(t, "SEALED", 8<<30))
	s.Via = testvm.BootKernel
	if _, err := shared.host.Install(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	before := digests(t, s.Disks)
	other := s
	other.Name, other.SMBIOS = "thief", testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: "ANOTHER"}
	other.Args = []string{"imgbuild.wipe=SEALED"}
	_, err := shared.host.Install(t.Context(), other)
	var failed *testvm.InstallerError
	if !errors.As(err, &failed) || !strings.Contains(failed.Sentence, "TESTVM-SEALED") || !regexp.MustCompile("unseal").MatchString(failed.Error()) {
		t.Errorf("got %v, want a refusal that names the seal's machine and how to break it", err)
	}
	if after := digests(t, s.Disks); !slices.Equal(before, after) {
		t.Error("the refused disk was written to")
	}
	other.Args = append(other.Args, "imgbuild.unseal=TESTVM-SEALED")
	if _, err := shared.host.Install(t.Context(), other); err != nil {
		t.Errorf("the seal was named and still: %v", err)
	}
}
