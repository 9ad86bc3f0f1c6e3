package transfer

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sectorSize is the unit of the kernel's counts of sectors, whatever the disk's is (Documentation/admin-guide/iostats).
const sectorSize = 512

// Disks returns a function for Ceiling.Disk that reads the counters of disks, which are the names of block devices as vda, below
// sys, the directory of sysfs. Disks that are written to at the same time, as in a mirror, count as one.
func Disks(sys string, names []string) func() (written int64, busy time.Duration) {
	return func() (written int64, busy time.Duration) {
		for _, n := range names {
			w, b := diskStat(filepath.Join(sys, "class/block", n, "stat"))
			written, busy = max(written, w), max(busy, b)
		}
		return written, busy
	}
}

// diskStat reads the seventh and tenth number of a block device's stat: sectors written, and milliseconds with requests under way.
// A file that cannot be read counts as a disk that has done nothing.
func diskStat(path string) (written int64, busy time.Duration) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(data))
	if len(f) < 10 {
		return 0, 0
	}
	sectors, err1 := strconv.ParseInt(f[6], 10, 63)
	ms, err2 := strconv.ParseInt(f[9], 10, 63)
	if err1 != nil || err2 != nil || sectors < 0 || ms < 0 {
		return 0, 0
	}
	return sectors * sectorSize, time.Duration(ms) * time.Millisecond
}

// Link is the rate of the fastest network card that has a carrier, in bytes a second, as sysfs below sys says; 0 if none says.
func Link(sys string) float64 {
	cards, _ := filepath.Glob(filepath.Join(sys, "class/net/*/device"))
	fastest := 0.0
	for _, c := range cards {
		dir := filepath.Dir(c)
		if carrier, err := os.ReadFile(filepath.Join(dir, "carrier")); err != nil || strings.TrimSpace(string(carrier)) != "1" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, "speed")) // in Mbit/s; -1 and an error are cards that do not know
		if err != nil {
			continue
		}
		if mbit, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && mbit > 0 {
			fastest = max(fastest, float64(mbit)*1e6/8)
		}
	}
	return fastest
}
