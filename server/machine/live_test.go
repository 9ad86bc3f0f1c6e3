package machine

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
	"imgbuild/server/releases/releasetest"
)

// diskless is a host that runs web from memory, and its machine.
func (s *site) diskless(t *testing.T, sn, hostname string) *computer {
	t.Helper()
	s.host(t, registry.Host{SN: sn, Hostname: hostname, Rack: "r1", IP: "10.0.0.7", Netmask: "24", GW: "10.0.0.1", Users: []plan.User{{Name: "root", SSHKeys: []string{"ssh-ed25519 AAAA me"}}},
		Live: &registry.Live{Image: "web", LiveOptions: plan.LiveOptions{Size: "25%", Persist: []string{"/var=VAR"}}}})
	return s.computer(sn)
}

func (s *site) liveBoot(t *testing.T, sn string) registry.LiveBoot {
	t.Helper()
	h, err := s.store.Host(t.Context(), sn)
	if err != nil {
		t.Fatal(err)
	}
	if h.LiveBoot == nil {
		return registry.LiveBoot{}
	}
	return *h.LiveBoot
}

// runs boots the machine, and claims.
func (c *computer) runs(t *testing.T) plan.Plan {
	t.Helper()
	if got := c.start(t); got != "live" {
		t.Fatalf("the script says %s", got)
	}
	return c.mustClaim(t, plan.Live)
}

func TestAMachineRunsFromMemoryAsOftenAsItBoots(t *testing.T) {
	s := newSite(t, options{})
	c := s.diskless(t, "SN-LIVE1", "node1")
	for range 3 {
		p := c.runs(t)
		if want := (plan.LiveOptions{Size: "25%", Persist: []string{"/var=VAR"}}); p.Live == nil || !reflect.DeepEqual(*p.Live, want) {
			t.Errorf("%+v", p.Live)
		}
		if p.Manifest != s.http.URL+"/images/web/2/manifest.json" || p.Transport != plan.TransportRelay || !reflect.DeepEqual(p.Mirrors, []string{"http://mirror.example.org/images/web/2/"}) {
			t.Errorf("%+v", p)
		}
		if p.Host.Hostname != "node1" || p.Host.Network == nil || p.Host.Network.Ethernets[0].Addresses[0].String() != "10.0.0.7/24" || len(p.Host.Users) != 1 {
			t.Errorf("%+v", p.Host)
		}
		if p.Order != "" || len(p.Seal) > 0 || p.Done != "" || p.CheckNetwork || p.Reason != "SN-LIVE1 is to run web from memory" {
			t.Errorf("%+v", p)
		}
		c.seq = 0
		if a, err := c.report(plan.KindStep, plan.KindProgress); err != nil || a.Seq != 2 || a.Stop {
			t.Errorf("%+v, %v", a, err)
		}
		first := c.token
		if p := c.mustClaim(t, plan.Live); p.Token == first {
			t.Error("the same token twice")
		}
		if a, err := c.report(plan.KindDone); err != nil || a.Seq != 3 || a.Stop {
			t.Errorf("%+v, %v", a, err)
		}
		if b := s.liveBoot(t, "SN-LIVE1"); b.State != registry.LiveRunning || b.Image != "web/2" {
			t.Errorf("%+v", b)
		}
		if err := c.booted(); err != nil {
			t.Error(err)
		}
		s.pass(time.Hour)
	}
	if h, err := s.store.Host(t.Context(), "SN-LIVE1"); err != nil || h.State != registry.Known || h.Booted != nil || h.Inventory == nil {
		t.Errorf("%+v, %v", h, err)
	}
	if n := s.Counts(); n.Live != 6 || n.Install != 0 || n.Failed != 0 {
		t.Errorf("%+v", n)
	}
	c.inv.Serial, c.token = "SN-LIVE2", ""
	if err := c.booted(); !refusedWith(err, 401) {
		t.Error(err)
	}
}

func TestABootRunsTheReleaseWhoseKernelItStarted(t *testing.T) {
	s := newSite(t, options{})
	c := s.diskless(t, "SN-LIVE1", "")
	c.start(t)
	releasetest.Write(t, s.dir, releasetest.Release{Name: "web", Version: "3", Key: releasetest.Key(t), RootfsBytes: 100})
	if p := c.mustClaim(t, plan.Live); !strings.Contains(p.Manifest, "/web/2/") {
		t.Error(p.Manifest)
	}
	s.pass(time.Minute)
	c.start(t)
	s.host(t, registry.Host{SN: "SN-LIVE1", Live: &registry.Live{Image: "web/1"}})
	if p := c.mustClaim(t, plan.LocalBoot); p.Reason != "this boot was not started to run web/1 from memory" {
		t.Error(p.Reason)
	}
	c.start(t)
	s.host(t, registry.Host{SN: "SN-LIVE1"})
	c.mustClaim(t, plan.LocalBoot)
	if got := c.start(t); got != "localboot" {
		t.Error(got)
	}
}

