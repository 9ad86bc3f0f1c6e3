package pid1

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/installer/report"
)

func goroutine(f func()) { go f() }

func TestADeadConsoleHoldsUpNobodyAndLosesNoFailure(t *testing.T) {
	c := NewConsoles(goroutine)
	deadR, deadW, err := os.Pipe() // nobody reads at first
	if err != nil {
		t.Fatal(err)
	}
	liveR, liveW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Add("ttyS0", deadW)
	c.Add("ttyS1", liveW)
	live := make(chan string, 10000)
	go func() {
		for s := bufio.NewScanner(liveR); s.Scan(); {
			live <- s.Text()
		}
	}()
	await := func(lines <-chan string, want string) (seen []string) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for {
			select {
			case l := <-lines:
				if seen = append(seen, l); l == want {
					return seen
				}
			case <-limit:
				t.Fatalf("%q did not come", want)
			}
		}
	}
	c.Line(report.ClassFailure, "failed: first")
	for i := range 3000 {
		c.Line(report.ClassProgress, fmt.Sprintf("progress %d", i))
		c.Line(report.ClassInfo, strings.Repeat("x", 100)+fmt.Sprint(i))
		if i%50 == 49 { // the live one keeps up
			await(live, strings.Repeat("x", 100)+fmt.Sprint(i))
		}
	}
	c.Line(report.ClassFailure, "failed: last")
	await(live, "failed: last")
	start := time.Now()
	c.Flush(300 * time.Millisecond)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("flush waited %s for a dead console", d)
	}
	// Somebody plugs a terminal in.
	dead := make(chan string, 10000)
	go func() {
		for s := bufio.NewScanner(deadR); s.Scan(); {
			dead <- s.Text()
		}
	}()
	text := strings.Join(await(dead, "failed: last"), "\n")
	if !strings.Contains(text, "failed: first") || !strings.Contains(text, "lines were left out: this console is too slow") {
		t.Errorf("lost a failure, or did not say that lines are missing:\n%.2000s", text)
	}
	if n := strings.Count(text, "\n"); n > 2000 {
		t.Errorf("%d lines were kept for a dead console", n)
	}
}

func TestAConsoleThatIsFoundLateSeesWhatWasSaid(t *testing.T) {
	dir := t.TempDir()
	proc, active := filepath.Join(dir, "consoles"), filepath.Join(dir, "active")
	write := func(p, s string) {
		if err := os.WriteFile(p, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(proc, "ttyS0                -W- (EC p a)    4:64\nnetcon0              -W- (E  N  )\n")
	write(active, "tty0 ttyS0\n")
	write(filepath.Join(dir, "ttyS0"), "")
	c := NewConsoles(goroutine)
	c.Line(report.ClassInfo, "imgbuild: hello")
	c.Line(report.ClassProgress, "imgbuild: rootfs 1%")
	c.Find(proc, active, dir)
	c.Find(proc, active, dir)
	c.Flush(5 * time.Second)
	if b, _ := os.ReadFile(filepath.Join(dir, "ttyS0")); string(b) != "imgbuild: hello\n" {
		t.Errorf("the serial line got %q", b)
	}
	write(filepath.Join(dir, "tty0"), "") // a screen, whose driver was loaded later
	c.Find(proc, active, dir)
	c.Line(report.ClassProgress, "imgbuild: rootfs 2%")
	c.Flush(5 * time.Second)
	if b, _ := os.ReadFile(filepath.Join(dir, "tty0")); string(b) != "\r\x1b[Kimgbuild: hello\n\r\x1b[Kimgbuild: rootfs 2%" {
		t.Errorf("the screen got %q", b)
	}
}

func TestConsolesAreThoseThatTheKernelKnows(t *testing.T) {
	dir := t.TempDir()
	proc, active := filepath.Join(dir, "c"), filepath.Join(dir, "a")
	os.WriteFile(proc, []byte("tty0                 -WU (EC p  )    4:7\nttyS1                -W- (E  p a)    4:65\n../evil  x\n"), 0o644)
	os.WriteFile(active, []byte("ttyS1 hvc0\n"), 0o644)
	if got := consoleNames(proc, active); !reflect.DeepEqual(got, []string{"tty0", "ttyS1", "hvc0"}) {
		t.Errorf("got %q", got)
	}
	for name, want := range map[string]bool{"tty0": true, "tty12": true, "ttyS0": false, "hvc0": false, "tty": false, "ttyAMA0": false} {
		if isScreen(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func TestWhatIsMountedOnTopIsUnmountedFirst(t *testing.T) {
	p := filepath.Join(t.TempDir(), "mountinfo")
	os.WriteFile(p, []byte(`1 1 0:2 / / rw - rootfs rootfs rw
22 1 0:5 / /proc rw - proc proc rw
23 1 0:6 / /dev rw - devtmpfs devtmpfs rw
30 1 254:4 / /run/imgbuild/root rw - xfs /dev/vda4 rw
31 30 254:3 / /run/imgbuild/root/boot rw - ext4 /dev/vda3 rw
32 1 254:2 / /mnt/with\040blank rw shared:1 - vfat /dev/vda2 rw
nonsense
`), 0o644)
	got, err := mountPoints(p)
	if err != nil || !reflect.DeepEqual(got, []string{"/mnt/with blank", "/run/imgbuild/root/boot", "/run/imgbuild/root"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAPanicsMessageIsKeptHoweverLongItsTrace(t *testing.T) {
	var w tail
	for i := range 500 {
		w.add(fmt.Sprint("noise ", i))
	}
	w.add("panic: something broke")
	for i := range 500 {
		w.add(fmt.Sprint("goroutine ", i))
	}
	s := w.String()
	if !strings.HasPrefix(s, "panic: something broke\ngoroutine 0\n") || strings.Count(s, "\n") > 250 {
		t.Errorf("kept %.200s", s)
	}
}

func TestTheWorkersLinesArriveWithTheirClass(t *testing.T) {
	var b strings.Builder
	p := &Pipe{w: &b}
	report.New(p).Failed(fmt.Errorf("no\ndisk"))
	fmt.Fprint(p, "level=DEBUG msg=x\nlevel=DEBUG msg=y\n")
	p.Line(heartbeat, "")
	w := &worker{records: make(chan record, 10)}
	w.read(strings.NewReader(b.String()))
	close(w.records)
	var got []string
	for r := range w.records {
		got = append(got, string(r.class)+r.text)
	}
	want := []string{"Fimgbuild: failed: no; disk", "Dlevel=DEBUG msg=x", "Dlevel=DEBUG msg=y", "H"}
	if !reflect.DeepEqual(got, want) || !w.failed.Load() {
		t.Errorf("got %q", got)
	}
}

func TestTheLogIsBounded(t *testing.T) {
	p := filepath.Join(t.TempDir(), "run/install.log")
	l := openLog(p, false)
	for range 90 {
		l.line(debugLine, strings.Repeat("x", 100_000))
	}
	b, err := os.ReadFile(p)
	if err != nil || len(b) > maxLog+200_000 || !strings.HasSuffix(string(b), "the log ends here: it is full\n") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
