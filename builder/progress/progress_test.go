package progress

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func play(r Reporter) {
	r.Start(Stage{1, 2, "packages", "install"})
	r.Step(Step{Text: "installing bash", Done: 1, Total: 10})
	r.Step(Step{Text: "installing glibc", Done: 2, Total: 10})
	r.Note("mind the gap")
	r.Done(StageTime{Name: "packages", Duration: 1500 * time.Millisecond, Note: "10 packages"})
	r.Start(Stage{2, 2, "squashfs", "pack"})
	r.Step(Step{Text: "hashed", Done: 512, Total: 1024, Bytes: true})
	r.Done(StageTime{Name: "squashfs", Duration: 65 * time.Second, Bytes: 3 << 30, Reused: true})
	r.Finish(Summary{
		Name: "web", Version: "1", Dir: "/out/web/1", Total: 2 * time.Minute,
		Stages: []StageTime{{Name: "packages", Duration: time.Second}, {Name: "squashfs", Duration: 65 * time.Second, Bytes: 3 << 30}},
		Files:  []FileSize{{"rootfs.squashfs", 3 << 30}},
	})
}

func TestPlainLinesSayEverythingOnce(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(0, 0)
	p := &plain{w: &b, now: func() time.Time { now = now.Add(3 * time.Second); return now }}
	play(p)
	want := `[1/2] packages: install
      [2/10] installing glibc
      note: mind the gap
      done in 1.5 s: 10 packages
[2/2] squashfs: pack
      nothing to do

stage                    time        size
packages                1.0 s
squashfs           1 min 05 s    3.00 GiB
together           2 min 00 s

rootfs.squashfs                  3.00 GiB

web 1 is in /out/web/1
`
	if b.String() != want {
		t.Errorf("got:\n%s", b.String())
	}
}

func TestAReleaseThatIsUpToDateIsOneSentence(t *testing.T) {
	var b bytes.Buffer
	NewPlain(&b).Finish(Summary{Name: "web", Version: "1", Dir: "/d", Reused: true, Why: "nothing changed", Total: 90 * time.Millisecond})
	if got := b.String(); got != "web 1 is up to date: nothing changed\n  /d (0.1 s)\n" {
		t.Errorf("got %q", got)
	}
}

func TestJSONIsOneObjectALine(t *testing.T) {
	var b bytes.Buffer
	play(NewJSON(&b))
	var events []string
	for line := range strings.Lines(b.String()) {
		var e struct {
			Event string `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		events = append(events, e.Event)
	}
	if got := strings.Join(events, " "); got != "stage step step note done stage step done finish" {
		t.Errorf("events are %s", got)
	}
}

func TestATerminalEndsWithTheTable(t *testing.T) {
	var b bytes.Buffer
	play(NewTerminal(&b))
	for _, s := range []string{"packages", "mind the gap", "web 1 is in /out/web/1", "✓", "="} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("there is no %q in:\n%q", s, b.String())
		}
	}
}

func TestSizesAndTimesAreWrittenForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 2048: "2 KiB", 3 << 20: "3.0 MiB", 480 << 20: "480 MiB", 5 << 29: "2.50 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0.0 s", 59 * time.Second: "59.0 s", 61 * time.Second: "1 min 01 s"} {
		if got := Seconds(d); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
}
