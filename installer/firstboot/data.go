package firstboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/tool"
)

// Disk is a data disk on which the installer made a partition and left the file system to the installed system.
type Disk struct {
	// WWN and Serial are the disk's, empty where it has none, and Size is in bytes. Partition is the GUID that the installer gave
	// the partition; no other disk of the world has one with it.
	WWN       string    `json:"wwn,omitempty"`
	Serial    string    `json:"serial,omitempty"`
	Size      int64     `json:"size"`
	Number    int       `json:"number"`
	Partition uuid.UUID `json:"partition"`
	// UUID is that of the file system to be, Fstab its line.
	UUID  string   `json:"uuid"`
	FS    string   `json:"fs"`
	Label string   `json:"label,omitempty"`
	Mkfs  []string `json:"mkfs,omitempty"`
	Mount string   `json:"mount"`
	Fstab string   `json:"fstab"`
}

// DataConfig is what the installer leaves in DataFile.
type DataConfig struct {
	Disks []Disk `json:"disks"`
}

// Encode returns the text of DataFile.
func (c DataConfig) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode which data disks are to be formatted: %w", err)
	}
	return append(b, '\n'), nil
}

// Data formats and mounts the data disks, all at the same time. An error means that some were not; they are tried again at the
// next boot. Without one, everything that was there for it is gone.
func (s System) Data(ctx context.Context) error {
	s = s.withDefaults()
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return fmt.Errorf("open the system's root: %w", err)
	}
	defer root.Close()
	f, err := root.Open(DataFile)
	if err != nil {
		return fmt.Errorf("read which data disks are to be formatted: %w; the installer writes it, and it is gone when they are", err)
	}
	var c DataConfig
	err = plan.Decode(f, &c)
	f.Close()
	if err != nil {
		return fmt.Errorf("read /%s: %w", DataFile, err)
	}
	d := &dataRun{System: s, root: root}
	if d.state, err = d.readState(); err != nil {
		return err
	}
	errs := make([]error, len(c.Disks))
	var g errgroup.Group
	for i, want := range c.Disks {
		g.Go(func() error {
			if errs[i] = d.one(ctx, want); errs[i] != nil {
				errs[i] = fmt.Errorf("data disk for %s: %w", want.Mount, errs[i])
			}
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
	s.reload(ctx)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; it is tried again at the next boot, until /%s is removed", err, DataFile)
	}
	if err := clean(root, dataLeftovers()); err != nil {
		return err
	}
	s.reload(ctx)
	return nil
}

// dataRun is one run over all data disks.
type dataRun struct {
	System
	root *os.Root

	mu    sync.Mutex // over state, its file and fstab
	state map[string]string
}

// The states of a partition, which are written down before what they say begins.
const (
	begun = "begun" // mkfs was started
	made  = "made"  // mkfs has ended well
)

func (d *dataRun) readState() (map[string]string, error) {
	b, err := d.root.ReadFile(dataState)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read which data disks are formatted: %w", err)
	}
	state := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if what, guid, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			state[guid] = what
		}
	}
	return state, nil
}

func (d *dataRun) get(want Disk) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state[want.Partition.String()]
}

func (d *dataRun) set(want Disk, what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state[want.Partition.String()] = what
	if err := note(d.root, dataState, what+" "+want.Partition.String()); err != nil {
		return fmt.Errorf("write down that it is formatted: %w", err)
	}
	return nil
}

// one does one disk. It may be called again whatever became of it before.
func (d *dataRun) one(ctx context.Context, want Disk) error {
	start := time.Now()
	node, at, err := d.wait(ctx, want)
	if err != nil {
		return err
	}
	if d.get(want) != made {
		if err := d.format(ctx, want, node, at); err != nil {
			return err
		}
	}
	if err := d.fstab(want); err != nil {
		return err
	}
	mounted, err := d.mounted(want.Mount)
	if err != nil || mounted {
		return err
	}
	if err := d.root.MkdirAll(strings.TrimPrefix(want.Mount, "/"), 0o755); err != nil {
		return fmt.Errorf("make its mount point: %w", err)
	}
	if err := d.Tools.Run(ctx, nil, "mount", "-t", want.FS, node, filepath.Join(d.Root, want.Mount)); err != nil {
		return err
	}
	// The root directory of a new file system has no SELinux label. A system without labels has no such program, or needs none.
	if err := d.Tools.Run(ctx, nil, "restorecon", filepath.Join(d.Root, want.Mount)); err != nil && !errors.Is(err, tool.ErrMissing) {
		d.Log.Warn("a data disk's directory has no SELinux label", "mount", want.Mount, "error", err)
	}
	d.Log.Info("a data disk is formatted and mounted", "mount", want.Mount, "device", node, "fs", want.FS, "seconds", time.Since(start).Seconds())
	return nil
}

