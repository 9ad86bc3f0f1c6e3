package installer

import (
	"context"
	"errors"
	"fmt"
	"os"

	"imgbuild/image"
	"imgbuild/installer/bootloader"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/fetch"
)

// run is one installation on its way.
type run struct {
	Config
	n int // steps begun

	fetcher        *fetch.Fetcher
	manifest       *image.Manifest
	raw, signature []byte

	memory   budget
	bootCode []byte
	loaders  []bootloader.Loader

	disks    []disk.Disk
	disk     disk.Disk
	oldParts []probe.Part
	parts    []disk.Placed
	ids      []string // file systems' identifiers, as parts
	table    *gpt.Table

	nodes            []string // device nodes, as parts
	mounts           mounts
	touched, unknown bool
}

func (r *run) step(format string, a ...any) {
	r.n++
	r.Report.Step(r.n, Steps, fmt.Sprintf(format, a...))
}

// all is the whole installation. Everything up to the line "writing to" only reads.
func (r *run) all(ctx context.Context) (err error) {
	r.step("get the manifest and check its signature")
	if err := r.getManifest(ctx); err != nil {
		return err
	}
	r.step("check memory and tools for %s %s", r.manifest.Name, r.manifest.Version)
	if err := r.checkMachine(); err != nil {
		return err
	}
	r.step("choose the disk and look at what is on it")
	if err := r.chooseDisk(); err != nil {
		return err
	}
	if err := r.checkLoaders(); err != nil {
		return err
	}
	if r.BeforeWrite != nil {
		if err := r.BeforeWrite(ctx); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("install: %w", err)
	}

	r.Report.Info("writing to %s", r.disk.Short())
	defer func() { err = r.cleanUp(err) }()
	r.step("remove what was on %s", r.disk.Path)
	if err := r.wipe(ctx); err != nil {
		return err
	}
	r.step("make partitions and file systems")
	if err := r.format(ctx); err != nil {
		return err
	}
	r.step("download, verify and unpack the root file system")
	if err := r.unpack(ctx); err != nil {
		return err
	}
	r.step("configure the installed system")
	if err := r.configure(ctx); err != nil {
		return err
	}
	r.step("write boot loaders")
	if err := r.installLoaders(ctx); err != nil {
		return err
	}
	r.step("flush everything to the disk")
	if err := r.finish(); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	r.step("write the partition table: from here on the disk boots")
	return r.commit()
}

// cleanUp leaves nothing mounted and no partition known to the kernel, after a failure or success.
func (r *run) cleanUp(err error) error {
	left := r.mounts.unmountAll(r.System.Mounter)
	if left == nil {
		left = disk.DeletePartitions(r.System.Sys, r.disk)
	}
	if rm := os.RemoveAll(r.scratch()); left == nil && rm != nil {
		left = fmt.Errorf("remove scratch files: %w", rm)
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

// wipe zeroes the ends of the disk, and of its partitions where it had any. This is the first write.
func (r *run) wipe(ctx context.Context) error {
	if err := disk.DeletePartitions(r.System.Sys, r.disk); err != nil {
		return err
	}
	f, err := disk.Open(r.disk)
	if err != nil {
		return err
	}
	r.touched = true
	return errors.Join(disk.Wipe(ctx, f, r.disk.Size, r.oldParts), f.Close())
}

// format tells the kernel of the partitions, makes the file systems and mounts them.
func (r *run) format(ctx context.Context) error {
	var err error
	if r.nodes, err = disk.AddPartitions(r.System.Sys, r.disk, r.parts); err != nil {
		return err
	}
	if err := os.MkdirAll(r.scratch(), 0o700); err != nil {
		return fmt.Errorf("make scratch directory: %w", err)
	}
	for i, p := range r.parts {
		if err := disk.Format(ctx, r.System.Tools, p, r.nodes[i], r.ids[i], r.scratch()); err != nil {
			return err
		}
	}
	return r.mountTarget()
}

// commit is the last step. After it the disk boots; what follows can only warn.
func (r *run) commit() error {
	f, err := disk.Open(r.disk)
	if err != nil {
		return err
	}
	if err := disk.Commit(f, r.table, r.bootCode); err != nil {
		r.unknown = errors.Is(err, disk.ErrNotUndone)
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close disk: %w", err)
	}
	r.bootEntry()
	return nil
}
