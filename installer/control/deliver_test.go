package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// delivery is a reporter whose events go to the server.
func delivery(t *testing.T, c *contract, every time.Duration) (*Events, *Delivery, *console) {
	t.Helper()
	said := &console{}
	e := NewEvents(report.New(said))
	e.Info("before the server was asked")
	cl := New(Options{Server: c.http.URL, Key: c.key.Public(), Boot: bootNonce, Report: e})
	d := cl.deliver(t.Context(), e, token, every)
	t.Cleanup(func() { d.stop(); <-d.done })
	return e, d, said
}

func TestAnInstallationIsADiaryOnTheServer(t *testing.T) {
	c := newContract(t)
	e, d, said := delivery(t, c, time.Minute)
	e.Step(1, 2, "first")
	for i := range int64(1000) {
		e.Progress(report.Progress{What: "rootfs", Done: i, Total: 1000, Rate: 5})
	}
	e.Progress(report.Progress{What: "rootfs", Done: 1000, Total: 1000})
	e.Warn("careful: %d", 3)
	if !d.End(plan.KindDone, "installed", 10*time.Second) {
		t.Error("not everything arrived")
	}
	want := "info before the server was asked\nstep first\nprogress rootfs\nwarn careful: 3\ndone installed\n"
	if got := c.texts(); got != want {
		t.Errorf("the server has\n%s", got)
	}
	if !strings.Contains(said.String(), "step 1/2 first") || !strings.Contains(said.String(), "warning: careful: 3") {
		t.Errorf("the console has\n%s", said)
	}
	for i, ev := range c.events {
		if i > 0 && ev.Seq <= c.events[i-1].Seq || ev.Time.IsZero() {
			t.Errorf("event %d: %+v", i, ev)
		}
	}
	if p := c.events[2]; p.Done != 1000 || p.Total != 1000 {
		t.Errorf("progress that nobody has seen yet was not replaced: %+v", p)
	}
}

func TestAServerThatIsAwayForAWhileGetsEverythingWhenItIsBack(t *testing.T) {
	c := newContract(t)
	c.status = []int{500, 502}
	e, d, said := delivery(t, c, time.Minute)
	for i := range 600 { // more than a batch
		e.Info("line %d", i)
	}
	c.until(func() bool { return len(c.events) > 500 })
	e.Step(2, 2, "last")
	if !d.End(plan.KindDone, "installed", 10*time.Second) {
		t.Error("not everything arrived")
	}
	got := c.texts()
	if !strings.Contains(got, "line 599\n") || strings.Count(got, "line ") != 600 || strings.Count(got, "going on without") != 1 || strings.Count(got, "answers again") != 1 {
		t.Errorf("the server has\n%.500s …\n%s", got, got[len(got)-300:])
	}
	if !strings.Contains(said.String(), "warning: tell the server what happens: the server answers 500") {
		t.Errorf("the console has\n%.500s", said)
	}
}

func TestAServerThatNeverComesBackHoldsUpNothingForLong(t *testing.T) {
	c := newContract(t)
	c.http.Close()
	e, d, _ := delivery(t, c, time.Minute)
	for i := range 3 * maxQueue {
		e.Progress(report.Progress{What: fmt.Sprint("file ", i%7), Done: int64(i)})
		e.Info("line %d", i)
	}
	d.Sync(t.Context(), 50*time.Millisecond)
	if _, stop := d.Stopped(); stop {
		t.Error("a server that is away wants nothing")
	}
	e.Step(9, 10, "kept")
	if d.End(plan.KindFailed, "kept too", 100*time.Millisecond) {
		t.Error("it arrived somewhere")
	}
	if n := len(e.queue); n > maxQueue+8 {
		t.Errorf("%d events are kept", n)
	}
	for _, want := range []string{"kept", "kept too"} {
		found := false
		for _, q := range e.queue {
			found = found || q.Text == want
		}
		if !found {
			t.Errorf("%q was dropped and remarks were kept", want)
		}
	}
}

func TestHeartbeatsAreSentWhereThereIsNothingToSay(t *testing.T) {
	c := newContract(t)
	_, d, _ := delivery(t, c, 10*time.Millisecond)
	c.until(func() bool { return c.beats >= 3 })
	d.End(plan.KindDone, "", 10*time.Second)
}

func TestTheServerCanStopWhatHasNotBegun(t *testing.T) {
	c := newContract(t)
	_, d, _ := delivery(t, c, time.Minute)
	d.Sync(t.Context(), 10*time.Second)
	if reason, stop := d.Stopped(); stop {
		t.Errorf("stopped: %s", reason)
	}
	c.with(func() { c.stop = "anna cancelled it" })
	d.Sync(t.Context(), 10*time.Second)
	if reason, stop := d.Stopped(); !stop || reason != "anna cancelled it" {
		t.Errorf("%q, %v", reason, stop)
	}
}

