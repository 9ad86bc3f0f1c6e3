package testvm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// Tools are the paths of the programs and firmware files of the host. A file that Need did not ask for may be empty.
type Tools struct {
	QEMU    string // qemu-system-x86_64, or qemu-kvm on EL
	QEMUImg string // makes qcow2 files
	Dnsmasq string // DHCP and TFTP
	UEFI    FirmwareFiles
	// SecureBoot has the vendors' keys enrolled, so that only signed loaders start.
	SecureBoot FirmwareFiles
	IPXEEFI    string // iPXE for UEFI machines, sent by TFTP
	IPXEBIOS   string // iPXE for BIOS machines whose card has no iPXE of its own, sent by TFTP
}

// FirmwareFiles are a UEFI's code and the template of its variable store.
type FirmwareFiles struct{ Code, Vars string }

// Need says which tools a caller cannot do without.
type Need uint

// The tools that can be needed.
const (
	NeedQEMU Need = 1 << iota
	NeedQEMUImg
	NeedDnsmasq
	NeedUEFI
	NeedSecureBoot
	NeedIPXEEFI
	NeedIPXEBIOS
)

// ErrTool is wrapped by every error about a program or file that the host lacks.
var ErrTool = errors.New("install it, or run make setup")

// Finder looks for programs and files: the host's, or a test's.
type Finder struct {
	LookPath func(name string) (string, error)
	Stat     func(path string) (fs.FileInfo, error)
}

// HostFinder looks on this host.
func HostFinder() Finder { return Finder{LookPath: exec.LookPath, Stat: os.Stat} }

type candidate struct {
	need  Need
	what  string
	debs  string
	rpms  string
	paths [][]string // each entry is a set of files that belong together
	set   func(*Tools, []string)
}

func candidates() []candidate {
	one := func(paths ...string) [][]string {
		var s [][]string
		for _, p := range paths {
			s = append(s, []string{p})
		}
		return s
	}
	const ovmf, el = "/usr/share/OVMF/", "/usr/share/edk2/ovmf/"
	return []candidate{
		{NeedQEMU, "QEMU for x86_64", "qemu-system-x86", "qemu-kvm",
			one("qemu-system-x86_64", "/usr/libexec/qemu-kvm", "qemu-kvm"),
			func(t *Tools, p []string) { t.QEMU = p[0] }},
		{NeedQEMUImg, "qemu-img", "qemu-utils", "qemu-img",
			one("qemu-img"), func(t *Tools, p []string) { t.QEMUImg = p[0] }},
		{NeedDnsmasq, "dnsmasq", "dnsmasq-base", "dnsmasq",
			one("dnsmasq", "/usr/sbin/dnsmasq"), func(t *Tools, p []string) { t.Dnsmasq = p[0] }},
		{NeedUEFI, "UEFI firmware (OVMF)", "ovmf", "edk2-ovmf",
			[][]string{
				{ovmf + "OVMF_CODE_4M.fd", ovmf + "OVMF_VARS_4M.fd"},
				{el + "OVMF_CODE.fd", el + "OVMF_VARS.fd"},
				{el + "OVMF_CODE.secboot.fd", el + "OVMF_VARS.fd"},
				{ovmf + "OVMF_CODE.fd", ovmf + "OVMF_VARS.fd"},
			},
			func(t *Tools, p []string) { t.UEFI = FirmwareFiles{p[0], p[1]} }},
		{NeedSecureBoot, "UEFI firmware (OVMF) with Secure Boot keys", "ovmf", "edk2-ovmf",
			[][]string{
				{ovmf + "OVMF_CODE_4M.secboot.fd", ovmf + "OVMF_VARS_4M.ms.fd"},
				{el + "OVMF_CODE.secboot.fd", el + "OVMF_VARS.secboot.fd"},
			},
			func(t *Tools, p []string) { t.SecureBoot = FirmwareFiles{p[0], p[1]} }},
		{NeedIPXEEFI, "iPXE for UEFI", "ipxe", "ipxe-bootimgs-x86",
			one("/boot/ipxe.efi", "/usr/lib/ipxe/ipxe.efi", "/usr/share/ipxe/ipxe-x86_64.efi", "/usr/share/ipxe/ipxe.efi",
				"/usr/lib/ipxe/snponly.efi"),
			func(t *Tools, p []string) { t.IPXEEFI = p[0] }},
		{NeedIPXEBIOS, "iPXE for BIOS", "ipxe", "ipxe-bootimgs-x86",
			one("/usr/lib/ipxe/undionly.kpxe", "/usr/share/ipxe/undionly.kpxe"),
			func(t *Tools, p []string) { t.IPXEBIOS = p[0] }},
	}
}

// FindTools looks for everything, and returns every missing tool of need in one error that names its package. Tools
// that are not needed are filled in where they are there.
func FindTools(f Finder, need Need) (Tools, error) {
	var t Tools
	var errs []error
	for _, c := range candidates() {
		found, tried := f.first(c.paths)
		if found != nil {
			c.set(&t, found)
			continue
		}
		if need&c.need != 0 {
			errs = append(errs, fmt.Errorf("find %s: none of %s is there; package %s on Debian, %s on EL: %w",
				c.what, strings.Join(tried, ", "), c.debs, c.rpms, ErrTool))
		}
	}
	return t, errors.Join(errs...)
}

// first returns the first set of files that is there as a whole. A set with a plain name is a program on the PATH.
func (f Finder) first(sets [][]string) (found, tried []string) {
	for _, set := range sets {
		tried = append(tried, set[0])
		if !strings.Contains(set[0], "/") {
			if p, err := f.LookPath(set[0]); err == nil {
				return []string{p}, nil
			}
			continue
		}
		ok := true
		for _, p := range set {
			fi, err := f.Stat(p)
			ok = ok && err == nil && fi.Mode().IsRegular()
		}
		if ok {
			return set, nil
		}
	}
	return nil, tried
}
