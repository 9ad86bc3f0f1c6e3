package board

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

func t0() time.Time { return time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC) }

func server(after int, kind, text string) registry.Event {
	return registry.Event{Time: t0().Add(time.Duration(after) * time.Second), SN: "A", Kind: kind, Text: text}
}

func machine(after int, m plan.Event) registry.Event {
	e := server(after, string(m.Kind), m.Text)
	e.Machine = &m
	return e
}

func TestAnInstallationOnTheBoard(t *testing.T) {
	b := New([]string{"A"}, "")
	b.Host(registry.Host{SN: "A", Hostname: "web1", Rack: "r1", State: registry.Known})
	b.Host(registry.Host{SN: "B"})
	for _, step := range []struct {
		e    registry.Event
		line string
		want []string // state, done, rate, left, from, phase
	}{
		{server(0, "ordered", "web/1 ordered: x"), "A web1: web/1 ordered: x", []string{"ordered", "", "", "", "", "waits for the machine to boot"}},
		{server(60, "claimed", "claimed"), "A web1: claimed", []string{"ordered", "", "", "", "", "starts"}},
		{server(60, "queued", "all slots are taken: place 3 in the queue"), "A web1: all slots are taken: place 3 in the queue", []string{"ordered", "", "", "", "", "all slots are taken: place 3 in the queue"}},
		{server(90, "started", "it starts"), "A web1: it starts", []string{"installing", "", "", "", "", "starts"}},
		{machine(91, plan.Event{Kind: plan.KindStep, Step: 4, Of: 9, Text: "unpack"}), "A web1: [4/9] unpack", []string{"installing", "", "", "", "", "4/9 unpack"}},
		{machine(92, plan.Event{Kind: plan.KindProgress, Text: "rootfs", Done: 1 << 20, Total: 100 << 20, Rate: 1 << 20}), "", []string{"installing", "1 %", "1.0 MiB/s", "1 min 39 s", "", "4/9 unpack"}},
		{machine(93, plan.Event{Kind: plan.KindProgress, Text: "rootfs", Done: 25 << 20, Total: 100 << 20, Rate: 25 << 20, Limit: .934, Mix: map[plan.SourceKind]int64{plan.SourceRelay: 24 << 20, plan.SourceOrigin: 1 << 20}}),
			"A web1: rootfs: 25 % of 100 MiB, 25 MiB/s, 93 % of what network and disk can do, from relay 96 %, origin 4 %",
			[]string{"installing", "25 %", "25 MiB/s (93 %)", "3 s", "relay 96 %, origin 4 %", "4/9 unpack"}},
		{machine(94, plan.Event{Kind: plan.KindProgress, Text: "rootfs", Done: 29 << 20, Total: 100 << 20, Rate: 25 << 20}), "", []string{"installing", "29 %", "25 MiB/s", "3 s", "", "4/9 unpack"}},
		{server(190, "lost", "silent for 90 s"), "A web1: silent for 90 s", []string{"lost", "", "", "", "", "lost: silent for 90 s"}},
		{server(191, "found", "heard again"), "A web1: heard again", []string{"installing", "", "", "", "", "4/9 is heard again"}},
		{machine(192, plan.Event{Kind: plan.KindDone}), "A web1: the disk is installed", []string{"installing", "", "", "", "", "4/9 is installed; its system boots"}},
		{server(250, "booted", "web1 has booted"), "A web1: web1 has booted", []string{"installed", "", "", "", "", "web1 has booted"}},
	} {
		line := b.Apply(step.e)
		row := b.Rows()[0].Cells(step.e.Time)
		if got := append([]string{row[3]}, row[4:]...); line != step.line || !reflect.DeepEqual(got, step.want) {
			t.Errorf("after %s: %q, %q\nwant %q, %q", step.e.Kind, line, got, step.line, step.want)
		}
	}
	if over, bad := b.Over(); !over || bad != 0 || len(b.Rows()) != 1 {
		t.Errorf("over %v, bad %d, %d rows", over, bad, len(b.Rows()))
	}
}

