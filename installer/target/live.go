package target

import (
	"fmt"
	"os"

	"imgbuild/image"
)

// LiveConfig is what a tree that runs from memory is told.
type LiveConfig struct {
	// Raw and Signature are the manifest as it was fetched; they are kept in /var/lib/imgbuild.
	Raw, Signature []byte
	// MachineID is 32 hex digits; empty for a new random one.
	MachineID string
}

// liveFstab says why there is nothing in it.
const liveFstab = "# This system runs from memory: what was mounted before it started is not here.\n"

// ConfigureLive writes everything that a system that runs from memory needs: it mounts no disk, and nothing of it updates a boot
// loader.
func ConfigureLive(root *os.Root, c LiveConfig) error {
	w, err := newWriter(root)
	if err != nil {
		return fmt.Errorf("configure live system: %w", err)
	}
	if c.MachineID == "" {
		c.MachineID = newMachineID()
	}
	for _, f := range []file{
		{"etc/fstab", liveFstab, 0o644},
		{"etc/machine-id", c.MachineID + "\n", 0o444},
		{"var/lib/imgbuild/" + image.ManifestFile, string(c.Raw), 0o644},
		{"var/lib/imgbuild/" + image.SignatureFile, string(c.Signature), 0o644},
	} {
		if err := w.replace(f.name, []byte(f.data), meta{mode: f.mode}); err != nil {
			return fmt.Errorf("configure live system: %w", err)
		}
	}
	return nil
}
