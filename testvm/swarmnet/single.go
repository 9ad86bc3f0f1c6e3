package swarmnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/releases"
	"imgbuild/testvm"
)

// gigabit is what a cable of 1 Gbit/s brings, in bytes of payload a second.
const gigabit = 125_000_000 * payload / packet

// single has one machine fetch, check and unpack a real image over HTTP, between two runs of curl that only write it to a file.
func (o *Options) single(ctx context.Context) (err error) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		return fmt.Errorf("measure one machine: %w; make setup-test installs it", err)
	}
	image, err := os.Open(o.Image)
	if err != nil {
		return fmt.Errorf("measure one machine: %w", err)
	}
	defer image.Close()
	dir, err := os.MkdirTemp(o.Dir, "imgbuild-swarm-")
	if err != nil {
		return fmt.Errorf("measure one machine: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rel, err := writeRelease(dir, image)
	if err != nil {
		return err
	}
	for _, rate := range []int64{gigabit / 4, gigabit} {
		if err := o.compare(ctx, dir, rel, Link{Rate: rate}, curl); err != nil {
			return fmt.Errorf("measure one machine: %w", err)
		}
	}
	return nil
}

// compare does so with a cable.
func (o *Options) compare(ctx context.Context, dir string, rel release, cable Link, curl string) (err error) {
	r, err := newRun(ctx, dir, o.Programs, rel, cable, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.serve(ctx, serverConfig{transport: plan.TransportHTTP}); err != nil {
		return err
	}
	other, err := r.add(cable)
	if err != nil {
		return err
	}
	fetch := func() (time.Duration, error) {
		file := filepath.Join(r.dir, "curl")
		begun := time.Now()
		p, err := r.lab.machines[other].Start(exec.Command(curl, "--silent", "--show-error", "--fail", "--output", file, testvm.ServerURL+releases.Prefix+rootfs))
		if err != nil {
			return 0, err
		}
		defer p.Kill()
		select {
		case <-p.Done():
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		took := time.Since(begun)
		return took, errors.Join(p.Err(), os.Remove(file))
	}
	before, err := fetch()
	if err != nil {
		return err
	}
	w := row{size: rel.size}
	spec := machineSpec{link: cable, change: func(c *machineConfig) { c.Tree = c.File + ".tree" }}
	if err := r.round(ctx, &w, []machineSpec{spec}); err != nil {
		return err
	}
	after, err := fetch()
	if err != nil {
		return err
	}
	least := min(before, after)
	fmt.Fprintf(o.Out, "  %d MiB over a cable of %.0f MiB/s: curl writes it to a file in %.2f s (and %.2f s); fetched, checked and unpacked in %.2f s: %.0f %% of curl's speed\n",
		rel.size>>20, float64(cable.Rate)/(1<<20), least.Seconds(), max(before, after).Seconds(), w.took.Seconds(), 100*least.Seconds()/w.took.Seconds())
	return nil
}