func TestAMachineIsAliveWhileItsOwnNetworkIsTried(t *testing.T) {
	c := newContract(t)
	_, d, _ := delivery(t, c, time.Minute)
	d.Sync(t.Context(), 10*time.Second)
	before := c.beats
	dialled := 0
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled++
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	if err := d.Via(t.Context(), dial); err != nil || dialled != 1 || c.beats != before+1 {
		t.Errorf("%v, dialled %d times, %d heartbeats", err, dialled, c.beats-before)
	}
	c.with(func() { c.stop = "anna cancelled it" })
	if err := d.Via(t.Context(), dial); err != nil {
		t.Error(err)
	}
	if reason, stop := d.Stopped(); !stop || reason != "anna cancelled it" {
		t.Errorf("%q, %v", reason, stop)
	}
	for _, status := range []int{403, 404, 422, 500, 503} {
		c.with(func() { c.status = []int{status} })
		if err := d.Via(t.Context(), dial); err != nil {
			t.Errorf("%d is an answer: %v", status, err)
		}
	}
	c.with(func() { c.status = []int{200} }) // and no JSON of ours
	if err := d.Via(t.Context(), dial); err == nil || !strings.Contains(err.Error(), "something else between") {
		t.Errorf("got %v", err)
	}
	none := errors.New("no route to host")
	if err := d.Via(t.Context(), func(context.Context, string, string) (net.Conn, error) { return nil, none }); !errors.Is(err, none) || strings.Contains(err.Error(), "Post") {
		t.Errorf("got %v", err)
	}
}

func TestAPreviewIsTheLastThingThatIsSaid(t *testing.T) {
	c := newContract(t)
	_, d, _ := delivery(t, c, time.Minute)
	long := strings.Repeat("x ", maxText)
	o := plan.Outlook{Refused: "the disk is not empty", Text: long, Disks: []plan.OutlookDisk{{Disk: plan.Disk{Path: "/dev/vda"}, Use: "erased"}}}
	if !d.Preview(o, 10*time.Second) {
		t.Error("not everything arrived")
	}
	got := c.events[len(c.events)-1]
	if got.Kind != plan.KindPreview || got.Text != o.Refused || got.Outlook == nil || got.Outlook.Text != long || got.Outlook.Disks[0].Path != "/dev/vda" {
		t.Errorf("the server has %+v", got)
	}
}

func TestATokenThatIsNoLongerTakenIsAStop(t *testing.T) {
	for _, status := range []int{401, 403, 404, 409, 410} {
		c := newContract(t)
		c.status = []int{status}
		_, d, _ := delivery(t, c, time.Minute)
		d.Sync(t.Context(), 10*time.Second)
		if reason, stop := d.Stopped(); !stop || !strings.Contains(reason, fmt.Sprint("because of ", status)) {
			t.Errorf("%d: %q, %v", status, reason, stop)
		}
		d.stop()
	}
}

func TestAnEventThatTheServerDoesNotTakeHoldsUpNoOther(t *testing.T) {
	c := newContract(t)
	c.poison = func(e plan.Event) bool { return e.Text == "poison" }
	e, d, said := delivery(t, c, time.Minute)
	e.Info("one")
	e.Info("poison")
	e.Info("two")
	if !d.End(plan.KindDone, "installed", 10*time.Second) {
		t.Error("not everything arrived")
	}
	if got := c.texts(); got != "info before the server was asked\ninfo one\ninfo two\ndone installed\n" {
		t.Errorf("the server has\n%s", got)
	}
	if strings.Count(said.String(), "does not take an event") != 1 {
		t.Errorf("the console has\n%s", said)
	}
}

func TestAServerThatKeepsNothingIsNotAskedInALoop(t *testing.T) {
	c := newContract(t)
	c.lazy = true
	_, d, _ := delivery(t, c, time.Minute)
	c.until(func() bool { return c.posts > 0 })
	if d.End(plan.KindDone, "installed", 300*time.Millisecond) {
		t.Error("it was taken for kept")
	}
	if c.posts > 4 {
		t.Errorf("%d posts", c.posts)
	}
}

func TestWhatIsLeftOutIsSaid(t *testing.T) {
	e := NewEvents(report.New(&console{}))
	for i := range maxQueue + 10 {
		e.Info("%d", i)
	}
	var last plan.Event
	for b := e.batch(maxBatch); len(b) > 0; b = e.batch(maxBatch) {
		last = b[len(b)-1]
		e.ack(last.Seq)
	}
	if last.Kind != plan.KindWarn || !strings.HasPrefix(last.Text, "10 events were left out") {
		t.Errorf("%+v", last)
	}
	e.Info("%s", strings.Repeat("ä", maxText))
	if b := e.batch(1); len(b[0].Text) > maxText+4 || !strings.HasSuffix(b[0].Text, "ä…") {
		t.Errorf("a text of %d bytes", len(b[0].Text))
	}
}

func TestAStoppedInstallationSaysSo(t *testing.T) {
	c := newContract(t)
	said := &console{}
	e := NewEvents(report.New(said))
	ctx, cancel := context.WithCancel(t.Context())
	d := New(Options{Server: c.http.URL, Report: e}).Deliver(ctx, e, token)
	cancel()
	if !d.End(plan.KindFailed, "somebody asked for a stop", 10*time.Second) || c.texts() != "failed somebody asked for a stop\n" {
		t.Errorf("the server has %q", c.texts())
	}
}
