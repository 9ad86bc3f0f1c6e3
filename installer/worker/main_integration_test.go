//go:build integration

package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"imgbuild/installer/looptest"
	"imgbuild/installer/scripts"
)

// TestMain lets this program be the image's script, and gives the tests a mount namespace of their own.
func TestMain(m *testing.M) {
	switch {
	case scripts.Inside(os.Args):
		code, err := scripts.GoInside(os.Args)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	case os.Getenv(scripts.MetadataVariable) != "":
		os.Exit(script())
	}
	looptest.Main(m)
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
