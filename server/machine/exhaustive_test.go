package machine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// situation is one combination of everything that a claim can meet.
type situation struct {
	nonce   string // this: offered to this machine for its order; inspect: to it, for no order; live, live-db: to run web/1 or db/1; other: to another machine; old, none
	host    bool
	order   string // none, open, expired, mine, another's, cancelled, done
	machine string // same, UUID, model, MAC, junk
	preview bool   // the order is for one
	release string // there, gone, damaged, without the tools for its layout
	unknown bool   // policy
	wish    bool   // the host is to run web from memory
}

// expect is what the design says, written down without looking at the code: the default is the local disk, an
// installation needs everything to be right.
func (s situation) expect() (action plan.Action, registered bool) {
	if action, registered = s.installs(); action == plan.Install && s.preview {
		action = plan.Preview
	}
	return action, registered
}

func (s situation) installs() (action plan.Action, registered bool) {
	known := s.nonce == "this" || s.nonce == "inspect" || s.nonce == "live" || s.nonce == "live-db" || s.nonce == "other" || s.order == "mine" && s.nonce == "old" // a consumed order remembers its boot
	live := s.host && (s.order == "open" || s.order == "expired" || s.order == "mine" || s.order == "another's")
	switch {
	case !known, s.machine == "junk":
		return plan.LocalBoot, false
	case !s.host && s.unknown:
		return plan.Inspect, true
	case s.host && s.wish && s.order != "open" && s.order != "mine" && s.order != "another's": // no order is due
		switch {
		case s.nonce != "live":
			return plan.LocalBoot, false
		case s.machine != "same":
			return plan.Inspect, false
		case s.release == "gone" || s.release == "damaged":
			return plan.LocalBoot, false
		}
		return plan.Live, false
	case !s.host, !live, s.order == "expired", s.order == "another's", s.order == "open" && s.nonce != "this":
		return plan.LocalBoot, false
	case s.machine != "same":
		return plan.Inspect, false
	case s.order == "mine" && (s.nonce == "this" || s.nonce == "old"):
		if s.release != "there" {
			return plan.Wait, false
		}
		return plan.Install, false
	case s.order == "open" && s.nonce == "this" && s.release == "there":
		return plan.Install, false
	}
	return plan.LocalBoot, false
}

// world is a registry with one host, or none, in which a claim is made. It keeps what was done.
type world struct {
	Registry // nil: a method that is not below panics
	situation
	inv        plan.Inventory
	nonce      string
	now        time.Time
	consumed   int
	started    int
	lives      int
	registered int
	appended   int
}

const exhaustiveSN = "SN-WEB1"

func (w *world) Host(context.Context, string) (*registry.Host, error) {
	if !w.host {
		return nil, registry.ErrNotFound
	}
	h := &registry.Host{SN: exhaustiveSN, State: registry.Ordered, UUID: "4c4c4544-0000-1000-8000-000000000001", Model: "R640", MACs: []string{"52:54:00:00:00:01"}}
	if w.wish {
		h.Live = &registry.Live{Image: "web"}
	}
	return h, nil
}

func (w *world) the() *registry.Order {
	o := &registry.Order{Preview: w.preview, ID: "o1", SN: exhaustiveSN, Image: "web/1", By: "anna", Reason: "r", Expires: w.now.Add(time.Hour)}
	switch w.order {
	case "open":
		o.State = registry.OrderOpen
	case "expired":
		o.State, o.Expires = registry.OrderOpen, w.now
	case "mine":
		o.State, o.Boot = registry.OrderConsumed, boot.Digest(w.nonce)
	case "another's":
		o.State, o.Boot = registry.OrderConsumed, boot.Digest("another")
	case "cancelled":
		o.State = registry.OrderCancelled
	case "done":
		o.State = registry.OrderDone
	}
	return o
}

func (w *world) LiveOrder(context.Context, string) (*registry.Order, error) {
	if o := w.the(); o.Live() {
		return o, nil
	}
	return nil, nil
}

func (w *world) Offered(context.Context, string, time.Time) (*registry.Offer, error) {
	switch {
	case w.order == "mine" && w.host && (w.situation.nonce == "this" || w.situation.nonce == "old"):
		return &registry.Offer{SN: exhaustiveSN, Order: "o1"}, nil
	case w.situation.nonce == "this" && w.host && w.order != "none":
		return &registry.Offer{SN: exhaustiveSN, Order: "o1"}, nil
	case w.situation.nonce == "this", w.situation.nonce == "inspect":
		return &registry.Offer{SN: exhaustiveSN}, nil
	case w.situation.nonce == "live":
		return &registry.Offer{SN: exhaustiveSN, Live: "web/1"}, nil
	case w.situation.nonce == "live-db":
		return &registry.Offer{SN: exhaustiveSN, Live: "db/1"}, nil
	case w.situation.nonce == "other":
		return &registry.Offer{SN: "SN-OTHER", Order: "o9"}, nil
	}
	return nil, nil
}

func (w *world) Consume(context.Context, string, string, time.Time) (*registry.Order, error) {
	w.consumed++
	return w.the(), nil
}

