package testvm

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func finderOf(programs, files []string) Finder {
	fsys := fstest.MapFS{}
	for _, f := range files {
		fsys[strings.TrimPrefix(f, "/")] = &fstest.MapFile{}
	}
	return Finder{
		LookPath: func(name string) (string, error) {
			for _, p := range programs {
				if p == name {
					return "/usr/bin/" + p, nil
				}
			}
			return "", os.ErrNotExist
		},
		Stat: func(path string) (fs.FileInfo, error) { return fsys.Stat(strings.TrimPrefix(path, "/")) },
	}
}

func TestToolsAreFoundWhereEachDistributionKeepsThem(t *testing.T) {
	debian := finderOf([]string{"qemu-system-x86_64", "qemu-img", "dnsmasq"}, []string{
		"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd", "/boot/ipxe.efi"})
	el := finderOf([]string{"qemu-img"}, []string{"/usr/libexec/qemu-kvm", "/usr/sbin/dnsmasq",
		"/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd", "/usr/share/ipxe/ipxe-x86_64.efi"})
	for _, tt := range []struct {
		name                  string
		finder                Finder
		qemu, code, vars, efi string
	}{
		{"Debian", debian, "/usr/bin/qemu-system-x86_64", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "/boot/ipxe.efi"},
		{"EL", el, "/usr/libexec/qemu-kvm", "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd", "/usr/share/ipxe/ipxe-x86_64.efi"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := FindTools(tt.finder, NeedQEMU|NeedQEMUImg|NeedDnsmasq|NeedUEFI|NeedIPXEEFI)
			if err != nil {
				t.Fatal(err)
			}
			if got.QEMU != tt.qemu || got.UEFI.Code != tt.code || got.UEFI.Vars != tt.vars || got.IPXEEFI != tt.efi {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestEveryMissingToolIsNamedWithItsPackages(t *testing.T) {
	_, err := FindTools(finderOf(nil, []string{"/usr/share/OVMF/OVMF_CODE_4M.fd"}), NeedQEMU|NeedUEFI)
	if !errors.Is(err, ErrTool) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"package qemu-system-x86 on Debian, qemu-kvm on EL", "package ovmf on Debian, edk2-ovmf on EL", "make setup"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "dnsmasq") {
		t.Errorf("what is not needed is complained about: %v", err)
	}
}
