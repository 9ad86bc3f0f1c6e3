package builder

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/profiles"
)

func TestAMediumIsWrittenWhereTheProfileSaysSo(t *testing.T) {
	for _, want := range []bool{true, false} {
		p := shipped(t, "centos-stream-9")
		p.ISO = &want
		plan := planned(t, p, nil)
		at := slices.IndexFunc(plan.Stages, func(s Stage) bool { return s.Name == StageISO })
		if (at >= 0) != want {
			t.Fatalf("with iso %v it is stage %d", want, at)
		}
		if want && (plan.Stages[at-1].Name != StageManifest || plan.Stages[at].Inputs[0] != "volume label CENTOS-STREAM-9-1") {
			t.Errorf("it is %+v, after %s", plan.Stages[at], plan.Stages[at-1].Name)
		}
	}
}

func TestTheReleaseIsAnotherWithoutItsMedium(t *testing.T) {
	digestWith := func(iso bool) string {
		p := shipped(t, "centos-stream-9")
		p.ISO = &iso
		d, err := planned(t, p, func(o *Options) {
			o.Installer = func(string, bool) ([]byte, error) { return nil, nil }
			o.KeyFile = filepath.Join(t.TempDir(), "none")
		}).releaseDigest(nil)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if digestWith(true) == digestWith(false) {
		t.Error("a release without a medium would stay when one is wanted")
	}
}

func TestThePreflightAsksForWhatWritesTheMedium(t *testing.T) {
	missing := func(p *profiles.Profile) string {
		h := host{find: func(string) (string, error) { return "", errors.New("no") }}
		var all []string
		for _, n := range isoNeeds(p) {
			err := h.tool(t.Context(), n)
			if err == nil || !strings.Contains(err.Error(), "install the package "+n.debian) || !strings.Contains(err.Error(), image.ISOFile) {
				t.Errorf("of %s it says %v", n.name, err)
			}
			all = append(all, n.name)
		}
		return strings.Join(all, " ")
	}
	for name, c := range map[string]struct {
		change func(*profiles.Profile)
		want   string
	}{
		"an image for both firmwares": {func(*profiles.Profile) {}, "xorriso mkfs.vfat mcopy"},
		"one for UEFI":                {func(p *profiles.Profile) { p.Layout.Firmware = "uefi" }, "xorriso mkfs.vfat mcopy"},
		"one for BIOS with extlinux": {
			func(p *profiles.Profile) { p.Layout.Firmware, p.Layout.BIOSLoader = "bios", "extlinux" }, "xorriso",
		},
		"one for arm": {func(p *profiles.Profile) { p.Arch, p.Layout.Firmware = "aarch64", "uefi" }, "xorriso mkfs.vfat mcopy"},
	} {
		t.Run(name, func(t *testing.T) {
			p := shipped(t, "centos-stream-9")
			c.change(p)
			if got := missing(p); got != c.want {
				t.Errorf("it asks for %s", got)
			}
		})
	}
	p, no := shipped(t, "centos-stream-9"), false
	p.ISO = &no
	if slices.ContainsFunc(needs(p), func(n need) bool { return n.name == "xorriso" }) {
		t.Error("it asks for xorriso when there is no medium to write")
	}
}

func TestThePreflightAsksForGRUBWhereTheImageHasNone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*profiles.Profile)
		want   bool
	}{
		"an image for both firmwares": {func(*profiles.Profile) {}, false},
		"one for UEFI":                {func(p *profiles.Profile) { p.Layout.Firmware = "uefi" }, true},
		"one for BIOS with extlinux":  {func(p *profiles.Profile) { p.Layout.Firmware, p.Layout.BIOSLoader = "bios", "extlinux" }, true},
		"one for UEFI that has it anyway": {func(p *profiles.Profile) {
			p.Layout.Firmware, p.Packages.Install = "uefi", append(p.Packages.Install, "grub2-pc-modules")
		}, false},
		"one without a medium": {func(p *profiles.Profile) { p.Layout.Firmware, *p.ISO = "uefi", false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := shipped(t, "centos-stream-9")
			p.Packages.Install = slices.DeleteFunc(slices.Clone(p.Packages.Install), func(s string) bool { return strings.HasPrefix(s, "grub2-pc") })
			c.change(p)
			h := host{
				uid: func() int { return 0 }, goarch: "amd64", find: func(n string) (string, error) { return "/usr/bin/" + n, nil },
				version: func(context.Context, []string) (string, error) { return "4.18.1", nil }, free: func(string) (int64, error) { return 100 << 30, nil },
				mkimage: func() (string, error) { return "", errors.New("there is no GRUB") },
			}
			err := h.check(t.Context(), planned(t, p, func(o *Options) {
				o.Installer = func(string, bool) ([]byte, error) { return nil, nil }
				o.KeyFile = filepath.Join(t.TempDir(), "none")
			}), false)
			if asked := err != nil && strings.Contains(err.Error(), "there is no GRUB"); asked != c.want {
				t.Errorf("it says %v", err)
			}
		})
	}
}

func TestTheMediumsEFIProgramsAreTheImages(t *testing.T) {
	dir := "boot/efi/EFI/centos/"
	b := newBuild(planned(t, shipped(t, "centos-stream-9"), nil))
	b.tree = treeOf(t, dir+"shimx64.efi", dir+"grubx64.efi")
	if u, err := b.isoUEFI(); u != nil || err != nil {
		t.Errorf("an image without GRUB has %+v, %v", u, err)
	}
	b.loaders.GRUB = &image.GRUB{Shim: "/" + dir + "shimx64.efi", Loader: "/" + dir + "grubx64.efi"}
	u, err := b.isoUEFI()
	if err != nil || string(u.Shim) != dir+"shimx64.efi" || string(u.Loader) != dir+"grubx64.efi" || len(u.MokManager) != 0 {
		t.Errorf("it has %+v, %v", u, err)
	}
	b.loaders.GRUB.MokManager = "/" + dir + "mmx64.efi"
	if _, err := b.isoUEFI(); err == nil || !strings.Contains(err.Error(), "mmx64.efi") {
		t.Errorf("a file that is not there gives %v", err)
	}
}
