package machine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// live makes the plan of a boot that was started to run a release from memory. It uses up nothing: the same host may boot like this
// as often as it likes, and every boot is one of its own.
func (s *Server) live(ctx context.Context, q *claim, v gate.Verdict, release string) (plan.Plan, error) {
	refused := func(format string, a ...any) (plan.Plan, error) {
		p := local("%s; %s", v.Reason, fmt.Sprintf(format, a...))
		s.note(ctx, q.host.SN, "", "the installer is told to boot the disk: "+p.Reason)
		return p, nil
	}
	r, err := s.o.Images.Resolve(ctx, release)
	switch {
	case errors.Is(err, releases.ErrNotFound), errors.Is(err, releases.ErrRefused):
		return refused("it cannot be started: %v", err)
	case err != nil:
		return plan.Plan{}, err
	}
	network, err := networkOf(q.host, q.Inventory)
	if err != nil {
		return refused("make the network of %s: %v", q.host.SN, err)
	}
	token := newToken()
	pause, err := s.o.Registry.StartLive(ctx, registry.LiveBoot{SN: q.host.SN, Image: r.Ref(), Boot: q.digest}, boot.Digest(token), q.now)
	switch {
	case errors.Is(err, registry.ErrConflict), errors.Is(err, registry.ErrNotFound):
		return refused("that was changed meanwhile: %v", err)
	case err != nil:
		return plan.Plan{}, err
	case pause > 0:
		return plan.Plan{Action: plan.Wait, Reason: "another boot of this serial number has just begun", RetrySeconds: int(math.Ceil(pause.Seconds()))}, nil
	}
	s.see(ctx, q)
	options := q.host.Live.LiveOptions
	return plan.Plan{
		Action: plan.Live, Reason: v.Reason, Token: token, Live: &options, Manifest: q.base + releases.Prefix + r.Ref() + "/" + image.ManifestFile,
		Transport: s.o.Transport, Mirrors: mirrorsOf(r, s.o.Mirrors), Host: identityOf(q.host, network),
	}, nil
}

// bearer is whom a token authorises: an installation, or a live boot.
type bearer struct {
	order *registry.Order // nil of a live boot
	live  *registry.LiveBoot
}

func (b bearer) id() string {
	if b.live != nil {
		return b.live.ID
	}
	return b.order.ID
}

func (b bearer) sn() string {
	if b.live != nil {
		return b.live.SN
	}
	return b.order.SN
}

func (b bearer) heard() time.Time {
	if b.live != nil {
		return b.live.Heard
	}
	return b.order.Heard
}

func (b bearer) image() string {
	if b.live != nil {
		return b.live.Image
	}
	return b.order.Image
}

// report stores events, or with none that the machine was heard.
func (s *Server) report(ctx context.Context, b bearer, events []plan.Event) (seq int64, err error) {
	if b.live != nil {
		seq, err = s.o.Registry.ReportLive(ctx, b.live.ID, events, s.o.Now())
	} else {
		seq, err = s.o.Registry.Report(ctx, b.order.ID, events, s.o.Now())
	}
	if errors.Is(err, registry.ErrNotFound) {
		err = b.gone()
	}
	return seq, err
}

// gone is what a machine is told whose order or live boot has been removed.
func (b bearer) gone() error {
	if b.live != nil {
		return refuse(http.StatusUnauthorized, "the live boot %s is gone", b.live.ID)
	}
	return refuse(http.StatusUnauthorized, "the order %s is gone", b.order.ID)
}
