//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/testvm"
)

// killSeed is IMGBUILD_E2E_SEED, or a new one each time; it is printed.
func killSeed(t *testing.T) uint64 {
	t.Helper()
	if v := os.Getenv("IMGBUILD_E2E_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("read IMGBUILD_E2E_SEED: %v", err)
		}
		return n
	}
	return rand.Uint64() >> 1
}

// The power fails again and again while a machine is installed, each time at another point. Every disk boots completely or
// not at all, and the attempt that is let be succeeds.
func TestAnInstallationThatIsCutOffIsWholeOrNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	seed := killSeed(t)
	t.Logf("IMGBUILD_E2E_SEED=%d", seed)
	for i, tt := range []struct {
		layoutCase
		cuts int
	}{
		{layoutCase{name: "cut-simple", firmware: testvm.BIOS, layout: layout.Layout{}}, 9},
		{layoutCase{name: "cut-mirror", firmware: testvm.UEFI, layout: layout.Layout{Preset: layout.Mirror}, disks: []testvm.Disk{{Serial: "CUTA"}, {Serial: "CUTB"}}}, 9},
		{layoutCase{name: "cut-server", firmware: testvm.BIOS, layout: layout.Layout{Preset: layout.Server, BIOSLoader: layout.GRUB}}, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			s := layoutScenario(t, tt.layoutCase)
			s.Prepare = withLayout(t, tt.layout)
			for _, d := range s.Disks {
				s.Args = append(s.Args, "imgbuild.wipe="+d.Serial)
			}
			scheme := schemeOf(t, s, tt.layout)
			for n := range tt.cuts {
				// The steps from the first write on, the last ones more often: there it is decided whether the disk boots.
				step := []int{4, 5, 5, 6, 7, 8, 8, 9, 9}[(n+r.IntN(3))%9]
				wait := time.Duration(r.Int64N(int64(3 * time.Second)))
				if step == 5 {
					wait = time.Duration(r.Int64N(int64(30 * time.Second)))
				}
				if step == 9 {
					wait = time.Duration(r.Int64N(int64(400 * time.Millisecond)))
				}
				done := installAndCut(t, s, step, wait)
				t.Logf("cut %d: %v after step %d began; it had ended before: %v", n+1, wait, step, done)
				mustBeWholeOrNothing(t, s, scheme)
			}
			if _, err := shared.host.Install(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			mustBoot(t, s, scheme, 0)
		})
	}
}

// installAndCut cuts the power some time after a step has begun. It reports whether the installation ended before that.
func installAndCut(t *testing.T, s testvm.Scenario, step int, wait time.Duration) bool {
	t.Helper()
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	line := regexp.MustCompile(`imgbuild: step (\d+)/`)
	var once sync.Once
	s.Live = func(l string) {
		if m := line.FindStringSubmatch(l); m != nil && m[1] == strconv.Itoa(step) {
			once.Do(func() { time.AfterFunc(wait, cut) })
		}
	}
	_, err := shared.host.Install(ctx, s)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return err == nil
}

// mustBeWholeOrNothing boots what a firmware would find, from each disk alone where there are several.
func mustBeWholeOrNothing(t *testing.T, s testvm.Scenario, scheme *layout.Scheme) {
	t.Helper()
	for i, d := range s.Disks {
		found, err := testvm.Bootable(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			continue
		}
		t.Logf("a firmware finds on disk %d: %v", i+1, found)
		alone := s
		alone.FreshVariables, alone.Live = true, nil
		alone.Disks = copies(t, []testvm.Disk{d})
		mustBoot(t, alone, scheme, len(s.Disks)-1)
	}
}
