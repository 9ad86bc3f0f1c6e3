//go:build integration

package boot

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// GRUB's own parser takes the scripts.
func TestGRUBTakesTheScripts(t *testing.T) {
	check, err := exec.LookPath("grub-script-check")
	if err != nil {
		if check, err = exec.LookPath("grub2-script-check"); err != nil {
			t.Skip("grub-script-check is not there: install grub-common, or grub2-tools-minimal on EL")
		}
	}
	scripts, err := filepath.Glob("testdata/grub-*.golden")
	if err != nil || len(scripts) == 0 {
		t.Fatal("there are no scripts", err)
	}
	for _, s := range scripts {
		if out, err := exec.Command(check, s).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", s, err, out)
		}
	}
}
