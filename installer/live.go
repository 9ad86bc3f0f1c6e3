package installer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/live"
	"imgbuild/installer/storage"
	"imgbuild/installer/target"
	"imgbuild/installer/transfer"
)

// Where a live system has what it can be installed from, by imgbuild-install: the image, and the keys that its manifest is checked with.
const (
	LiveImage = "/run/imgbuild/live/image/" + image.RootfsFile
	LiveKeys  = "/run/imgbuild/live/release.pub"
)

// InstallCommand is the name by which a live system has this program.
const InstallCommand = "imgbuild-install"

// liveSteps is the number of steps of a live start.
const liveSteps = 5

// LiveResult is a live system that waits to be started.
type LiveResult struct {
	// Stay serves what came to other machines, while the server says that some may need it; it returns when none does, or with
	// ctx. Nil where there is nothing to serve.
	Stay func(context.Context)
}

// Live brings the release into memory and mounts it, with this machine's identity, at System.LiveRoot. It writes to no disk but to the file
// systems that Args.Live.Persist names.
func Live(ctx context.Context, c Config) (_ LiveResult, err error) {
	r := &run{Config: c, steps: liveSteps}
	r.System = c.System.withDefaults(ctx)
	l := &liveRun{run: r}
	defer func() {
		if err != nil {
			l.undo()
		}
	}()
	return l.all(ctx)
}

// liveRun is one live start on its way.
type liveRun struct {
	*run
	root *live.Root
	size int64 // what the system may write, in bytes
}

func (l *liveRun) all(ctx context.Context) (LiveResult, error) {
	r := l.run
	r.step("get the manifest and check its signature")
	if err := r.getManifest(ctx); err != nil {
		return LiveResult{}, err
	}
	r.step("check memory for %s %s", r.manifest.Name, r.manifest.Version)
	if err := l.checkMemory(); err != nil {
		return LiveResult{}, err
	}
	l.root = live.New(live.Options{Work: l.work(), Root: l.System.LiveRoot, Size: l.size, LoadModule: r.System.LoadModule, Find: l.find})
	kept, err := l.persistent(ctx)
	if err != nil {
		return LiveResult{}, err
	}
	if err := l.bring(ctx); err != nil {
		return LiveResult{}, err
	}
	r.step("mount it below %s of memory for what the system writes", probe.Bytes(l.size))
	if err := l.root.Overlay(ctx); err != nil {
		return LiveResult{}, err
	}
	for _, p := range kept {
		if err := l.root.Persist(ctx, p); err != nil {
			return LiveResult{}, err
		}
		r.Report.Info("%s is kept on the file system %s", p.Dir, p.Label)
	}
	r.step("make it this machine's")
	if err := l.configure(ctx); err != nil {
		return LiveResult{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return LiveResult{}, fmt.Errorf("run from memory: %w", err)
	}
	if r.transfer == nil || r.Server == nil {
		r.endTransfer()
		return LiveResult{}, nil
	}
	return LiveResult{Stay: func(ctx context.Context) {
		r.transfer.Stay(ctx)
		r.endTransfer()
	}}, nil
}

func (l *liveRun) work() string { return filepath.Join(l.System.Work, "live") }

// nfs is the exported tree that takes the image's place; the zero value if it comes into memory.
func (l *liveRun) nfs() (plan.NFSRoot, bool, error) {
	if l.Args.Live.Root == "" {
		return plan.NFSRoot{}, false, nil
	}
	from, err := plan.ParseNFSRoot(l.Args.Live.Root)
	return from, true, err
}

// checkMemory refuses what cannot work, in one sentence, before anything is fetched.
func (l *liveRun) checkMemory() error {
	if err := l.Args.Live.Validate(); err != nil {
		return err
	}
	total, available, err := memory(l.System.MemInfo)
	if err != nil {
		return err
	}
	if l.size, err = plan.ParseLiveSize(l.Args.Live.Size, total); err != nil {
		return err
	}
	_, byNFS, err := l.nfs()
	if err == nil && byNFS && l.Network == nil {
		err = fmt.Errorf("run from %s: a machine that starts from a medium brings no network up; start it over the network, or leave out imgbuild.live.root=", l.Args.Live.Root)
	}
	if err != nil {
		return err
	}
	need := l.manifest.LiveMemory()
	if byNFS {
		need -= l.manifest.Files[image.RootfsFile].Size
	}
	l.Report.Info("the image needs %s of memory to run, and what it writes up to %s; %s are free of %s", probe.Bytes(need), probe.Bytes(l.size), probe.Bytes(available), probe.Bytes(total))
	if available < need {
		return fmt.Errorf("check memory: running %s from memory needs %d MiB free and this machine has %d MiB of %d MiB; add memory, use a smaller image, or an exported tree with imgbuild.live.root=nfs:SERVER:/PATH",
			l.manifest.Name, (need+mib-1)/mib, available/mib, total/mib)
	}
	l.run.memory.blob = min(image.LiveTransfer, l.manifest.Files[image.RootfsFile].Size)
	return nil
}

// persistent are the directories to keep, whose file systems are looked for before anything is fetched.
func (l *liveRun) persistent(ctx context.Context) ([]plan.Persistent, error) {
	var list []plan.Persistent
	var errs []error
	for _, text := range l.Args.Live.Persist {
		p, err := plan.ParsePersistent(text)
		if err == nil {
			_, _, err = l.find(ctx, p.Label)
		}
		errs = append(errs, err)
		list = append(list, p)
	}
	return list, errors.Join(errs...)
}

// bring gets the image into memory and mounts it, or mounts the exported tree.
func (l *liveRun) bring(ctx context.Context) error {
	from, byNFS, err := l.nfs()
	if err != nil {
		return err
	}
	if byNFS {
		l.step("mount the root file system %s of %s", from.Path, from.Server)
		return l.mountNFS(ctx, from)
	}
	l.step("download and verify the root file system")
	f := l.manifest.Files[image.RootfsFile]
	dir := filepath.Join(l.work(), "image")
	if err := live.Memory(dir, f.Size+mib); err != nil {
		return err
	}
	img, err := live.NewImage(dir, f.Size)
	if err != nil {
		return err
	}
	o, err := l.transferOptions(ctx)
	if err != nil {
		return err
	}
	o.Store = img
	if l.transfer, err = transfer.New(o); err != nil {
		return err
	}
	go func() { // ends with the transfer
		_ = l.transfer.Run(ctx) // the blob has its error
	}()
	begun := time.Now()
	b := l.transfer.Blob()
	if err := img.Fill(ctx, b); err != nil {
		if cause := b.Err(); cause != nil && ctx.Err() == nil {
			err = fmt.Errorf("get the root file system: %w", cause)
		}
		return err
	}
	l.Report.Info("the root file system is in memory after %d s; %s", int(time.Since(begun).Seconds()+0.5), l.transfer.Summary())
	return l.root.MountImage(ctx, img)
}

// configure makes the tree the system of this machine.
func (l *liveRun) configure(ctx context.Context) error {
	root, err := os.OpenRoot(l.System.LiveRoot)
	if err != nil {
		return fmt.Errorf("open the live system: %w", err)
	}
	defer root.Close()
	if err := target.ConfigureLive(root, target.LiveConfig{Raw: l.raw, Signature: l.signature, MachineID: machineID(l.Machine.Serial)}); err != nil {
		return err
	}
	if l.Host != nil {
		if err := l.Host.Apply(root, l.manifest, time.Now()); err != nil {
			return err
		}
	}
	if l.Args.Live.Root != "" {
		return l.keepNetwork(root) // and nothing to install from: what it was mounted from is not the image
	}
	if err := l.offerInstall(root); err != nil {
		l.Report.Warn("%v; the live system cannot be installed from itself", err)
	}
	return nil
}

// offerInstall gives the live system this program, and what it needs to install the image.
func (l *liveRun) offerInstall(root *os.Root) error {
	fail := func(err error) error { return fmt.Errorf("offer %s: %w", InstallCommand, err) }
	var keys []byte
	for _, k := range l.Keys {
		data, err := k.Marshal()
		if err != nil {
			return fail(err)
		}
		keys = append(keys, data...)
	}
	program := filepath.Join(l.work(), InstallCommand)
	if err := errors.Join(os.WriteFile(filepath.Join(l.work(), filepath.Base(LiveKeys)), keys, 0o644), copyFile(l.System.Program, program)); err != nil {
		return fail(err)
	}
	if err := root.Symlink(program, "usr/sbin/"+InstallCommand); err != nil && !errors.Is(err, fs.ErrExist) {
		return fail(err)
	}
	return nil
}

// copyFile copies a program.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// machineID is the same at each start of a machine, so that logs and leases of a system without a disk are one machine's; without a
// serial number it is a new one.
func machineID(serial string) string {
	if serial == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("imgbuild live system of " + serial))
	sum[6], sum[8] = sum[6]&0x0f|0x40, sum[8]&0x3f|0x80 // as machine-id(5) wants it: like a random UUID
	return hex.EncodeToString(sum[:16])
}

