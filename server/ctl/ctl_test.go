package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/client"
	"imgbuild/server/ctl/ctltest"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// screen is an output that can be waited for.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the output has a text.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("%q does not come; there is\n%s", text, s.String())
		}
	}
}

func tool(t testing.TB, s *ctltest.Server) (*Tool, *screen, *screen) {
	t.Helper()
	c, err := client.New(client.Options{Server: s.URL, Token: s.Tokens[registry.RoleOperate], Connections: 16})
	if err != nil {
		t.Fatal(err)
	}
	out, errs := newScreen(), newScreen()
	return &Tool{Client: c, In: strings.NewReader(""), Out: out, Err: errs, Format: show.Table, Now: time.Now, Zone: time.UTC, Size: func() (int, int) { return 120, 24 }}, out, errs
}

func order(t *testing.T, tl *Tool, sns ...string) {
	t.Helper()
	if err := tl.Set(t.Context(), sns, []string{"rack=r1", "image=web"}, true); err != nil {
		t.Fatal(err)
	}
	if err := tl.Install(t.Context(), sns, Install{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
}

func play(t *testing.T, s *ctltest.Server, sn, action string, e plan.Event) {
	t.Helper()
	if _, err := s.Machine(t.Context(), sn, action, e); err != nil {
		t.Fatal(err)
	}
}

func TestALogIsFollowedOverARestartOfTheServer(t *testing.T) {
	s := ctltest.Start(t)
	tl, out, errs := tool(t, s)
	order(t, tl, "SN-1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- tl.Logs(ctx, "SN-1", LogOptions{Follow: true}) }()
	out.await(t, "web/2.0 ordered: test")
	play(t, s, "SN-1", "boot", plan.Event{})
	out.await(t, "has booted and taken the order")
	s.Stop()
	play(t, s, "SN-1", "step", plan.Event{Text: "while nobody listened", Step: 1, Of: 2})
	errs.await(t, "the connection broke")
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	errs.await(t, "the connection is there again")
	play(t, s, "SN-1", "done", plan.Event{})
	out.await(t, "the disk is installed")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, once := range []string{"while nobody listened", "ordered: test", "taken the order", "the disk is installed"} {
		if n := strings.Count(out.String(), once); n != 1 {
			t.Errorf("%q is there %d times:\n%s", once, n, out.String())
		}
	}
}

func TestTheLiveTableShowsWhatHappensAndEndsWithIt(t *testing.T) {
	s := ctltest.Start(t)
	tl, _, _ := tool(t, s)
	order(t, tl, "SN-1", "SN-2")
	tl, out, _ := tool(t, s)
	tl.Live = true
	ended := make(chan error)
	go func() { ended <- tl.Watch(t.Context(), nil, WatchOptions{Rack: "r1", Wait: true}) }()
	out.await(t, "waits for the machine to boot")
	play(t, s, "SN-1", "boot", plan.Event{})
	play(t, s, "SN-2", "boot", plan.Event{}) // the rack has one slot
	out.await(t, "place 1 in the queue")
	play(t, s, "SN-1", "progress", plan.Event{Text: "rootfs", Done: 25 << 20, Total: 100 << 20, Rate: 1 << 20})
	out.await(t, "25 %  1.0 MiB/s  1 min 1")
	play(t, s, "SN-1", "failed", plan.Event{Text: "the disk is broken"})
	out.await(t, "failed: the disk is broken")
	play(t, s, "SN-2", "boot", plan.Event{})
	play(t, s, "SN-2", "booted", plan.Event{})
	err := <-ended
	var partly *PartlyError
	if !errors.As(err, &partly) || partly.Failed != 1 || partly.Of != 2 {
		t.Errorf("it ends with %v", err)
	}
	frames := strings.Split(out.String(), "\x1b[J")
	last := regexp.MustCompile("\x1b\\[[0-9]*[A-Z]|\r").ReplaceAllString(frames[len(frames)-2], "")
	if !regexp.MustCompile(`(?s)^SN .*\nSN-1 .* failed .*\nSN-2 .* installed .*\n$`).MatchString(last) {
		t.Errorf("the last frame is\n%s", last)
	}
}

func TestAllThatInstallsIsWatchedAndNewOnesCome(t *testing.T) {
	s := ctltest.Start(t)
	tl, _, _ := tool(t, s)
	order(t, tl, "SN-1")
	tl, out, _ := tool(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- tl.Watch(ctx, nil, WatchOptions{}) }()
	s.AwaitStream(t)
	play(t, s, "SN-1", "boot", plan.Event{})
	out.await(t, "SN-1: the machine has booted")
	other, _, _ := tool(t, s)
	order(t, other, "SN-2")
	out.await(t, "SN-2: web/2.0 ordered")
	if err := other.Set(t.Context(), []string{"SN-3"}, []string{"rack=r7"}, true); err != nil {
		t.Fatal(err)
	}
	play(t, s, "SN-2", "boot", plan.Event{})
	out.await(t, "SN-2: all slots are taken")
	cancel()
	if err := <-ended; err != nil || strings.Contains(out.String(), "SN-3") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestWhoWasFasterIsNotOverwritten(t *testing.T) {
	s := ctltest.Start(t)
	tl, _, _ := tool(t, s)
	if err := tl.Set(t.Context(), []string{"SN-1"}, []string{"rack=r1"}, true); err != nil {
		t.Fatal(err)
	}
	old, err := tl.Client.Host(t.Context(), "SN-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tl.Set(t.Context(), []string{"SN-1"}, []string{"owner=eve"}, false); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]planned{
		"a change":   {SN: "SN-1", old: old, patch: map[string]any{"rack": "r2"}},
		"a creation": {SN: "SN-1", host: registry.Host{SN: "SN-1", Rack: "r2"}},
	} {
		if _, err := tl.write(t.Context(), p); err == nil || !strings.Contains(err.Error(), "meanwhile") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h, err := tl.Client.Host(t.Context(), "SN-1"); err != nil || h.Rack != "r1" || h.Owner != "eve" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestARefusedTokenIsToldOnceForAll(t *testing.T) {
	s := ctltest.Start(t)
	tl, _, errs := tool(t, s)
	c, err := client.New(client.Options{Server: s.URL, Token: s.Tokens[registry.RoleRead]})
	if err != nil {
		t.Fatal(err)
	}
	tl.Client = c
	err = tl.Delete(t.Context(), []string{"SN-1", "SN-2", "SN-3"})
	if !client.Denied(err) || errs.String() != "" {
		t.Errorf("%v; %s", err, errs)
	}
}

func TestAPasswordIsWrittenAndClearedAndNeverShown(t *testing.T) {
	s := ctltest.Start(t)
	tl, out, _ := tool(t, s)
	file := filepath.Join(t.TempDir(), "h.yaml")
	for _, c := range []struct{ yaml, want string }{
		{"- {sn: SN-1, oob: {address: 10.0.0.1, user: root, password: hunter22}}", "hunter22"},
		{"- {sn: SN-1, oob: {user: admin}}", "hunter22"},
		{"- {sn: SN-1, oob: {password: null}}", ""},
	} {
		if err := os.WriteFile(file, []byte(c.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, dry := range []bool{true, false} {
			if err := tl.Import(t.Context(), file, ImportOptions{DryRun: dry}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Store.OOBPassword(t.Context(), "SN-1"); err != nil || got != c.want {
			t.Errorf("after %s: %q, %v", c.yaml, got, err)
		}
	}
	if strings.Contains(out.String(), "hunter22") || !strings.Contains(out.String(), "oob.password: (not shown) -> nothing") {
		t.Errorf("printed\n%s", out)
	}
}

func TestAnImportFindsDuplicatesOfWhatOthersKeep(t *testing.T) {
	s := ctltest.Start(t)
	tl, _, errs := tool(t, s)
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "h.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := tl.Import(t.Context(), write("sn,hostname,ip,netmask\nSN-1,a,10.0.0.1,24\nSN-2,b,10.0.0.2,24\nSN-3,c,10.0.0.3,24\n"), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	err := tl.Import(t.Context(), write("sn,hostname,ip\nSN-1,a,10.0.0.2\nSN-2,b,10.0.0.2\nSN-4,c,\n"), ImportOptions{})
	var usage *UsageError
	want := "h.csv:2: ip: 10.0.0.2 is host SN-2's, in line 3\nh.csv:4: hostname: c is host SN-3's on the server already\n"
	if got := strings.ReplaceAll(errs.String(), dir+"/", ""); !errors.As(err, &usage) || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	// addresses that change hands within the file are none
	if err := tl.Import(t.Context(), write("sn,ip\nSN-1,10.0.0.2\nSN-2,10.0.0.1\n"), ImportOptions{}); err != nil {
		t.Error(err, errs)
	}
}

// BenchmarkImport10000 writes 10,000 hosts, imports the same file again, and exports it.
func BenchmarkImport10000(b *testing.B) {
	var csv strings.Builder
	csv.WriteString("sn,hostname,ip,netmask,gw,macs,rack,image\n")
	for i := range 10000 {
		fmt.Fprintf(&csv, "SN%05d,h%d.example,10.1.%d.%d,255.255.0.0,10.1.255.254,52:54:00:00:%02x:%02x,r%d,web\n", i, i, (i+1)/256, (i+1)%256, i/256, i%256, i/40)
	}
	path := filepath.Join(b.TempDir(), "h.csv")
	if err := os.WriteFile(path, []byte(csv.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := ctltest.Start(b)
		tl, out, errs := tool(b, s)
		for _, what := range []string{"create", "again"} {
			began := time.Now()
			if err := tl.Import(b.Context(), path, ImportOptions{}); err != nil {
				b.Fatal(err, errs)
			}
			b.ReportMetric(time.Since(began).Seconds(), what+"-s")
		}
		if !strings.Contains(out.String(), "10000 created") || !strings.Contains(out.String(), "10000 were so already") {
			b.Fatal(out)
		}
		began := time.Now()
		if err := tl.Export(b.Context(), client.HostQuery{}, nil, path+".out", "csv"); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "export-s")
	}
}
