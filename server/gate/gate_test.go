package gate

import (
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

const (
	sn    = "SN-0001"
	other = "SN-0002"
)

// hosts are all that the registry may answer with for a serial number.
func hosts() []*registry.Host {
	list := []*registry.Host{nil, {SN: other, State: registry.Ordered}, {SN: other, State: registry.Known, Live: &registry.Live{Image: "web"}}}
	for _, state := range []registry.State{registry.New, registry.Known, registry.Ordered, registry.Installing, registry.Installed, registry.Failed, registry.Lost} {
		for _, protect := range []bool{false, true} {
			for _, live := range []*registry.Live{nil, {Image: "web"}} {
				list = append(list, &registry.Host{SN: sn, State: state, Protect: protect, Live: live, UUID: "aa", MACs: []string{"52:54:00:00:00:01"}, Model: "R640"})
			}
		}
	}
	return append(list, &registry.Host{SN: sn, State: registry.Known, Live: &registry.Live{Image: "web/1"}, UUID: "aa", MACs: []string{"52:54:00:00:00:01"}, Model: "R640"})
}

// orders are all that the registry may answer with for a host.
func orders(now time.Time) []*registry.Order {
	list := []*registry.Order{nil, {ID: "o", SN: other, State: registry.OrderOpen, Expires: now.Add(time.Hour), Names: 2},
		{ID: "o", SN: other, State: registry.OrderOpen, Expires: now.Add(time.Hour), Names: 2, Preview: true}}
	for _, state := range []registry.OrderState{registry.OrderOpen, registry.OrderConsumed, registry.OrderDone, registry.OrderFailed, registry.OrderCancelled, registry.OrderExpired, "", "else"} {
		times, names := []time.Duration{-time.Hour, 0, time.Nanosecond}, []int{1, 2}
		if state != registry.OrderOpen && state != registry.OrderConsumed {
			times, names = times[2:], names[1:] // as good as an order can be
		}
		for _, expires := range times {
			for _, names := range names {
				for _, boot := range []string{"", "boot-1"} {
					for phase := range 3 { // waits, installs, has finished
						o := &registry.Order{ID: "o", SN: sn, State: state, Expires: now.Add(expires), Boot: boot, Names: names}
						if phase > 0 {
							o.Started = now
						}
						if phase > 1 {
							o.Finished = now
						}
						preview := *o
						preview.Preview = true
						list = append(list, o, &preview)
					}
				}
			}
		}
	}
	return list
}

// observations are machines, and what they say.
func observations() []Observation {
	var list []Observation
	for _, serial := range []Observation{{Serial: sn}, {}, {Serial: "To be filled by O.E.M."}, {Serial: sn, SerialProblem: "it is junk"}, {Serial: other}, {Serial: "sn-0001"}, {Serial: sn + " "}} {
		for _, says := range []Observation{{}, {UUID: "AA", MACs: []string{"52:54:00:00:00:09", "52:54:00:00:00:01"}, Product: " r640 "},
			{UUID: "bb"}, {MACs: []string{"52:54:00:00:00:02"}}, {Product: "R740"}} {
			for _, start := range starts() {
				o := says
				o.Serial, o.SerialProblem, o.Claim, o.Boot, o.Offered, o.Live = serial.Serial, serial.SerialProblem, start.Claim, start.Boot, start.Offered, start.Live
				list = append(list, o)
			}
			if serial.Serial != sn {
				break // what it says besides is compared with nothing
			}
		}
	}
	return list
}

// starts are a boot loader that asks, and what an installer can have been started for.
func starts() []Observation {
	list := []Observation{{}, {Boot: "boot-1", Offered: true, Live: "web/1"}}
	for _, boot := range []string{"", "boot-1", "boot-2"} {
		for _, live := range []string{"", "web/1", "web/2", "webs/1"} {
			list = append(list, Observation{Claim: true, Boot: boot, Live: live})
		}
		list = append(list, Observation{Claim: true, Boot: boot, Offered: true})
	}
	return list
}

// may says of each combination what the rules are, each rule for itself: it is written as people say it, and not as the gate
// works.
func may(now time.Time, p Policy, h *registry.Host, ord *registry.Order, o Observation) plan.Action {
	identified := o.SerialProblem == "" && (o.Serial == sn || o.Serial == other || o.Serial == "sn-0001" || o.Serial == sn+" ")
	if identified && h == nil && p.InspectUnknown {
		return plan.Inspect
	}
	writtenDown := identified && h != nil && h.SN == o.Serial && h.State != registry.New
	hasOrder := writtenDown && ord != nil && ord.SN == h.SN
	openInTime := hasOrder && ord.State == "open" && ord.Expires.After(now)
	anybodysBoot := openInTime && !o.Claim
	offeredBoot := openInTime && o.Claim && o.Boot != "" && o.Offered
	sameBoot := hasOrder && ord.State == "consumed" && o.Claim && o.Boot != "" && ord.Boot == o.Boot && ord.Finished.IsZero()
	same := o.UUID != "bb" && o.Product != "R740" && (len(o.MACs) == 0 || len(o.MACs) == 2)
	anothersOrder := ord != nil && !hasOrder
	isInstalled := hasOrder && ord.State == "consumed"
	if writtenDown && h.Live != nil && !anothersOrder && !openInTime && !isInstalled {
		started := !o.Claim || o.Live == "web/1" || o.Live == "web/2" && h.Live.Image == "web"
		switch {
		case !started:
			return plan.LocalBoot
		case !same && h.UUID != "":
			return plan.Inspect
		}
		return plan.Live
	}
	if !anybodysBoot && !offeredBoot && !sameBoot {
		return plan.LocalBoot
	}
	if h.Protect && ord.Names < 2 && ord.Started.IsZero() && !ord.Preview {
		return plan.LocalBoot
	}
	if !same && h.UUID != "" {
		return plan.Inspect
	}
	if ord.Preview {
		return plan.Preview
	}
	return plan.Install
}

func TestEveryCombinationOfHostOrderAndMachine(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	all, seen, failures := 0, map[plan.Action]int{}, 0
	machines := observations()
	for _, h := range hosts() {
		for _, ord := range orders(now) {
			for _, o := range machines {
				for _, p := range []Policy{{}, {InspectUnknown: true}} {
					v := Decide(now, p, h, ord, o)
					all++
					seen[v.Action]++
					want := may(now, p, h, ord, o)
					consume := (want == plan.Install || want == plan.Preview) && o.Claim && ord.State == registry.OrderOpen
					if ord != nil && ord.Preview && v.Action == plan.Install {
						t.Fatalf("a preview became an installation: host %+v\norder %+v\nmachine %+v", h, ord, o)
					}
					if v.Action != want || v.Consume != consume || strings.TrimSpace(v.Reason) == "" {
						t.Errorf("host %+v\norder %+v\nmachine %+v\n%+v\ngot %+v, want %s, consume %v", h, ord, o, p, v, want, consume)
						if failures++; failures > 5 {
							t.FailNow()
						}
					}
				}
			}
		}
	}
	t.Logf("%d combinations: %v", all, seen)
	for _, a := range []plan.Action{plan.Install, plan.Preview, plan.Live, plan.Inspect, plan.LocalBoot} {
		if seen[a] == 0 {
			t.Errorf("none of them is answered with %s", a)
		}
	}
}

func TestAMismatchIsToldInWords(t *testing.T) {
	now := time.Now()
	host := &registry.Host{SN: sn, State: registry.Ordered, UUID: "aa", MACs: []string{"52:54:00:00:00:01"}, Model: "R640"}
	order := &registry.Order{ID: "o1", SN: sn, State: registry.OrderOpen, Expires: now.Add(time.Hour), By: "alice", Reason: "a new disk"}
	for name, c := range map[string]struct {
		o    Observation
		want string
	}{
		"the UUID":             {Observation{UUID: "bb"}, "its UUID is bb and the registry has aa"},
		"the model":            {Observation{Product: "R740"}, `its model is "R740" and the registry has "R640"`},
		"all MACs":             {Observation{MACs: []string{"52:54:00:00:00:02"}}, "none of its MAC addresses (52:54:00:00:00:02) is in the registry (52:54:00:00:00:01)"},
		"nothing":              {Observation{UUID: "AA", MACs: []string{"52:54:00:00:00:01"}, Product: "R640 "}, "order o1 by alice: a new disk"},
		"what it does not say": {Observation{}, "order o1 by alice: a new disk"},
	} {
		c.o.Serial = sn
		if v := Decide(now, Policy{}, host, order, c.o); !strings.HasSuffix(v.Reason, c.want) {
			t.Errorf("%s differs: %+v", name, v)
		}
	}
	if v := Decide(now, Policy{}, &registry.Host{SN: sn, State: registry.Known}, order, Observation{Serial: sn, UUID: "x", Product: "y", MACs: []string{"z"}}); v.Action != plan.Install {
		t.Errorf("what the registry does not say contradicts: %+v", v)
	}
}

func BenchmarkDecide(b *testing.B) {
	now := time.Now()
	host := &registry.Host{SN: sn, State: registry.Ordered, MACs: []string{"52:54:00:00:00:01"}}
	order := &registry.Order{ID: "o1", SN: sn, State: registry.OrderOpen, Expires: now.Add(time.Hour), By: "alice", Reason: "a new disk"}
	o := Observation{Serial: sn, MACs: []string{"52:54:00:00:00:01"}}
	for b.Loop() {
		Decide(now, Policy{}, host, order, o)
	}
}
