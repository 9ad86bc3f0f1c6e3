package registry

import (
	"errors"
	"strings"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
)

// previewed is a preview of SN-1 that a boot has taken and started.
func previewed(t *testing.T, s *Store, now time.Time) *Order {
	t.Helper()
	ctx := t.Context()
	o, err := s.CreateOrder(ctx, Order{SN: "SN-1", Image: "web/1.0", By: "alice", Reason: "to see", Preview: true}, 1)
	if err != nil {
		t.Fatal(err)
	}
	digest := "boot of " + o.ID
	if err := s.Offer(ctx, "SN-1", o.ID, digest, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Consume(ctx, o.ID, digest, now); err != nil {
		t.Fatal(err)
	}
	if place, err := s.StartOrder(ctx, o.ID, "token of "+o.ID, SlotLimits{Global: 1}, now); place != 0 || err != nil {
		t.Fatal(place, err)
	}
	return o
}

func TestAPreviewLeavesItsHostAsItIs(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		write(t, s, Host{SN: "SN-1", Protect: true}, Host{SN: "SN-2"})
		run := taken(t, s, "SN-2", "boot-2", now)
		if place, err := s.StartOrder(ctx, run.ID, "token-2", SlotLimits{Global: 1}, now); place != 0 || err != nil {
			t.Fatal(place, err)
		}
		o := previewed(t, s, now) // although the host is protected and the one slot is taken
		if got := state(t, s, "SN-1"); got != Known {
			t.Errorf("the host is %s", got)
		}
		if c, err := s.Counts(ctx); err != nil || c.Installing != 1 || c.Waiting != 0 {
			t.Errorf("%+v, %v", c, err)
		}
		if list, err := s.Queue(ctx); err != nil || len(list) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := s.Outlook(ctx, o.ID); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if err := s.MarkBooted(ctx, o.ID, plan.Booted{Serial: "SN-1"}, now); !errors.Is(err, ErrConflict) {
			t.Errorf("what a preview installed has booted: %v", err)
		}
		want := plan.Outlook{Disks: []plan.OutlookDisk{{Disk: plan.Disk{Path: "/dev/sda", Holds: []string{"ext4"}}, Use: "erased"}},
			Scheme: &layout.Scheme{Firmware: layout.UEFI}, Text: "line 1\x1b[2J\nline\t2\n", Refused: "it is\nmounted"}
		events := []plan.Event{{Seq: 1, Kind: plan.KindDone}, {Seq: 2, Kind: plan.KindPreview, Text: "said"}, {Seq: 3, Kind: plan.KindPreview, Text: "here it is", Outlook: &want}, {Seq: 4, Kind: plan.KindInfo}}
		if seq, err := s.Report(ctx, o.ID, events, now); seq != 4 || err != nil {
			t.Fatal(seq, err)
		}
		got, err := s.Outlook(ctx, o.ID)
		if err != nil || got.Text != "line 1[2J\nline 2\n" || got.Refused != "it is mounted" || len(got.Disks) != 1 || got.Disks[0].Path != "/dev/sda" || got.Disks[0].Use != "erased" || got.Scheme == nil || got.Scheme.Firmware != layout.UEFI {
			t.Errorf("%+v, %v", got, err)
		}
		o, err = s.Order(ctx, o.ID)
		if err != nil || o.State != OrderDone || !o.Preview || o.Ended.IsZero() || !o.Finished.IsZero() || state(t, s, "SN-1") != Known {
			t.Errorf("%+v, %v", o, err)
		}
		diary, err := s.Events(ctx, EventFilter{Order: o.ID, Kinds: []string{"ordered", "started", "preview"}})
		if err != nil || len(diary) != 4 || !strings.HasPrefix(diary[0].Text, "a preview of web/1.0 ordered") || diary[1].Text != "the preview of web/1.0 starts" || diary[2].Text != "said" || diary[3].Text != "an installation would be refused: it is mounted" || !diary[3].Preview || diary[3].Machine == nil || diary[3].Machine.Outlook != nil {
			t.Errorf("%+v, %v", diary, err)
		}
	})
}

