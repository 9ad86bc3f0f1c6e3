package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"imgbuild/server/releases/releasetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imgserve": main})
}

// TestCommands runs the program as a person would, without root or network. The command release NAME VERSION makes a release
// below images and writes its key to release.pub.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"release": func(ts *testscript.TestScript, _ bool, args []string) {
				key := releasetest.Key(t)
				releasetest.Write(t, ts.MkAbs("images"), releasetest.Release{Name: args[0], Version: args[1], Key: key})
				public, err := key.Public().Marshal()
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs("release.pub"), public, 0o600))
			},
			"code": func(ts *testscript.TestScript, _ bool, args []string) { // code N COMMAND…
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				err = ts.Exec(args[1], args[2:]...)
				got := 0
				if e, ok := err.(*exec.ExitError); ok {
					got = e.ExitCode()
				}
				if got != want {
					ts.Fatalf("the exit code is %d, want %d", got, want)
				}
			},
			"mode": func(ts *testscript.TestScript, _ bool, args []string) { // mode OCTAL FILE
				st, err := os.Stat(ts.MkAbs(args[1]))
				ts.Check(err)
				if got := strconv.FormatUint(uint64(st.Mode().Perm()), 8); got != args[0] {
					ts.Fatalf("%s has the mode %s", args[1], got)
				}
			},
		},
	})
}

// TestTheUnitIsTight holds the systemd unit against systemd's own opinion.
func TestTheUnitIsTight(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze here")
	}
	unit, err := os.ReadFile(filepath.Join("..", "..", "server", "systemd", "imgserve.service"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The program need not be installed here to see whether the rest is right.
	unit = regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAll(unit, []byte("ExecStart="+self))
	path := filepath.Join(t.TempDir(), "imgserve.service")
	if err := os.WriteFile(path, unit, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=25", "--no-pager", path).CombinedOutput()
	if err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
}
