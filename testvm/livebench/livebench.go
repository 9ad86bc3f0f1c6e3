// Package livebench measures how long a machine takes from its kernel's start to the login when it runs a release from memory, and how
// much memory that takes, beside a live start by dracut from the same squashfs, kernel and web server.
//
// A release comes in; a table goes out. It judges no figure, and changes nothing of the release.
package livebench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/testvm"
)

// Options say what is measured. Release and Out are required.
type Options struct {
	// Release is the release's directory. Root logs in on the serial console with testvm.DemoPassword.
	Release string
	// Count is how often each is started, by turns; default 1.
	Count int
	// MemoryMiB is the machine's memory; default 2048.
	MemoryMiB int
	// Timeout bounds one start; default 15 minutes.
	Timeout time.Duration
	// Dir is where files are while it runs. Default /var/tmp.
	Dir string
	// Logs is a directory for transcripts of the consoles; empty keeps none.
	Logs string
	// Out gets the table, Log what the programs and the machines say; nil for nobody.
	Out io.Writer
	Log func(line string)
}

// contender is one way to start the release from memory.
type contender struct {
	name   string // in the table
	file   string // in file names
	initrd string // path
	args   func(n *testvm.Network) []string
}

// Run measures.
func Run(ctx context.Context, o Options) (err error) {
	o.Count, o.MemoryMiB = max(1, o.Count), cmp.Or(o.MemoryMiB, 2048)
	o.Timeout, o.Dir = cmp.Or(o.Timeout, 15*time.Minute), cmp.Or(o.Dir, "/var/tmp")
	if o.Log == nil {
		o.Log = func(string) {}
	}
	m, err := testvm.Manifest(o.Release)
	if err != nil {
		return err
	}
	h, err := testvm.NewHost(ctx, testvm.NeedDnsmasq)
	if err != nil {
		return err
	}
	// Huge pages would count 2 MiB for every page that a machine touches. QEMU inherits this (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("measure live starts: have machines take memory page by page: %w", err)
	}
	dir, err := os.MkdirTemp(o.Dir, "imgbuild-live-")
	if err != nil {
		return fmt.Errorf("measure live starts: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	peers, err := dracuts(ctx, o, m, dir)
	if err != nil {
		return fmt.Errorf("measure live starts: %w", err)
	}
	all := append([]contender{{
		name: "imgbuild", file: "imgbuild", initrd: filepath.Join(o.Release, image.InitramfsFile),
		args: func(n *testvm.Network) []string {
			return []string{"imgbuild.manifest=" + n.URL(image.ManifestFile), "imgbuild.mode=live", "imgbuild.onerror=poweroff"}
		},
	}}, peers...)
	t := newTable(o.Out, m, h, o.MemoryMiB)
	rows := make([]row, len(all))
	for turn := range o.Count {
		for i, c := range all {
			s, err := o.start(ctx, h, m, c, turn+1)
			if err != nil {
				return fmt.Errorf("start %s with the initramfs of %s: %w", m.Name, c.name, err)
			}
			rows[i].contender = c
			rows[i].starts = append(rows[i].starts, s)
			if err := t.print(c, s); err != nil {
				return err
			}
		}
	}
	return t.end(rows)
}
