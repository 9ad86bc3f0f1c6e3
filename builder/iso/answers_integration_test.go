//go:build integration

package iso

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/builder/tool"
	"imgbuild/image"
)

// signedSmall is a medium with a manifest that can be read.
func signedSmall(t *testing.T) (Medium, string) {
	t.Helper()
	m := small(t)
	whole := image.Manifest{
		Schema: image.Schema, Name: m.Manifest.Name, Version: m.Manifest.Version, Arch: "x86_64", KernelRelease: "5.14.0-1.el9.x86_64", KernelArgs: []string{"console=tty0"},
		Distro: image.Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"}, LockDigest: strings.Repeat("0", 64), SELinux: "enforcing",
		NetworkFormat: image.NMKeyfile, Created: m.Manifest.Created, UnpackedBytes: 1 << 20, Files: map[string]image.File{},
		Tools: []string{"extlinux", "mkfs.xfs", "mkfs.ext4", "mkfs.vfat"},
	}
	for name := range m.Manifest.Files {
		data, err := os.ReadFile(filepath.Join(m.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if whole.Files[name], err = image.Describe(bytes.NewReader(data), name == image.RootfsFile); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := whole.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.Dir, image.ManifestFile), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return m, made(t, m)
}

func TestACopyHasTheAnswersAndAllElse(t *testing.T) {
	m, medium := signedSmall(t)
	before := sum(t, medium)
	dir := t.TempDir()
	first, second, third := filepath.Join(dir, "a=b.iso"), filepath.Join(dir, "2.iso"), filepath.Join(dir, "3.iso")
	for _, c := range []struct{ from, to, text string }{{medium, first, `{"disks":["A"]}`}, {medium, second, `{"disks":["A"]}`}, {first, third, `{"disks":["B"]}`}} {
		got, err := WithAnswers(t.Context(), tool.NewRunner(t.Output()), t.TempDir(), c.from, c.to, []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != m.Manifest.Name || got.Version != m.Manifest.Version {
			t.Errorf("the release is %s %s", got.Name, got.Version)
		}
		if st, err := os.Stat(c.to); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("others can read what may have a password's hash: %v, %v", st.Mode(), err)
		}
		into := t.TempDir()
		peer(t, "osirrox", "-indev", c.to, "-extract", "/", into)
		peer(t, "chmod", "-R", "u+w", into)
		for _, name := range m.files() {
			same(t, filepath.Join(m.Dir, name), filepath.Join(into, image.MediumDir, name))
		}
		if data, err := os.ReadFile(filepath.Join(into, image.MediumDir, image.AnswersFile)); err != nil || string(data) != c.text {
			t.Errorf("the answers are %s, %v", data, err)
		}
		if said := peer(t, "sgdisk", "-v", c.to); !strings.Contains(said, "No problems found") {
			t.Errorf("sgdisk says %s", said)
		}
		report := peer(t, "xorriso", "-indev", c.to, "-report_el_torito", "plain", "-report_system_area", "plain")
		for _, want := range []string{
			`Volume id    : 'WEB-2026.11'`, `El Torito boot img :   1  BIOS  y   none`, `El Torito boot img :   2  UEFI  y   none`, `El Torito img path :   1  /boot/grub2/eltorito.img`,
			`El Torito img opts :   1  boot-info-table grub2-boot-info`, `grub2-mbr`, `GPT type GUID      :   2  28732ac11ff8d211ba4b00a0c93ec93b`, `Partition offset   : 16`,
		} {
			if !strings.Contains(report, want) {
				t.Errorf("it does not say %s", want)
			}
		}
	}
	if sum(t, first) != sum(t, second) {
		t.Error("the same medium and answers make another copy")
	}
	if sum(t, medium) != before {
		t.Error("the medium has changed")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 3 {
		t.Errorf("there are %v, %v", left, err)
	}
}

func TestAMediumForBIOSAloneTakesAnswersToo(t *testing.T) {
	m, _ := signedSmall(t)
	m.UEFI = nil
	out := filepath.Join(t.TempDir(), "copy.iso")
	if _, err := WithAnswers(t.Context(), tool.NewRunner(t.Output()), t.TempDir(), made(t, m), out, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if report := peer(t, "xorriso", "-indev", out, "-report_el_torito", "plain", "-report_system_area", "plain"); !strings.Contains(report, "grub2-mbr") || strings.Contains(report, "GPT") {
		t.Errorf("it has %s", report)
	}
}

func TestNoCopyIsMadeOfWhatIsNoMedium(t *testing.T) {
	needTools(t, "xorriso")
	noise := filepath.Join(t.TempDir(), "noise.iso")
	if err := os.WriteFile(noise, bytes.Repeat([]byte("noise"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ medium, out, says string }{
		"no ISO":      {noise, filepath.Join(t.TempDir(), "copy.iso"), "it is no live.iso that imgbuild wrote"},
		"not there":   {noise + "2", filepath.Join(t.TempDir(), "copy.iso"), "no such file"},
		"onto itself": {noise, noise, "it is the medium itself"},
	} {
		t.Run(name, func(t *testing.T) {
			work := t.TempDir()
			before, _ := os.ReadDir(filepath.Dir(c.out))
			_, err := WithAnswers(t.Context(), tool.NewRunner(t.Output()), work, c.medium, c.out, []byte("{}"))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v", err)
			}
			after, _ := os.ReadDir(filepath.Dir(c.out))
			left, _ := os.ReadDir(work)
			if len(after) != len(before) || len(left) != 0 {
				t.Errorf("%v and %v are left", after, left)
			}
		})
	}
}
