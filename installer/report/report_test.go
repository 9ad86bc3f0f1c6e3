package report

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

type buffer []string

func (b *buffer) Line(c Class, text string) { *b = append(*b, string(c)+" "+text) }

func (b *buffer) String() string { return strings.Join(*b, "\n") }

func TestEveryKindOfEventBecomesTheLineThatConsolesAndTestsKnow(t *testing.T) {
	b := &buffer{}
	r := New(b)
	r.Step(2, 9, "choose the disk")
	r.Info("writing to %s (serial %s, %s)", "/dev/vda", "X1", Bytes(20<<30))
	r.Warn("unknown argument %q", "imgbuild.dsik")
	r.Progress(Progress{What: "rootfs", Done: 210 << 20, Total: 480 << 20, Rate: 38 << 20, Left: 7 * time.Second})
	r.Failed(errors.Join(errors.New("one"), errors.New("two \x1b[2J")))
	r.Advice("look")
	r.Done("booting")
	want := `I imgbuild: step 2/9 choose the disk
I imgbuild: writing to /dev/vda (serial X1, 20 GiB)
W imgbuild: warning: unknown argument "imgbuild.dsik"
P imgbuild: rootfs 43% 210 MiB of 480 MiB, 38 MiB/s, 7 s left
F imgbuild: failed: one; two ?[2J
F imgbuild: what to do: look
F imgbuild: done: booting`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b, want)
	}
}

func TestProgressIsShownOnceASecondAndWhenComplete(t *testing.T) {
	b := &buffer{}
	r := New(b)
	now := time.Unix(0, 0)
	r.now = func() time.Time { return now }
	for i := range int64(31) {
		r.Progress(Progress{What: "rootfs", Done: i, Total: 30})
		now = now.Add(100 * time.Millisecond)
	}
	if len(*b) != 4 || !strings.Contains((*b)[3], "100%") {
		t.Errorf("got\n%s", b)
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Bytes(0), "0 B"}, {Bytes(1023), "1023 B"}, {Bytes(1536), "1.5 KiB"}, {Bytes(10 << 10), "10 KiB"},
		{Bytes(1<<20 - 1), "1.0 MiB"}, {Bytes(3 << 40), "3.0 TiB"}, {Bytes(math.MaxInt64), "8.0 EiB"},
		{Duration(0), "0 s"}, {Duration(300 * time.Millisecond), "1 s"}, {Duration(125 * time.Second), "2 min 5 s"},
		{Duration(3780 * time.Second), "1 h 3 min"},
		{Progress{What: "x", Done: 5}.String(), "x 5 B"},
		{Progress{What: "x", Done: 5, Total: 10, Limit: 0.957, LimitBy: "disk", Mix: []Share{{"relay", 4}, {"origin", 1}}}.String(), "x 50% 5 B of 10 B, 95% of what the disk can do, 80% relay, 20% origin"},
		{Progress{What: "x", Done: 5, Total: 10, Mix: []Share{{"origin", 5}}}.String(), "x 50% 5 B of 10 B"},
		{Progress{What: "x", Done: 9, Total: 5}.String(), "x 100% 5 B of 5 B"},
		{Progress{What: "x", Done: math.MaxInt64/2 - 1, Total: math.MaxInt64 / 2}.String(), "x 99% 4.0 EiB of 4.0 EiB"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestAMeterFindsASteadyRateAndNoticesAStall(t *testing.T) {
	now := time.Unix(0, 0)
	m := newMeter("rootfs", 1000<<20, func() time.Time { return now })
	if p := m.Progress(); p.Rate != 0 || p.Left != 0 {
		t.Errorf("a rate before anything came: %+v", p)
	}
	for i := range int64(40) {
		now = now.Add(50 * time.Millisecond)
		m.Set((i + 1) << 20)
	}
	p := m.Progress()
	if math.Abs(p.Rate/(20<<20)-1) > 0.01 {
		t.Errorf("rate is %s/s and not 20 MiB/s", Bytes(int64(p.Rate)))
	}
	if math.Abs(p.Left.Seconds()-48) > 1 {
		t.Errorf("left is %s and not 48 s", p.Left)
	}
	now = now.Add(30 * time.Second)
	if p := m.Progress(); p.Rate > 200<<10 {
		t.Errorf("30 s after the last byte the rate is still %s/s", Bytes(int64(p.Rate)))
	}
	m.Set(0)
	if p := m.Progress(); p.Done != 0 || p.Rate < 0 {
		t.Errorf("after starting over: %+v", p)
	}
}

func ExampleProgress() {
	fmt.Println(Progress{What: "rootfs", Done: 1 << 20, Total: 4 << 20, Rate: 1 << 20, Left: 3 * time.Second})
	// Output: rootfs 25% 1.0 MiB of 4.0 MiB, 1.0 MiB/s, 3 s left
}
