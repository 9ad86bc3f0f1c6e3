package disk

import (
	"fmt"
	"os"

	"imgbuild/installer/disk/probe"
)

// Inspect looks at what is on a disk, without writing.
func Inspect(d Disk) ([]probe.Finding, []probe.Part, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("look at disk: %w", err)
	}
	defer f.Close()
	found, parts, err := probe.Disk(f, d.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("look at disk %s: %w", d.Path, err)
	}
	return found, parts, nil
}
