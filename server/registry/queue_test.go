package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
)

func TestTheQueueIsFairWithinEachLimit(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		orders := map[string]*Order{}
		tokens := 0
		start := func(sn string, limits SlotLimits, want int) {
			t.Helper()
			tokens++
			place, err := s.StartOrder(ctx, orders[sn].ID, fmt.Sprintf("token-%d", tokens), limits, now)
			if place != want || err != nil {
				t.Errorf("%s has place %d, %v; want %d", sn, place, err, want)
			}
		}
		for i, h := range []Host{{SN: "SN-1", Rack: "r1"}, {SN: "SN-2", Rack: "r1"}, {SN: "SN-3", Rack: "r2"}, {SN: "SN-4", IP: "10.0.0.4", Netmask: "24"}, {SN: "SN-5", IP: "10.0.0.5", Netmask: "24"}, {SN: "SN-6"}, {SN: "SN-7"}} {
			if _, _, err := s.PutHost(ctx, h, "alice", 0); err != nil {
				t.Fatal(err)
			}
			orders[h.SN] = taken(t, s, h.SN, fmt.Sprint("boot-", i), now)
		}
		two := SlotLimits{PerRack: 1}
		start("SN-2", two, 2) // SN-1 came before it, and has not asked yet
		start("SN-1", two, 0)
		start("SN-1", two, 0) // once more: its answer was lost
		start("SN-2", two, 1)
		start("SN-3", two, 0) // another rack, though SN-2 waits
		start("SN-5", two, 3) // SN-4's subnet
		start("SN-4", two, 0)
		start("SN-7", two, 0) // no rack, no subnet: no limit
		list, err := s.Queue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range list {
			got = append(got, fmt.Sprintf("%s:%d", o.SN, o.Place))
		}
		if want := "SN-1:0 SN-3:0 SN-4:0 SN-7:0 SN-2:1 SN-5:2 SN-6:3"; strings.Join(got, " ") != want {
			t.Errorf("the queue is %v, want %s", got, want)
		}
		start("SN-6", SlotLimits{Global: 4}, 3)
		start("SN-6", SlotLimits{Global: 5}, 3) // one slot, and two before it
		start("SN-6", SlotLimits{PerImage: 4}, 3)
		start("SN-6", SlotLimits{Global: 5, PerRack: 1}, 0) // the two before it wait for their racks
		// A slot is free when the disk boots, and SN-2 gets it.
		if _, err := s.Report(ctx, orders["SN-1"].ID, []plan.Event{{Seq: 1, Kind: plan.KindDone}}, now); err != nil {
			t.Fatal(err)
		}
		start("SN-2", two, 0)
		// SN-5 is not heard any more: what comes after it does not wait for it.
		now = now.Add(2 * plan.LostSeconds * time.Second)
		if _, err := s.Report(ctx, orders["SN-4"].ID, []plan.Event{{Seq: 1, Kind: plan.KindFailed, Text: "no disk"}}, now); err != nil {
			t.Fatal(err)
		}
		orders["SN-8"] = func() *Order {
			if _, _, err := s.PutHost(ctx, Host{SN: "SN-8", IP: "10.0.0.8", Netmask: "24"}, "alice", 0); err != nil {
				t.Fatal(err)
			}
			return taken(t, s, "SN-8", "boot-8", now)
		}()
		start("SN-8", two, 0)
		counts, err := s.Counts(ctx)
		if err != nil || counts.Installing != 5 || counts.Waiting != 1 || counts.FirstBoot != 1 || counts.Hosts[Installing] != 6 || counts.Orders[OrderFailed] != 1 || counts.LastEvent == 0 {
			t.Errorf("%+v, %v", counts, err)
		}
		events, err := s.Events(ctx, EventFilter{SN: "SN-2", Kinds: []string{"queued", "started"}})
		if err != nil || len(events) != 2 || events[0].Text != "all slots are taken: place 2 in the queue" {
			t.Errorf("the diary of one that waited: %+v, %v", events, err)
		}
	})
}

