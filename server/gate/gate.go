// Package gate is the one decision that everything asks that boots a machine: whatever protocol a machine comes by, Decide
// says what it may do. State and an observation come in, a verdict goes out; there is no clock, no network and no store.
//
// It never lets a machine install without a live order for its serial number, never makes an installation of an order for a
// preview, runs a release from memory only where a person has said so and no order is due, and what it does not know boots its own
// disk.
package gate

import (
	"fmt"
	"strings"
	"time"

	"imgbuild/image/identity"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// Observation is what is known of the machine that asks.
type Observation struct {
	// Serial is what the machine says its serial number is, and SerialProblem why it cannot be one (identity.Junk's words).
	Serial        string
	SerialProblem string
	// UUID, MACs and Product are what the machine says besides; empty where the protocol does not carry them.
	UUID    string
	MACs    []string
	Product string
	// Claim is true when the installer asks for its plan. Boot is then the digest of its nonce, as Order.Boot, and Offered is
	// true if this server gave the nonce to this machine for the live order.
	Claim   bool
	Boot    string
	Offered bool
	// Live is the release, as name/version, that this boot was started to run from memory, if this server gave the nonce to this
	// machine for that; else empty.
	Live string
}

// Policy is how the server treats machines that nobody has written down.
type Policy struct {
	// InspectUnknown boots a machine with an unknown serial number into the installer once, to take its inventory.
	InspectUnknown bool
}

// Verdict is what a machine may do, and why, in one sentence for people.
type Verdict struct {
	Action plan.Action // Install, Preview, Live, Inspect or LocalBoot
	Reason string
	// Consume is true when the order has to be consumed by this boot before the machine may install, or preview.
	Consume bool
}

// Decide is the gate. Host and order are those of the observed serial number, nil where there is none; the order is the
// host's live one.
func Decide(now time.Time, p Policy, host *registry.Host, order *registry.Order, o Observation) Verdict {
	local := func(format string, a ...any) Verdict {
		return Verdict{Action: plan.LocalBoot, Reason: fmt.Sprintf(format, a...)}
	}
	inspect := func(format string, a ...any) Verdict {
		return Verdict{Action: plan.Inspect, Reason: fmt.Sprintf(format, a...)}
	}
	switch {
	case o.SerialProblem != "":
		return local("its serial number does not identify it: %s", o.SerialProblem)
	case identity.Junk(o.Serial) != "": // the caller says so in SerialProblem; if it forgets to, nothing is lost
		return local("%s", identity.Junk(o.Serial))
	case host == nil && !p.InspectUnknown:
		return local("serial number %s is not in the registry", o.Serial)
	case host == nil:
		return inspect("serial number %s is not in the registry: its inventory is taken", o.Serial)
	case host.SN != o.Serial:
		return local("the registry was asked for %s and answered with %s", o.Serial, host.SN) // a fault of ours; never a reason to install
	case host.State == registry.New:
		return local("nobody has approved %s yet", host.SN)
	case order != nil && order.SN != host.SN:
		return local("the order %s is not for %s", order.ID, host.SN)
	}
	runs := host.Live != nil && (order == nil || !order.Due(now)) // an order goes first
	why := ""
	switch {
	case runs && o.Claim && (o.Live == "" || !host.Live.Covers(o.Live)):
		why = fmt.Sprintf("this boot was not started to run %s from memory", host.Live.Image)
	case runs:
	case order == nil:
		why = fmt.Sprintf("there is no order for %s, which is %s", host.SN, host.State)
	default:
		why = barred(now, host, order, o)
	}
	if why != "" {
		return local("%s", why)
	}
	if wrong := mismatch(host, o); wrong != "" {
		return inspect("the machine is not the one that was written down: %s", wrong)
	}
	if runs {
		return Verdict{Action: plan.Live, Reason: fmt.Sprintf("%s is to run %s from memory", host.SN, host.Live.Image)}
	}
	action := plan.Install
	if order.Preview {
		action = plan.Preview
	}
	return Verdict{Action: action, Reason: fmt.Sprintf("order %s by %s: %s", order.ID, order.By, order.Reason),
		Consume: o.Claim && order.State == registry.OrderOpen}
}

// barred says why the host's order does not let this boot install, or "".
func barred(now time.Time, host *registry.Host, order *registry.Order, o Observation) string {
	switch order.State {
	case registry.OrderOpen:
		switch {
		case !now.Before(order.Expires):
			return fmt.Sprintf("order %s expired at %s", order.ID, order.Expires.UTC().Format(time.RFC3339))
		case o.Claim && (o.Boot == "" || !o.Offered):
			return fmt.Sprintf("this boot was not started for order %s", order.ID)
		}
	case registry.OrderConsumed:
		switch {
		case !o.Claim || o.Boot == "" || o.Boot != order.Boot:
			return fmt.Sprintf("order %s was used by another boot; an order serves one boot", order.ID)
		case !order.Finished.IsZero():
			return fmt.Sprintf("order %s has been carried out", order.ID)
		}
	default:
		return fmt.Sprintf("the order %s is %s", order.ID, order.State)
	}
	// Protection that came after the order counts as long as nothing has been erased. A preview erases nothing.
	if host.Protect && !order.Preview && order.Names < 2 && order.Started.IsZero() {
		return fmt.Sprintf("%s is protected, and order %s names it once: cancel that and order it again, naming it twice", host.SN, order.ID)
	}
	return ""
}

// mismatch says what of the machine contradicts the registry. What either side does not say contradicts nothing.
func mismatch(h *registry.Host, o Observation) string {
	if h.UUID != "" && o.UUID != "" && !strings.EqualFold(h.UUID, o.UUID) {
		return fmt.Sprintf("its UUID is %s and the registry has %s", o.UUID, h.UUID)
	}
	if h.Model != "" && o.Product != "" && !strings.EqualFold(strings.TrimSpace(h.Model), strings.TrimSpace(o.Product)) {
		return fmt.Sprintf("its model is %q and the registry has %q", o.Product, h.Model)
	}
	if len(h.MACs) == 0 || len(o.MACs) == 0 {
		return ""
	}
	for _, m := range o.MACs {
		for _, have := range h.MACs {
			if strings.EqualFold(m, have) {
				return ""
			}
		}
	}
	return fmt.Sprintf("none of its MAC addresses (%s) is in the registry (%s)", strings.Join(o.MACs, ", "), strings.Join(h.MACs, ", "))
}
