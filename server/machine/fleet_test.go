package machine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// fleet is many machines that install at the same time, as fast as they can.
type fleet struct {
	site     *site
	machines []*computer
	running  atomic.Int64 // between the plan and the report that it is done
	peak     atomic.Int64
	waited   atomic.Int64 // answers with a place
}

// run installs one machine, and reports an error in what it was told.
func (f *fleet) run(ctx context.Context, c *computer) error {
	place := 1 << 30
	for {
		p, err := c.claim()
		if err != nil {
			return err
		}
		if p.Action == plan.Install {
			break
		}
		if p.Action != plan.Wait || p.Place < 1 {
			return fmt.Errorf("%s is told %+v", c.inv.Serial, p)
		}
		if p.Place > place {
			return fmt.Errorf("%s goes back in the queue, from %d to %d", c.inv.Serial, place, p.Place)
		}
		place = p.Place
		f.waited.Add(1)
		select { // the machine's seconds are fiftieths of the test's
		case <-time.After(time.Duration(p.RetrySeconds) * time.Second / 50):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	now := f.running.Add(1)
	for {
		peak := f.peak.Load()
		if now <= peak || f.peak.CompareAndSwap(peak, now) {
			break
		}
	}
	for _, k := range []plan.Kind{plan.KindStep, plan.KindProgress, plan.KindProgress} {
		if a, err := c.report(k); err != nil || a.Stop || a.Seq != c.seq {
			return fmt.Errorf("%s reports: %+v, %w", c.inv.Serial, a, err)
		}
		time.Sleep(rand.N(2 * time.Millisecond))
	}
	f.running.Add(-1) // before the server hears of it: another may start as soon as it does
	if _, err := c.report(plan.KindDone); err != nil {
		return err
	}
	return c.booted()
}

func newFleet(t testing.TB, machines int, o options) *fleet {
	f := &fleet{site: newSite(t, o)}
	var wg sync.WaitGroup // together, so that they share the commits
	for i := range machines {
		sn := fmt.Sprintf("SN-FLEET-%05d", i)
		f.machines = append(f.machines, f.site.computer(sn))
		f.machines[i].inv.NICs[0].MAC = fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255)
		wg.Go(func() {
			f.site.host(t, registry.Host{SN: sn, Rack: fmt.Sprint("r", i%4)})
			f.site.order(t, sn)
		})
	}
	wg.Wait()
	return f
}

func TestAFleetInstallsWithinItsLimits(t *testing.T) {
	for _, tt := range []struct {
		name     string
		machines int
		limits   registry.SlotLimits
		most     int64
	}{
		{"ten at a time", 200, registry.SlotLimits{Global: 10}, 10},
		{"three in each of four racks", 60, registry.SlotLimits{PerRack: 3}, 12},
		{"seven of an image", 40, registry.SlotLimits{PerImage: 7}, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, machines := newFleet(t, tt.machines, options{limits: tt.limits}), tt.machines
			ctx, stop := context.WithTimeout(t.Context(), 8*time.Minute)
			defer stop()
			var wg sync.WaitGroup
			for _, c := range f.machines {
				wg.Go(func() {
					if c.start(t) != "install" {
						t.Error("not started")
						return
					}
					if err := f.run(ctx, c); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if peak := f.peak.Load(); peak > tt.most || peak < tt.most/2 {
				t.Errorf("at most %d installed at once, and %d are allowed", peak, tt.most)
			}
			if f.waited.Load() == 0 {
				t.Error("none of them waited")
			}
			counts, err := f.site.store.Counts(t.Context())
			if err != nil || counts.Hosts[registry.Installed] != machines || counts.Orders[registry.OrderDone] != machines {
				t.Errorf("%+v, %v", counts, err)
			}
			if c := f.site.Counts(); int(c.Install) != machines || int(c.Booted) != machines || c.Failed != 0 || c.Denied != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestAMachineThatDiesInTheQueueDoesNotHoldItUp(t *testing.T) {
	f := newFleet(t, 3, options{limits: registry.SlotLimits{Global: 1}})
	for _, c := range f.machines {
		c.start(t)
	}
	first, dead, last := f.machines[0], f.machines[1], f.machines[2]
	first.mustClaim(t, plan.Install)
	if p := dead.mustClaim(t, plan.Wait); p.Place != 1 {
		t.Errorf("%+v", p)
	}
	if p := last.mustClaim(t, plan.Wait); p.Place != 2 {
		t.Errorf("%+v", p)
	}
	f.site.pass(plan.LostSeconds*time.Second + time.Second)
	if _, err := first.report(plan.KindDone); err != nil {
		t.Fatal(err)
	}
	last.mustClaim(t, plan.Install)
}

// BenchmarkBootPath is what a machine asks between iPXE and its disk: a script, a claim, four reports, the first boot.
// Seven requests of each machine, of two times as many machines as there are processors at a time.
func BenchmarkBootPath(b *testing.B) {
	f := newFleet(b, b.N, options{})
	var next atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := f.machines[next.Add(1)-1]
			if c.start(b) != "install" {
				b.Error("not started")
				return
			}
			if err := f.run(b.Context(), c); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(7*float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// BenchmarkLocalBoot is a machine that nobody wants to install: the script is all it asks.
func BenchmarkLocalBoot(b *testing.B) {
	s := newSite(b, options{})
	s.host(b, registry.Host{SN: "SN-WEB1"})
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c := s.computer("SN-WEB1")
		for pb.Next() {
			if c.start(b) != "localboot" {
				b.Error("it does not boot its disk")
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// BenchmarkWaiting is what a machine costs each time it asks for its place in a queue of five thousand.
func BenchmarkWaiting(b *testing.B) {
	f := newFleet(b, 5000, options{limits: registry.SlotLimits{Global: 1}})
	var next atomic.Int64
	f.machines[0].start(b)
	f.machines[0].mustClaim(b, plan.Install)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := next.Add(1); int(i) < len(f.machines); i = next.Add(1) {
				f.machines[i].start(b)
				if _, err := f.machines[i].claim(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := f.machines[1+next.Add(1)%4999]
			if p, err := c.claim(); err != nil || p.Action != plan.Wait {
				b.Errorf("%+v, %v", p, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
