package tftp

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Loader is a boot loader as distributions have it.
type Loader struct {
	// Name is what it is called over TFTP. Shim looks for GRUB under GRUB's name, in the folder it came from itself.
	Name string
	// Platform is the firmware that it is for, in package dhcp's words: bios, efi-ia32, efi-x86_64, efi-arm64.
	Platform string
	What     string // for people
	// SecureBoot is true of what only the Secure Boot chain needs. Optional ones boot firmware that few machines have.
	SecureBoot, Optional bool
	// Places are where packages put it, the better first.
	Places []Place
	// Path is the place that was found; empty if there is none.
	Path string
}

// Place is where a package puts a boot loader. Patterns are as those of filepath.Match.
type Place struct{ Path, Debian, EL string }

// Packages says what to install, as: ipxe (Debian), ipxe-bootimgs-x86 (EL).
func (l *Loader) Packages() string {
	var list []string
	for _, p := range l.Places {
		for _, s := range []string{suffix(p.Debian, " (Debian)"), suffix(p.EL, " (EL)")} {
			if s != "" && !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return strings.Join(list, ", ")
}

func suffix(s, with string) string {
	if s == "" {
		return ""
	}
	return s + with
}

func (l *Loader) String() string {
	if l.Path == "" {
		return fmt.Sprintf("%s (%s) is not installed; it is in the package %s", l.What, l.Name, l.Packages())
	}
	return fmt.Sprintf("%s (%s): %s", l.What, l.Name, l.Path)
}

// Loaders are all boot loaders that are looked for. For UEFI, iPXE with the firmware's own network driver (snponly) is
// taken before the one that brings its drivers: it drives whatever the firmware has just loaded it with.
func Loaders() []Loader {
	return []Loader{
		{Name: "undionly.kpxe", Platform: "bios", What: "iPXE for BIOS", Places: []Place{
			{"/usr/lib/ipxe/undionly.kpxe", "ipxe", ""}, {"/usr/share/ipxe/undionly.kpxe", "", "ipxe-bootimgs-x86"}}},
		{Name: "ipxe.efi", Platform: "efi-x86_64", What: "iPXE for UEFI on x86-64", Places: []Place{
			{"/usr/lib/ipxe/snponly.efi", "ipxe", ""}, {"/usr/share/ipxe/ipxe-snponly-x86_64.efi", "", "ipxe-bootimgs-x86"},
			{"/usr/lib/ipxe/ipxe.efi", "ipxe", ""}, {"/usr/share/ipxe/ipxe-x86_64.efi", "", "ipxe-bootimgs-x86"}}},
		{Name: "ipxe-arm64.efi", Platform: "efi-arm64", What: "iPXE for UEFI on arm64", Optional: true, Places: []Place{
			{"/usr/lib/ipxe/snponly-arm64.efi", "ipxe", ""}, {"/usr/lib/ipxe/ipxe-arm64.efi", "ipxe", ""},
			{"/usr/share/ipxe/arm64-efi/snponly.efi", "", "ipxe-bootimgs-aarch64"}, {"/usr/share/ipxe/arm64-efi/ipxe.efi", "", "ipxe-bootimgs-aarch64"}}},
		{Name: "ipxe-ia32.efi", Platform: "efi-ia32", What: "iPXE for 32-bit UEFI", Optional: true, Places: []Place{
			{"/usr/share/ipxe/ipxe-i386.efi", "", "ipxe-bootimgs-x86"}}},
		{Name: "shimx64.efi", Platform: "efi-x86_64", What: "shim for Secure Boot on x86-64", SecureBoot: true, Places: []Place{
			{"/usr/lib/shim/shimx64.efi.signed", "shim-signed", ""}, {"/boot/efi/EFI/[a-z]*/shimx64.efi", "", "shim-x64"}}},
		{Name: "grubx64.efi", Platform: "efi-x86_64", What: "signed GRUB for Secure Boot on x86-64", SecureBoot: true, Places: []Place{
			{"/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grub-efi-amd64-signed", ""}, {"/boot/efi/EFI/[a-z]*/grubx64.efi", "", "grub2-efi-x64"}}},
		{Name: "shimaa64.efi", Platform: "efi-arm64", What: "shim for Secure Boot on arm64", SecureBoot: true, Optional: true, Places: []Place{
			{"/usr/lib/shim/shimaa64.efi.signed", "shim-signed", ""}, {"/boot/efi/EFI/[a-z]*/shimaa64.efi", "", "shim-aa64"}}},
		{Name: "grubaa64.efi", Platform: "efi-arm64", What: "signed GRUB for Secure Boot on arm64", SecureBoot: true, Optional: true, Places: []Place{
			{"/usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed", "grub-efi-arm64-signed", ""}, {"/boot/efi/EFI/[a-z]*/grubaa64.efi", "", "grub2-efi-aa64"}}},
	}
}

// FindLoaders looks for boot loaders where packages put them, below root (empty is /), and gives all: those that are
// missing have no Path and say which package has them.
func FindLoaders(root string) (found, missing []Loader) {
	for _, l := range Loaders() {
		for _, p := range l.Places {
			matches, _ := filepath.Glob(filepath.Join("/", root, p.Path)) // the patterns are ours, and right
			for _, m := range matches {
				if i, err := os.Stat(m); l.Path == "" && err == nil && i.Mode().IsRegular() && i.Size() > 0 {
					l.Path = m
				}
			}
		}
		if l.Path != "" {
			found = append(found, l)
		} else {
			missing = append(missing, l)
		}
	}
	return found, missing
}
