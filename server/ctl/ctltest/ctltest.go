// Package ctltest runs a real server's API, over a real registry in SQLite and real releases, for tests of what talks to it;
// and plays the machines that are installed, by what their reports write into the registry.
package ctltest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/api"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
	"imgbuild/server/releases/releasetest"
	"imgbuild/server/swarm"
)

// Server is an API on a listener. It has the releases web/1.0 and web/2.0.
type Server struct {
	URL    string
	Store  *registry.Store
	Swarm  *swarm.Server
	Tokens map[registry.Role]string // secrets; their names are reader, operator and admin

	dir       string
	catalogue *releases.Catalogue
	mu        sync.Mutex
	stop      func()
	addr      string
	seq       map[string]int64 // of an order's events
	streams   chan struct{}    // one for each stream of events that was asked for
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := start(t.Context(), t.TempDir(), releasetest.Key(t), func(dir string, r releasetest.Release) { releasetest.Write(t, dir, r) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if err := s.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func start(ctx context.Context, dir string, key image.PrivateKey, write func(string, releasetest.Release)) (*Server, error) {
	s := &Server{dir: dir, Tokens: map[registry.Role]string{}, addr: "127.0.0.1:0", seq: map[string]int64{}, streams: make(chan struct{}, 100)}
	var err error
	if s.Store, err = registry.Open(ctx, filepath.Join(dir, "registry.db")); err != nil {
		return nil, err
	}
	images := filepath.Join(dir, "images")
	for _, version := range []string{"1.0", "2.0"} {
		write(images, releasetest.Release{Name: "web", Version: version, Key: key, RootfsBytes: 1 << 20})
	}
	silent := slog.New(slog.NewTextHandler(io.Discard, nil))
	if s.catalogue, err = releases.Open(releases.Options{Dir: images, Trust: []image.PublicKey{key.Public()}, Log: silent}); err != nil {
		return nil, err
	}
	for role, name := range map[registry.Role]string{registry.RoleRead: "reader", registry.RoleOperate: "operator", registry.RoleAdmin: "admin"} {
		if s.Tokens[role], _, err = s.Store.CreateToken(ctx, name, role, time.Time{}); err != nil {
			return nil, err
		}
	}
	planKey, err := image.GenerateKey()
	if err != nil {
		return nil, err
	}
	if s.Swarm, err = swarm.New(ctx, swarm.Options{Registry: s.Store, Key: planKey, Log: silent}); err != nil {
		return nil, err
	}
	return s, s.Resume()
}

// Resume listens, at the same address as before.
func (s *Server) Resume() error {
	silent := slog.New(slog.NewTextHandler(io.Discard, nil))
	a, err := api.New(api.Options{
		Store: s.Store, Catalogue: s.catalogue, Swarm: s.Swarm, Log: silent, Limits: registry.SlotLimits{Global: 2, PerRack: 1},
		Handlers: api.Handlers{
			IPXE: http.NotFoundHandler(), GRUB: http.NotFoundHandler(), Loaders: http.NotFoundHandler(), Images: s.catalogue,
			Torrent: http.NotFoundHandler(), Announce: http.NotFoundHandler(), Scrape: http.NotFoundHandler(),
			Claim: http.NotFoundHandler(), Events: http.NotFoundHandler(), Swarm: http.NotFoundHandler(), Booted: http.NotFoundHandler(),
		},
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = l.Addr().String()
	s.URL = "http://" + s.addr
	h := &http.Server{Handler: s.seen(a), ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = h.Serve(l) // ends with Close
	}()
	s.stop = func() {
		a.Drain()
		_ = h.Close()
		<-ended
	}
	return nil
}

func (s *Server) seen(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "text/event-stream" {
			select {
			case s.streams <- struct{}{}:
			default: // nobody awaits that many
			}
		}
		h.ServeHTTP(w, r)
	})
}

// AwaitStream waits until somebody has asked for a stream of events, once for each time that it is called: who did knows
// by then what was before.
func (s *Server) AwaitStream(t testing.TB) {
	t.Helper()
	select {
	case <-s.streams:
	case <-t.Context().Done():
		t.Fatal("nobody asks for events")
	}
}

// Stop ends the listener and every connection, as a server that is killed does. The registry stays.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Machine plays a step of the machine with a serial number that has an order: see makes it known, boot takes the order and a
// slot, step and progress report, done, failed and booted end, as preview does, which finds what the event's text says. Live boots one without an order from memory. It returns what the machine would say on its console.
func (s *Server) Machine(ctx context.Context, sn, action string, e plan.Event) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if action == "see" {
		_, created, err := s.Store.SeeMachine(ctx, plan.Inventory{
			Serial: sn, Vendor: "QEMU", Product: "Standard PC", Firmware: "uefi", CPUs: 2, MemoryBytes: 2 << 30,
			Disks: []plan.Disk{{Path: "/dev/vda", SizeBytes: 10 << 30, Transport: "virtio"}},
			NICs:  []plan.NIC{{Name: "eth0", MAC: "52:54:00:aa:00:01", Driver: "virtio_net", Link: true, SpeedMbit: 1000}},
		})
		return fmt.Sprintf("registered: %v", created), err
	}
	o, err := s.Store.LiveOrder(ctx, sn)
	if err != nil {
		return "", err
	}
	if o == nil {
		return s.live(ctx, sn, action, e, now)
	}
	switch action {
	case "boot":
		return s.boot(ctx, o, now)
	case "booted":
		return "", s.Store.MarkBooted(ctx, o.ID, plan.Booted{Schema: plan.Schema, Serial: sn, Hostname: "web1", Kernel: "5.14", System: "Test Linux 9", BootSeconds: 12}, now)
	}
	s.seq[o.ID]++
	e.Seq, e.Time, e.Kind = s.seq[o.ID], now, plan.Kind(action)
	if e.Kind == plan.KindPreview {
		text, refused, _ := strings.Cut(e.Text, "|")
		e.Text = refused
		e.Outlook = &plan.Outlook{Text: text + "\n", Refused: refused, Disks: []plan.OutlookDisk{{Disk: plan.Disk{Path: "/dev/vda", SizeBytes: 10 << 30}, Use: "erased"}}}
	}
	_, err = s.Store.Report(ctx, o.ID, []plan.Event{e}, now)
	return "", err
}

// live plays a machine that has no order: live boots what it is to run from memory, and whatever else is of that boot.
func (s *Server) live(ctx context.Context, sn, action string, e plan.Event, now time.Time) (string, error) {
	h, err := s.Store.Host(ctx, sn)
	switch {
	case err != nil:
		return "", err
	case action == "live" && h.Live != nil:
		r, err := s.catalogue.Resolve(ctx, h.Live.Image)
		if err != nil {
			return "", err
		}
		boot := registry.LiveBoot{SN: sn, Image: r.Ref(), Boot: registry.Digest(fmt.Sprint("live boot of ", sn, " ", h.Revision))}
		if err := s.Store.OfferLive(ctx, sn, r.Ref(), boot.Boot, now); err != nil {
			return "", err
		}
		_, err = s.Store.StartLive(ctx, boot, registry.Digest("token of "+boot.Boot), now)
		return "runs " + r.Ref(), err
	case h.LiveBoot == nil:
		return "", fmt.Errorf("there is no live order for %s, and it runs nothing from memory", sn)
	}
	id := h.LiveBoot.ID
	s.seq[id]++
	e.Seq, e.Time, e.Kind = s.seq[id], now, plan.Kind(action)
	_, err = s.Store.ReportLive(ctx, id, []plan.Event{e}, now)
	return "", err
}

func (s *Server) boot(ctx context.Context, o *registry.Order, now time.Time) (string, error) {
	digest := registry.Digest("boot of " + o.ID)
	if o.State == registry.OrderOpen { // else it waits for its turn, and asks again
		if err := s.Store.Offer(ctx, o.SN, o.ID, digest, now); err != nil {
			return "", err
		}
	}
	if _, err := s.Store.Consume(ctx, o.ID, digest, now); err != nil {
		return "", err
	}
	place, err := s.Store.StartOrder(ctx, o.ID, registry.Digest("token of "+o.ID), registry.SlotLimits{Global: 2, PerRack: 1}, now)
	if place > 0 {
		return fmt.Sprintf("place %d in the queue", place), err
	}
	return "installs", err
}
