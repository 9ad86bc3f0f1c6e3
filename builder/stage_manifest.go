package builder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/builder/configure"
	"imgbuild/builder/progress"
	"imgbuild/image"
	"imgbuild/profiles"
)

// writeManifest gathers the release in a directory beside its place and signs it.
func (b *build) writeManifest(ctx context.Context) (outcome, error) {
	parent := filepath.Dir(b.o.dir())
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return outcome{}, fmt.Errorf("make the output directory: %w", err)
	}
	if err := removeUnfinished(parent, b.o.Profile.Version); err != nil {
		return outcome{}, err
	}
	var err error
	if b.staging, err = os.MkdirTemp(parent, unfinishedPrefix(b.o.Profile.Version)); err != nil {
		return outcome{}, fmt.Errorf("make the output directory: %w", err)
	}
	lock, err := b.gather(ctx)
	if err != nil {
		return outcome{}, err
	}
	b.manifest = b.newManifest(lock)
	data, err := b.manifest.Marshal()
	if err != nil {
		return outcome{}, fmt.Errorf("write the manifest: %w", err)
	}
	sig := image.Sign(data, b.key)
	err = errors.Join(
		os.WriteFile(filepath.Join(b.staging, image.ManifestFile), data, 0o644),
		os.WriteFile(filepath.Join(b.staging, image.SignatureFile), sig, 0o644),
	)
	return outcome{bytes: int64(len(data)), note: fmt.Sprintf("signed with key %s; %s of free memory run it live", b.key.Public().ID(), progress.Bytes(b.manifest.LiveMemory()))}, err
}

func unfinishedPrefix(version string) string { return "." + version + ".unfinished-" }

// removeUnfinished removes what builds that were killed have left beside the release's place.
func removeUnfinished(parent, version string) error {
	old, err := filepath.Glob(filepath.Join(parent, unfinishedPrefix(version)+"*"))
	if err != nil {
		return err
	}
	for _, d := range old {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("remove an unfinished release: %w", err)
		}
	}
	return nil
}

// gather puts the release's files, but for manifest and log, into the staging directory and returns the lock's bytes.
func (b *build) gather(ctx context.Context) ([]byte, error) {
	lock, err := b.lock.Marshal()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{image.RootfsFile, image.InitramfsFile} {
		if err := b.move(ctx, filepath.Join(b.work, name), filepath.Join(b.staging, name)); err != nil {
			return nil, err
		}
	}
	kernel, err := b.tree.ReadFile(kernelFile(b.tree, b.release))
	if err != nil {
		return nil, fmt.Errorf("copy the kernel: %w", err)
	}
	b.torrent.Trackers, b.torrent.WebSeeds = b.o.Profile.Torrent.Trackers, webSeeds(b.o.Profile)
	metainfo, err := b.torrent.Marshal()
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{
		image.KernelFile: kernel, image.LockFile: lock, image.BootIPXEFile: []byte(bootScript(b.o.Profile)), image.TorrentFile: metainfo,
	} {
		path := filepath.Join(b.staging, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		if b.files[name], err = b.describe(ctx, path, false); err != nil {
			return nil, err
		}
	}
	return lock, nil
}

// move renames a file, or copies it where the output is on another file system than the cache.
func (b *build) move(ctx context.Context, from, to string) (err error) {
	err = os.Rename(from, to)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	r := &countingReader{r: in, ctx: ctx, step: func(n int64) {
		b.o.Report.Step(progress.Step{Text: "copying " + filepath.Base(to), Done: n, Total: st.Size(), Bytes: true})
	}}
	_, err = out.ReadFrom(r)
	return errors.Join(err, out.Close(), os.Remove(from))
}

// bootScript is what iPXE runs. Its URLs are relative to its own, so the release can lie anywhere on a web server. It
// names no disk and no wish to wipe one: the installer takes the only empty disk, or stops. A newer iPXE knows its
// script's place as cwduri; that of Debian 12 knows only the file name that DHCP gave, which is this script's URL.
func bootScript(p *profiles.Profile) string {
	args := []string{"initrd=" + image.InitramfsFile, "imgbuild.mode=install", "imgbuild.manifest=${base}" + image.ManifestFile, "console=tty0"}
	if p.Kernel.Serial != "" {
		args = append(args, "console="+p.Kernel.Serial)
	}
	return "#!ipxe\n# " + p.Name + " " + p.Version + "\nset base ${cwduri}\nisset ${base} || set base ${filename}/../\nkernel " + image.KernelFile + " " + strings.Join(args, " ") + "\ninitrd " + image.InitramfsFile + "\nboot\n"
}

func (b *build) newManifest(lock []byte) *image.Manifest {
	p := b.o.Profile
	return &image.Manifest{
		Schema: image.Schema, Name: p.Name, Version: p.Version, Arch: p.Arch, Distro: b.distro,
		KernelRelease: b.release, KernelArgs: configure.Arguments(p), NoKexec: p.Kernel.NoKexec, LockDigest: fmt.Sprintf("%x", sha256.Sum256(lock)),
		SELinux: p.System.SELinux, NetworkFormat: image.NetworkFormat(p.System.Network), Created: b.date.Unix(),
		Layout: p.LayoutFor(), Tools: b.toolNames(), BootLoader: b.loaders, UnpackedBytes: b.unpacked, Files: b.files,
	}
}

// publish moves the complete release into its place in one step, and remembers what it was built from.
func (b *build) publish(context.Context) (outcome, error) {
	b.runner.Note("complete after %s", progress.Seconds(time.Since(b.began)))
	log, err := os.ReadFile(b.logFile)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.staging, image.BuildLogFile), log, 0o644)
	}
	if err != nil {
		return outcome{}, fmt.Errorf("copy the build's log: %w", err)
	}
	r := record{Sizes: map[string]int64{}}
	for name, f := range b.files {
		r.Sizes[name] = f.Size
	}
	if b.isoSize > 0 {
		r.Sizes[image.ISOFile] = b.isoSize
	}
	if r.Manifest, err = fileDigest(filepath.Join(b.staging, image.ManifestFile)); err != nil {
		return outcome{}, err
	}
	lock, err := b.lock.Marshal()
	if err != nil {
		return outcome{}, err
	}
	if r.Inputs, err = b.releaseDigest(lock); err != nil {
		return outcome{}, err
	}
	if err := replaceDir(b.staging, b.o.dir()); err != nil {
		return outcome{}, err
	}
	b.staging = ""
	return outcome{note: b.o.dir()}, b.cache.saveRecord(b.o.dir(), r)
}

// replaceDir puts the directory from at to; what is at to is exchanged for it, so that at every instant one whole
// release is there.
func replaceDir(from, to string) error {
	fail := func(err error) error { return fmt.Errorf("move the release to %s: %w", to, err) }
	if err := errors.Join(os.Chmod(from, 0o755), syncDir(from)); err != nil {
		return fail(err)
	}
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(from, to); err != nil {
			return fail(err)
		}
		return syncDir(filepath.Dir(to))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE); err != nil {
		return fail(err)
	}
	// from is the old release now.
	if err := errors.Join(syncDir(filepath.Dir(to)), os.RemoveAll(from)); err != nil {
		return fail(err)
	}
	return nil
}

// syncDir writes a directory and the files in it to the disk.
func syncDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if err := syncPath(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return syncPath(dir)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
