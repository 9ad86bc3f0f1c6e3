package initramfs

import (
	"bytes"
	"errors"
	"testing"
)

func TestAnotherInstallerIsWeighedAndDoesNotGoIn(t *testing.T) {
	o := smallOptions(rootWith(t, kernelFiles()))
	var alone, both bytes.Buffer
	before, err := Build(t.Context(), o, &alone)
	if err != nil {
		t.Fatal(err)
	}
	if before.InstallerPacked != 0 || before.OtherPacked != 0 {
		t.Errorf("without another installer %d and %d bytes were weighed", before.InstallerPacked, before.OtherPacked)
	}
	noise := make([]byte, 100_000)
	for i, x := 0, uint32(1); i < len(noise); i++ { // bytes that hardly shrink
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	o.Other = noise
	report, err := Build(t.Context(), o, &both)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(alone.Bytes(), both.Bytes()) {
		t.Error("the other installer changed the initramfs")
	}
	if report.InstallerPacked <= 0 || report.InstallerPacked > report.Packed || report.OtherPacked < 90_000 {
		t.Errorf("the installers weigh %d and %d bytes", report.InstallerPacked, report.OtherPacked)
	}
	full := errors.New("no space left on device")
	if _, err := Build(t.Context(), o, failing{full}); !errors.Is(err, full) {
		t.Errorf("a full disk gives %v", err)
	}
}
