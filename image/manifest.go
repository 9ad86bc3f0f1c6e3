// Package image says what a release is: the manifest, the chunk table of the root file system, and the signature over
// both. The builder writes these, the server serves them and the installer believes nothing else.
//
// It reads and writes only through the readers and writers it is given, and touches neither disk nor network itself.
package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"imgbuild/image/layout"
)

// Names of the files of a release, as they lie beside the manifest.
const (
	ManifestFile  = "manifest.json"
	SignatureFile = "manifest.json.sig"
	KernelFile    = "vmlinuz"
	InitramfsFile = "initramfs.img"
	RootfsFile    = "rootfs.squashfs"
	TorrentFile   = "rootfs.torrent"
	BootIPXEFile  = "boot.ipxe"
	LockFile      = "profile.lock"
	BuildLogFile  = "build.log"
)

// ISOFile is the medium of a release, which lies beside the manifest too. It is not in Manifest.Files, because the signed manifest is on
// it, with all the other files: whoever reads a medium believes those.
const ISOFile = "live.iso"

// MediumDir is the directory of a medium that has the files of a release, under their names.
const MediumDir = "imgbuild"

// AnswersFile is an answer file (package installer/answers) that a person has put into MediumDir of a medium.
const AnswersFile = "answers.json"

// Schema is the version of the manifest that this package writes. A reader refuses any other.
const Schema = 2

// MaxManifestSize bounds what a reader takes from outside: a 64 GiB root file system has a manifest of some 5 MiB.
const MaxManifestSize = 32 << 20