func TestAPreviewThatIsTooMuchFails(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		write(t, s, Host{SN: "SN-1"})
		now := time.Now()
		o := previewed(t, s, now)
		huge := &plan.Outlook{Text: strings.Repeat("a line\n", 100_000), Disks: make([]plan.OutlookDisk, 30_000)}
		if _, err := s.Report(t.Context(), o.ID, []plan.Event{{Seq: 1, Kind: plan.KindPreview, Outlook: huge}}, now); err != nil {
			t.Fatal(err)
		}
		if o, err := s.Order(t.Context(), o.ID); err != nil || o.State != OrderFailed || state(t, s, "SN-1") != Known {
			t.Errorf("%+v, %v", o, err)
		}
		o = previewed(t, s, now)
		huge.Disks = nil
		if _, err := s.Report(t.Context(), o.ID, []plan.Event{{Seq: 1, Kind: plan.KindPreview, Outlook: huge}}, now); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Outlook(t.Context(), o.ID); err != nil || len(got.Text) > maxOutlookText+10 || !strings.HasSuffix(got.Text, "a line\n…\n") || got.Disks == nil {
			t.Errorf("%v", err)
		}
	})
}

// TestAPreviewDoesNotEndWhatWasInstalledBefore: an installation whose machine was taken for lost is still what the host runs,
// whatever previews were made since.
func TestAPreviewDoesNotEndWhatWasInstalledBefore(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		write(t, s, Host{SN: "SN-1"})
		install := taken(t, s, "SN-1", "boot-1", now)
		if _, err := s.StartOrder(ctx, install.ID, "token-1", SlotLimits{}, now); err != nil {
			t.Fatal(err)
		}
		later := now.Add(time.Hour)
		if lost, err := s.LoseOrder(ctx, install.ID, later, "silent", later); !lost || err != nil {
			t.Fatal(lost, err)
		}
		preview := previewed(t, s, later)
		if _, err := s.Report(ctx, install.ID, []plan.Event{{Seq: 1, Kind: plan.KindStep}}, later); err != nil {
			t.Fatal(err)
		}
		if o, err := s.Order(ctx, install.ID); err != nil || o.State != OrderFailed || state(t, s, "SN-1") != Lost {
			t.Errorf("an installation lives again beside a preview: %+v, %v", o, err)
		}
		if lost, err := s.LoseOrder(ctx, preview.ID, later.Add(time.Hour), "silent", later); !lost || err != nil || state(t, s, "SN-1") != Lost {
			t.Fatal(lost, err)
		}
		if err := s.MarkBooted(ctx, install.ID, plan.Booted{Serial: "SN-1"}, later); err != nil || state(t, s, "SN-1") != Installed {
			t.Errorf("%v, the host is %s", err, state(t, s, "SN-1"))
		}
		// the preview's machine is heard again, and nobody has ordered anything since
		if _, err := s.Report(ctx, preview.ID, []plan.Event{{Seq: 1, Kind: plan.KindPreview, Outlook: &plan.Outlook{}}}, later); err != nil {
			t.Fatal(err)
		}
		if o, err := s.Order(ctx, preview.ID); err != nil || o.State != OrderDone || o.Lost || state(t, s, "SN-1") != Installed {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

func TestALayoutIsAHostsLikeEverythingElse(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		write(t, s, Host{SN: "SN-1", Layout: &layout.Layout{Preset: layout.Server, SwapSize: "2GiB"}})
		h, err := s.PatchHost(ctx, "SN-1", []byte(`{"layout":{"swap_size":null,"filesystem":"ext4"}}`), "alice", 0)
		if err != nil || h.Layout == nil || h.Layout.Preset != layout.Server || h.Layout.SwapSize != "" || h.Layout.Filesystem != "ext4" {
			t.Errorf("%+v, %v", h, err)
		}
		for patch, want := range map[string]string{
			`{"layout":{"filesystem":"zfs"}}`:                                   "layout.filesystem: ",
			`{"layout":{"moon":1}}`:                                             "layout.moon: there is no such field",
			`{"layout":{"disks":[{"partitions":[{"size":"1GiB","mnt":"/"}]}]}}`: "layout.disks[0].partitions[0].mnt: there is no such field",
			`{"layout":{"disks":[{"partitions":[{"size":"x"}]}]}}`:              "layout.disks[0].partitions[0].size: ",
		} {
			if _, err := s.PatchHost(ctx, "SN-1", []byte(patch), "alice", 0); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", patch, err, want)
			}
		}
		if h, err = s.PatchHost(ctx, "SN-1", []byte(`{"layout":null}`), "alice", 0); err != nil || h.Layout != nil {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

func write(t *testing.T, s *Store, hosts ...Host) {
	t.Helper()
	for _, h := range hosts {
		if _, _, err := s.PutHost(t.Context(), h, "alice", 0); err != nil {
			t.Fatal(err)
		}
	}
}
