package installerbin

import (
	"bytes"
	"debug/elf"
	"errors"
	"strings"
	"testing"
)

func TestTheInstallerIsAStaticBinaryForItsMachineOrSaysHowToGetIt(t *testing.T) {
	type kind struct {
		arch    string
		torrent bool
	}
	for k, machine := range map[kind]elf.Machine{
		{"x86_64", true}: elf.EM_X86_64, {"x86_64", false}: elf.EM_X86_64, {"aarch64", true}: elf.EM_AARCH64, {"aarch64", false}: elf.EM_AARCH64,
	} {
		arch := k.arch
		b, err := Get(arch, k.torrent)
		if errors.Is(err, ErrMissing) {
			if !strings.Contains(err.Error(), "make build") {
				t.Errorf("%s: the message does not say how to get it: %v", arch, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		if f.Machine != machine {
			t.Errorf("%s: the binary is for %s", arch, f.Machine)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Errorf("%s: the binary needs a dynamic loader, and the initramfs may have none", arch)
			}
		}
	}
}

func TestAnUnknownArchitectureIsRefused(t *testing.T) {
	if _, err := Get("s390x", true); err == nil || errors.Is(err, ErrMissing) {
		t.Errorf("got %v", err)
	}
}
