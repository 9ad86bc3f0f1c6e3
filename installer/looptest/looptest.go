// Package looptest is what tests with real loop devices share.
package looptest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside marks the process that runs in the mount namespace of its own.
const inside = "IMGBUILD_TEST_NAMESPACE"

// Main is TestMain's: it runs the tests in a mount namespace of their own, and exits. Another test's namespace that is cloned while
// a disk is mounted here would keep the disk in use after it is unmounted.
func Main(m *testing.M) {
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

// Command runs a program, which must succeed, and returns what it prints.
func Command(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// Partitions adds a loop device's partitions to the kernel (partx --add) or removes them (--delete). Whoever looks at all devices of the
// machine, as LVM does, may have one open for a moment, of which nobody is told.
func Partitions(t *testing.T, verb, loop string) {
	t.Helper()
	var out []byte
	var err error
	for range 300 {
		if out, err = exec.Command("partx", verb, loop).CombinedOutput(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("partx %s %s: %v\n%s", verb, loop, err, out)
}

// Digest is the SHA-256, in hex, of a disk's file. Holes and zeros are the same to it.
func Digest(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	for off := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err != nil {
			return fmt.Sprintf("%x", h.Sum(nil)) // only holes are left
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(f, start, end-start))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(data); i += 4096 {
			if b := data[i:min(i+4096, len(data))]; len(bytes.Trim(b, "\x00")) > 0 {
				fmt.Fprintf(h, "%d:%x\n", start+int64(i), b)
			}
		}
		off = end
	}
}
