// Package swarmnet lets many machines install at the same time in a network whose cables are as slow, and as bad, as is asked:
// a switch, the origin with a real imgserve, and machines, each in a network namespace of its own.
//
// How many machines, what their cables do and which transport they use come in; how long the last of them took goes out, beside
// what the cables could do at best, or what a test asks of the machines. A machine is a process that does what the installer does
// with the network, from the boot script to installer/transfer, and that checks every byte of what it writes.
//
// It never touches the host's network, simulates no transport, and judges no figure.
package swarmnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/image/plan"
)

// Options say what is measured. Programs, Machines, Transports and Out are required.
type Options struct {
	Programs Programs
	// Machines are how many machines install: one run for each number and transport.
	Machines   []int
	Transports []plan.Transport
	// Faulty is how many machines install while something goes wrong, once for each thing that can; 0 leaves that out.
	Faulty int
	// Image is a squashfs that one machine fetches, checks and unpacks, beside curl; empty leaves that out.
	Image string
	// Rate is what each cable carries in each direction, the origin's too, in bytes of payload a second; 0 is DefaultRate.
	Rate int64
	// Size is the root file system's, in bytes. Where the origin sends every machine its own copy, the file is smaller, by as
	// many times as there are machines.
	Size int64
	// Dir is where files are while it runs, on a file system like a disk's. Default /var/tmp.
	Dir string
	// Out gets the table, Log what imgserve and the machines say.
	Out io.Writer
	Log func(line string)
}

// DefaultRate is what cables carry, in bytes a second, so that so many machines do not wait for the processors in the place of
// their cables: these do all of the machines' work here.
func DefaultRate(machines int) int64 {
	const fastest, eachCPU = 16 << 20, 48 << 20
	return min(fastest, eachCPU*int64(runtime.NumCPU())/int64(machines))
}

// leastSize is the least root file system that is measured: a smaller one comes before a cable is warm.
const leastSize = 16 << 20

// Run measures.
func Run(ctx context.Context, o Options) error {
	o.Dir = cmp.Or(o.Dir, "/var/tmp")
	if o.Log == nil {
		o.Log = func(string) {}
	}
	for _, n := range o.Machines {
		if n < 1 || n > MostMachines-2 {
			return fmt.Errorf("measure a swarm: %d machines; it can be 1 to %d", n, MostMachines-2)
		}
	}
	if o.Size < leastSize {
		return fmt.Errorf("measure a swarm: a root file system of %d bytes; it needs %d", o.Size, leastSize)
	}
	for _, p := range []string{o.Programs.Imgserve, o.Programs.Imgctl} {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("measure a swarm: %w; make build makes the programs", err)
		}
	}
	t := &table{out: o.Out}
	for _, transport := range o.Transports {
		for _, n := range o.Machines {
			if err := o.measure(ctx, t, transport, n); err != nil {
				return fmt.Errorf("measure a swarm of %d machines over %s: %w", n, transport, err)
			}
		}
	}
	t.end()
	if o.Image != "" {
		if err := o.single(ctx); err != nil {
			return err
		}
	}
	if o.Faulty == 0 {
		return nil
	}
	return o.faults(ctx)
}

// faults has machines install while something goes wrong, and prints what each thing costs.
func (o *Options) faults(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "imgbuild-swarm-")
	if err != nil {
		return fmt.Errorf("measure faults: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rel, err := writeRelease(dir, noise(o.Size))
	if err != nil {
		return err
	}
	x := scale{cable: Link{Rate: cmp.Or(o.Rate, DefaultRate(o.Faulty))}, machines: o.Faulty}
	fmt.Fprintf(o.Out, "\n  what faults cost %d machines with cables of %.1f MiB/s and a root file system of %d MiB; with http, 2 machines\n", x.machines, float64(x.cable.Rate)/(1<<20), o.Size>>20)
	best := map[plan.Transport]time.Duration{}
	for _, f := range faults() {
		a, err := play(ctx, dir, o.Programs, rel, f, x, o.Log)
		if err != nil {
			return fmt.Errorf("measure faults: %s: %w", f.name, err)
		}
		cost := ""
		if healthy, ok := best[f.way()]; ok {
			cost = fmt.Sprintf("%+.1f s, ", (a.took - healthy).Seconds())
		} else {
			best[f.way()] = a.took
		}
		fmt.Fprintf(o.Out, "  %s: %s%s\n", f.name, cost, a)
	}
	return nil
}

// measure has n machines install, and prints how long that took.
func (o *Options) measure(ctx context.Context, t *table, transport plan.Transport, n int) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "imgbuild-swarm-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	size, copies := o.Size, 1
	if transport == plan.TransportHTTP {
		copies = n
		size = max(size/int64(n), leastSize) / image.ChunkSize * image.ChunkSize
	}
	rel, err := writeRelease(dir, noise(size))
	if err != nil {
		return err
	}
	cable := Link{Rate: cmp.Or(o.Rate, DefaultRate(n))}
	r, err := newRun(ctx, dir, o.Programs, rel, cable, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.serve(ctx, serverConfig{transport: transport}); err != nil {
		return err
	}
	row := &row{transport: transport, machines: n, size: size}
	if row.rate, err = r.real(ctx, cable); err != nil {
		return err
	}
	row.rate = max(row.rate, float64(cable.Rate)) // a connection that had no processor to itself says nothing of the cable
	row.limit = time.Duration(float64(size) * float64(copies) / row.rate * float64(time.Second))
	specs := make([]machineSpec, n)
	for i := range specs {
		specs[i] = machineSpec{link: cable}
	}
	if err := r.round(ctx, row, specs); err != nil {
		return err
	}
	t.print(row)
	return nil
}

// probeFor is how long cables are measured.
const probeFor = 2 * time.Second

// real measures what such cables bring, between two machines more.
func (r *run) real(ctx context.Context, cable Link) (float64, error) {
	from, err := r.add(cable)
	if err != nil {
		return 0, err
	}
	to, err := r.add(cable)
	if err != nil {
		return 0, err
	}
	return r.probe(ctx, from, to, probeFor)
}

// round has machines install at the same time.
func (r *run) round(ctx context.Context, w *row, specs []machineSpec) error {
	first, err := r.order(ctx, specs)
	if err != nil {
		return err
	}
	for i, s := range specs {
		if _, err := r.start(ctx, first+i, s); err != nil {
			return err
		}
	}
	sentBefore, err := r.originSent()
	if err != nil {
		return err
	}
	before, err := r.usage()
	if err != nil {
		return err
	}
	begun := time.Now()
	for _, k := range r.children {
		if err := k.begin(); err != nil {
			return err
		}
	}
	var group errgroup.Group
	for _, k := range r.children {
		group.Go(func() error { return k.awaitDone(ctx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	after, err := r.usage()
	if err != nil {
		return err
	}
	sentAfter, err := r.originSent()
	if err != nil {
		return err
	}
	for _, k := range r.children {
		s := k.now()
		w.took = max(w.took, s.doneAt.Sub(begun))
		w.cpu += s.result.CPU - s.cpuReady
		w.memory = max(w.memory, s.result.Memory)
	}
	w.server, w.copies = after.server-before.server, float64(sentAfter-sentBefore)/float64(w.size)
	if all := after.all - before.all; all > 0 {
		w.busy = float64(after.busy-before.busy) / float64(all)
	}
	return nil
}
