//go:build integration

package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/control"
	"imgbuild/installer/fetch"
	"imgbuild/installer/report"
	"imgbuild/installer/transfer"
	"imgbuild/server/client"
	"imgbuild/server/ctl"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
	"imgbuild/server/releases/releasetest"
	"imgbuild/server/swarm"
)

// words are what a machine's installer says.
type words struct {
	t    testing.TB
	name string
}

func (w words) Step(int, int, string)        {}
func (w words) Progress(report.Progress)     {}
func (w words) Info(format string, a ...any) { w.t.Logf(w.name+": "+format, a...) }
func (w words) Warn(format string, a ...any) { w.t.Logf(w.name+": warning: "+format, a...) }

var bootNonce = regexp.MustCompile(`imgbuild\.boot=([A-Za-z0-9_-]{22})`)

// installer is a machine that has its plan: the installer's own code, with memory in the place of disks.
type installer struct {
	t      testing.TB
	plan   plan.Plan
	client *control.Client
	words  words
}

// newInstaller writes a machine down, orders its installation, boots it and has it claim its plan.
func newInstaller(t testing.TB, s *running, name, rack string) *installer {
	t.Helper()
	if _, _, err := s.store.PutHost(t.Context(), registry.Host{SN: name, Rack: rack, Hostname: strings.ToLower(name)}, "anna", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.CreateOrder(t.Context(), registry.Order{SN: name, Image: "web/2.0", By: "anna", Reason: "test"}, 1); err != nil {
		t.Fatal(err)
	}
	return claims(t, s, name, plan.Install)
}

// claims boots a machine and has it claim its plan.
func claims(t testing.TB, s *running, name string, want plan.Action) *installer {
	t.Helper()
	_, script := get(t, http.DefaultClient, s.url+"/boot/ipxe?platform=efi&arch=x86_64&serial="+name, "")
	m := bootNonce.FindStringSubmatch(script)
	if m == nil {
		t.Fatalf("the boot script is %s", script)
	}
	key, err := image.ParsePublicKeyText(serverKey(script))
	if err != nil {
		t.Fatal(err)
	}
	w := words{t, name}
	c := control.New(control.Options{Server: s.url, Key: key, Boot: m[1], Report: w})
	inventory := func(context.Context) plan.Inventory {
		return plan.Inventory{Serial: name, Firmware: "uefi", CPUs: 2, MemoryBytes: 4 << 30, Disks: []plan.Disk{{Path: "/dev/vda", SizeBytes: 20 << 30}}, NICs: []plan.NIC{}}
	}
	p, err := c.Claim(t.Context(), inventory, func(context.Context) {})
	if err != nil || p.Action != want {
		t.Fatalf("%s is told %+v, %v", name, p, err)
	}
	return &installer{t: t, plan: p, client: c, words: w}
}

// install transfers the root file system as the plan says, compares it, and stays for others as long as it is asked to. What is told
// of it goes to i.words.
func (i *installer) install(ctx context.Context, m *image.Manifest, rootfs []byte) error {
	f := m.Files[image.RootfsFile]
	t, err := transfer.New(transfer.Options{
		Report: i.words, Fetcher: fetch.New(fetch.Options{Report: i.words}), Size: f.Size, Chunks: f.Chunks, Memory: f.Size,
		URLs: []string{strings.TrimSuffix(i.plan.Manifest, image.ManifestFile) + image.RootfsFile}, Transport: i.plan.Transport, Server: i.client, Token: i.plan.Token,
	})
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return t.Run(ctx) })
	got, err := io.ReadAll(io.NewSectionReader(t.Blob(), 0, f.Size))
	if err == nil && !bytes.Equal(got, rootfs) {
		err = fmt.Errorf("%s has other bytes", i.words.name)
	}
	if err == nil {
		t.Linger(ctx)
	}
	closed := t.Close()
	return firstOf(err, closed, g.Wait())
}

// firstOf is the first error.
func firstOf(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestMachinesInstallTogetherByRelay has six installers on loopback, in two racks and each with the rate of a slow card, get one
// image from the server, which sends it about once.
func TestMachinesInstallTogetherByRelay(t *testing.T) {
	const size, rate, count = 96<<20 + 77, 12 << 20, 6
	c := configuration(t)
	key := releasetest.Key(t)
	c.Trust = nil
	rootfs := make([]byte, size)
	source := rand.NewChaCha8([32]byte{1})
	if _, err := source.Read(rootfs); err != nil {
		t.Fatal(err)
	}
	dir := releasetest.Write(t, c.Images, releasetest.Release{Name: "web", Version: "2.0", Key: key, Rootfs: rootfs})
	text, err := os.ReadFile(filepath.Join(dir, image.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, c)
	if err := s.swarm.SetRates(t.Context(), swarm.Rates{PerMachine: rate}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	g, running := errgroup.WithContext(ctx)
	for i := range count {
		one := newInstaller(t, s, fmt.Sprintf("SN-%d", i+1), fmt.Sprintf("r%d", 1+i%2))
		g.Go(func() error { return one.install(running, m, rootfs) })
	}
	look(t, s, ctx)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	var origin, all int64
	for _, v := range s.swarm.View("web/2.0") {
		for _, m := range v.Machines {
			for _, src := range m.Sources {
				if all += src.Got; src.Kind == plan.SourceOrigin {
					origin += src.Got
				}
			}
		}
	}
	t.Logf("%d machines took %.1f s; the limit is %.1f s; the origin sent %.2f copies of %d", count, took.Seconds(), float64(size)/rate, float64(origin)/size, count)
	if all < count*size || origin > count*size/2 { // how much exactly is a busy machine's business
		t.Errorf("of %d bytes %d came from the origin", all, origin)
	}
}

// look prints what people see of it, until everybody reads and is half through.
func look(t *testing.T, s *running, ctx context.Context) {
	t.Helper()
	secret, _, err := s.store.CreateToken(t.Context(), "looker", registry.RoleRead, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Options{Server: s.url, Token: secret})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		half := 0
		for _, v := range s.swarm.View("web/2.0") {
			for _, m := range v.Machines {
				if m.Done || m.Got > v.Total/2 {
					half++
				}
			}
		}
		if half > 3 {
			break
		}
		<-tick.C
	}
	var out strings.Builder
	tool := &ctl.Tool{Client: cl, Out: &out, Err: &out, Format: show.Table, Now: time.Now, Zone: time.UTC}
	if err := firstOf(tool.Swarm(ctx, "web", false), tool.List(ctx, client.HostQuery{}), tool.Rates(ctx, ctl.RateChange{})); err != nil {
		t.Error(err)
	}
	t.Log("people see\n" + out.String())
	if !strings.Contains(out.String(), "↓ SN-") {
		t.Error("there is no chain")
	}
}
