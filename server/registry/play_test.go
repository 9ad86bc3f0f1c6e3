package registry_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"imgbuild/server/gate/gatetest"
	"imgbuild/server/registry"
)

// TestTheStoreKeepsTheRulesStepByStep plays the same random histories against the store and against the rules in memory
// (gatetest.Memory): what each step answers has to be the same.
func TestTheStoreKeepsTheRulesStepByStep(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			registry.EachStore(t, func(t *testing.T, s *registry.Store) { compare(t, s, seed, 700) })
		})
	}
}

// compare plays one history against a store that is empty, and against the rules in memory.
func compare(t *testing.T, s *registry.Store, seed uint64, steps int) {
	t.Helper()
	var want, got bytes.Buffer
	clock := gatetest.NewClock()
	if _, err := gatetest.Play(t.Context(), gatetest.NewMemory(clock.Now), clock, gatetest.Game{Seed: seed, Steps: steps, Out: &want}); err != nil {
		t.Fatal(err)
	}
	clock = gatetest.NewClock()
	s.SetClock(clock.Now)
	_, err := gatetest.Play(t.Context(), s, clock, gatetest.Game{Seed: seed, Steps: steps, Out: &got})
	a, b := strings.Split(want.String(), "\n"), strings.Split(got.String(), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Errorf("seed %d, line %d, after\n%s\nmemory: %s\nstore:  %s", seed, i, strings.Join(a[max(0, i-8):i], "\n"), a[i], b[i])
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
