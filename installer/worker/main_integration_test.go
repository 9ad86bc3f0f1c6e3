//go:build integration

package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/installer/scripts"
)

// inside marks the process that runs in the mount namespace of its own.
const inside = "IMGBUILD_TEST_NAMESPACE"

// TestMain lets this program be the image's script, and gives the tests a mount namespace of their own.
func TestMain(m *testing.M) {
	switch {
	case scripts.Inside(os.Args):
		code, err := scripts.GoInside(os.Args)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	case os.Getenv(scripts.MetadataVariable) != "":
		os.Exit(script())
	case os.Getuid() != 0 || os.Getenv(inside) != "":
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

// script is the image's: it leaves what it sees in the system.
func script() int {
	host, _ := os.Hostname()
	metadata, err := os.ReadFile(os.Getenv(scripts.MetadataVariable))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	seen, err := json.Marshal([]string{os.Args[0], host, os.Getenv("IMGBUILD_META_ROLE"), os.Getenv(scripts.SerialVariable), string(metadata)})
	if err == nil {
		err = os.WriteFile("/etc/seen-by-script", seen, 0o644)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
