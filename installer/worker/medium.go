package worker

import (
	"context"
	"fmt"
	"time"

	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/hw"
	"imgbuild/installer/medium"
)

// fromMedium does what was asked for with the release on a medium of this machine. It needs no network.
func (w *worker) fromMedium(ctx context.Context) (_ Outcome, err error) {
	o := medium.Options{Label: w.args.Medium, Report: w.say}
	if w.modules != nil {
		o.LoadModule = func(ctx context.Context, name string) error { return w.modules.Load(ctx, name) }
		o.Discover = func(ctx context.Context) {
			// It ends with ctx. A device that cannot be driven is missed by nobody but who waits for it, and is told so.
			_, _ = w.modules.Coldplug(ctx, "/sys", hw.Settled{Expected: func() bool { return false }, Wait: time.Hour})
		}
	}
	m, err := medium.Find(ctx, o)
	if err != nil {
		return Outcome{}, err
	}
	defer func() {
		if e := m.Close(); e != nil { // it may have been pulled out
			w.say.Warn("%v", e)
		}
	}()
	w.say.Info("medium: %s on %s", w.args.Medium, m.Device)
	if w.args.Mode == cmdline.ModeCheck {
		manifest, err := m.Check(ctx, w.keys, w.say)
		if err != nil {
			return Outcome{}, because(ctx, err)
		}
		return Outcome{Text: fmt.Sprintf("the medium is as it was written: all %d files of %s %s are right", len(manifest.Files), manifest.Name, manifest.Version), Done: cmdline.DoneWait}, nil
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c := installer.Config{Args: w.args}
	c.Args.Manifest, w.system.Transport, w.system.Mend = medium.ManifestURL, m.RoundTripper(stop), medium.ErrDamaged.Error()
	if c.Args.Mode == cmdline.ModeLive {
		return w.live(ctx, c)
	}
	return w.asAsked(ctx, c)
}
