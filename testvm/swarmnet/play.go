package swarmnet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// scene is one fault's lab.
type scene struct {
	*run
	config serverConfig
	specs  []machineSpec
	late   []float64 // the last machines start when the first has so much
	dead   map[int]bool
	faulty *faultyServer
}

// outcome is how that went.
type outcome struct {
	took   time.Duration   // until the last machine that began with the others had all bytes
	late   []time.Duration // those that joined later, each from its own begin
	others time.Duration   // until all but the last had
	copies float64         // what the origin sent, in root file systems
	bad    int             // chunks that were refused
	stalls int
}

// scale is how large a fault is played.
type scale struct {
	cable    Link
	machines int
	keep     bool // the files, and look at them once more
}

// play has machines install while something goes wrong. It returns an error if one that survives does not end with the right bytes.
func play(ctx context.Context, dir string, p Programs, rel release, f fault, x scale, log func(string)) (_ outcome, err error) {
	s := &scene{config: serverConfig{transport: f.way()}, dead: map[int]bool{}}
	if f.pair {
		x.machines = 2
	}
	for range x.machines {
		s.specs = append(s.specs, machineSpec{link: x.cable, change: func(c *machineConfig) { c.Keep = x.keep }})
	}
	if s.run, err = newRun(ctx, dir, p, rel, x.cable, log); err != nil {
		return outcome{}, err
	}
	defer func() {
		if s.faulty != nil {
			err = errors.Join(err, s.faulty.close())
		}
		err = errors.Join(err, s.run.close())
	}()
	if f.before != nil {
		if err := f.before(s); err != nil {
			return outcome{}, err
		}
	}
	if err := s.serve(ctx, s.config); err != nil {
		return outcome{}, err
	}
	o, err := s.install(ctx, f)
	if err == nil && f.check != nil {
		err = f.check(s, o)
	}
	return o, err
}

// install has all machines install, and the fault happen.
func (s *scene) install(ctx context.Context, f fault) (o outcome, err error) {
	first, err := s.order(ctx, s.specs)
	if err != nil {
		return o, err
	}
	early := len(s.specs) - len(s.late)
	for i := range early {
		if _, err := s.start(ctx, first+i, s.specs[i]); err != nil {
			return o, err
		}
	}
	before, err := s.originSent()
	if err != nil {
		return o, err
	}
	begun := time.Now()
	for _, k := range s.children {
		if err := k.begin(); err != nil {
			return o, err
		}
	}
	if f.happen != nil {
		if err := f.happen(ctx, s); err != nil {
			return o, err
		}
	}
	lateBegun, err := s.join(ctx, first+early)
	if err != nil {
		return o, err
	}
	var group errgroup.Group
	for i, k := range s.children {
		if !s.dead[i] {
			group.Go(func() error { return k.awaitDone(ctx) })
		}
	}
	if err := group.Wait(); err != nil {
		return o, err
	}
	after, err := s.originSent()
	if err != nil {
		return o, err
	}
	o.copies = float64(after-before) / float64(s.release.size)
	s.sumUp(&o, begun, lateBegun)
	return o, nil
}

// join starts those that come later, each when the first machine has so much.
func (s *scene) join(ctx context.Context, first int) ([]time.Time, error) {
	begun := make([]time.Time, len(s.late))
	for i, share := range s.late {
		if err := s.children[0].awaitShare(ctx, share); err != nil {
			return nil, err
		}
		k, err := s.start(ctx, first+i, s.specs[first+i])
		if err != nil {
			return nil, err
		}
		begun[i] = time.Now()
		if err := k.begin(); err != nil {
			return nil, err
		}
	}
	return begun, nil
}

// sumUp adds what the machines have said.
func (s *scene) sumUp(o *outcome, begun time.Time, late []time.Time) {
	early := len(s.children) - len(late)
	for i, k := range s.children {
		if s.dead[i] {
			continue
		}
		state := k.now()
		for _, from := range state.result.Sources {
			o.bad += from.Bad
			o.stalls += from.Stalls
		}
		if i >= early {
			o.late = append(o.late, state.doneAt.Sub(late[i-early]))
			continue
		}
		if took := state.doneAt.Sub(begun); took > o.took {
			o.took, o.others = took, o.took
		} else {
			o.others = max(o.others, took)
		}
	}
}

// String is what people are shown.
func (o outcome) String() string {
	text := fmt.Sprintf("the last of the machines has all bytes after %.1f s", o.took.Seconds())
	if o.others > 0 {
		text += fmt.Sprintf(", the one before it after %.1f s", o.others.Seconds())
	}
	for _, l := range o.late {
		text += fmt.Sprintf(", one that came later %.1f s after it came", l.Seconds())
	}
	return text + fmt.Sprintf("; the origin sent %.2f copies; %d bad chunks, %d stalls", o.copies, o.bad, o.stalls)
}
