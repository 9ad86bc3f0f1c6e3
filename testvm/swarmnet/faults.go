package swarmnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
)

// fault is something that goes wrong while machines install.
type fault struct {
	name      string
	transport plan.Transport // relay if empty
	pair      bool           // two machines are enough
	// before changes what is about to be, happens what is while it is.
	before func(*scene) error
	happen func(context.Context, *scene) error
	// check finds what did not go as it should, once all are done.
	check func(*scene, outcome) error
}

// way is the transport.
func (f *fault) way() plan.Transport { return cmp.Or(f.transport, plan.TransportRelay) }

// faults are all that are tested. Each leaves every machine that survives with the right bytes.
func faults() []fault {
	return []fault{
		{name: "nothing goes wrong"},
		{name: "nothing goes wrong, over http", transport: plan.TransportHTTP, pair: true},
		{name: "nothing goes wrong, over torrent", transport: plan.TransportTorrent},
		{name: "the origin restarts", happen: originRestarts},
		{name: "the origin dies when the machines have all chunks", happen: originDies},
		{name: "a fifth of the machines dies", happen: machinesDie},
		{name: "a fifth of the machines dies, over torrent", transport: plan.TransportTorrent, happen: machinesDie},
		{name: "a machine spoils every tenth chunk", before: spoil, check: spoilerIsFound},
		{name: "a machine has a tenth of the others' cable", before: second(func(s *machineSpec) { s.link.Rate /= 10 })},
		{name: "a machine's cable loses 5 % of the packets", before: second(func(s *machineSpec) { s.link.Loss = 0.05 })},
		{name: "a machine's disk has a quarter of its cable's rate", before: second(func(s *machineSpec) {
			s.change = and(s.change, func(c *machineConfig) { c.WriteRate = s.link.Rate / 4 })
		})},
		{name: "a mirror's file is cut short", transport: plan.TransportHTTP, pair: true, before: mirror(cutShort)},
		{name: "a mirror says another length than it sends", transport: plan.TransportHTTP, pair: true, before: mirror(wrongLength)},
		{name: "a mirror knows no ranges", transport: plan.TransportHTTP, pair: true, before: mirror(noRanges)},
		{name: "the origin knows no ranges", before: originWithoutRanges},
		{name: "memory is short and the place for what it does not hold is full", before: shortOfRoom},
		{name: "machines join at 10, 50 and 90 %", before: func(s *scene) error { s.late = []float64{0.1, 0.5, 0.9}; return nil }},
	}
}

func and(f, g func(*machineConfig)) func(*machineConfig) {
	return func(c *machineConfig) {
		if f != nil {
			f(c)
		}
		g(c)
	}
}

// second changes the second machine.
func second(change func(*machineSpec)) func(*scene) error {
	return func(s *scene) error { change(&s.specs[1]); return nil }
}

// outage is how long a restarted origin is away.
const outage = 2 * time.Second

func originRestarts(ctx context.Context, s *scene) error {
	if err := s.children[0].awaitShare(ctx, 0.3); err != nil {
		return err
	}
	s.server.Kill()
	t := time.NewTimer(outage)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.server.Start(ctx)
}

// originDies takes the origin away for good as soon as one machine has everything.
func originDies(ctx context.Context, s *scene) error {
	any := make(chan error, len(s.children))
	for _, k := range s.children {
		go func() { any <- k.awaitDone(ctx) }() // ends with the machine
	}
	if err := <-any; err != nil {
		return err
	}
	s.server.Kill()
	return nil
}

// machinesDie kills a fifth of the machines, in the middle of the chain, one after the other.
func machinesDie(ctx context.Context, s *scene) error {
	n := max(len(s.children)/5, 1)
	for i := range n {
		k := s.children[1+i*len(s.children)/n]
		if err := k.awaitShare(ctx, 0.3+0.3*float64(i)/float64(n)); err != nil {
			return err
		}
		k.kill()
		s.dead[k.i] = true
	}
	return nil
}

// spoil has the first machine spoil what it passes on. The others come when it is the only one that they can read from.
func spoil(s *scene) error {
	s.specs[0].change = and(s.specs[0].change, func(c *machineConfig) { c.Corrupt = 10 })
	for range len(s.specs) - 1 {
		s.late = append(s.late, 0.3)
	}
	return nil
}

// spoilerIsFound checks that what was spoiled was noticed: else nobody has read from that machine, and nothing was tested.
func spoilerIsFound(_ *scene, o outcome) error {
	if o.bad == 0 {
		return errors.New("no machine has refused a chunk of the one that spoils them")
	}
	return nil
}

// mirror gives the server a mirror with a fault.
func mirror(kind faultKind) func(*scene) error {
	return func(s *scene) (err error) {
		if s.faulty, err = s.serveFaulty(kind); err != nil {
			return err
		}
		s.config.mirrors = []string{s.faulty.url + "/"}
		return nil
	}
}

// originWithoutRanges puts a server before imgserve that knows no ranges.
func originWithoutRanges(s *scene) (err error) {
	if s.faulty, err = s.serveFaulty(noRanges); err != nil {
		return err
	}
	s.config.url = s.faulty.url
	return nil
}

// shortOfRoom leaves all machines little memory, and a place of 4 MiB for the rest; the last reads at half the rate, so that the
// one before it has to keep more than that.
func shortOfRoom(s *scene) error {
	dir := filepath.Join(s.dir, "full")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		return fmt.Errorf("mount a small file system: %w: %w", errors.ErrUnsupported, err)
	}
	s.run.mounts = append(s.run.mounts, dir)
	for i := range s.specs {
		s.specs[i].change = and(s.specs[i].change, func(c *machineConfig) { c.Memory, c.SpillDir = 12<<20, dir })
	}
	s.specs[len(s.specs)-1].link.Rate /= 2
	return nil
}
