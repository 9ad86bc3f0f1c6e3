//go:build integration

package storage

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside marks the process that runs in the mount namespace of its own.
const inside = "IMGBUILD_TEST_NAMESPACE"

// TestMain gives the tests a mount namespace of their own: another test's namespace that is cloned while a disk is
// mounted here would keep the disk in use after it is unmounted.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), inside+"=1"))
	}
	fmt.Fprintf(os.Stderr, "start tests in a mount namespace of their own: %v\n", err)
	os.Exit(1)
}
