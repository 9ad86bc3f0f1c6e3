//go:build e2e

// Package e2e_test installs real releases on QEMU machines and asks the machines: with every firmware, and with every
// kind of bad input. It needs root and what make setup installs. The release under test is the profile testdata/e2e.yaml, built by
// build/imgbuild, or the directory in IMGBUILD_E2E_RELEASE. Transcripts of all consoles go to IMGBUILD_E2E_LOGS, if it is set.
package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/profiles"
	"imgbuild/testvm"
	"imgbuild/testvm/standin"
)

// suite is what all tests share; TestMain makes it before any of them runs.
type suite struct {
	host     *testvm.Host
	release  string
	manifest *image.Manifest
	logs     string
}

// shared is written once, by TestMain.
var shared suite

func TestMain(m *testing.M) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	s, err := prepare(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	shared = s
	os.Exit(m.Run())
}

func prepare(ctx context.Context) (s suite, err error) {
	need := testvm.NeedDnsmasq | testvm.NeedUEFI | testvm.NeedIPXEEFI
	if !testing.Short() {
		need |= testvm.NeedSecureBoot
	}
	s.host, err = testvm.NewHost(ctx, need)
	if err != nil {
		return s, err
	}
	fmt.Printf("e2e: machines run under %s: %s\n", s.host.Accel, s.host.AccelReason)
	if s.logs = os.Getenv("IMGBUILD_E2E_LOGS"); s.logs != "" {
		if s.logs, err = filepath.Abs(s.logs); err == nil {
			err = os.MkdirAll(s.logs, 0o755)
		}
		if err != nil {
			return s, fmt.Errorf("make the directory for transcripts: %w", err)
		}
	}
	if s.release = os.Getenv("IMGBUILD_E2E_RELEASE"); s.release == "" {
		if s.release, err = build(ctx); err != nil {
			return s, err
		}
	}
	s.manifest, err = testvm.Manifest(s.release)
	return s, err
}

// build makes the stand-in and builds the profile e2e with the program that make build made.
func build(ctx context.Context) (string, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	imgbuild := filepath.Join(root, "build", "imgbuild")
	if _, err := os.Stat(imgbuild); errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("find %s: it is not there; run make build, or name a release in IMGBUILD_E2E_RELEASE", imgbuild)
	}
	begin := time.Now()
	if _, err := standin.Make(ctx, standin.Options{}); err != nil {
		return "", err
	}
	profile := filepath.Join("testdata", "e2e.yaml")
	p, err := profiles.Load(ctx, profile)
	if err != nil {
		return "", err
	}
	out := filepath.Join(root, "out")
	cmd := exec.CommandContext(ctx, imgbuild, profile, "--out", out)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", profile, err)
	}
	fmt.Printf("e2e: stand-in and release made in %v\n", time.Since(begin).Round(time.Second))
	return filepath.Join(out, p.Name, p.Version), nil
}
