//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// bench is an image, a loop device with old content, and the program.
type bench struct {
	bin, iso, node, disk string
	image                []byte
}

// newBench makes both larger by a hole of so many bytes.
func newBench(t *testing.T, hole int64) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	dir := t.TempDir()
	b := &bench{bin: filepath.Join(dir, "imgbuild"), iso: filepath.Join(dir, "live.iso"), disk: filepath.Join(dir, "disk"), image: make([]byte, 10<<20+5)}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", b.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := rand.NewChaCha8([32]byte{3})
	_, _ = r.Read(b.image)
	for name, data := range map[string][]byte{b.iso: b.image, b.disk: bytes.Repeat([]byte{0xaa}, 32<<20)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, int64(len(data))+hole); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("losetup", "--find", "--show", b.disk).CombinedOutput()
	if err != nil {
		t.Skipf("losetup cannot make a loop device here: %v: %s", err, out)
	}
	b.node = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", b.node).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", b.node, err, out)
		}
	})
	return b
}

// on reads the device.
func (b *bench) on(t *testing.T) []byte {
	t.Helper()
	if out, err := exec.Command("blockdev", "--flushbufs", b.node).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(b.disk)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// terminal is a pseudo-terminal: what a person sees and types.
type terminal struct {
	master *os.File
	mu     sync.Mutex
	seen   bytes.Buffer
	grown  chan struct{}
}

// atTerminal starts a command on a terminal of its own.
func atTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{master: master, grown: make(chan struct{}, 1)}
	go func() { // ends when the command has closed the terminal
		defer close(term.grown)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			term.mu.Lock()
			term.seen.Write(b[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
			select {
			case term.grown <- struct{}{}:
			default:
			}
		}
	}()
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

// wait waits until the terminal shows something.
func (term *terminal) wait(t *testing.T, what string) {
	t.Helper()
	for !strings.Contains(term.text(), what) {
		if _, ok := <-term.grown; !ok && !strings.Contains(term.text(), what) {
			t.Fatalf("%q was not shown:\n%s", what, term.text())
		}
	}
}

// end reads the rest, and returns how the command ended.
func (term *terminal) end(cmd *exec.Cmd) (string, error) {
	err := cmd.Wait()
	for range term.grown {
	}
	return term.text(), err
}

func TestAPersonTypesTheDevicesName(t *testing.T) {
	b := newBench(t, 0)
	name := filepath.Base(b.node)
	for what, c := range map[string]struct {
		typed string // \x03 is Ctrl-C
		says  []string
	}{
		"another name":  {"sda\n", []string{`"sda" was typed`, "nothing was written"}},
		"nothing":       {"\n", []string{`"" was typed`, "nothing was written"}},
		"yes":           {"yes\n", []string{`"yes" was typed`}},
		"Ctrl-C":        {"\x03", []string{"interrupted; nothing was written to " + b.node}},
		"end of input":  {"\x04", []string{`"" was typed`}},
		"a longer name": {name + "1\n", []string{"nothing was written"}},
	} {
		t.Run(what, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), b.bin, "write", b.iso, b.node, "--force-internal")
			term := atTerminal(t, cmd)
			term.wait(t, "Type "+name+" to go on: ")
			if _, err := io.WriteString(term.master, c.typed); err != nil {
				t.Fatal(err)
			}
			out, err := term.end(cmd)
			if cmd.ProcessState.ExitCode() != exitFailed {
				t.Errorf("%v\n%s", err, out)
			}
			for _, s := range append(c.says, "32 MiB", "All of it will be overwritten with live.iso (10 MiB)") {
				if !strings.Contains(out, s) {
					t.Errorf("%q is missing in:\n%s", s, out)
				}
			}
			if got := b.on(t); !bytes.Equal(got, bytes.Repeat([]byte{0xaa}, len(got))) {
				t.Error("something was written")
			}
		})
	}
	t.Run("the name", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), b.bin, "write", b.iso, b.node, "--force-internal")
		term := atTerminal(t, cmd)
		term.wait(t, "Type "+name+" to go on: ")
		if _, err := io.WriteString(term.master, name+"\n"); err != nil {
			t.Fatal(err)
		}
		out, err := term.end(cmd)
		if err != nil || !strings.Contains(out, "is in "+b.node) || !strings.Contains(out, "✓ verify") {
			t.Errorf("%v\n%s", err, out)
		}
		if !bytes.Equal(b.on(t)[:len(b.image)], b.image) {
			t.Error("the device holds something else")
		}
	})
}

func TestAProgramIsToldOfEachStep(t *testing.T) {
	b := newBench(t, 0)
	cmd := exec.CommandContext(t.Context(), b.bin, "write", b.iso, b.node, "--force-internal", "--yes", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var seen []string
	for line := range bytes.Lines(out) {
		var e struct{ Event, Name, Dir string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if e.Event != "step" {
			seen = append(seen, e.Event+" "+e.Name)
		}
		if e.Event == "finish" && e.Dir != b.node {
			t.Errorf("it went to %s", e.Dir)
		}
	}
	want := "stage write, done write, stage verify, done verify, stage boot, done boot, finish live.iso"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("got %s", got)
	}
	if !bytes.Equal(b.on(t)[:len(b.image)], b.image) {
		t.Error("the device holds something else")
	}
}

func TestAnInterruptedStickIsSaidToBeIncomplete(t *testing.T) {
	b := newBench(t, 1<<30)
	cmd := exec.CommandContext(t.Context(), b.bin, "write", b.iso, b.node, "--force-internal", "--yes", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// The pipe takes a page, which is some fifty of the hundreds of steps: whoever is not read from cannot come to the end.
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Skipf("a small pipe: %v", err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 200)); err != nil { // the stage, and a step
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	says := stderr.String()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(says, "is incomplete and does not start") || strings.Contains(says, "no release was written") {
		t.Errorf("%v\n%s", err, says)
	}
	first := make([]byte, 4<<20)
	f, err := os.Open(b.node)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, first); err != nil || !bytes.Equal(first, make([]byte, len(first))) {
		t.Errorf("the device would start: %v", err)
	}
}
