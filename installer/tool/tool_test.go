package tool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func script(t *testing.T, name, text string) Runner {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return Runner{Dirs: []string{dir, "/usr/bin", "/bin"}}
}

func TestAFailingProgramIsQuoted(t *testing.T) {
	r := script(t, "mkfs.x", "echo one; echo two; echo >&2 three; echo four; echo; echo five; exit 3")
	var kept string
	r.Output = func(_ []string, out string) { kept = out }
	err := r.Run(t.Context(), nil, "mkfs.x", "-q", "/dev/x")
	if err == nil || err.Error() != "run mkfs.x -q /dev/x: exit status 3; it wrote: two / three / four / five" {
		t.Errorf("got %v", err)
	}
	if !strings.HasPrefix(kept, "one\n") {
		t.Errorf("kept %q", kept)
	}
}

func TestTheEnvironmentIsOurs(t *testing.T) {
	t.Setenv("SECRET", "x")
	r := script(t, "env-check", `[ -z "$SECRET" ] && [ "$LC_ALL" = C ] && [ "$A" = b ]`)
	if err := r.Run(t.Context(), []string{"A=b"}, "env-check"); err != nil {
		t.Error(err)
	}
}

func TestAMissingProgramIsNamed(t *testing.T) {
	err := Runner{Dirs: []string{t.TempDir()}}.Run(t.Context(), nil, "mkfs.none")
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "mkfs.none") {
		t.Errorf("got %v", err)
	}
}

func TestCancellingKillsTheProgramAndItsChildren(t *testing.T) {
	r := script(t, "slow", "sleep 1000 & wait")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := r.Run(ctx, nil, "slow"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 4*time.Second {
		t.Errorf("got %v after %s", err, time.Since(start))
	}
}

func TestWhatAProgramPrintsIsReadApartFromWhatItComplains(t *testing.T) {
	r := script(t, "lvs", "echo '{}'; echo >&2 'WARNING: x'; [ $# = 1 ]")
	var kept string
	r.Output = func(_ []string, out string) { kept = out }
	out, err := r.Read(t.Context(), nil, "lvs", "a")
	if err != nil || string(out) != "{}\n" || kept != "{}\nWARNING: x\n" {
		t.Errorf("got %q, %v; kept %q", out, err, kept)
	}
	if _, err := r.Read(t.Context(), nil, "lvs"); err == nil || !strings.HasSuffix(err.Error(), "exit status 1; it wrote: WARNING: x") {
		t.Errorf("got %v", err)
	}
}
