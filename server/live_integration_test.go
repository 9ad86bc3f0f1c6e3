//go:build integration

package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/control"
	"imgbuild/server/client"
	"imgbuild/server/ctl"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
	"imgbuild/server/releases/releasetest"
	"imgbuild/server/swarm"
)

// page is an output that can be read while it is written.
type page struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// TestMachinesRunFromMemoryTogether has three machines without orders claim what they are to run, with the installer's own code: they
// fetch it from each other, report until it runs, and a person watches.
func TestMachinesRunFromMemoryTogether(t *testing.T) {
	const size, rate, count = 48<<20 + 5, 12 << 20, 3
	c := configuration(t)
	key := releasetest.Key(t)
	c.Trust = nil
	rootfs := make([]byte, size)
	source := rand.NewChaCha8([32]byte{2})
	if _, err := source.Read(rootfs); err != nil {
		t.Fatal(err)
	}
	dir := releasetest.Write(t, c.Images, releasetest.Release{Name: "node", Version: "2.0", Key: key, Rootfs: rootfs})
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
	secret, _, err := s.store.CreateToken(t.Context(), "anna", registry.RoleOperate, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Options{Server: s.url, Token: secret})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out := &page{}
	tool := &ctl.Tool{Client: cl, Out: out, Err: out, Format: show.Table, Now: time.Now, Zone: time.UTC}
	var sns []string
	for i := range count {
		sn := fmt.Sprintf("SN-%d", i+1)
		sns = append(sns, sn)
		if _, _, err := s.store.PutHost(ctx, registry.Host{SN: sn, Rack: "r1", Hostname: fmt.Sprintf("node%d", i+1), IP: fmt.Sprintf("10.0.0.1%d", i), Netmask: "24"}, "anna", 0); err != nil {
			t.Fatal(err)
		}
	}
	options := plan.LiveOptions{Size: "25%", Persist: []string{"/var=NODEVAR"}}
	if err := tool.SetLive(ctx, nil, client.HostQuery{Rack: "r1"}, ctl.Live{Image: "node", LiveOptions: options}); err != nil {
		t.Fatal(err)
	}
	var machines errgroup.Group
	for _, sn := range sns {
		i := claims(t, s, sn, plan.Live)
		if p := i.plan; p.Live == nil || !reflect.DeepEqual(*p.Live, options) || !strings.HasSuffix(p.Manifest, "/images/node/2.0/manifest.json") || p.Host.Network == nil {
			t.Fatalf("%+v", p)
		}
		machines.Go(func() error {
			events := control.NewEvents(i.words)
			d := i.client.Deliver(ctx, events, i.plan.Token)
			events.Step(1, 2, "fetch the image into memory")
			err := i.install(ctx, m, rootfs)
			events.Step(2, 2, "start it")
			kind, text := plan.KindDone, "node 2.0 runs from memory"
			if err != nil {
				kind, text = plan.KindFailed, err.Error()
			}
			if !d.End(kind, text, time.Minute) {
				return fmt.Errorf("the server did not hear how it ended: %w", err)
			}
			return err
		})
	}
	starting, err := cl.Hosts(ctx, client.HostQuery{Live: []registry.LiveState{registry.LiveStarting}})
	if err != nil || len(starting) != count {
		t.Errorf("%d hosts start, %v", len(starting), err)
	}
	if err := firstOf(tool.List(ctx, client.HostQuery{}), tool.Watch(ctx, sns, ctl.WatchOptions{Wait: true}), machines.Wait(), tool.ListLive(ctx, client.HostQuery{}), tool.Logs(ctx, "SN-1", ctl.LogOptions{})); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log("people see\n" + out.String())
	relayed := int64(0)
	for _, v := range s.swarm.View("node/2.0") {
		for _, m := range v.Machines {
			for _, src := range m.Sources {
				if src.Kind == plan.SourceRelay {
					relayed += src.Got
				}
			}
		}
	}
	t.Logf("%d of %d bytes came from other machines", relayed, count*size)
	if relayed < size {
		t.Errorf("only %d bytes came from other machines", relayed)
	}
	for _, sn := range sns {
		h, err := s.store.Host(ctx, sn)
		if err != nil || h.State != registry.Known || h.LiveBoot == nil || h.LiveBoot.State != registry.LiveRunning || h.Inventory == nil {
			t.Errorf("%+v, %v", h, err)
		}
	}
}