// Manifest describes one release of one image. It is signed as the bytes in which it is stored.
type Manifest struct {
	Schema  int    `json:"schema"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Arch is the RPM architecture: x86_64 or aarch64.
	Arch   string `json:"arch"`
	Distro Distro `json:"distro"`
	// KernelRelease is what uname -r says in the installed system.
	KernelRelease string `json:"kernelRelease"`
	// KernelArgs are the arguments of the installed system, without root=, in order.
	KernelArgs []string `json:"kernelArgs"`
	// NoKexec are the models on which no kernel is started without the firmware: globs (path.Match) over vendor and product, with
	// a blank between them, without regard to case.
	NoKexec []string `json:"noKexec,omitempty"`
	// LockDigest is the SHA-256, in hex, of profile.lock.
	LockDigest string `json:"lockDigest"`
	// SELinux is enforcing, permissive or disabled.
	SELinux string `json:"selinux"`
	// NetworkFormat is the form in which the target keeps its network configuration.
	NetworkFormat NetworkFormat `json:"networkFormat"`
	// Created is the release's time stamp, seconds since 1970: SOURCE_DATE_EPOCH, or else the time of the newest package. It
	// is never the wall clock, so that the same profile and lock make the same bytes.
	Created int64 `json:"created"`
	// Layout is what becomes of the disks when nobody says otherwise. Where it says nothing of root's least size, that follows
	// from UnpackedBytes.
	Layout layout.Layout `json:"layout"`
	// Tools are the programs that the initramfs carries, by name, as layout.Tools has them: what a layout needs beyond them
	// cannot be made with this release.
	Tools []string `json:"tools,omitempty"`
	// BootLoader says where, in the root file system, the boot loaders' files are.
	BootLoader BootLoader `json:"bootLoader"`
	// UnpackedBytes is the sum of the sizes of all regular files in the root file system, holes not counted.
	UnpackedBytes int64 `json:"unpackedBytes"`
	// Files are the files of the release by name. RootfsFile is always there and has a chunk table.
	Files map[string]File `json:"files"`
}

// Distro is what /etc/os-release of the image says.
type Distro struct {
	ID      string `json:"id"`      // ID=, e.g. centos
	Name    string `json:"name"`    // PRETTY_NAME=
	Release string `json:"release"` // VERSION_ID=, e.g. 9
}

// NetworkFormat is the form of a target's network configuration.
type NetworkFormat string

// The forms that targets keep their network configuration in.
const (
	NMKeyfile NetworkFormat = "nm-keyfile" // NetworkManager keyfiles, EL8 and later
	Ifcfg     NetworkFormat = "ifcfg"      // initscripts, EL7
	Networkd  NetworkFormat = "networkd"   // systemd-networkd
)

// BootLoader says what boot loaders the image carries. A nil part is not there.
type BootLoader struct {
	Extlinux *Extlinux `json:"extlinux,omitempty"`
	GRUB     *GRUB     `json:"grub,omitempty"`
	GRUBPC   *GRUBPC   `json:"grubPC,omitempty"`
}

// Extlinux is the BIOS boot loader. Its MBR code and the extlinux tool travel in the initramfs.
type Extlinux struct {
	// Modules are the .c32 files, as absolute paths in the root file system, that are copied beside ldlinux.sys.
	Modules []string `json:"modules,omitempty"`
}

// GRUB is the UEFI boot loader. Paths are absolute in the root file system.
type GRUB struct {
	// Shim is the first-stage loader; empty if GRUB is started directly.
	Shim string `json:"shim,omitempty"`
	// Loader is GRUB's EFI binary.
	Loader string `json:"loader"`
	// MokManager is shim's key manager; empty if there is none.
	MokManager string `json:"mokManager,omitempty"`
	// Fallback is shim's fallback loader (fbx64.efi); empty if there is none.
	Fallback string `json:"fallback,omitempty"`
	// ConfigDir is the directory on the ESP, relative to its root, where this GRUB looks for grub.cfg, e.g. EFI/centos.
	ConfigDir string `json:"configDir"`
	// Label is the name of the NVRAM boot entry, e.g. "CentOS Stream".
	Label string `json:"label"`
	// LinuxEFI is true where GRUB needs linuxefi and initrdefi instead of linux and initrd (EL7).
	LinuxEFI bool `json:"linuxEFI,omitempty"`
	// BLS is true where blscfg is built into Loader, so that it reads boot loader entries by itself.
	BLS bool `json:"bls,omitempty"`
}

// GRUBPC is GRUB for BIOS. Paths are absolute in the root file system. Its grub2-mkimage travels in the initramfs.
type GRUBPC struct {
	// ModuleDir has the modules for i386-pc, kernel.img and diskboot.img.
	ModuleDir string `json:"moduleDir"`
	// BootImage is boot.img, the code of the first sector.
	BootImage string `json:"bootImage"`
	// BLS is true where ModuleDir has blscfg.mod.
	BLS bool `json:"bls,omitempty"`
}

// File is one file of a release.
type File struct {
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hex
	// Chunks is there for files that are fetched in pieces.
	Chunks *ChunkTable `json:"chunks,omitempty"`
}

var (
	nameRE    = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`)
	versionRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$`)
	hexSHARE  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	releaseRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
)

// ValidName reports whether s can be an image's name: it becomes a directory and part of a URL.
func ValidName(s string) bool { return nameRE.MatchString(s) }

// ValidVersion reports whether s can be an image's version: it becomes a directory and part of a URL.
func ValidVersion(s string) bool { return versionRE.MatchString(s) }

// Marshal returns the bytes in which the manifest is stored and signed. The same manifest gives the same bytes.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return b.Bytes(), nil
}

// RootMin is the space in bytes that the root file system needs: the files, a tenth for rounding up and metadata, and room for
// journal and logs.
func (m *Manifest) RootMin() int64 { return m.UnpackedBytes + m.UnpackedBytes/10 + 256<<20 }

// Parse reads a manifest whose signature has been verified. Unknown fields are refused: a release made by a newer
// builder may mean something by them that this reader would silently not do.
func Parse(data []byte) (*Manifest, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var m Manifest
	if err := d.Decode(&m); err != nil {
		var v struct {
			Schema int `json:"schema"`
		}
		if json.Unmarshal(data, &v) == nil && v.Schema != Schema {
			return nil, schemaError(v.Schema)
		}
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("read manifest: there is something after its end")
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return &m, nil
}

func schemaError(found int) error {
	return fmt.Errorf("read manifest: it has schema %d and this program knows schema %d; use the imgbuild version that made the release", found, Schema)
}

// Validate returns every contradiction in the manifest, joined, or nil.
func (m *Manifest) Validate() error {
	if m.Schema != Schema {
		return schemaError(m.Schema)
	}
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("manifest: "+format, a...)) }
	if !ValidName(m.Name) {
		bad("name %q is not made of small letters, digits, dots, dashes and underscores", m.Name)
	}
	if !ValidVersion(m.Version) {
		bad("version %q has characters that cannot be in a directory name and a URL", m.Version)
	}
	if m.Arch != "x86_64" && m.Arch != "aarch64" {
		bad("arch %q is neither x86_64 nor aarch64", m.Arch)
	}
	if !releaseRE.MatchString(m.KernelRelease) {
		bad("kernel release %q is not a release name", m.KernelRelease)
	}
	for _, a := range m.KernelArgs {
		if a == "" || strings.ContainsAny(a, "\n\r\x00") {
			bad("kernel argument %q is empty or has a line break", a)
		}
	}
	for _, glob := range m.NoKexec {
		if _, err := path.Match(glob, ""); err != nil || strings.TrimSpace(glob) == "" {
			bad("model without kexec %q is not a glob", glob)
		}
	}
	switch m.SELinux {
	case "enforcing", "permissive", "disabled":
	default:
		bad("selinux %q is none of enforcing, permissive, disabled", m.SELinux)
	}
	switch m.NetworkFormat {
	case NMKeyfile, Ifcfg, Networkd:
	default:
		bad("network format %q is none of %s, %s, %s", m.NetworkFormat, NMKeyfile, Ifcfg, Networkd)
	}
	if m.UnpackedBytes <= 0 {
		bad("unpacked size %d is not positive", m.UnpackedBytes)
	}
	if err := m.Layout.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("manifest: %w", err))
	}
	for name, f := range m.Files {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\n") {
			bad("file name %q is not a plain name", name)
		}
		if f.Size < 0 {
			bad("file %s has size %d", name, f.Size)
		}
		if !hexSHARE.MatchString(f.SHA256) {
			bad("file %s has no SHA-256 of 64 hex digits", name)
		}
		if f.Chunks != nil {
			if err := f.Chunks.validate(f.Size); err != nil {
				bad("file %s: %w", name, err)
			}
		}
	}
	if f, ok := m.Files[RootfsFile]; !ok || f.Chunks == nil || f.Size == 0 {
		bad("%s is missing or has no chunk table", RootfsFile)
	}
	return errors.Join(errs...)
}
