package gate_test

import (
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/gate"
	"imgbuild/server/gate/gatetest"
	"imgbuild/server/registry"
)

// TestAMillionRandomStepsInstallNothingThatMayNot plays against the gate and the registry's rules: both together, the gate
// alone before a registry that refuses nothing, and the rules alone behind a gate that lets everybody in. The registry
// itself plays in its own tests.
func TestAMillionRandomStepsInstallNothingThatMayNot(t *testing.T) {
	open := func(_ time.Time, _ gate.Policy, h *registry.Host, o *registry.Order, see gate.Observation) gate.Verdict {
		if h != nil && h.Live != nil && (o == nil || see.Live != "") {
			return gate.Verdict{Action: plan.Live}
		}
		if o == nil {
			return gate.Verdict{Action: plan.Inspect}
		}
		if o.Preview {
			return gate.Verdict{Action: plan.Preview, Consume: see.Claim}
		}
		return gate.Verdict{Action: plan.Install, Consume: see.Claim}
	}
	for name, c := range map[string]struct {
		trusting bool
		game     gatetest.Game
		plays    uint64
	}{
		"gate and rules": {plays: 1000},
		"the gate alone": {plays: 300, trusting: true, game: gatetest.Game{InTurn: true}},
		"rules alone":    {plays: 300, game: gatetest.Game{Decide: open}},
	} {
		t.Run(name, func(t *testing.T) {
			sum := gatetest.Stats{}
			for seed := range c.plays {
				clock := gatetest.NewClock()
				w := gatetest.NewMemory(clock.Now)
				w.Trusting = c.trusting
				c.game.Seed, c.game.Steps = seed, 1000
				stats, err := gatetest.Play(t.Context(), w, clock, c.game)
				if err != nil {
					t.Fatal(err)
				}
				for name, n := range stats {
					sum[name] += n
				}
			}
			t.Log(sum)
			for _, name := range []string{"installs", "waits", "lost", "found", "expired", "booted", "deleted", "cancel: ok", "claim: inspect", "previews ordered", "previews", "report: preview", "live boots", "live boots run"} {
				if sum[name] == 0 {
					t.Errorf("it never came to %q: the play proves less than it says", name)
				}
			}
		})
	}
}