func TestABootFromMemoryOnTheBoard(t *testing.T) {
	b := New(nil, "")
	live := func(e registry.Event) registry.Event { e.Live = true; return e }
	host := registry.Host{SN: "A", Hostname: "node1", State: registry.Installed, LiveBoot: &registry.LiveBoot{Image: "web/1", State: registry.LiveRunning}}
	if b.Host(host); b.Has("A") {
		t.Error("a host that runs is among those that install")
	}
	b.Begin(host, true)
	for _, step := range []struct {
		e    registry.Event
		line string
		want []string // state, done, rate, left, from, phase
	}{
		{live(server(0, "live", "it has booted to run web/2 from memory")), "A node1: it has booted to run web/2 from memory", []string{"live", "", "", "", "", "starts"}},
		{live(machine(1, plan.Event{Kind: plan.KindStep, Step: 2, Of: 3, Text: "fetch"})), "A node1: [2/3] fetch", []string{"live", "", "", "", "", "2/3 fetch"}},
		{live(machine(2, plan.Event{Kind: plan.KindProgress, Text: "rootfs", Done: 30 << 20, Total: 100 << 20, Rate: 10 << 20})), "A node1: rootfs: 30 % of 100 MiB, 10 MiB/s", []string{"live", "30 %", "10 MiB/s", "7 s", "", "2/3 fetch"}},
		{live(server(100, "lost", "silent")), "A node1: silent", []string{"live", "", "", "", "", "lost: silent"}},
		{live(server(101, "found", "heard")), "A node1: heard", []string{"live", "", "", "", "", "2/3 is heard again"}},
		{live(machine(102, plan.Event{Kind: plan.KindDone})), "A node1: the image runs from memory", []string{"live", "", "", "", "", "runs from memory"}},
		{server(200, "ordered", "web/3 ordered"), "A node1: web/3 ordered", []string{"ordered", "", "", "", "", "waits for the machine to boot"}},
	} {
		line := b.Apply(step.e)
		if got := b.Rows()[0].Cells(step.e.Time)[3:]; line != step.line || !reflect.DeepEqual(got, step.want) {
			t.Errorf("after %s: %q, %q\nwant %q, %q", step.e.Kind, line, got, step.line, step.want)
		}
	}
	for kind, bad := range map[plan.Kind]int{plan.KindDone: 0, plan.KindFailed: 1} {
		b := New([]string{"A"}, "")
		b.Host(registry.Host{SN: "A", State: registry.Known})
		b.Apply(live(server(0, "live", "")))
		if over, _ := b.Over(); over {
			t.Error("a boot that begins is over")
		}
		b.Apply(live(machine(1, plan.Event{Kind: kind, Text: "x"})))
		if over, n := b.Over(); !over || n != bad {
			t.Errorf("%s: over %v, bad %d", kind, over, n)
		}
	}
}

func TestEndings(t *testing.T) {
	for kind, bad := range map[string]int{"lost": 1, "failed": 1, "cancelled": 1, "expired": 1, "booted": 0, "done": 0} {
		b := New([]string{"A"}, "")
		b.Host(registry.Host{SN: "A", State: registry.Known})
		b.Apply(server(0, "ordered", ""))
		if over, _ := b.Over(); over {
			t.Errorf("an order is over")
		}
		b.Apply(server(1, kind, "why"))
		if over, n := b.Over(); !over || n != bad {
			t.Errorf("%s: over %v, bad %d", kind, over, n)
		}
	}
	b := New([]string{"A"}, "")
	b.Host(registry.Host{SN: "A"})
	b.Apply(server(0, "started", ""))
	if line := b.Apply(machine(1, plan.Event{Kind: plan.KindFailed, Text: "no disk"})); line != "A: FAILED: no disk" {
		t.Error(line)
	}
}

func TestWhoIsWatched(t *testing.T) {
	hosts := []registry.Host{{SN: "A", Rack: "r1", State: registry.Known}, {SN: "B", Rack: "r2", State: registry.Installing}, {SN: "C", Rack: "r1", State: registry.Installed}}
	for _, c := range []struct {
		name string
		b    *Board
		want string
	}{
		{"by serial number", New([]string{"A", "C"}, ""), "A C"},
		{"a rack", New(nil, "r1"), "A C"},
		{"all that install", New(nil, ""), "B"},
	} {
		var got []string
		for _, h := range hosts {
			c.b.Host(h)
		}
		for _, r := range c.b.Rows() {
			got = append(got, r.SN)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
	all := New(nil, "")
	all.Begin(registry.Host{SN: "M", State: registry.Known}, false)
	all.Begin(registry.Host{SN: "N", State: registry.Known}, true)
	if all.Has("M") || !all.Has("N") {
		t.Error("a host that begins is not on the board")
	}
	few := New([]string{"A"}, "")
	if watched, _ := few.Watches("B"); watched {
		t.Error("a host that was not named is watched")
	}
}

func TestLongSilenceIsShown(t *testing.T) {
	b := New([]string{"A"}, "")
	b.Host(registry.Host{SN: "A"})
	b.Apply(server(0, "started", ""))
	if cells := fmt.Sprint(b.Rows()[0].Cells(t0().Add(2 * time.Minute))); !strings.Contains(cells, "nothing new for 2 min 00 s") {
		t.Error(cells)
	}
}

func TestAPreviewDoesNotShowInItsHostsRow(t *testing.T) {
	b := New([]string{"SN1"}, "")
	b.Host(registry.Host{SN: "SN1", State: registry.Installed})
	before := b.Rows()[0]
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, e := range []registry.Event{
		{Kind: "ordered", Text: "a preview of web/1 ordered"}, {Kind: "claimed", Text: "the machine has booted"}, {Kind: "started", Text: "the preview starts"},
		{Kind: "step", Text: "looks", Machine: &plan.Event{Kind: plan.KindStep, Text: "looks"}}, {Kind: "lost", Text: "silent"}, {Kind: "found", Text: "heard"},
		{Kind: "failed", Text: "no", Machine: &plan.Event{Kind: plan.KindFailed, Text: "no"}},
	} {
		e.SN, e.Preview, e.Time = "SN1", true, at
		if line := b.Apply(e); line == "" {
			t.Errorf("%s is not told", e.Kind)
		}
	}
	if after := b.Rows()[0]; !reflect.DeepEqual(after, before) {
		t.Errorf("the row was %+v and is %+v", before, after)
	}
}