func TestAnOrderGoesBeforeWhatRunsFromMemory(t *testing.T) {
	s := newSite(t, options{})
	c := s.diskless(t, "SN-LIVE1", "")
	c.start(t)
	o := s.order(t, "SN-LIVE1") // somebody orders while it boots
	if p := c.mustClaim(t, plan.LocalBoot); !strings.Contains(p.Reason, "was not started for order "+o.ID) {
		t.Error(p.Reason)
	}
	if got := c.start(t); got != "install" {
		t.Fatal(got)
	}
	c.mustClaim(t, plan.Install)
	if _, err := c.report(plan.KindDone); err != nil {
		t.Fatal(err)
	}
	if got := c.start(t); got != "localboot" {
		t.Errorf("what was installed does not boot for the first time: %s", got)
	}
	if err := c.booted(); err != nil {
		t.Fatal(err)
	}
	c.runs(t) // until somebody says that it no more is to
}

func TestANonceRunsNothingForAnotherMachine(t *testing.T) {
	s := newSite(t, options{})
	a, b := s.diskless(t, "SN-LIVE1", ""), s.computer("SN-LIVE2")
	s.host(t, registry.Host{SN: "SN-LIVE2", Live: &registry.Live{Image: "web"}})
	a.start(t)
	b.boot = a.boot
	b.mustClaim(t, plan.LocalBoot)
	if diary := strings.Join(s.diary(t, "SN-LIVE1"), "\n"); !strings.Contains(diary, `refused: a machine that says it has the serial number "SN-LIVE2" came with the boot that was started for SN-LIVE1`) {
		t.Error(diary)
	}
	a.inv.UUID = "4c4c4544-0000-1000-8000-00000000000f"
	if _, err := s.store.PatchHost(t.Context(), "SN-LIVE1", []byte(`{"uuid":"4c4c4544-0000-1000-8000-000000000001"}`), "anna", 0); err != nil {
		t.Fatal(err)
	}
	a.mustClaim(t, plan.Inspect)
	a.inv.UUID = ""
	a.mustClaim(t, plan.Live)
	a.start(t)
	if p := a.mustClaim(t, plan.Wait); p.RetrySeconds != 10 {
		t.Errorf("%+v", p)
	}
	s.pass(10 * time.Second)
	a.mustClaim(t, plan.Live)
}

func TestLiveMachinesReadFromEachOther(t *testing.T) {
	s := newSite(t, options{})
	installs := s.computer("SN-WEB1")
	s.host(t, registry.Host{SN: "SN-WEB1", Rack: "r1"})
	if _, err := s.store.CreateOrder(t.Context(), registry.Order{SN: "SN-WEB1", Image: "web/2", By: "anna", Reason: "new"}, 1); err != nil {
		t.Fatal(err)
	}
	node := s.diskless(t, "SN-LIVE1", "node1")
	node.runs(t)
	installs.start(t)
	installs.mustClaim(t, plan.Install)
	say := func(c *computer, r plan.Swarm) plan.Upstreams {
		t.Helper()
		r.Schema, r.Total, r.Port, r.Sources = plan.Schema, 100<<20, 9000, []plan.SwarmSource{}
		var u plan.Upstreams
		if err := c.post(plan.SwarmPath, r, &u); err != nil {
			t.Fatal(err)
		}
		return u
	}
	if u := say(node, plan.Swarm{Got: 50 << 20, Held: 50 << 20, Rate: 10 << 20}); len(u.Upstreams) == 0 || u.Upstreams[0].Kind != plan.SourceOrigin || len(u.Secret) == 0 {
		t.Errorf("%+v", u)
	}
	u := say(installs, plan.Swarm{})
	if id := s.liveBoot(t, "SN-LIVE1").ID; len(u.Upstreams) == 0 || u.Upstreams[0].ID != id || u.Upstreams[0].Kind != plan.SourceRelay || u.Upstreams[0].Ticket == "" {
		t.Errorf("%+v, want %s", u.Upstreams, id)
	}
	v := s.o.Swarm.View("web")
	if len(v) != 1 || len(v[0].Machines) != 2 || v[0].Machines[0].Hostname != "node1" || v[0].Machines[0].Group != "rack r1" {
		t.Errorf("%+v", v)
	}
}

func TestALiveMachineIsLostOnlyUntilItRuns(t *testing.T) {
	s := newSite(t, options{})
	w := watch{s: s.Server}
	w.deaf(s.clock())
	a, b := s.diskless(t, "SN-LIVE1", ""), s.computer("SN-LIVE2")
	s.host(t, registry.Host{SN: "SN-LIVE2", Live: &registry.Live{Image: "web/1"}})
	a.runs(t)
	b.runs(t)
	if _, err := b.report(plan.KindDone); err != nil {
		t.Fatal(err)
	}
	s.pass(lostAfter + time.Second)
	if err := w.round(t.Context(), s.clock()); err != nil {
		t.Fatal(err)
	}
	if x, y := s.liveBoot(t, "SN-LIVE1"), s.liveBoot(t, "SN-LIVE2"); x.State != registry.LiveLost || y.State != registry.LiveRunning || s.Counts().Lost != 1 {
		t.Errorf("%+v, %+v, %d lost", x, y, s.Counts().Lost)
	}
	if _, err := a.report(plan.KindFailed); err != nil {
		t.Fatal(err)
	}
	if x := s.liveBoot(t, "SN-LIVE1"); x.State != registry.LiveFailed {
		t.Errorf("%+v", x)
	}
}
