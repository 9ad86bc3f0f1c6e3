package firstboot

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
)

// system is an installed system in a directory, as the installer leaves it.
func system(t *testing.T, c Config, scripts map[string]string) (System, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(ConfigFile, string(text), 0o600)
	put(Program, "program", 0o755)
	put(UnitFile, Unit(), 0o644)
	put("etc/imgbuild/host.json", `{"role": "db"}`, 0o600)
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(WantsLink)), 0o755), os.Symlink(UnitTarget, filepath.Join(dir, WantsLink))); err != nil {
		t.Fatal(err)
	}
	for name, text := range scripts {
		put(filepath.Join(image.FirstBootScripts, name), text, 0o755)
	}
	out := &bytes.Buffer{}
	return System{
		Root: dir, Log: slog.New(slog.NewTextHandler(out, nil)), Output: out, Pause: 5 * time.Millisecond, GiveUp: 10 * time.Second,
		Facts: func(context.Context) plan.Booted {
			return plan.Booted{Hostname: "web1", Kernel: "5.14", System: "EL 9", Failed: []string{"x.service"}, Addresses: []string{"10.0.0.5/24"}}
		},
	}, out
}

func mustBeGone(t *testing.T, s System) {
	t.Helper()
	for _, name := range slices.Concat(leftovers(), shared()) {
		if _, err := os.Lstat(filepath.Join(s.Root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("/%s is still there: %v", name, err)
		}
	}
}

func TestTheFirstBootIsReportedAndForgotten(t *testing.T) {
	var tries atomic.Int32
	var got plan.Booted
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) < 4 {
			w.WriteHeader(http.StatusBadGateway) // the server is being restarted
			return
		}
		if r.Method != http.MethodPost || r.URL.Path != plan.BootedPath || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("%s %s by %q", r.Method, r.URL, r.Header.Get("Authorization"))
		}
		if err := plan.Decode(r.Body, &got); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	s, out := system(t, Config{Server: srv.URL, Token: "secret", Serial: "SN-1", Metadata: "/etc/imgbuild/host.json"}, map[string]string{
		"10-ok":   "#!/bin/sh\necho role=$IMGBUILD_META_ROLE serial=$IMGBUILD_SERIAL in $PWD\n",
		"20-fail": "#!/bin/sh\necho trouble\nexit 4\n",
		"README":  "x",
	})
	if err := os.Chmod(filepath.Join(s.Root, image.FirstBootScripts, "README"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got.Serial != "SN-1" || got.Hostname != "web1" || got.Schema != plan.Schema || !slices.Equal(got.Failed, []string{"first-boot.d/20-fail", "x.service"}) {
		t.Errorf("reported %+v", got)
	}
	if text := out.String(); !strings.Contains(text, "role=db serial=SN-1 in "+s.Root) || !strings.Contains(text, "trouble") || strings.Contains(text, "secret") {
		t.Errorf("it wrote\n%s", text)
	}
	mustBeGone(t, s)
}

func TestWithoutAServerOnlyScriptsRun(t *testing.T) {
	s, out := system(t, Config{}, map[string]string{"10-a": "#!/bin/sh\necho ran\n"})
	if err := s.Run(t.Context()); err != nil || !strings.Contains(out.String(), "ran\n") {
		t.Errorf("%v\n%s", err, out)
	}
	mustBeGone(t, s)
}

func TestAScriptThatTookTheSystemDownIsNotRunAgain(t *testing.T) {
	s, out := system(t, Config{}, map[string]string{"10-a": "#!/bin/sh\necho a ran\n", "20-b": "#!/bin/sh\necho b ran\n"})
	if err := os.WriteFile(filepath.Join(s.Root, doneFile), []byte("10-a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil || strings.Contains(out.String(), "a ran") || !strings.Contains(out.String(), "b ran") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAServerThatRefusesOrNeverAnswersIsGivenUp(t *testing.T) {
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer refuses.Close()
	away := httptest.NewServer(nil)
	away.Close()
	for name, url := range map[string]string{"403": refuses.URL, "no answer for": away.URL} {
		s, out := system(t, Config{Server: url, Token: "secret"}, nil)
		s.GiveUp = 50 * time.Millisecond
		if err := s.Run(t.Context()); err != nil || !strings.Contains(out.String(), name) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		mustBeGone(t, s)
	}
}

func TestAMachineThatGoesDownReportsNextTime(t *testing.T) {
	away := httptest.NewServer(nil)
	away.Close()
	s, _ := system(t, Config{Server: away.URL, Token: "secret"}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx); err == nil {
		t.Error("it is over")
	}
	for _, name := range []string{ConfigFile, Program, UnitFile} {
		if _, err := os.Stat(filepath.Join(s.Root, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatTheInstallerDidNotWriteIsNotUnderstood(t *testing.T) {
	s, _ := system(t, Config{}, nil)
	for _, text := range []string{"", "{}{}", `{"run": "rm"}`} {
		if err := os.WriteFile(filepath.Join(s.Root, ConfigFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), ConfigFile) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.Remove(filepath.Join(s.Root, ConfigFile)); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "gone after the first boot") {
		t.Errorf("got %v", err)
	}
}

func TestSystemctlsListIsRead(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil,
		"a.service loaded failed failed An a.b\n● b.mount  loaded failed failed B\n": {"a.service", "b.mount"},
		"0 loaded units listed.\n": nil,
	} {
		if got := failedUnits([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestASystemsNameIsRead(t *testing.T) {
	f := filepath.Join(t.TempDir(), "os-release")
	for text, want := range map[string]string{"NAME=x\nPRETTY_NAME=\"CentOS Stream 9\"\n": "CentOS Stream 9", "PRETTY_NAME='A B'": "A B", "PRETTY_NAME=Plain\n": "Plain", "": ""} {
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := prettyName(f); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestSystemdTakesTheUnits asks systemd itself.
func TestSystemdTakesTheUnits(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{UnitName: Unit(), DataUnitName: DataUnit()} {
		text = strings.Replace(text, "ExecStart=/"+Program, "ExecStart=/bin/true", 1) // the program is not here
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(tool, append([]string{"verify", "--man=no"}, files...)...)
	c.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
	out, err := c.CombinedOutput()
	said := strings.Contains(string(out), UnitName) || strings.Contains(string(out), DataUnitName)
	if said {
		t.Errorf("systemd says: %v\n%s", err, out)
	}
}
