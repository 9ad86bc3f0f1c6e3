package tool

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets this test's own binary stand for the programs that are run: argv only, no shell needed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "play" {
		play(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

func play(part string) {
	switch part {
	case "talk":
		os.Stdout.WriteString("one\rtwo\n")
		os.Stderr.WriteString("three\n")
		os.Stdout.WriteString("no line end")
	case "fail":
		for i := range 40 {
			os.Stdout.WriteString(strings.Repeat("x", i) + "\n")
		}
		os.Stdout.WriteString("the reason\n")
		os.Exit(3)
	case "environment":
		for _, e := range os.Environ() {
			os.Stdout.WriteString(e + "\n")
		}
	case "children":
		child := exec.Command(os.Args[0], "play", "sleep")
		if err := child.Start(); err != nil {
			os.Exit(9)
		}
		os.Stdout.WriteString("ready\n")
		time.Sleep(time.Minute)
	case "sleep":
		time.Sleep(time.Minute)
	}
}

func self(t *testing.T, part string) Command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Command{Argv: []string{exe, "play", part}}
}

func TestOutputComesLineByLineAndGoesToTheLog(t *testing.T) {
	var log bytes.Buffer
	var lines []string
	c := self(t, "talk")
	c.Line = func(l string) { lines = append(lines, l) }
	if err := NewRunner(&log).Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	if !slices.Equal(lines, []string{"no line end", "one", "three", "two"}) {
		t.Errorf("lines are %q", lines)
	}
	for _, s := range []string{"play talk", "three", "done"} {
		if !strings.Contains(log.String(), s) {
			t.Errorf("the log has no %q:\n%s", s, log.String())
		}
	}
}

func TestAFailureShowsTheLastLines(t *testing.T) {
	err := NewRunner(&bytes.Buffer{}).Run(t.Context(), self(t, "fail"))
	var failed *Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %v", err)
	}
	if len(failed.Tail) != tailLines || failed.Tail[tailLines-1] != "the reason" || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("it says %v", err)
	}
}

func TestTheCallersEnvironmentIsNotPassedOn(t *testing.T) {
	t.Setenv("SECRET", "x")
	c := self(t, "environment")
	c.Env = []string{"HOME=/elsewhere", "EXTRA=1"}
	out, err := NewRunner(&bytes.Buffer{}).Output(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	want := []string{"EXTRA=1", "HOME=/elsewhere", "LANG=C.UTF-8", "PATH=" + Path}
	got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "GOCOVERDIR") })
	if !slices.Equal(got, want) {
		t.Errorf("it sees %q", got)
	}
}

func TestCancellingEndsTheWholeProcessGroup(t *testing.T) {
	stop := errors.New("stopped by a person")
	ctx, cancel := context.WithCancelCause(t.Context())
	c := self(t, "children")
	c.Line = func(l string) {
		if l == "ready" {
			cancel(stop)
		}
	}
	began := time.Now()
	err := NewRunner(&bytes.Buffer{}).Run(ctx, c)
	if !errors.Is(err, stop) {
		t.Errorf("it ended with %v", err)
	}
	// The child holds the output open, so Run returns late unless the child has been ended too.
	if took := time.Since(began); took > grace {
		t.Errorf("it took %s", took)
	}
}

func TestProgramsThatAreNotThereAreNamed(t *testing.T) {
	r := NewRunner(&bytes.Buffer{})
	if err := r.Run(t.Context(), Command{Argv: []string{"surely-no-such-program"}}); err == nil || !strings.Contains(err.Error(), "surely-no-such-program") {
		t.Errorf("got %v", err)
	}
	if err := r.Run(t.Context(), Command{Argv: []string{"ls"}, Root: t.TempDir()}); err == nil {
		t.Error("a relative program was run in a root directory")
	}
	if err := r.Run(t.Context(), Command{}); err == nil {
		t.Error("nothing was run and nobody said so")
	}
}

func TestTheLogQuotesWhatAPersonWouldHaveToQuote(t *testing.T) {
	got := logLine(Command{Argv: []string{"dnf", "--qf", "%{name}|x", "it's", ""}, Root: filepath.Join("/", "r"), NoNetwork: true})
	if want := "$ [in /r] [no network] dnf --qf '%{name}|x' 'it'\\''s' ''\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
