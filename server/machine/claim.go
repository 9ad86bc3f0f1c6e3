package machine

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"imgbuild/image/identity"
	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// Claim is the handler of plan.ClaimPath. The same boot may ask as often as it likes and is told the same, with another
// token each time, all of which are good.
func (s *Server) Claim() http.Handler {
	return handler(s, maxClaim, func(r *http.Request, c plan.Claim) (any, error) {
		if err := checkSchema(c.Schema); err != nil {
			return nil, err
		}
		if !boot.ValidNonce(c.Boot) {
			return nil, refuse(http.StatusBadRequest, "boot is no nonce of a boot script")
		}
		base, err := boot.Base(s.o.URL, r)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "%v", err)
		}
		q := &claim{Claim: c, base: base, now: s.o.Now(), digest: boot.Digest(c.Boot)}
		p, err := s.decide(r.Context(), q)
		if err != nil {
			return nil, err
		}
		s.tally(p.Action)
		p.Boot, p.Serial, p.Issued = c.Boot, c.Inventory.Serial, q.now.UTC()
		return plan.Sign(p, s.o.Key)
	})
}

func (s *Server) tally(a plan.Action) {
	switch a {
	case plan.Install:
		s.count.install.Add(1)
	case plan.Preview:
		s.count.preview.Add(1)
	case plan.Live:
		s.count.live.Add(1)
	case plan.Wait:
		s.count.wait.Add(1)
	case plan.Inspect:
		s.count.inspect.Add(1)
	default:
		s.count.local.Add(1)
	}
}

// claim is one claim on its way.
type claim struct {
	plan.Claim
	base   string
	now    time.Time
	digest string // of the nonce

	host  *registry.Host  // nil if there is none
	order *registry.Order // live; nil if there is none
}

func local(format string, a ...any) plan.Plan {
	return plan.Plan{Action: plan.LocalBoot, Reason: fmt.Sprintf(format, a...)}
}

// decide finds who claims, lets the gate decide, and does what the gate allows.
func (s *Server) decide(ctx context.Context, q *claim) (plan.Plan, error) {
	seen := observe(q.Inventory)
	seen.Claim, seen.Boot = true, q.digest
	offer, err := s.o.Registry.Offered(ctx, q.digest, q.now)
	if err != nil {
		return plan.Plan{}, err
	}
	if offer == nil {
		return local("this boot was not started by this server, or more than an hour ago: boot from the network again"), nil
	}
	if seen.SerialProblem == "" {
		if q.host, err = s.o.Registry.Host(ctx, seen.Serial); errors.Is(err, registry.ErrNotFound) {
			q.host, err = nil, nil
		}
		if err == nil && q.host != nil {
			q.order, err = s.o.Registry.LiveOrder(ctx, q.host.SN)
		}
		if err != nil {
			return plan.Plan{}, err
		}
	}
	if offer.SN == seen.Serial {
		seen.Offered, seen.Live = q.order != nil && offer.Order == q.order.ID, offer.Live
	}
	v := gate.Decide(q.now, s.o.Policy, q.host, q.order, seen)
	if offer.SN != seen.Serial && (offer.Order != "" || offer.Live != "") {
		s.note(ctx, offer.SN, offer.Order, fmt.Sprintf("a machine that says it has the serial number %q came with the boot that was started for %s, and is told: %s", seen.Serial, offer.SN, v.Reason))
	}
	switch v.Action {
	case plan.Install, plan.Preview:
		return s.install(ctx, q, v)
	case plan.Live:
		return s.live(ctx, q, v, seen.Live)
	case plan.Inspect:
		return s.inspect(ctx, q, v)
	}
	if q.host != nil {
		s.note(ctx, q.host.SN, orderID(q.order), "the installer is told to boot the disk: "+v.Reason)
	}
	return local("%s", v.Reason), nil
}

// observe is what the gate sees of an inventory.
func observe(inv plan.Inventory) gate.Observation {
	o := gate.Observation{Serial: identity.Serial(inv.Serial), SerialProblem: inv.SerialProblem, UUID: identity.UUID(inv.UUID), Product: inv.Product}
	if o.SerialProblem == "" {
		o.SerialProblem = identity.Junk(o.Serial)
	}
	for _, n := range inv.NICs {
		if n.MAC != "" {
			o.MACs = append(o.MACs, n.MAC)
		}
	}
	return o
}

