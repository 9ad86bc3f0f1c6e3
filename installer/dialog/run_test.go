package dialog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/installer/answers"
	"imgbuild/installer/report"
)

// vt is a terminal: it understands what terminal sends, and fails the test on anything else.
type vt struct {
	t *testing.T

	mu      sync.Mutex
	changed chan struct{} // closed at the next change
	s       *screen
	reverse bool
	pending string
}

func newVT(t *testing.T) *vt { return &vt{t: t, s: newScreen(), changed: make(chan struct{})} }

// Write shows bytes, which may end inside of a sequence.
func (v *vt) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := v.pending + string(p)
	v.pending = ""
	for len(text) > 0 {
		switch {
		case text[0] == '\r':
			v.s.col = 0
			text = text[1:]
		case text[0] == '\n':
			v.s.row = min(v.s.row+1, rows-1) // it would scroll, which the tests do not look at
			text = text[1:]
		case text[0] == 0x1b:
			end := strings.IndexAny(text, "HJKm")
			if end < 0 {
				v.pending, text = text, ""
				continue
			}
			v.sequence(text[:end+1])
			text = text[end+1:]
		default:
			if text[0] < ' ' || text[0] > '~' || v.s.col >= cols {
				v.t.Errorf("the character %q at row %d, column %d", text[0], v.s.row, v.s.col)
				return len(p), nil
			}
			v.s.chars[v.s.row][v.s.col], v.s.reverse[v.s.row][v.s.col] = text[0], v.reverse
			v.s.col++
			text = text[1:]
		}
	}
	close(v.changed)
	v.changed = make(chan struct{})
	return len(p), nil
}

func (v *vt) sequence(s string) {
	switch s {
	case "\x1b[0m", "\x1b[7m":
		v.reverse = s == "\x1b[7m"
	case "\x1b[2J":
		row, col := v.s.row, v.s.col
		v.s = newScreen()
		v.s.row, v.s.col = row, col
	case "\x1b[K":
		for c := v.s.col; c < cols; c++ {
			v.s.chars[v.s.row][c], v.s.reverse[v.s.row][c] = ' ', false
		}
	default:
		if n, err := fmt.Sscanf(s, "\x1b[%d;%dH", &v.s.row, &v.s.col); n != 2 || err != nil {
			v.t.Errorf("the sequence %q", s)
		}
		v.s.row--
		v.s.col--
	}
}

// wait returns the screen as soon as a text is on it.
func (v *vt) wait(text string) string {
	v.t.Helper()
	for {
		v.mu.Lock()
		shown, changed := dump(v.s), v.changed
		v.mu.Unlock()
		if strings.Contains(shown, text) {
			return shown
		}
		select {
		case <-changed:
		case <-v.t.Context().Done():
			v.t.Fatalf("waiting for %q:\n%s", text, shown)
		}
	}
}

// session is a dialog that runs on a terminal.
type session struct {
	*vt
	keys   *io.PipeWriter
	escape chan time.Time // when Esc has waited long enough for more
	result chan outcome
}

type outcome struct {
	out Outcome
	err error
}

func start(t *testing.T, ctx context.Context, o Options) *session {
	in, keys := io.Pipe()
	s := &session{vt: newVT(t), keys: keys, escape: make(chan time.Time), result: make(chan outcome, 1)}
	o.In, o.Out = in, s.vt
	r := newRunner(o)
	r.after = func(d time.Duration) <-chan time.Time {
		if d == escapeWait {
			return s.escape
		}
		return time.After(d)
	}
	go func() {
		out, err := r.run(ctx)
		s.result <- outcome{out, err}
		in.Close()
	}()
	t.Cleanup(func() { keys.Close() })
	return s
}

// typed sends keys one byte at a time, as a serial line does.
func (s *session) typed(text string) {
	s.t.Helper()
	for i := range len(text) {
		if _, err := s.keys.Write([]byte{text[i]}); err != nil {
			s.t.Fatalf("type %q: %v", text, err)
		}
	}
}

// through goes to the last question.
func (s *session) through() {
	s.wait("1 of 6")
	s.typed(" \r\r")
	s.wait("2 of 6")
	s.typed("\r\r")
	s.wait("3 of 6")
	s.typed("node1\t\t\r")
	s.wait("4 of 6")
	s.typed("geheim\rgeheim\r\r\r")
	s.wait("What would be done")
	s.wait("written: all")
	s.typed("\r")
	s.wait("6 of 6")
}

func options() Options {
	o := machine()
	o.Preview = func(context.Context, answers.Answers) (string, error) { return "written: all", nil }
	return o
}