// mounted reports whether something is mounted at a mount point.
func (d *dataRun) mounted(mount string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, fmt.Errorf("list what is mounted: %w", err)
	}
	want := fstabPath(filepath.Join(d.Root, mount))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == want {
			return true, nil
		}
	}
	return false, nil
}

func fstabPath(p string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(p)
}

// errAbsent is a disk that is not there, or not yet.
var errAbsent = errors.New("the disk is not there")

// wait is find for disks that come up late.
func (d *dataRun) wait(ctx context.Context, want Disk) (node string, at disk.Disk, err error) {
	over := time.Now().Add(d.Patience)
	for {
		node, at, err = d.find(want)
		if !errors.Is(err, errAbsent) || !time.Now().Before(over) {
			return node, at, err
		}
		timer := time.NewTimer(min(time.Second, d.Patience))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", at, context.Cause(ctx)
		}
	}
}

// find is the partition's device node: on the one disk with this identity whose table has that partition.
func (d *dataRun) find(want Disk) (string, disk.Disk, error) {
	all, err := disk.Inventory(d.Sys, "/proc/self/mountinfo")
	if err != nil {
		return "", disk.Disk{}, err
	}
	var hits []disk.Disk
	for _, have := range all {
		// Another kernel may know less of a disk, but what both know is the same.
		if have.Size != want.Size || differ(have.WWN, want.WWN) || differ(have.Serial, want.Serial) {
			continue
		}
		if ok, err := hasPartition(have, want); err != nil {
			return "", have, err
		} else if ok {
			hits = append(hits, have)
		}
	}
	if len(hits) > 1 { // several paths to one disk, of which one is for use
		usable := disk.Candidates(all)
		hits = slices.DeleteFunc(hits, func(d disk.Disk) bool {
			return slices.ContainsFunc(usable, func(c layout.Candidate) bool { return c.ID == d.Name && c.Unusable != "" })
		})
	}
	switch len(hits) {
	case 0:
		return "", disk.Disk{}, fmt.Errorf("%w: serial %q, WWN %q, %s, with partition %s", errAbsent, want.Serial, want.WWN, probe.Bytes(want.Size), want.Partition)
	case 1:
	default:
		return "", disk.Disk{}, fmt.Errorf("%s and %s are the same disk, or copies of one", hits[0].Path, hits[1].Path)
	}
	have := hits[0]
	found, err := filepath.Glob(filepath.Join(d.Sys, "block", have.Name, have.Name+"*", "partition"))
	if err != nil {
		return "", have, err
	}
	for _, f := range found {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == fmt.Sprint(want.Number) {
			return "/dev/" + strings.ReplaceAll(filepath.Base(filepath.Dir(f)), "!", "/"), have, nil
		}
	}
	return "", have, fmt.Errorf("%w: the kernel does not know partition %d of %s", errAbsent, want.Number, have.Path)
}

func differ(a, b string) bool { return a != "" && b != "" && a != b }