// inspect registers a machine that nobody knows. Of one that is not as it was written down only the diary hears.
func (s *Server) inspect(ctx context.Context, q *claim, v gate.Verdict) (plan.Plan, error) {
	p := plan.Plan{Action: plan.Inspect, Reason: v.Reason}
	if q.host != nil {
		s.note(ctx, q.host.SN, orderID(q.order), "the installer is told to inspect the machine: "+v.Reason)
		return p, nil
	}
	inv := q.Inventory
	inv.Serial = identity.Serial(inv.Serial)
	_, created, err := s.o.Registry.SeeMachine(ctx, inv)
	if errors.Is(err, registry.ErrInvalid) {
		return local("the machine cannot be registered: %v", err), nil
	}
	if err != nil {
		return plan.Plan{}, err
	}
	if created {
		s.count.registered.Add(1)
	}
	return p, nil
}

// install gives the order to this boot, then a slot, then the plan, which is a preview's if the gate says so. All that could keep the plan from being made is found
// before the order is used up.
func (s *Server) install(ctx context.Context, q *claim, v gate.Verdict) (plan.Plan, error) {
	r, err := s.o.Images.Resolve(ctx, q.order.Image)
	if unusable := errors.Is(err, releases.ErrNotFound) || errors.Is(err, releases.ErrRefused); err != nil && !unusable {
		return plan.Plan{}, err
	}
	var p plan.Plan
	if err == nil {
		p, err = installation(q, r, v.Action, s.o.Transport, s.o.Mirrors, s.o.Key)
	}
	if err != nil {
		s.note(ctx, q.host.SN, q.order.ID, fmt.Sprintf("the order cannot be carried out: %v", err))
		if v.Consume {
			return local("the order %s cannot be carried out: %v", q.order.ID, err), nil
		}
		return wait(0, fmt.Sprintf("the order cannot be carried out just now: %v", err)), nil // until somebody mends it, or the machine is lost
	}
	if v.Consume {
		if done, err := s.consume(ctx, q); err != nil || done != nil {
			return *done, err
		}
	}
	token := newToken()
	place, err := s.o.Registry.StartOrder(ctx, q.order.ID, boot.Digest(token), s.o.Limits, q.now)
	switch {
	case errors.Is(err, registry.ErrConflict):
		return local("the order %s cannot be started: %v", q.order.ID, err), nil
	case err != nil:
		return plan.Plan{}, err
	case place > 0:
		return wait(place, v.Reason), nil
	}
	p.Reason, p.Token = v.Reason, token
	return p, nil
}

// consume gives the order to this boot. A plan is the answer if another boot has it, or it cannot be had any more.
func (s *Server) consume(ctx context.Context, q *claim) (*plan.Plan, error) {
	_, err := s.o.Registry.Consume(ctx, q.order.ID, q.digest, q.now)
	if errors.Is(err, registry.ErrConflict) || errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrInvalid) {
		p := local("the order %s cannot be had: %v", q.order.ID, err)
		s.note(ctx, q.host.SN, q.order.ID, "the installer is told to boot the disk: "+p.Reason)
		return &p, nil
	}
	if err != nil {
		return &plan.Plan{}, err
	}
	s.see(ctx, q)
	return nil, nil
}

// see stores what the machine says that it has. What it is about to do does not depend on it.
func (s *Server) see(ctx context.Context, q *claim) {
	inv := q.Inventory
	inv.Serial = identity.Serial(inv.Serial)
	if _, _, err := s.o.Registry.SeeMachine(ctx, inv); err != nil {
		s.o.Log.Error("store an inventory", "sn", q.host.SN, "err", err)
	}
}

// wait is the plan of a machine that has to wait; place 0 is not in the queue. Those at the front ask more often, and all
// often enough not to be taken for lost.
func wait(place int, reason string) plan.Plan {
	seconds := 15
	if place > 0 {
		seconds = min(3+place/20, plan.LostSeconds/3)
	}
	return plan.Plan{Action: plan.Wait, Reason: reason, Place: place, RetrySeconds: seconds}
}

// newToken makes 256 random bits, as base64url.
func newToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func orderID(o *registry.Order) string {
	if o == nil {
		return ""
	}
	return o.ID
}
