//go:build integration

package scripts

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets this program be what goes into the tree, and the script that it becomes there.
func TestMain(m *testing.M) {
	switch {
	case Inside(os.Args):
		code, err := GoInside(os.Args)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	case os.Getenv("IMGBUILD_META_ROLE") != "":
		os.Exit(script(os.Getenv("IMGBUILD_META_ROLE")))
	}
	os.Exit(m.Run())
}

// facts are what a script finds around it.
type facts struct {
	PID        int
	Host, Root string
	Links      []string
	Mark, Self string
	ReadOnly   bool
	Metadata   string
}

func script(role string) int {
	switch role {
	case "fail":
		fmt.Println("first line\nwhat went wrong")
		return 3
	case "linger":
		c := exec.Command("/proc/self/exe")
		c.Env = []string{"IMGBUILD_META_ROLE=sleep"}
		c.Stdout = os.Stdout
		if err := c.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	case "sleep":
		time.Sleep(time.Hour)
		return 0
	}
	f := facts{PID: os.Getpid(), Mark: os.Getenv(insideMark)}
	f.Host, _ = os.Hostname()
	links, _ := net.Interfaces()
	for _, l := range links {
		f.Links = append(f.Links, fmt.Sprintf("%s %s", l.Name, l.Flags&net.FlagUp))
	}
	f.Self, _ = os.Readlink("/proc/self")
	f.ReadOnly = os.WriteFile("/sys/kernel/uevent_seqnum", nil, 0) != nil
	b, _ := os.ReadFile(os.Getenv(MetadataVariable))
	f.Metadata = string(b)
	for _, dir := range []string{"/made-by-script", "/run/gone", "/tmp/gone"} {
		if err := os.WriteFile(dir, nil, 0o644); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		return 1
	}
	return 0
}

// tree is an installed tree whose script is this program.
func tree(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces and mounts need root")
	}
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if libs, err := self.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Skipf("this test needs C libraries that the tree has not (%q, %v): compile it with CGO_ENABLED=0, as make does", libs, err)
	}
	dir := t.TempDir()
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "d", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(dir, "d/10-x"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.WriteFile(filepath.Join(dir, "etc/host.json"), []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("something stayed mounted: %v\n%s", err, mounts)
		}
	})
	return dir
}

func run(ctx context.Context, t *testing.T, dir, role string) (string, error) {
	t.Helper()
	env, err := Environment(fmt.Appendf(nil, `{"role": %q}`, role), "/etc/host.json", "SN-1")
	if err != nil {
		t.Fatal(err)
	}
	return Run(ctx, "/proc/self/exe", dir, "d/10-x", "web1.example.org", env)
}

func TestAScriptIsAloneInTheInstalledTree(t *testing.T) {
	dir := tree(t)
	out, err := run(t.Context(), t, dir, "facts")
	var f facts
	if err != nil || json.Unmarshal([]byte(out), &f) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if f.PID != 1 || f.Self != "1" || f.Host != "web1.example.org" || len(f.Links) != 1 || strings.Contains(f.Links[0], "up") || f.Mark != "" || !f.ReadOnly || f.Metadata != "{}" {
		t.Errorf("it found %+v", f)
	}
	if _, err := os.Stat(filepath.Join(dir, "made-by-script")); err != nil {
		t.Errorf("what it made is not there: %v", err)
	}
	for _, gone := range []string{"run/gone", "tmp/gone"} {
		if _, err := os.Stat(filepath.Join(dir, gone)); err == nil {
			t.Errorf("%s is left in the tree", gone)
		}
	}
}

func TestAScriptThatFailsSaysWhy(t *testing.T) {
	dir := tree(t)
	if out, err := run(t.Context(), t, dir, "fail"); err == nil || !strings.HasSuffix(err.Error(), "exit status 3; it wrote: first line / what went wrong") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "d/10-x"), []byte("#!/no/such/shell\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t.Context(), t, dir, "facts"); err == nil || !strings.Contains(err.Error(), "what its first line names") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t.Context(), t, dir, "facts"); err == nil || !strings.Contains(err.Error(), "mount /run: the image has no such directory") {
		t.Errorf("got %v", err)
	}
}

func TestWithAScriptEndsWhatItStarted(t *testing.T) {
	dir := tree(t)
	start := time.Now()
	if out, err := run(t.Context(), t, dir, "linger"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("somebody asked for a stop")
	time.AfterFunc(200*time.Millisecond, func() { cancel(stopped) })
	if _, err := run(ctx, t, dir, "sleep"); !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %s", d)
	}
}
