//go:build e2e

package initramfs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKernelUnpacksAndStartsIt boots the real kernel with the initramfs in each compression: the kernel must unpack
// it, /init must start, load modules by our indexes and run tools with their libraries.
func TestKernelUnpacksAndStartsIt(t *testing.T) {
	requireProgram(t, "qemu-system-x86_64")
	o := realOptions(t, "virtual")
	for _, test := range []struct {
		name        string
		compression string
		small       bool
	}{
		{"zstd of our own encoder", Zstd, false},
		{"zstd of the host's program", Zstd, true},
		{"xz of the host's program", XZ, false},
		{"gzip", Gzip, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if program := HostProgram(test.compression, test.small); program != "" {
				requireProgram(t, program)
			}
			o.Compression, o.Small = test.compression, test.small
			image, _ := buildTo(t, o)
			start := time.Now()
			console := boot(t, filepath.Join(o.Root, "boot", "vmlinuz-"+o.KernelRelease), image)
			if !strings.Contains(console, "TEST-INIT OK") {
				t.Errorf("the console says:\n%s", console)
			}
			t.Logf("booted and powered off in %.0f s", time.Since(start).Seconds())
		})
	}
}

// boot starts a machine with the kernel and the initramfs, waits until it powers itself off, and returns its console.
func boot(t *testing.T, kernel, image string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	machine := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512",
		"-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", kernel, "-initrd", image,
		"-append", "console=ttyS0 panic=-1 quiet", "-drive", "if=virtio,format=raw,file="+disk, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
	out, err := machine.CombinedOutput()
	if err != nil {
		t.Fatalf("the machine: %v\n%s", err, out)
	}
	return string(out)
}
