//go:build integration

package builder

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/builder/sandbox"
)

// TestMain runs the tests in namespaces of their own, as cmd/imgbuild runs builds.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // the tests that need root skip themselves
	}
	again, code, err := sandbox.Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if !again {
		os.Exit(code)
	}
	unix.Umask(0o022)
	os.Exit(m.Run())
}
