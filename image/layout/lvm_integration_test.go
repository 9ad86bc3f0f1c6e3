//go:build integration

package layout

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestLVMGivesTheExtentsThatAreSaid has the real LVM make volume groups on loop devices, for which it needs no device mapper.
func TestLVMGivesTheExtentsThatAreSaid(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	for _, tool := range []string{"lvm", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (package lvm2, util-linux)", tool)
		}
	}
	file := filepath.Join(t.TempDir(), "disk")
	for i, c := range []struct{ size, extent int64 }{
		{10 * gib, 4 * mib}, {445*gib + 3*mib, 4 * mib}, {gib, mib}, {gib + 512*kib, 32 * mib}, {3 << 40, 4 * mib}, {20*mib + 4096, 128 * kib},
	} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, c.size); err != nil {
			t.Fatal(err)
		}
		got := extentsOf(t, fmt.Sprintf("imgbuildtest%d%d", os.Getpid(), i), file, c.extent)
		if want := physicalExtents(c.size, c.extent, 0); got != want {
			t.Errorf("%d bytes have %d extents of %d, and are said to have %d", c.size, got, c.extent, want)
		}
	}
}

func extentsOf(t *testing.T, group, file string, extent int64) int64 {
	t.Helper()
	loop := strings.TrimSpace(command(t, "losetup", "--find", "--show", file))
	defer command(t, "losetup", "--detach", loop)
	filter := `["a|^` + loop + `$|","r|.*|"]`
	config := "devices{use_devicesfile=0 obtain_device_list_from_udev=0 filter=" + filter + " global_filter=" + filter + "} backup{backup=0 archive=0}"
	lvm := func(name string, args ...string) string {
		return command(t, "lvm", append([]string{name, "--config", config}, args...)...)
	}
	lvm("pvcreate", "-y", loop)
	lvm("vgcreate", "-y", "-s", strconv.FormatInt(extent, 10)+"b", group, loop)
	defer lvm("vgremove", "-y", group)
	n, err := strconv.ParseInt(strings.TrimSpace(lvm("vgs", "--noheadings", "-o", "vg_extent_count", group)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "LVM_SUPPRESS_FD_WARNINGS=1")
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, stderr.String())
	}
	return string(out)
}
