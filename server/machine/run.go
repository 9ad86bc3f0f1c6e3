package machine

import (
	"context"
	"fmt"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

const lostAfter = plan.LostSeconds * time.Second

// Run ends orders that nobody came for, and those and live boots whose machines have gone silent, until the context ends.
func (s *Server) Run(ctx context.Context) error {
	t := time.NewTicker(s.o.Every)
	defer t.Stop()
	w := watch{s: s}
	w.deaf(s.o.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			w.look(ctx, s.o.Now())
		}
	}
}

// watch is Run's memory: a server that could not hear takes nobody for lost.
type watch struct {
	s    *Server
	last time.Time // when it last looked
	from time.Time // from when on machines have had the time to report
}

// deaf notes that nothing could be heard until now.
func (w *watch) deaf(now time.Time) { w.last, w.from = now, now.Add(lostAfter) }

// look does one round.
func (w *watch) look(ctx context.Context, now time.Time) {
	if gap := now.Sub(w.last); gap < 0 || gap > lostAfter/2 { // the clock was set, or this program was stopped for a while
		w.deaf(now)
	}
	w.last = now
	if err := w.round(ctx, now); err != nil && ctx.Err() == nil {
		w.s.o.Log.Error("look for lost machines and expired orders", "err", err)
		w.deaf(now) // what machines report now is not stored either
	}
}

func (w *watch) round(ctx context.Context, now time.Time) error {
	r := w.s.o.Registry
	expired, err := r.ExpireOrders(ctx, now)
	if err != nil {
		return err
	}
	for _, o := range expired {
		w.s.count.expired.Add(1)
		w.s.o.Log.Info("order has expired", "order", o.ID, "sn", o.SN)
	}
	if now.Before(w.from) {
		return nil
	}
	since := now.Add(-lostAfter)
	lives, err := r.LoseLives(ctx, since, now)
	if err != nil {
		return err
	}
	for _, b := range lives {
		w.s.count.lost.Add(1)
		w.s.o.Log.Warn("machine is lost", "sn", b.SN, "live", b.ID, "silence", now.Sub(b.Heard).Round(time.Second))
	}
	silent, err := r.Silent(ctx, since)
	if err != nil {
		return err
	}
	for _, o := range silent {
		if err := w.lose(ctx, o, since, now); err != nil {
			return err
		}
	}
	return nil
}

// lose ends the order of a silent machine. One that was told to stay off after its installation is awaited as long as it
// takes.
func (w *watch) lose(ctx context.Context, o registry.Order, since, now time.Time) error {
	silence := now.Sub(o.Heard).Round(time.Second)
	text := fmt.Sprintf("nothing was heard of the machine for %s: it is taken for lost, and its slot is free", silence)
	switch {
	case !o.Finished.IsZero() && (o.Done == "poweroff" || o.Done == "wait"):
		return nil
	case !o.Finished.IsZero():
		text = fmt.Sprintf("the installation was done %s ago and the installed system has not reported: does the machine boot its disk, and does its network reach the server?", silence)
	case o.Preview:
		text = fmt.Sprintf("nothing was heard of the machine for %s while it made its preview: it is taken for lost", silence)
	case o.Started.IsZero():
		text = fmt.Sprintf("nothing was heard of the machine for %s while it waited for a slot: it is taken for lost", silence)
	}
	lost, err := w.s.o.Registry.LoseOrder(ctx, o.ID, since, text, now)
	if lost {
		w.s.count.lost.Add(1)
		w.s.o.Log.Warn("machine is lost", "sn", o.SN, "order", o.ID, "silence", silence)
	}
	return err
}
