package installer

import (
	"context"
	"errors"
	"fmt"
	"os"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/installer/bootloader"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/disk"
	"imgbuild/installer/fetch"
	"imgbuild/installer/storage"
	"imgbuild/installer/transfer"
)

// run is one installation, or its preview, on its way.
type run struct {
	Config
	n, steps int // begun, and of how many

	fetcher        *fetch.Fetcher
	manifest       *image.Manifest
	raw, signature []byte
	layout         layout.Layout
	memory         budget

	disks      []disk.Disk        // all of the machine
	candidates []layout.Candidate // the same ones
	looks      map[string]*look   // by Candidate.ID
	chosen     []*look
	found      []layout.Existing // what the layout may keep
	scheme     *layout.Scheme    // nil until the layout is known to fit
	ids        *storage.IDs
	loaders    []bootloader.Loader

	made            *storage.Made      // nil before there is anything to stop
	transfer        *transfer.Transfer // nil but while it goes on
	mounts          mounts
	code            map[string]storage.BootCode // by SchemeDisk.Name
	done            cmdline.Done
	touched, undone bool
}

func (r *run) step(format string, a ...any) {
	r.n++
	r.Report.Step(r.n, r.steps, fmt.Sprintf(format, a...))
}

// all is the whole installation, or its preview. Everything up to the line "writing to" only reads.
func (r *run) all(ctx context.Context) (Result, error) {
	r.step("get the manifest and check its signature")
	if err := r.getManifest(ctx); err != nil {
		return Result{}, err
	}
	if err := r.makeScratch(); err != nil {
		return Result{}, err
	}
	defer r.removeScratch()
	refused := r.prepare(ctx)
	outlook := r.outlook(refused)
	if refused == nil || r.Args.Mode == cmdline.ModePreview {
		r.show(outlook.Text)
	}
	if r.Args.Mode == cmdline.ModePreview {
		if err := context.Cause(ctx); err != nil {
			return Result{}, fmt.Errorf("preview: %w", err)
		}
		return Result{Done: r.Args.Done, Outlook: outlook}, nil
	}
	if refused != nil {
		return Result{}, refused
	}
	if r.BeforeWrite != nil {
		if err := r.BeforeWrite(ctx); err != nil {
			return Result{}, err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return Result{}, fmt.Errorf("install: %w", err)
	}
	if err := r.again(); err != nil {
		return Result{}, err
	}
	return r.install(ctx)
}

// prepare finds out everything that can be known before the first write. It only reads.
func (r *run) prepare(ctx context.Context) error {
	r.step("check memory and tools for %s %s", r.manifest.Name, r.manifest.Version)
	if err := r.checkMachine(ctx); err != nil {
		return err
	}
	r.step("choose the disks and look at what is on them")
	if err := r.survey(); err != nil {
		return err
	}
	if err := r.choose(ctx); err != nil {
		return err
	}
	if err := r.checkLoaders(); err != nil {
		return err
	}
	return r.mayWrite()
}

// install writes.
func (r *run) install(ctx context.Context) (_ Result, err error) {
	var names []string
	for _, d := range r.written() {
		l := r.looks[d.ID]
		names = append(names, l.short())
		if lost, _ := r.losses(l, d); len(lost) > 0 {
			r.Report.Info("to be erased on %s: %s", l.short(), disk.Findings(lost))
		}
	}
	r.Report.Info("writing to %s", and(names))
	defer func() { err = r.cleanUp(ctx, err) }()
	r.step("remove what was there, and make partitions, volumes and file systems")
	if err := r.format(ctx); err != nil {
		return Result{}, err
	}
	r.step("download, verify and unpack the root file system")
	if err := r.unpack(ctx); err != nil {
		return Result{}, err
	}
	r.step("configure the installed system")
	if err := r.configure(ctx); err != nil {
		return Result{}, err
	}
	r.step("write boot loaders")
	if err := r.installLoaders(ctx); err != nil {
		return Result{}, err
	}
	r.transfer.Linger(ctx)
	r.endTransfer()
	r.step("flush everything to the disks")
	if err := r.finish(ctx); err != nil {
		return Result{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return Result{}, fmt.Errorf("install: %w", err)
	}
	r.step("write the partition tables: from here on the machine boots")
	if err := r.commit(); err != nil {
		return Result{}, err
	}
	return Result{Done: r.done}, nil
}

// cleanUp leaves nothing mounted and nothing of the disks in use, after a failure or success.
func (r *run) cleanUp(ctx context.Context, err error) error {
	r.endTransfer()
	left := r.mounts.unmountAll(r.System.Mounter)
	if left == nil && r.made != nil {
		left = r.made.Stop(context.WithoutCancel(ctx))
	}
	switch {
	case err == nil && left != nil:
		r.Report.Warn("clean up after the installation: %v", left)
		return nil
	case left != nil:
		return errors.Join(err, left)
	}
	return err
}

func (r *run) makeScratch() error {
	if err := os.MkdirAll(r.scratch(), 0o700); err != nil {
		return fmt.Errorf("make scratch directory: %w", err)
	}
	return nil
}

func (r *run) removeScratch() {
	if err := os.RemoveAll(r.scratch()); err != nil {
		r.Report.Warn("remove scratch files: %v", err)
	}
}

// format makes the scheme real and mounts it. This is the first write.
func (r *run) format(ctx context.Context) error {
	disks := map[string]disk.Disk{}
	for _, d := range r.written() {
		disks[d.Name] = r.looks[d.ID].disk
	}
	made, err := storage.Make(ctx, r.storage(), r.scheme, r.ids, disks)
	r.touched = !errors.Is(err, storage.ErrUntouched)
	if err != nil {
		return err
	}
	r.made = made
	return r.mountTarget(func(f layout.Filesystem) bool { return f.Kept == nil })
}

// commit is the last step. After it the disks boot; what follows can only warn.
func (r *run) commit() error {
	if err := r.made.Commit(r.code); err != nil {
		r.undone = errors.Is(err, storage.ErrNotUndone)
		return err
	}
	r.bootEntries()
	return nil
}