func TestAnInstallationFromItsBeginningToItsEnd(t *testing.T) {
	o := options()
	goOn := make(chan struct{})
	var got answers.Answers
	o.Install = func(_ context.Context, a answers.Answers, r report.Reporter) (Result, error) {
		got = a
		r.Step(7, 9, "write the system")
		r.Progress(report.Progress{What: "rootfs", Done: 1 << 20, Total: 4 << 20})
		r.Info("half way")
		<-goOn
		return Result{Text: "All is well."}, nil
	}
	s := start(t, t.Context(), o)
	s.through()
	s.typed("sda\r\r")
	s.wait("Step 7 of 9: write the system")
	shown := s.wait("25%")
	if !strings.Contains(shown, "half way") {
		t.Errorf("got\n%s", shown)
	}
	s.typed("\x03")
	s.wait("cannot be left")
	close(goOn)
	s.wait("All is well.")
	s.typed("\r")
	r := <-s.result
	if r.err != nil || !r.out.Installed || !r.out.Began || got.Disks[0] != "S3Z1" || !strings.HasPrefix(got.Host.Users[0].Password, "$6$") {
		t.Errorf("got %+v, %v and the answers %+v", r.out, r.err, got)
	}
}

func TestAFailureIsShownAndReturned(t *testing.T) {
	o := options()
	broken := errors.New("write /dev/sda: input/output error")
	o.Install = func(context.Context, answers.Answers, report.Reporter) (Result, error) {
		return Result{Advice: "replace the disk"}, broken
	}
	s := start(t, t.Context(), o)
	s.through()
	s.typed("sda\r\r")
	s.wait("replace the disk")
	s.typed("\r")
	if r := <-s.result; !errors.Is(r.err, broken) || r.out.Installed || !r.out.Began {
		t.Errorf("got %+v, %v", r.out, r.err)
	}
}

func TestEscAloneIsTakenWhenNothingFollows(t *testing.T) {
	s := start(t, t.Context(), options())
	s.wait("1 of 6")
	s.typed("\x1b[B") // split into its bytes, and no Esc
	s.wait("GPT with 3 partitions")
	s.typed("\x1b")
	s.escape <- time.Time{}
	s.wait("Leave the installer?")
	s.typed("y")
	if r := <-s.result; r.err != nil || r.out.Began {
		t.Errorf("got %+v, %v", r.out, r.err)
	}
}

func TestTheScreenIsSentAgainAfterCtrlL(t *testing.T) {
	s := start(t, t.Context(), options())
	s.wait("1 of 6")
	if _, err := s.vt.Write([]byte("\x1b[5;1Hkernel: noise")); err != nil {
		t.Fatal(err)
	}
	s.wait("noise")
	s.typed("\x0c")
	shown := s.wait("[ ] sda")
	if strings.Contains(shown, "noise") {
		t.Errorf("got\n%s", shown)
	}
}

func TestAPreviewThatNobodyWaitsForIsCancelled(t *testing.T) {
	o := options()
	asked, over := make(chan struct{}, 1), make(chan error, 1)
	o.Preview = func(ctx context.Context, _ answers.Answers) (string, error) {
		asked <- struct{}{}
		<-ctx.Done()
		over <- ctx.Err()
		return "late", nil
	}
	s := start(t, t.Context(), o)
	s.wait("1 of 6")
	s.typed(" \r\r\r\r\t\t\r\r\r\r\ry")
	<-asked
	s.wait("Looking at the disks")
	s.typed("\r") // back
	s.wait("4 of 6")
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestALostKeyboardEndsTheDialogOnlyBeforeAnInstallation(t *testing.T) {
	s := start(t, t.Context(), options())
	s.wait("1 of 6")
	s.keys.Close()
	if r := <-s.result; !errors.Is(r.err, io.EOF) || r.out.Began {
		t.Errorf("got %+v, %v", r.out, r.err)
	}

	o := options()
	goOn := make(chan struct{})
	o.Install = func(context.Context, answers.Answers, report.Reporter) (Result, error) {
		<-goOn
		return Result{Text: "All is well."}, nil
	}
	s = start(t, t.Context(), o)
	s.through()
	s.typed("sda\r\r")
	s.wait("The installation is running.")
	s.keys.Close()
	close(goOn)
	if r := <-s.result; r.err != nil || !r.out.Installed {
		t.Errorf("got %+v, %v", r.out, r.err)
	}
}

func TestACancelledContextEndsTheDialogAndTellsTheInstallation(t *testing.T) {
	cause := errors.New("the machine is switched off")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := start(t, ctx, options())
	s.wait("1 of 6")
	cancel(cause)
	if r := <-s.result; !errors.Is(r.err, cause) || r.out.Began {
		t.Errorf("got %+v, %v", r.out, r.err)
	}

	ctx, cancel = context.WithCancelCause(t.Context())
	o := options()
	o.Install = func(ctx context.Context, _ answers.Answers, _ report.Reporter) (Result, error) {
		<-ctx.Done()
		return Result{}, fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	s = start(t, ctx, o)
	s.through()
	s.typed("sda\r\r")
	s.wait("The installation is running.")
	cancel(cause)
	s.wait("stopped: the machine is switched off") // nobody has to press a key
	if r := <-s.result; !errors.Is(r.err, cause) || r.out.Installed || !r.out.Began {
		t.Errorf("got %+v, %v", r.out, r.err)
	}
}

func TestATerminalThatCannotBeWrittenToEndsTheDialog(t *testing.T) {
	o := options()
	in, keys := io.Pipe()
	defer keys.Close()
	o.In, o.Out = in, broken{}
	if out, err := Run(t.Context(), o); err == nil || out.Began {
		t.Errorf("got %+v, %v", out, err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no such device") }