func (w *world) StartOrder(_ context.Context, _, token string, _ registry.SlotLimits, _ time.Time) (int, error) {
	if w.started++; token == "" {
		return 0, errors.New("no token")
	}
	return 0, nil
}

func (w *world) StartLive(_ context.Context, b registry.LiveBoot, token string, _ time.Time) (time.Duration, error) {
	if w.lives++; token == "" || b.SN != exhaustiveSN || b.Image != "web/1" || b.Boot != boot.Digest(w.nonce) {
		return 0, fmt.Errorf("not that: %+v", b)
	}
	return 0, nil
}

func (w *world) SeeMachine(_ context.Context, inv plan.Inventory) (*registry.Host, bool, error) {
	if !w.host {
		w.registered++
	}
	return &registry.Host{SN: inv.Serial}, !w.host, nil
}

func (w *world) Append(_ context.Context, events ...registry.Event) error {
	w.appended += len(events)
	return nil
}

func (w *world) Resolve(context.Context, string) (*releases.Release, error) {
	switch w.release {
	case "gone":
		return nil, fmt.Errorf("find it: %w", releases.ErrNotFound)
	case "damaged":
		return nil, fmt.Errorf("find it: %w", releases.ErrRefused)
	}
	r := &releases.Release{Name: "web", Version: "1", Arch: "x86_64"}
	if w.release == "there" {
		r.Tools = r.Layout.Tools(layout.Auto)
	}
	return r, nil
}

func TestEveryCombinationOfAClaim(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	counts := map[plan.Action]int{}
	key, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, nonce := range []string{"this", "inspect", "live", "live-db", "other", "old", "none"} {
		for _, host := range []bool{true, false} {
			for _, order := range []string{"none", "open", "expired", "mine", "another's", "cancelled", "done"} {
				for _, machine := range []string{"same", "UUID", "model", "MAC", "junk"} {
					for _, release := range []string{"there", "gone", "damaged", "tools"} {
						for flags := range 8 {
							wish := flags&4 != 0
							if !host && (wish || order != "none") || order == "mine" && nonce != "this" && nonce != "old" {
								continue // an order is a host's, and the boot that has it is this one
							}
							counts[try(t, now, key, situation{nonce, host, order, machine, flags&1 != 0, release, flags&2 != 0, wish})]++
						}
					}
				}
			}
		}
	}
	if len(counts) != 6 {
		t.Errorf("not every action is among the answers: %v", counts)
	}
}

// try makes one claim twice, and compares what is answered and done with what is expected.
func try(t *testing.T, now time.Time, key image.PrivateKey, s situation) plan.Action {
	t.Helper()
	w := &world{situation: s, nonce: "AAAAAAAAAAAAAAAAAAAAAA", now: now}
	w.inv = plan.Inventory{Serial: exhaustiveSN, UUID: "4c4c4544-0000-1000-8000-000000000001", Product: "R640", NICs: []plan.NIC{{MAC: "52:54:00:00:00:01", Link: true}}}
	switch s.machine {
	case "UUID":
		w.inv.UUID = "4c4c4544-0000-1000-8000-00000000000f"
	case "model":
		w.inv.Product = "R740"
	case "MAC":
		w.inv.NICs[0].MAC = "52:54:00:00:00:0f"
	case "junk":
		w.inv.Serial = "Default string"
	}
	server, err := New(Options{Registry: w, Images: w, Key: key, Policy: gate.Policy{InspectUnknown: s.unknown}, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	q := &claim{Claim: plan.Claim{Boot: w.nonce, Inventory: w.inv}, base: "http://10.0.0.1", now: now, digest: boot.Digest(w.nonce)}
	p, err := server.decide(t.Context(), q)
	if err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	want, registered := s.expect()
	if p.Action != want {
		t.Errorf("%+v: %s (%s), want %s", s, p.Action, p.Reason, want)
	}
	if (w.registered > 0) != registered {
		t.Errorf("%+v: registered: %v", s, w.registered > 0)
	}
	install, live := want == plan.Install || want == plan.Preview, want == plan.Live
	if (w.started > 0) != install || (w.consumed > 0) != (install && s.order == "open") || (w.lives > 0) != live {
		t.Errorf("%+v: consumed %d times, started %d times, %d times live", s, w.consumed, w.started, w.lives)
	}
	if (install || live) != (p.Token != "") || (install || live) != (p.Manifest != "") || install != (p.Order != "") || live != (p.Live != nil) || p.Reason == "" {
		t.Errorf("%+v: %+v", s, p)
	}
	if (want == plan.Install) != (len(p.Seal) > 0) || want == plan.Preview && p.Done != "" {
		t.Errorf("%+v: a seal of %d bytes, done %q", s, len(p.Seal), p.Done)
	}
	p.Boot, p.Serial = q.Boot, q.Inventory.Serial
	if err := p.Validate(); err != nil {
		t.Errorf("%+v: the installer would refuse the plan: %v", s, err)
	}
	return p.Action
}
