// Package medium finds the release on a medium of this machine: a CD, a stick, or what a management controller shows as one.
//
// A volume label comes in; files come out, also as what HTTP answers, so that all that reads a release reads this one as any other.
// It only reads, believes nothing of what it reads, and leaves it to others to check the signature; Check then checks the rest.
package medium

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/installer/report"
)

// ManifestURL is where RoundTripper has the manifest; the other files are beside it.
const ManifestURL = "http://medium/" + image.ManifestFile

// AnswersURL is where RoundTripper has the answer file. It is not signed: whoever makes the medium says what it installs.
const AnswersURL = "http://medium/" + image.AnswersFile

// Options say what to look for. Label is required.
type Options struct {
	Label string
	// Sys is sysfs, Dev where device nodes are, Mount where the medium is mounted; /sys, /dev and /run/imgbuild/medium.
	Sys, Dev, Mount string
	// LoadModule loads a kernel module, and is content if it is built in; nil if nobody has to.
	LoadModule func(ctx context.Context, name string) error
	// Discover loads the drivers of devices that appear, until ctx ends; nil if nobody has to.
	Discover func(ctx context.Context)
	// Wait is how long it is looked for; 90 s. Drives spin up, and management controllers show their media late.
	Wait time.Duration
	// Report is told what is waited for. It is required.
	Report report.Reporter
}

// Medium is one that is mounted.
type Medium struct {
	Device string
	label  string
	mount  string
	files  *os.Root
}

// ErrNone is wrapped by the error of Find when there is no such medium.
var ErrNone = errors.New("no medium of this machine has it")

// Find looks for the medium and mounts it, read-only.
func Find(ctx context.Context, o Options) (*Medium, error) {
	for _, d := range []struct {
		p *string
		v string
	}{{&o.Sys, "/sys"}, {&o.Dev, "/dev"}, {&o.Mount, "/run/imgbuild/medium"}} {
		if *d.p == "" {
			*d.p = d.v
		}
	}
	if o.Wait <= 0 {
		o.Wait = 90 * time.Second
	}
	device, err := o.await(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the medium %s: %w", o.Label, err)
	}
	if o.LoadModule != nil {
		if err := o.LoadModule(ctx, "isofs"); err != nil {
			return nil, fmt.Errorf("read the medium %s: %w; build the image again with this version of imgbuild", o.Label, err)
		}
	}
	if err := os.MkdirAll(o.Mount, 0o755); err != nil {
		return nil, fmt.Errorf("read the medium %s: %w", o.Label, err)
	}
	if err := unix.Mount(device, o.Mount, "iso9660", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return nil, fmt.Errorf("read the medium %s: mount %s: %w", o.Label, device, err)
	}
	m := &Medium{Device: device, label: o.Label, mount: o.Mount}
	if m.files, err = os.OpenRoot(filepath.Join(o.Mount, image.MediumDir)); err != nil {
		return nil, errors.Join(fmt.Errorf("read the medium %s: %w; it was not made by imgbuild, or is damaged: write it again", o.Label, err), m.Close())
	}
	return m, nil
}

// remind is how often it is said that the medium is still waited for.
const remind = 15 * time.Second

// await looks until the medium is there.
func (o Options) await(ctx context.Context) (string, error) {
	if device, _, err := o.look(); err != nil || device != "" {
		return device, err
	}
	o.Report.Info("the medium %s is not there yet: it is waited for, up to %d s, as drives and management controllers may show it late", o.Label, int(o.Wait.Seconds()))
	if o.Discover != nil {
		ctx, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { o.Discover(ctx) })
		defer wg.Wait()
		defer stop()
	}
	begun, said := time.Now(), time.Now()
	limit := time.NewTimer(o.Wait)
	defer limit.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		device, others, err := o.look()
		if err != nil || device != "" {
			return device, err
		}
		if time.Since(said) >= remind {
			said = time.Now()
			o.Report.Info("still waiting for the medium %s, %d of %d s: %s", o.Label, int(time.Since(begun).Seconds()), int(o.Wait.Seconds()), seen(others))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-limit.C:
			return "", fmt.Errorf("%w after %d s, and %s: put it in, or connect it, and start once more", ErrNone, int(o.Wait.Seconds()), seen(others))
		}
	}
}

// seen says which media there are.
func seen(others []string) string {
	switch len(others) {
	case 0:
		return "there is no other medium"
	case 1:
		return "there is another one, " + others[0]
	}
	return "there are others, " + strings.Join(others, ", ")
}

// look returns the device that has the label, and which labels others have. Of a stick and its first partition, both of which have
// it, the stick is taken: sysfs lists no partitions here.
func (o Options) look() (device string, others []string, err error) {
	entries, err := os.ReadDir(filepath.Join(o.Sys, "block"))
	if err != nil {
		return "", nil, err
	}
	var found []string
	for _, e := range entries {
		node := filepath.Join(o.Dev, strings.ReplaceAll(e.Name(), "!", "/"))
		switch label := volume(node); {
		case label == "":
		case label == o.Label:
			found = append(found, node)
		default:
			others = append(others, label)
		}
	}
	if len(found) > 1 {
		return "", nil, fmt.Errorf("%s all are it: leave only one of them connected", strings.Join(found, " and "))
	}
	slices.Sort(others)
	if len(found) == 1 {
		return found[0], others, nil
	}
	return "", others, nil
}

// volume is the label of the ISO 9660 volume on a device; empty where there is none, or nothing can be read (ECMA-119, 8.4). It asks
// the device itself: what the kernel has kept of a medium says nothing of whether it is still there.
func volume(node string) string {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK|unix.O_DIRECT, 0) // an empty drive answers at once
	if errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return ""
	}
	defer f.Close()
	const page = 4096 // what is read past the cache is aligned to sectors, and 4096 is the largest
	buf, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return ""
	}
	defer func() { _ = unix.Munmap(buf) }() // it is ours
	if n, err := f.ReadAt(buf, 16*2048); n < 2048 && err != nil {
		return ""
	}
	return label(buf)
}

// label reads a primary volume descriptor.
func label(d []byte) string {
	if len(d) < 72 || d[0] != 1 || !bytes.Equal(d[1:6], []byte("CD001")) {
		return ""
	}
	return strings.TrimRight(string(d[40:72]), " \x00")
}

// Close unmounts it.
func (m *Medium) Close() error {
	if m.files != nil {
		m.files.Close()
	}
	if err := unix.Unmount(m.mount, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount the medium: %w", err)
	}
	return nil
}
