package builder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/profiles"
)

// Preview is what becomes of disks that are only described, on a machine that is not there.
type Preview struct {
	Scheme *layout.Scheme `json:"scheme"`
	// Notes are what a person should know beside it, each a sentence.
	Notes []string `json:"notes,omitempty"`
}

// PreviewOptions say what is previewed.
type PreviewOptions struct {
	Profile *profiles.Profile
	// Layout takes the place of the profile's; nil keeps that.
	Layout *layout.Layout
	// Firmware is the machine's. It decides where the layout says auto; empty is UEFI.
	Firmware layout.Firmware
	// Release is the directory of a release of the profile, which knows the image's size; empty if there is none yet.
	Release string
	// Disks are the machine's, as ParseDisk reads them.
	Disks []layout.Candidate
}

// NewPreview lays out disks as the installer would. It reads nothing but the release's manifest, whose signature only the
// installer checks.
func NewPreview(o PreviewOptions) (*Preview, error) {
	p := o.Profile
	l := p.LayoutFor()
	if o.Layout != nil {
		l = *o.Layout
	}
	n := needsOf(p)
	in := layout.Input{
		Firmware: o.Firmware, Arch: p.Arch,
		Extlinux: slices.Contains(n.tools, toolExtlinux), GRUB: slices.Contains(n.tools, toolGRUB),
	}
	out := &Preview{}
	if in.Firmware == "" {
		in.Firmware = layout.UEFI
		if l.Firmware == "" || l.Firmware == layout.Auto {
			out.Notes = append(out.Notes, "This is for a machine that starts by UEFI; --firmware bios shows the other.")
		}
	}
	tools := n.tools
	if o.Release == "" {
		out.Notes = append(out.Notes, "The image's size is known when it has been built; --release DIR takes it from a release.")
	} else {
		m, err := readManifest(o.Release)
		if err != nil {
			return nil, err
		}
		if m.Arch != p.Arch {
			return nil, fmt.Errorf("lay out disks: the release in %s is for %s, and the profile for %s", o.Release, m.Arch, p.Arch)
		}
		in.RootMin, in.Extlinux, in.GRUB, tools = m.RootMin(), m.BootLoader.Extlinux != nil, m.BootLoader.GRUBPC != nil, m.Tools
	}
	var err error
	if in.Disks, in.Data, err = l.Choose(o.Disks, nil); err != nil {
		return nil, err
	}
	if out.Scheme, err = l.Resolve(in); err != nil {
		return nil, err
	}
	l.Firmware, l.BIOSLoader = out.Scheme.Firmware, out.Scheme.BIOSLoader
	for _, t := range l.Tools(l.Firmware) {
		if !slices.Contains(tools, t) {
			out.Notes = append(out.Notes, fmt.Sprintf("The initramfs has no %s, so it cannot make this layout; name it in the profile's initramfs.tools.", t))
		}
	}
	return out, nil
}

func readManifest(dir string) (*image.Manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, image.ManifestFile))
	if err != nil {
		return nil, fmt.Errorf("read the release: %w", err)
	}
	m, err := image.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read the release in %s: %w", dir, err)
	}
	return m, nil
}

// String is the preview as people read it.
func (p *Preview) String() string {
	var b bytes.Buffer
	if err := p.Scheme.Write(&b); err != nil {
		return err.Error() // a buffer takes everything
	}
	for i, n := range p.Notes {
		if i == 0 {
			b.WriteByte('\n')
		}
		b.WriteString(n + "\n")
	}
	return b.String()
}

// diskKeys are what a disk may be described with.
func diskKeys() []string {
	return []string{"size", "count", "sector", "physical", "transport", "rotational", "model", "serial", "wwn", "path", "hctl", "by-path", "by-id"}
}

