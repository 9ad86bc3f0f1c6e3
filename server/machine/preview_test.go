package machine

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/image/seal"
	"imgbuild/server/registry"
)

func (s *site) preview(t *testing.T, o registry.Order) *registry.Order {
	t.Helper()
	o.SN, o.Image, o.By, o.Reason, o.Preview = "SN-WEB1", "web/1", "anna", "to see", true
	made, err := s.store.CreateOrder(t.Context(), o, 1)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestAPreviewFromOrderToOutlook(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1", IP: "10.0.0.5", Netmask: "24", Protect: true, Layout: &layout.Layout{Preset: layout.LVM}})
	o := s.preview(t, registry.Order{Disks: []string{"D1", "D2"}, Wipe: []string{"D1"}, Unseal: []string{"SN-OLD"}, Fresh: true})
	c := s.computer("SN-WEB1")
	if got := c.start(t); got != "preview" {
		t.Fatalf("the script says %s", got)
	}
	p := c.mustClaim(t, plan.Preview)
	if p.Order != o.ID || p.Manifest == "" || p.Token == "" || !slices.Equal(p.Disks, o.Disks) || !slices.Equal(p.Wipe, o.Wipe) || !slices.Equal(p.Unseal, o.Unseal) || !p.Fresh ||
		p.Layout == nil || p.Layout.Preset != layout.LVM || len(p.Seal) > 0 || p.Done != "" || p.CheckNetwork {
		t.Errorf("%+v", p)
	}
	if again := c.mustClaim(t, plan.Preview); again.Order != p.Order { // a claim whose answer was lost
		t.Errorf("%+v", again)
	}
	if other := s.computer("SN-WEB1"); other.start(t) != "localboot" {
		t.Error("another boot gets the preview too")
	}
	if h, err := s.store.Host(t.Context(), "SN-WEB1"); err != nil || h.State != registry.Known {
		t.Errorf("%+v, %v", h, err)
	}
	found := plan.Outlook{Disks: []plan.OutlookDisk{{Disk: plan.Disk{Path: "/dev/sda"}, Use: "erased"}}, Text: "a table\nof two lines\n"}
	rep := plan.Report{Schema: plan.Schema, Events: []plan.Event{{Seq: 1, Kind: plan.KindStep}, {Seq: 2, Kind: plan.KindPreview, Text: "done", Outlook: &found}}}
	var a plan.Answer
	if err := c.post(plan.EventsPath, rep, &a); err != nil || a.Seq != 2 || a.Stop {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := c.report(plan.KindInfo); err != nil || a.Stop {
		t.Errorf("a report after the preview: %+v, %v", a, err)
	}
	if got, err := s.store.Outlook(t.Context(), o.ID); err != nil || got.Text != found.Text || len(got.Disks) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if o, err := s.store.Order(t.Context(), o.ID); err != nil || o.State != registry.OrderDone {
		t.Errorf("%+v, %v", o, err)
	}
	if err := c.booted(); !refusedWith(err, 409) {
		t.Errorf("the first boot of a preview: %v", err)
	}
	if h, err := s.store.Host(t.Context(), "SN-WEB1"); err != nil || h.State != registry.Known || h.Booted != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if c.start(t) != "localboot" {
		t.Error("a preview that is over is made again")
	}
	if n := s.Counts(); n.Preview != 2 || n.Install != 0 {
		t.Errorf("%+v", n)
	}
}

func TestAPreviewThatFailsOrIsSilentLeavesTheHost(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	failed := s.preview(t, registry.Order{})
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Preview)
	if _, err := c.report(plan.KindFailed); err != nil {
		t.Fatal(err)
	}
	if o, err := s.store.Order(t.Context(), failed.ID); err != nil || o.State != registry.OrderFailed {
		t.Errorf("%+v, %v", o, err)
	}
	silent := s.preview(t, registry.Order{})
	c = s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Preview)
	w := watch{s: s.Server}
	w.deaf(s.clock().Add(-time.Hour))
	s.pass(lostAfter + time.Second)
	w.last, w.from = s.clock(), s.clock()
	w.look(t.Context(), s.clock())
	if o, err := s.store.Order(t.Context(), silent.ID); err != nil || o.State != registry.OrderFailed || !o.Lost {
		t.Errorf("%+v, %v", o, err)
	}
	if h, err := s.store.Host(t.Context(), "SN-WEB1"); err != nil || h.State != registry.Known {
		t.Errorf("%+v, %v", h, err)
	}
	if n := count(s.diary(t, "SN-WEB1"), "lost: nothing was heard of the machine for 1m31s while it made its preview: it is taken for lost"); n != 1 {
		t.Errorf("%q", s.diary(t, "SN-WEB1"))
	}
}

func TestWhatIsInstalledOnAProtectedHostIsSealedSo(t *testing.T) {
	s := newSite(t, options{})
	own := &layout.Layout{Preset: layout.LVM, Filesystem: "ext4"}
	s.host(t, registry.Host{SN: "SN-WEB1", Protect: true, Layout: &layout.Layout{Preset: layout.LVM}})
	if _, err := s.store.CreateOrder(t.Context(), registry.Order{SN: "SN-WEB1", Image: "web/1", By: "anna", Reason: "r", Layout: own, Done: "kexec"}, 2); err != nil {
		t.Fatal(err)
	}
	c := s.computer("SN-WEB1")
	c.start(t)
	p := c.mustClaim(t, plan.Install)
	sealed, err := seal.Parse(p.Seal)
	if err != nil || !sealed.Protect || !sealed.SignedBy(s.key.Public()) {
		t.Errorf("%+v, %v", sealed, err)
	}
	if p.Layout == nil || p.Layout.Filesystem != "ext4" || p.Done != "kexec" {
		t.Errorf("the order's own layout is not the plan's: %+v", p)
	}
}

func TestALayoutThatTheReleaseCannotMakeUsesNoOrderUp(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	o := s.order(t, "SN-WEB1")
	if _, err := s.store.PatchHost(t.Context(), "SN-WEB1", []byte(`{"layout":{"preset":"mirror"}}`), "anna", 0); err != nil {
		t.Fatal(err)
	}
	c := s.computer("SN-WEB1")
	c.start(t)
	p := c.mustClaim(t, plan.LocalBoot)
	if !strings.Contains(p.Reason, "the layout needs mdadm, which the initramfs of web/1 does not have") {
		t.Error(p.Reason)
	}
	if o, err := s.store.Order(t.Context(), o.ID); err != nil || o.State != registry.OrderOpen {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := s.store.PatchHost(t.Context(), "SN-WEB1", []byte(`{"layout":null}`), "anna", 0); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	c.mustClaim(t, plan.Install)
}

func TestAnOutlookWithoutAPreviewIsRefused(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	o := s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Install)
	rep := plan.Report{Schema: plan.Schema, Events: []plan.Event{{Seq: 1, Kind: plan.KindInfo, Outlook: &plan.Outlook{}}}}
	if err := c.post(plan.EventsPath, rep, nil); !refusedWith(err, 400) {
		t.Error(err)
	}
	rep.Events[0].Kind = plan.KindPreview // of an installation it is a line in the diary
	if err := c.post(plan.EventsPath, rep, nil); err != nil {
		t.Error(err)
	}
	if o, err := s.store.Order(t.Context(), o.ID); err != nil || o.State != registry.OrderConsumed {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := s.store.Outlook(t.Context(), o.ID); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
}
