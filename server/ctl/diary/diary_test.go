package diary

import (
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// told makes events as a server stores them: the machine's clock is an hour and two minutes slow, and it sends several at once.
func told() []registry.Event {
	t0 := time.Date(2026, 1, 30, 22, 50, 0, 0, time.UTC)
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	slow := 62 * time.Minute
	var seq int64
	machine := func(sent, happened float64, kind plan.Kind, text string, more ...int64) registry.Event {
		seq++
		m := plan.Event{Seq: seq, Time: at(happened).Add(-slow), Kind: kind, Text: text}
		if kind == plan.KindStep {
			m.Step, m.Of = int(more[0]), 3
		}
		if kind == plan.KindProgress {
			m.Done, m.Total = more[0], more[1]
		}
		return registry.Event{Time: at(sent), SN: "A", Order: "o1", Kind: string(kind), Text: text, Machine: &m}
	}
	return []registry.Event{
		{Time: at(0), SN: "A", Order: "o1", Kind: "ordered", By: "ada", Text: "web/1.2 ordered: new rack; the order waits until 2026-01-31T22:50:00Z"},
		{Time: at(4200), SN: "A", Order: "o1", Kind: "claimed", Text: "the machine has booted and taken the order"},
		{Time: at(4200), SN: "A", Order: "o1", Kind: "started", Text: "the installation of web/1.2 starts"},
		machine(4201, 4201, plan.KindStep, "make file systems", 1),
		machine(4210, 4203, plan.KindStep, "unpack", 2),
		machine(4210, 4204, plan.KindProgress, "rootfs.squashfs", 0, 400<<20),
		machine(4210, 4209, plan.KindProgress, "rootfs.squashfs", 100<<20, 400<<20),
		machine(4225, 4224, plan.KindProgress, "rootfs.squashfs", 400<<20, 400<<20),
		machine(4225, 4224, plan.KindWarn, "the clock is wrong\nby an hour"),
		machine(4225, 4225, plan.KindStep, "write the boot loader\x1b[2J", 3),
		machine(4226, 4226, plan.KindDone, ""),
		{Time: at(4280), SN: "A", Order: "o1", Kind: "booted", Text: "web1 has booted"},
	}
}

func TestADiaryReadsFromOrderToFirstBoot(t *testing.T) {
	want := `Friday, 30 January 2026
22:50:00                web/1.2 ordered: new rack; the order waits until Saturday, 31 January, 22:50 (ada)

Saturday, 31 January 2026
00:00:00                the machine has booted and taken the order
00:00:00                the installation of web/1.2 starts
00:00:01          +1 s  [1/3] make file systems
00:00:03          +2 s  [2/3] unpack
00:00:24         +21 s  rootfs.squashfs: 400 MiB in 20 s (20 MiB/s)
00:00:24                warning: the clock is wrong
                        by an hour
00:00:25          +1 s  [3/3] write the boot loader [2J
00:00:26          +1 s  the disk is installed
00:01:20         +54 s  web1 has booted
                        1 h 11 min from order to first boot
`
	var b strings.Builder
	d := New(&b, time.UTC)
	events := told()
	d.Clock(events)
	for _, e := range events {
		if err := d.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestATransferThatBreaksOffIsTold(t *testing.T) {
	var b strings.Builder
	d := New(&b, time.UTC)
	for _, e := range told()[:7] {
		_ = d.Add(e)
	}
	if strings.Contains(b.String(), "rootfs") {
		t.Errorf("a transfer is told before it ends:\n%s", b.String())
	}
	_ = d.Add(registry.Event{Time: time.Date(2026, 1, 31, 0, 1, 50, 0, time.UTC), Kind: "lost", Text: "nothing heard for 90 s"})
	if !strings.Contains(b.String(), "rootfs.squashfs: 100 MiB of 400 MiB\n") || !strings.HasSuffix(b.String(), "nothing heard for 90 s\n") {
		t.Errorf("got\n%s", b.String())
	}
}

func TestAClockThatIsSetOnTheWayMovesNothingBack(t *testing.T) {
	var b strings.Builder
	d := New(&b, time.UTC)
	t0 := time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)
	for i, clock := range []time.Time{t0, t0.AddDate(-10, 0, 0), {}, t0.Add(3 * time.Second)} {
		_ = d.Add(registry.Event{Time: t0.Add(time.Duration(i) * time.Second), Kind: "info", Machine: &plan.Event{Kind: plan.KindInfo, Time: clock, Text: "x"}})
	}
	if strings.Count(b.String(), "2026\n") != 1 || !strings.Contains(b.String(), "12:00:03") {
		t.Errorf("got\n%s", b.String())
	}
}
