// Package builder turns a profile into a release: a directory with a kernel, a mini initramfs, a root file system, a boot
// script and a signed manifest. First comes a plan, made without network or root; then the plan is run.
//
// In go a profile, a cache, a signing key and the installer's binary; out come files below one output directory, complete
// or not at all. It never reads the host's package configuration, never talks to the machines that are installed, and
// leaves neither mounts nor processes behind.
package builder

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"imgbuild/builder/progress"
	"imgbuild/builder/sandbox"
	"imgbuild/image"
	"imgbuild/profiles"
)

// Reporter is told how a build is getting on; package progress has three.
type Reporter = progress.Reporter

// StageTime is how long a stage took.
type StageTime = progress.StageTime

// Options say what is built, from what and to where.
type Options struct {
	Profile *profiles.Profile
	// Out is the directory of releases: the release comes to Out/<name>/<version>.
	Out string
	// Cache keeps packages, installed trees and locks between builds.
	Cache string
	// KeyFile is the private key that signs the manifest. Where there is none, one is made and kept.
	KeyFile string
	// Installer returns the program that becomes /init for an RPM architecture, with BitTorrent or without.
	Installer func(arch string, torrent bool) ([]byte, error)
	// RepoOverride replaces the addresses of repositories by their IDs.
	RepoOverride map[string]string
	// SourceDate is the time stamp of what the build makes; zero takes the newest package's.
	SourceDate time.Time
	// Env are variables of the host that dnf and scripts with a network are to see: proxies, as NAME=value.
	Env []string
	// Force asks the repositories for newer packages, and builds even if nothing has changed.
	Force bool
	// Report is told of the build's progress; nil means nobody.
	Report Reporter
	// Log gets what a person debugging imgbuild wants to know; nil means nobody.
	Log *slog.Logger
}

// Result is a release that is there.
type Result struct {
	// Dir is the release's directory.
	Dir string
	// Reused is true when nothing had changed, so that nothing was built.
	Reused bool
	// Stages are the stages that were run, in order.
	Stages []StageTime
	// Manifest is the release's manifest; nil when Reused is true.
	Manifest *image.Manifest
}

func (o Options) check() error {
	var errs []error
	for name, empty := range map[string]bool{
		"profile": o.Profile == nil, "output directory": o.Out == "", "cache directory": o.Cache == "", "key file": o.KeyFile == "", "installer": o.Installer == nil,
	} {
		if empty {
			errs = append(errs, fmt.Errorf("plan a build: no %s was given", name))
		}
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() (Options, error) {
	if err := o.check(); err != nil {
		return o, err
	}
	for _, p := range []*string{&o.Out, &o.Cache, &o.KeyFile} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return o, fmt.Errorf("plan a build: %w", err)
		}
		*p = abs
	}
	if o.Report == nil {
		o.Report = progress.NewPlain(io.Discard)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// dir is where the release comes to.
func (o Options) dir() string { return filepath.Join(o.Out, o.Profile.Name, o.Profile.Version) }

// Isolate gives the build namespaces of its own by starting the program again; see sandbox.Isolate. A program that calls
// Run calls this first, and ends with the exit code when again is false.
func Isolate() (again bool, exitCode int, err error) { return sandbox.Isolate() }

// Keygen makes a signing key, writes it to path, which must not exist yet, for root's eyes only, and its public part to
// path with .pub added. It returns the public part.
func Keygen(path string) (image.PublicKey, error) {
	fail := func(err error) (image.PublicKey, error) {
		return image.PublicKey{}, fmt.Errorf("make a signing key in %s: %w", path, err)
	}
	key, err := image.GenerateKey()
	if err != nil {
		return fail(err)
	}
	private, err := key.Marshal()
	if err != nil {
		return fail(err)
	}
	public, err := key.Public().Marshal()
	if err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fail(errors.New("there is a key already; machines that trust it would not trust another, so move it away first"))
	}
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(private)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.WriteFile(path+".pub", public, 0o644)
	}
	if err != nil {
		return fail(errors.Join(err, os.Remove(path)))
	}
	return key.Public(), nil
}

// loadKey reads the signing key, or makes one. Made says that it did.
func loadKey(path string) (key image.PrivateKey, made bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err = Keygen(path); err != nil {
			return key, false, err
		}
		made = true
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return key, false, fmt.Errorf("read the signing key: %w", err)
	}
	key, err = image.ParsePrivateKey(data)
	if err != nil {
		return key, false, fmt.Errorf("%s: %w", path, err)
	}
	return key, made, nil
}