// ParseDisks reads disks that people describe, each as size=480G,model=…,sector=4096. One with count=12 stands for a dozen.
// Where nothing else is said, they are SATA disks with sectors of 512 bytes and the names that Linux would give them.
func ParseDisks(texts []string) ([]layout.Candidate, error) {
	var out []layout.Candidate
	var errs []error
	named := map[string]int{}
	for _, text := range texts {
		d, count, err := parseDisk(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--disk %s: %w", text, err))
			continue
		}
		for range count {
			c := d
			c.ID = kernelName(c.Transport, named)
			if c.Path == "" {
				c.Path = "/dev/" + c.ID
			}
			out = append(out, c)
		}
	}
	return out, errors.Join(errs...)
}

// kernelName is the next name of a disk.
func kernelName(transport string, named map[string]int) string {
	letter := func(n int) string {
		s := ""
		for n++; n > 0; n = (n - 1) / 26 {
			s = string(rune('a'+(n-1)%26)) + s
		}
		return s
	}
	kind := "sd"
	switch transport {
	case "nvme", "virtio", "mmc":
		kind = transport
	}
	n := named[kind]
	named[kind]++
	switch kind {
	case "nvme":
		return fmt.Sprintf("nvme%dn1", n)
	case "mmc":
		return fmt.Sprintf("mmcblk%d", n)
	case "virtio":
		return "vd" + letter(n)
	}
	return "sd" + letter(n)
}

func parseDisk(text string) (d layout.Candidate, count int, err error) {
	d = layout.Candidate{Sector: 512, Transport: "sata"}
	count = 1
	seen := map[string]bool{}
	for _, part := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		switch {
		case !slices.Contains(diskKeys(), key):
			return d, 0, fmt.Errorf("there is no key %q; there are %s", key, strings.Join(diskKeys(), ", "))
		case !ok || value == "":
			return d, 0, fmt.Errorf("%s has no value; write it as %s=…", key, key)
		case seen[key]:
			return d, 0, fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if err := setDisk(&d, &count, key, value); err != nil {
			return d, 0, fmt.Errorf("%s: %w", key, err)
		}
	}
	switch {
	case d.Size == 0:
		return d, 0, errors.New("it has no size; write it as size=480G")
	case d.Size%int64(d.Sector) != 0:
		d.Size -= d.Size % int64(d.Sector)
	}
	if d.Transport == "usb" { // as the installer sees it
		d.Unfit = "it is on USB"
	}
	if d.PhysicalSector == 0 {
		d.PhysicalSector = d.Sector
	}
	if d.PhysicalSector < d.Sector {
		return d, 0, fmt.Errorf("its physical sectors of %d bytes are smaller than the logical ones of %d", d.PhysicalSector, d.Sector)
	}
	if count > 1 && (seen["serial"] || seen["wwn"] || seen["path"] || seen["hctl"] || seen["by-path"] || seen["by-id"]) {
		return d, 0, errors.New("count stands for disks that differ in serial number, WWN and place; give those each as a --disk of its own")
	}
	return d, count, nil
}

func setDisk(d *layout.Candidate, count *int, key, value string) (err error) {
	switch key {
	case "size":
		d.Size, err = layout.ParseBytes(value)
	case "count":
		if *count, err = strconv.Atoi(value); err != nil || *count < 1 || *count > 1000 {
			return fmt.Errorf("%q is not a number from 1 to 1000", value)
		}
	case "sector", "physical":
		n, err := strconv.Atoi(value)
		if err != nil || n != 512 && n != 4096 {
			return fmt.Errorf("%q is neither 512 nor 4096", value)
		}
		if key == "sector" {
			d.Sector = n
		} else {
			d.PhysicalSector = n
		}
	case "rotational":
		if d.Rotational, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
	case "transport":
		d.Transport = value
	case "model":
		d.Model = value
	case "serial":
		d.Serial = value
	case "wwn":
		d.WWN = value
	case "path":
		d.Path = value
	case "hctl":
		d.HCTL = value
	case "by-path":
		d.ByPath = []string{value}
	case "by-id":
		d.ByID = []string{value}
	}
	return err
}
