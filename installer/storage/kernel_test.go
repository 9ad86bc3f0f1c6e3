package storage

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPartitionsAreNamedAsTheKernelNamesThem(t *testing.T) {
	for disk, want := range map[string]string{"sda": "sda3", "nvme0n1": "nvme0n1p3", "mmcblk0": "mmcblk0p3", "vdaa": "vdaa3", "loop7": "loop7p3"} {
		if got := partitionName(disk, 3); got != want {
			t.Errorf("partition 3 of %s is %s, want %s", disk, got, want)
		}
	}
}

func TestTheKernelsPartitionsAreListed(t *testing.T) {
	sys := t.TempDir()
	for name, number := range map[string]string{"nvme0n1/nvme0n1p2": "2\n", "nvme0n1/nvme0n1p10": "10\n", "nvme0n1/queue": ""} {
		dir := filepath.Join(sys, "block", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if number == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "partition"), []byte(number), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := kernelPartitions(sys, "nvme0n1"); err != nil || len(p) != 2 || p["nvme0n1p2"] != 2 || p["nvme0n1p10"] != 10 {
		t.Errorf("got %v, %v", p, err)
	}
}