// find looks for the file system of a label on the machine's disks.
func (l *liveRun) find(_ context.Context, label string) (device, kind string, err error) {
	disks, err := disk.Inventory(l.System.Sys, l.System.MountInfo)
	if err != nil {
		return "", "", err
	}
	var where []string
	var labels []string
	for _, d := range disks {
		if d.PathOf != "" || d.ReadOnly {
			continue
		}
		found, _, err := disk.Inspect(d)
		if err != nil {
			l.Report.Warn("%v", err)
			continue
		}
		for _, f := range found {
			if f.Label != "" && f.Type != "" {
				labels = append(labels, f.Label)
			}
			if f.Label != label || f.Table() {
				continue
			}
			node := d.Path
			if f.Partition > 0 {
				if node, err = storage.PartitionNode(l.System.Sys, d, f.Partition); err != nil {
					return "", "", err
				}
			}
			where, device, kind = append(where, node), node, f.Type
		}
	}
	switch {
	case len(where) == 0 && len(labels) == 0:
		return "", "", fmt.Errorf("find the file system with the label %s: no disk of this machine has one with a label; make it with mkfs.ext4 -L %s, or leave out imgbuild.live.persist=", label, label)
	case len(where) == 0:
		return "", "", fmt.Errorf("find the file system with the label %s: there are %s; make it with mkfs.ext4 -L %s, or leave out imgbuild.live.persist=", label, strings.Join(labels, ", "), label)
	case len(where) > 1:
		return "", "", fmt.Errorf("find the file system with the label %s: %s have it; give them different labels", label, strings.Join(where, " and "))
	}
	return device, kind, nil
}

// undo takes apart what was mounted.
func (l *liveRun) undo() {
	l.endTransfer()
	if l.root == nil {
		return
	}
	if err := l.root.Unmount(); err != nil {
		l.Report.Warn("%v", err)
	}
}