func TestAnOrderThatCannotBeIsRefused(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		known(t, s, "SN-1")
		if _, _, err := s.PutHost(ctx, Host{SN: "SN-2", Protect: true, Image: "web/2.0"}, "alice", 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.SeeMachine(ctx, plan.Inventory{Serial: "SN-3"}); err != nil {
			t.Fatal(err)
		}
		good := Order{SN: "SN-1", Image: "web/1.0", By: "alice", Reason: "a new disk"}
		for name, c := range map[string]struct {
			change func(*Order)
			names  int
			is     error
			want   string
		}{
			"no host":               {func(o *Order) { o.SN = "SN-9" }, 1, ErrNotFound, "host SN-9"},
			"a new host":            {func(o *Order) { o.SN = "SN-3" }, 1, ErrConflict, "nobody has approved"},
			"nobody":                {func(o *Order) { o.By = " " }, 1, ErrInvalid, "by: "},
			"no reason":             {func(o *Order) { o.Reason = "" }, 1, ErrInvalid, "reason: "},
			"no image":              {func(o *Order) { o.Image = "" }, 1, ErrInvalid, "image: neither"},
			"an image, no version":  {func(o *Order) { o.Image = "web" }, 1, ErrInvalid, "image: "},
			"an end in the past":    {func(o *Order) { o.Expires = time.Now().Add(-time.Second) }, 1, ErrInvalid, "expires: "},
			"an unknown end":        {func(o *Order) { o.Done = "explode" }, 1, ErrInvalid, "done: "},
			"a disk of two lines":   {func(o *Order) { o.Disks = []string{"a", "a\nb"} }, 1, ErrInvalid, "disks[1]: "},
			"a disk twice":          {func(o *Order) { o.Disks = []string{"a", "b", "a"} }, 1, ErrInvalid, `disks[2]: "a" is named twice`},
			"a path with dots":      {func(o *Order) { o.Disks = []string{"/dev/../sda"} }, 1, ErrInvalid, "is not a path"},
			"too many disks":        {func(o *Order) { o.Disks = make([]string, 257) }, 1, ErrInvalid, "256 is the most"},
			"a seal of nobody":      {func(o *Order) { o.Unseal = []string{"SN-7", "Default string"} }, 1, ErrInvalid, "unseal[1]: "},
			"a layout with a fault": {func(o *Order) { o.Layout = &layout.Layout{Filesystem: "zfs"} }, 1, ErrInvalid, "layout.filesystem: "},
			"a preview with an end": {func(o *Order) { o.Preview, o.Done = true, "reboot" }, 1, ErrInvalid, "done: after a preview"},
			"an empty disk to wipe": {func(o *Order) { o.Wipe = []string{"a", ""} }, 1, ErrInvalid, "wipe[1]: "},
			"protected, named once": {func(o *Order) { o.SN = "SN-2" }, 1, ErrInvalid, "name it twice"},
		} {
			o := good
			c.change(&o)
			if _, err := s.CreateOrder(ctx, o, c.names); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
		}
		o, err := s.CreateOrder(ctx, Order{SN: "SN-2", By: "alice", Reason: "a new disk", Disks: []string{"/dev/sda", "WD-2"}, Wipe: []string{"WD-1", "WD-2"},
			Unseal: []string{"SN-7"}, Fresh: true, Layout: &layout.Layout{Preset: layout.Mirror}, Done: "kexec"}, 2)
		if err != nil || !slices.Equal(o.Disks, []string{"/dev/sda", "WD-2"}) || !slices.Equal(o.Unseal, []string{"SN-7"}) || !o.Fresh || o.Layout == nil || o.Layout.Preset != layout.Mirror || o.Preview || o.Image != "web/2.0" || o.Expires.Sub(o.Created) != OrderLife || len(o.Wipe) != 2 || o.Done != "kexec" || o.Names != 2 || !o.Live() {
			t.Errorf("%+v, %v", o, err)
		}
		if _, err := s.CreateOrder(ctx, *o, 2); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), o.ID) {
			t.Errorf("a second live order: %v", err)
		}
		if err := s.DeleteHost(ctx, "SN-2", "alice"); !errors.Is(err, ErrConflict) {
			t.Errorf("a host with a live order is deleted: %v", err)
		}
		for range 2 {
			if err := s.CancelOrder(ctx, o.ID, "bob", "not today"); err != nil {
				t.Error(err)
			}
		}
		if got := state(t, s, "SN-2"); got != Known {
			t.Errorf("after a cancelled order the host is %s", got)
		}
		if live, err := s.LiveOrder(ctx, "SN-2"); live != nil || err != nil {
			t.Errorf("%+v, %v", live, err)
		}
		if list, err := s.Orders(ctx, OrderFilter{States: []OrderState{OrderCancelled}, SN: "SN-2", Limit: 5}); err != nil || len(list) != 1 || list[0].Ended.IsZero() {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

func TestAMachineThatIsSilentIsLostUntilItIsHeard(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		known(t, s, "SN-1")
		o := taken(t, s, "SN-1", "boot-1", now)
		if _, err := s.StartOrder(ctx, o.ID, "token-1", SlotLimits{}, now); err != nil {
			t.Fatal(err)
		}
		sweep := func(at time.Time) bool {
			t.Helper()
			since := at.Add(-plan.LostSeconds * time.Second)
			list, err := s.Silent(ctx, since)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range list {
				if lost, err := s.LoseOrder(ctx, o.ID, since, "nothing was heard for 90 s", at); err != nil || !lost {
					t.Errorf("%v, %v", lost, err)
				}
			}
			return len(list) > 0
		}
		if sweep(now.Add(time.Minute)) {
			t.Error("it is lost after a minute")
		}
		if !sweep(now.Add(2*time.Minute)) || state(t, s, "SN-1") != Lost {
			t.Error("it is not lost after two")
		}
		if lost, err := s.LoseOrder(ctx, o.ID, now.Add(time.Hour), "", now); lost || err != nil {
			t.Errorf("it is lost twice: %v, %v", lost, err)
		}
		if _, err := s.Report(ctx, o.ID, nil, now.Add(3*time.Minute)); err != nil || state(t, s, "SN-1") != Installing {
			t.Errorf("it is not found: %v", err)
		}
		if _, err := s.Report(ctx, o.ID, []plan.Event{{Seq: 1, Kind: plan.KindDone}}, now.Add(4*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if sweep(now.Add(30 * time.Minute)) {
			t.Error("a machine that boots is lost too early")
		}
		if !sweep(now.Add(4*time.Minute + FirstBoot + 2*time.Minute)) {
			t.Error("a machine that never boots is never lost")
		}
		if err := s.MarkBooted(ctx, o.ID, plan.Booted{Hostname: "a\x1b[2J", Failed: []string{"x.service"}, BootSeconds: 40}, now.Add(3*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if o, err := s.Order(ctx, o.ID); err != nil || o.State != OrderDone || state(t, s, "SN-1") != Installed {
			t.Errorf("%+v, %v", o, err)
		}
		events, err := s.Events(ctx, EventFilter{Order: o.ID, Limit: 1, Last: true})
		if err != nil || events[0].Text != "a[2J has booted: , kernel , after 40 s; 1 units failed" {
			t.Errorf("%+v, %v", events, err)
		}
	})
}

func TestReportsAreKeptOnceAndSayNothingInTheServersName(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		known(t, s, "SN-1")
		o := taken(t, s, "SN-1", "boot-1", now)
		batch := []plan.Event{{Seq: 1, Kind: "booted", Text: "I am \x1b[31mred\nand say\x00 so\u202e"}, {Seq: 2, Kind: plan.KindWarn, Text: strings.Repeat("é", 10000)}, {Seq: 2, Kind: plan.KindInfo}}
		if seq, err := s.Report(ctx, o.ID, batch, now); seq != 2 || err != nil {
			t.Fatal(seq, err)
		}
		if seq, err := s.Report(ctx, o.ID, append(batch, plan.Event{Seq: 7, Kind: plan.KindFailed, Text: "no disk"}, plan.Event{Seq: 8, Kind: plan.KindInfo, Text: "the disk is as it was"}), now); seq != 8 || err != nil {
			t.Fatal(seq, err)
		}
		list, err := s.Events(ctx, EventFilter{Order: o.ID, After: 0})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, e := range list {
			kinds = append(kinds, e.Kind)
			if len(e.Text) > maxText+len("…") {
				t.Errorf("an event has %d bytes", len(e.Text))
			}
		}
		if got := strings.Join(kinds, " "); got != "ordered claimed info warn failed info" {
			t.Errorf("the diary has %s", got)
		}
		if list[2].Text != "I am [31mred and say so" || list[2].Machine.Seq != 1 {
			t.Errorf("%+v", list[2])
		}
		if got := state(t, s, "SN-1"); got != Failed {
			t.Errorf("the host is %s", got)
		}
		if _, err := s.Report(ctx, "nothing", nil, now); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestABootThatWasNotOfferedTheOrderDoesNotGetIt(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		known(t, s, "SN-1")
		known(t, s, "SN-2")
		o := ordered(t, s, "SN-1")
		offer := func(sn, order, digest string, at time.Time) {
			t.Helper()
			if err := s.Offer(ctx, sn, order, digest, at); err != nil {
				t.Fatal(err)
			}
		}
		offer("SN-1", "", "inspected", now)
		offer("SN-2", o.ID, "another's", now)
		offer("SN-1", "other", "another", now)
		offer("SN-1", o.ID, "old", now.Add(-OfferLife))
		offer("SN-1", o.ID, "good", now)
		if err := s.Offer(ctx, "SN-1", o.ID, "good", now); !errors.Is(err, ErrConflict) {
			t.Errorf("a nonce is given twice: %v", err)
		}
		for _, digest := range []string{"", "never", "inspected", "another's", "another", "old"} {
			if _, err := s.Consume(ctx, o.ID, digest, now); err == nil {
				t.Errorf("boot %q consumes the order", digest)
			}
		}
		if got, err := s.Offered(ctx, "good", now); err != nil || got == nil || *got != (Offer{SN: "SN-1", Order: o.ID}) {
			t.Error(got, err)
		}
		if got, err := s.Offered(ctx, "old", now); got != nil || err != nil {
			t.Error("an old nonce is known", err)
		}
		if _, err := s.Consume(ctx, o.ID, "good", o.Expires); !errors.Is(err, ErrConflict) {
			t.Errorf("an expired order is consumed: %v", err)
		}
		if _, err := s.PatchHost(ctx, "SN-1", []byte(`{"protect":true}`), "alice", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Consume(ctx, o.ID, "good", now); !errors.Is(err, ErrConflict) {
			t.Errorf("a host that was protected meanwhile is installed: %v", err)
		}
		if _, err := s.PatchHost(ctx, "SN-1", []byte(`{"protect":false}`), "alice", 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := s.Consume(ctx, o.ID, "good", now); err != nil {
				t.Error(err)
			}
		}
		// A machine that waits for long is still known by its nonce.
		if got, err := s.Offered(ctx, "good", now.Add(5*OfferLife)); err != nil || got == nil || got.SN != "SN-1" {
			t.Error(got, err)
		}
	})
}
