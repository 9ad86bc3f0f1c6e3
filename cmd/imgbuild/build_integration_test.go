//go:build integration

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/initramfs/installerbin"
	"imgbuild/testvm/standin"
)

// command is the program as people start it, with a cache of the test's.
type command struct {
	bin, cache, key string
}

func compile(t *testing.T) command {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("building an image needs root")
	}
	for _, p := range []string{"dnf", "rpm", "mksquashfs", "createrepo_c"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("building an image needs %s: %v", p, err)
		}
	}
	if _, err := installerbin.Get("x86_64", true); err != nil {
		t.Skip(err)
	}
	if _, err := standin.Make(t.Context(), standin.Options{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := command{filepath.Join(dir, "imgbuild"), filepath.Join(dir, "cache"), filepath.Join(dir, "key")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", c.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return c
}

// event is what the test reads of --json.
type event struct {
	Event  string `json:"event"`
	Name   string `json:"name"`
	Dir    string `json:"dir"`
	Reused bool   `json:"reused"`
	Note   string `json:"note"`
}

// start starts a build; at is called with each event, while the build waits for nobody.
func (c command) build(t *testing.T, profile, out string, at func(event, *os.Process)) ([]event, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.bin, profile, "--json", "--cache", c.cache, "--key", c.key, "--out", out)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var events []event
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Errorf("not JSON: %s", lines.Text())
		}
		events = append(events, e)
		if at != nil {
			at(e, cmd.Process)
		}
	}
	if err := cmd.Wait(); err != nil {
		return events, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return events, nil
}

func (c command) mustBuild(t *testing.T, profile, out string) []event {
	t.Helper()
	events, err := c.build(t, profile, out, nil)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func reused(events []event, stage string) bool {
	return slices.ContainsFunc(events, func(e event) bool { return e.Event == "done" && e.Name == stage && e.Reused })
}

func digests(t *testing.T, release string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for _, name := range []string{image.KernelFile, image.InitramfsFile, image.RootfsFile, image.TorrentFile, image.ManifestFile, image.LockFile, "boot.ipxe"} {
		data, err := os.ReadFile(filepath.Join(release, name))
		if err != nil {
			t.Fatal(err)
		}
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return sums
}

// left lists what a build has left on the host: mounts below its cache, and processes of its program.
func (c command) left(t *testing.T) []string {
	t.Helper()
	var found []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.cache) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	roots, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range roots {
		if data, err := os.ReadFile(file); err == nil && bytes.Contains(data, []byte(c.cache)) {
			found = append(found, "process "+strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return found
}

func TestABuildIsRepeatableAndRedoesOnlyWhatChanged(t *testing.T) {
	c := compile(t)
	out := t.TempDir()
	c.mustBuild(t, "demo", out)
	first := digests(t, filepath.Join(out, "demo/1"))

	again := c.mustBuild(t, "demo", out)
	if len(again) != 1 || again[0].Event != "finish" || !again[0].Reused {
		t.Errorf("with nothing changed the build did %+v", again)
	}

	profile := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(profile, []byte("extends: demo\nname: other\nsystem:\n  hostname: other\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	events := c.mustBuild(t, profile, out)
	if !reused(events, "packages") || reused(events, "squashfs") {
		t.Errorf("with only a host name changed the build did %+v", events)
	}
	if other := digests(t, filepath.Join(out, "other/1")); other[image.RootfsFile] == first[image.RootfsFile] {
		t.Error("another host name made the same root file system")
	}

	cold := c
	cold.cache = filepath.Join(t.TempDir(), "cache")
	elsewhere := t.TempDir()
	cold.mustBuild(t, "demo", elsewhere)
	for name, sum := range digests(t, filepath.Join(elsewhere, "demo/1")) {
		if sum != first[name] {
			t.Errorf("%s differs in a build from nothing with the same key", name)
		}
	}
}

func TestABuildThatIsStoppedLeavesNothingBehind(t *testing.T) {
	c := compile(t)
	c.mustBuild(t, "demo", t.TempDir()) // so that the stages below come soon
	for _, tt := range []struct {
		stage  string
		signal syscall.Signal
		says   string
	}{
		{"squashfs", syscall.SIGINT, "interrupted"},
		{"initramfs", syscall.SIGTERM, "interrupted"},
		{"squashfs", syscall.SIGKILL, "killed"},
	} {
		t.Run(tt.signal.String()+" in "+tt.stage, func(t *testing.T) {
			out := t.TempDir()
			_, err := c.build(t, "demo", out, func(e event, p *os.Process) {
				if e.Event == "stage" && e.Name == tt.stage {
					if err := p.Signal(tt.signal); err != nil {
						t.Error(err)
					}
				}
			})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("it ended with %v", err)
			}
			if found, _ := filepath.Glob(filepath.Join(out, "*/*")); len(found) > 0 {
				t.Errorf("it left %v", found)
			}
			// The kernel ends what was in the process namespace of one that is killed; that takes a moment and has no event.
			deadline := time.Now().Add(20 * time.Second)
			left := c.left(t)
			for ; len(left) > 0 && time.Now().Before(deadline); left = c.left(t) {
				time.Sleep(50 * time.Millisecond)
			}
			if len(left) > 0 {
				t.Errorf("it left %s", strings.Join(left, "\n"))
			}
		})
	}
	c.mustBuild(t, "demo", t.TempDir())
}
