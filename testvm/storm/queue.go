package storm

import (
	"context"
	"fmt"
	"slices"
	"time"

	"imgbuild/image/plan"
)

// queue has n machines come when only some may install at a time: each is told its place, asks again, and is installed in
// its turn.
func (l *lab) queue(ctx context.Context, n int) (err error) {
	if n <= l.o.Slots {
		return nil
	}
	s, err := l.start(ctx, n, l.o.Slots)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.Kill()
		}
	}()
	if err := l.order(ctx, s, false); err != nil {
		return err
	}
	_, err = wave(ctx, "boot script", n, s.parallel, s.usage(), func(ctx context.Context, i int) error {
		script, err := l.fetch(ctx, s.machines[i], serverHost(), s.machines[i].scriptPath())
		if err != nil {
			return err
		}
		return s.machines[i].readScript(script)
	})
	if err != nil {
		return err
	}
	if _, err := l.measure(ctx, s, fmt.Sprintf("claim where %d may install at a time", l.o.Slots), l.claim); err != nil {
		return err
	}
	running, waiting := split(s.machines)
	if len(running) != l.o.Slots {
		return fmt.Errorf("%d machines install at a time where %d may", len(running), l.o.Slots)
	}
	r, err := wave(ctx, "claim of all who wait, again", len(waiting), s.parallel, s.usage(), func(ctx context.Context, i int) error { return l.claim(ctx, waiting[i]) })
	if err != nil {
		return err
	}
	l.table.print(r)
	asked := 0.0
	for _, m := range waiting {
		if m.plan.Action != plan.Wait {
			return fmt.Errorf("%s is told to %s while all slots are taken", m.sn, m.plan.Action)
		}
		asked += 1 / float64(m.plan.RetrySeconds)
	}
	slices.SortFunc(waiting, func(a, b *machine) int { return a.plan.Place - b.plan.Place })
	for i, m := range waiting {
		if m.plan.Place != i+1 {
			return fmt.Errorf("%s is told place %d and has place %d", m.sn, m.plan.Place, i+1)
		}
	}
	fmt.Fprintf(l.o.Out, "    places are 1 to %d; so many machines, asking when they are told to, ask %.0f times a second together\n", len(waiting), asked)
	if r, err = l.drain(ctx, s, running, waiting[:min(mostDrained, len(waiting))]); err != nil {
		return err
	}
	l.table.print(r)
	return s.stop(ctx)
}

// mostDrained bounds how many of those that wait get their turn: the others would only take time.
const mostDrained = 1000

// drain has those that install finish, and those at the front take their slots, until all of these have installed.
func (l *lab) drain(ctx context.Context, s *server, running, waiting []*machine) (*row, error) {
	r := &row{what: "done, and the next takes the slot", count: len(running) + len(waiting)}
	before, err := s.usage().read()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for len(running) > 0 {
		one, err := wave(ctx, "done", len(running), s.parallel, s.usage(), func(ctx context.Context, i int) error {
			return l.report(ctx, running[i], plan.Event{Kind: plan.KindDone, Text: "the disk boots"})
		})
		if err != nil {
			return nil, err
		}
		r.each = append(r.each, one.each...)
		next := waiting[:min(l.o.Slots, len(waiting))]
		waiting = waiting[len(next):]
		_, err = wave(ctx, "claim", len(next), s.parallel, s.usage(), func(ctx context.Context, i int) error {
			err := l.claim(ctx, next[i])
			if err == nil && next[i].plan.Action != plan.Install {
				err = fmt.Errorf("%s is told to %s where it is its turn: %s", next[i].sn, next[i].plan.Action, next[i].plan.Reason)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := verify(next); err != nil {
			return nil, err
		}
		running = next
	}
	r.took, r.each = time.Since(began), nil
	after, err := s.usage().read()
	if err != nil {
		return nil, err
	}
	r.cpu, r.memory = after.cpu-before.cpu, after.memory
	return r, nil
}

// split tells those that install from those that wait.
func split(machines []*machine) (running, waiting []*machine) {
	for _, m := range machines {
		if m.plan.Action == plan.Install {
			running = append(running, m)
		} else {
			waiting = append(waiting, m)
		}
	}
	return running, waiting
}