func hasPartition(have disk.Disk, want Disk) (bool, error) {
	f, err := os.Open(have.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	t, err := gpt.Read(f, have.Size)
	if errors.Is(err, gpt.ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(t.Partitions, func(p gpt.Partition) bool { return p.GUID == want.Partition && p.Number == want.Number }), nil
}

// format makes the file system. Right before, it looks whether the partition is still as empty as the installer left it.
func (d *dataRun) format(ctx context.Context, want Disk, node string, at disk.Disk) error {
	again, err := d.empty(want, node)
	if err != nil {
		return err
	}
	argv, err := mkfs(want, node, again)
	if err != nil {
		return err
	}
	if err := d.set(want, begun); err != nil {
		return err
	}
	d.Log.Info("formatting a data disk", "disk", at.Describe(), "device", node, "fs", want.FS)
	if err := d.Tools.Run(ctx, nil, argv...); err != nil {
		return err
	}
	return d.set(want, made)
}

// empty returns an error unless the partition is empty, or has, again, the file system that this program began to make and did
// not finish because the machine was switched off.
func (d *dataRun) empty(want Disk, node string) (again bool, err error) {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_EXCL, 0) // fails while it is mounted or held
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	if d.get(want) == begun && hasUUID(f, want) {
		return true, nil
	}
	found, err := probe.Volume(f, size)
	if err != nil {
		return false, err
	}
	if len(found) > 0 {
		return false, fmt.Errorf("%s is not empty: it has %s; nothing was written", node, disk.Findings(found))
	}
	zero, err := probe.Zero(f, 0, min(probe.Edge, size))
	if err != nil {
		return false, err
	}
	if !zero && d.get(want) != begun {
		return false, fmt.Errorf("%s is not empty: it has unknown data in the first MiB; nothing was written", node)
	}
	return false, nil
}

// hasUUID reports whether there is, at the places of XFS and ext4, the identifier of the file system to be.
func hasUUID(r io.ReaderAt, want Disk) bool {
	id, err := uuid.Parse(want.UUID)
	if err != nil {
		return false
	}
	off := map[string]int64{"xfs": 32, "ext4": 1024 + 104}[want.FS]
	b := make([]byte, len(id))
	_, err = r.ReadAt(b, off)
	return err == nil && off > 0 && uuid.UUID(b) == id
}

// mkfs is the command. Without again, mkfs itself refuses what it finds.
func mkfs(want Disk, node string, again bool) ([]string, error) {
	var argv []string
	switch want.FS {
	case "xfs":
		argv = []string{"mkfs.xfs", "-q", "-m", "uuid=" + want.UUID}
		if again {
			argv = append(argv, "-f")
		}
	case "ext4":
		argv = []string{"mkfs.ext4", "-q", "-U", want.UUID}
		if again {
			argv = append(argv, "-F")
		}
	default:
		return nil, fmt.Errorf("there is no way to make %q", want.FS)
	}
	if want.Label != "" {
		argv = append(argv, "-L", want.Label)
	}
	return append(append(argv, want.Mkfs...), node), nil
}

// fstab adds the file system's line, once. The file is replaced whole or not at all.
func (d *dataRun) fstab(want Disk) error {
	const name, temp = "etc/fstab", "etc/fstab.imgbuild"
	d.mu.Lock()
	defer d.mu.Unlock()
	old, err := d.root.ReadFile(name)
	if err != nil {
		return fmt.Errorf("add it to /%s: %w", name, err)
	}
	if strings.Contains(string(old), "UUID="+want.UUID+" ") {
		return nil
	}
	if len(old) > 0 && !strings.HasSuffix(string(old), "\n") {
		old = append(old, '\n')
	}
	err = replace(d.root, name, temp, append(old, want.Fstab...))
	if err != nil {
		return fmt.Errorf("add it to /%s: %w", name, err)
	}
	return nil
}

// replace puts data in the place of a file, with its owner and mode.
func replace(root *os.Root, name, temp string, data []byte) error {
	st, err := root.Stat(name)
	if err != nil {
		return err
	}
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(st.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return root.Rename(temp, name)
}

// Identifiers are those of a scheme's devices.
type Identifiers interface {
	FS(layout.Device) string
	Partition(disk string, number int) uuid.UUID
}

// Data is what the installed system has to do for a scheme's data disks; fstab writes a file system's line.
func Data(s *layout.Scheme, ids Identifiers, fstab func(layout.Filesystem) string) DataConfig {
	var c DataConfig
	for _, f := range s.FirstBoot() {
		for _, d := range s.DataFirstBoot {
			for _, p := range d.Parts {
				if f.Device != layout.Device(fmt.Sprintf("part/%s/%d", d.Name, p.Number)) {
					continue
				}
				c.Disks = append(c.Disks, Disk{
					WWN: d.WWN, Serial: d.Serial, Size: d.Size, Number: p.Number, Partition: ids.Partition(d.Name, p.Number),
					UUID: ids.FS(f.Device), FS: f.FS, Label: f.Label, Mkfs: f.Mkfs, Mount: f.Mount, Fstab: fstab(f),
				})
			}
		}
	}
	return c
}
