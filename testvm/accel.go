package testvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Accel is how the guest's instructions are run.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // by the processor
	TCG Accel = "tcg" // translated by QEMU: works everywhere, some ten times slower
)

// kvmProbeTimeout is far more than a working KVM needs (a third of a second) and little beside the minutes that a hung guest costs.
const kvmProbeTimeout = 5 * time.Second

// probeExit is the status with which QEMU ends when the probe guest writes probeCode to the isa-debug-exit port: (code << 1) | 1.
const (
	probeCode = 0x2a
	probeExit = probeCode<<1 | 1
)

// probeSector is a boot sector that ends QEMU: mov al, probeCode; out 0xf4, al; hlt; jmp to the hlt.
func probeSector() []byte {
	b := make([]byte, 512)
	copy(b, []byte{0xb0, probeCode, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd})
	b[510], b[511] = 0x55, 0xaa
	return b
}

// ProbeAccel starts a tiny guest under KVM: firmware, then a boot sector that ends QEMU with a status of its own. Only
// if that status comes is KVM used, since /dev/kvm may be there and not run anything. The second value says why.
func ProbeAccel(ctx context.Context, qemu string) (Accel, string) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return TCG, "/dev/kvm cannot be opened: " + errors.Unwrap(err).Error()
	}
	f.Close()
	if err := runProbe(ctx, qemu, KVM); err != nil {
		return TCG, fmt.Sprintf("/dev/kvm is there but a guest does not run under it: %v", err)
	}
	return KVM, "a guest ran under KVM"
}

func runProbe(ctx context.Context, qemu string, accel Accel) error {
	dir, err := os.MkdirTemp("", "testvm-probe-")
	if err != nil {
		return fmt.Errorf("make a directory for the probe: %w", err)
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "boot")
	if err := os.WriteFile(disk, probeSector(), 0o600); err != nil {
		return fmt.Errorf("write the probe's disk: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, kvmProbeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-accel", string(accel), "-machine", "q35", "-nodefaults", "-display", "none",
		"-m", "32", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
		"-drive", "if=none,id=boot,format=raw,file="+optionValue(disk), "-device", "virtio-blk-pci,drive=boot,bootindex=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == probeExit:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("it did nothing for %v", kvmProbeTimeout)
	case err == nil:
		return errors.New("QEMU ended before the guest ran")
	default:
		return fmt.Errorf("%w: %s", err, lastLine(stderr.String()))
	}
}
