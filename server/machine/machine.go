// Package machine is the machines' side of the server: the claim by which an installer asks what it may do, the reports of
// an installation or of a boot that runs from memory, and the first boot of what was installed. Requests come in; plans signed for one boot of one machine go
// out, after the gate has decided; what happens is in the registry before it is answered.
//
// It never decides itself, never lets two boots have one order, and believes no address, MAC or serial number: a claim has
// to show the nonce of a boot script, everything after it the token of its installation, or of its live boot.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
	"imgbuild/server/swarm"
)

// Registry is what is asked of the registry.
type Registry interface {
	Host(ctx context.Context, sn string) (*registry.Host, error)
	SeeMachine(ctx context.Context, inv plan.Inventory) (*registry.Host, bool, error)
	LiveOrder(ctx context.Context, sn string) (*registry.Order, error)
	Offered(ctx context.Context, digest string, now time.Time) (*registry.Offer, error)
	Consume(ctx context.Context, order, digest string, now time.Time) (*registry.Order, error)
	StartOrder(ctx context.Context, id, tokenDigest string, limits registry.SlotLimits, now time.Time) (place int, err error)
	StartLive(ctx context.Context, b registry.LiveBoot, tokenDigest string, now time.Time) (wait time.Duration, err error)
	OrderByToken(ctx context.Context, tokenDigest string) (*registry.Order, error)
	LiveByToken(ctx context.Context, tokenDigest string) (*registry.LiveBoot, error)
	Report(ctx context.Context, order string, events []plan.Event, now time.Time) (seq int64, err error)
	ReportLive(ctx context.Context, id string, events []plan.Event, now time.Time) (seq int64, err error)
	MarkLiveBooted(ctx context.Context, id string, b plan.Booted, now time.Time) error
	LoseLives(ctx context.Context, since, now time.Time) ([]registry.LiveBoot, error)
	MarkBooted(ctx context.Context, order string, b plan.Booted, now time.Time) error
	Silent(ctx context.Context, since time.Time) ([]registry.Order, error)
	LoseOrder(ctx context.Context, id string, since time.Time, text string, now time.Time) (lost bool, err error)
	ExpireOrders(ctx context.Context, now time.Time) ([]registry.Order, error)
	Append(ctx context.Context, events ...registry.Event) error
}

// Images is what is asked of the catalogue.
type Images interface {
	Resolve(ctx context.Context, ref string) (*releases.Release, error)
}

// Options say how to answer. Registry, Images and Key are required.
type Options struct {
	Registry Registry
	Images   Images
	// Key signs plans; LoadKey has it.
	Key image.PrivateKey
	// URL is as in boot.Options.
	URL    string
	Policy gate.Policy
	Limits registry.SlotLimits
	// Swarm plans who reads from whom. Without it every machine goes on as it does.
	Swarm *swarm.Server
	// Transport is the way that root file systems come; empty is plan.TransportHTTP. Mirrors are directories that hold NAME/VERSION/
	// of releases too, each with a slash at its end.
	Transport plan.Transport
	Mirrors   []string
	// Subnets are networks that are known: machines of one of them, without a rack and a switch, are near each other. Others are so
	// by the first 24 bits of their addresses, or 64 of IPv6's.
	Subnets []netip.Prefix
	// Rate is as in boot.NewPace.
	Rate float64
	// Every is how often Run looks for orders that have expired and machines that are lost; 5 s.
	Every time.Duration
	Log   *slog.Logger     // slog.Default()
	Now   func() time.Time // time.Now
}

// Server answers machines. It is safe for use from many goroutines.
type Server struct {
	o     Options
	pace  *boot.Pace
	small chan struct{} // one place for each request whose body is in memory,
	large chan struct{} // and for each whose body is large
	count counts

	mu   sync.Mutex
	said map[string]said // by serial number: the last refusal that was written down
}

type counts struct {
	install, preview, live, wait, inspect, local, registered, reports, events, booted, swarm, lost, expired, denied, slowed, failed atomic.Int64
}

// Counts are what a server has done since it started.
type Counts struct {
	// Claims by what was answered.
	Install, Preview, Live, Wait, Inspect, LocalBoot int64
	Registered                                       int64 // machines that were not known
	Reports, Events, Swarm, Booted                   int64
	Lost, Expired                                    int64
	Denied                                           int64 // requests without a right token
	Slowed                                           int64 // requests that came too fast
	Failed                                           int64 // requests that failed by the server's fault
}

// How many requests' bodies may be in memory at once, and how long one may take to come: together at most 128 MiB.
const (
	smallBody   = 64 << 10
	smallBodies = 1024
	largeBodies = 16
	patience    = 15 * time.Second
	// maxClaim bounds a claim: an inventory has some hundred bytes for each disk and card.
	maxClaim = 512 << 10
)

// New returns a Server.
func New(o Options) (*Server, error) {
	if o.Every <= 0 {
		o.Every = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.URL != "" {
		if err := boot.CheckURL(o.URL); err != nil {
			return nil, err
		}
	}
	return &Server{o: o, pace: boot.NewPace(o.Rate), small: make(chan struct{}, smallBodies), large: make(chan struct{}, largeBodies), said: map[string]said{}}, nil
}

// Counts returns what was done.
func (s *Server) Counts() Counts {
	c := &s.count
	return Counts{
		Install: c.install.Load(), Preview: c.preview.Load(), Live: c.live.Load(), Wait: c.wait.Load(), Inspect: c.inspect.Load(), LocalBoot: c.local.Load(), Registered: c.registered.Load(),
		Reports: c.reports.Load(), Events: c.events.Load(), Swarm: c.swarm.Load(), Booted: c.booted.Load(), Lost: c.lost.Load(), Expired: c.expired.Load(),
		Denied: c.denied.Load(), Slowed: c.slowed.Load(), Failed: c.failed.Load(),
	}
}

// failure is what a machine is told when it is not answered as it wished.
type failure struct {
	status int
	text   string
	after  int // seconds to wait before the next try; 0 for none
}

func (f *failure) Error() string { return f.text }

func refuse(status int, format string, a ...any) error {
	return &failure{status: status, text: fmt.Sprintf(format, a...)}
}

// handler reads a request's body, of at most so many bytes, into a T and lets f answer; a nil answer is 204.
func handler[T any](s *Server, most int64, f func(*http.Request, T) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := func() (any, error) {
			if r.Method != http.MethodPost {
				w.Header().Set("Allow", http.MethodPost)
				return nil, refuse(http.StatusMethodNotAllowed, "machines send by POST")
			}
			if client := boot.Client(r); !s.pace.Allow(client, s.o.Now()) {
				s.count.slowed.Add(1)
				return nil, &failure{http.StatusTooManyRequests, "too many requests from " + client.String(), 2}
			}
			var v T
			if err := s.read(w, r, most, &v); err != nil {
				return nil, err
			}
			return f(r, v)
		}()
		s.reply(w, r, answer, err)
	})
}

// read reads a request's body into v, when there is room for it.
func (s *Server) read(w http.ResponseWriter, r *http.Request, most int64, v any) error {
	room := s.small
	if r.ContentLength < 0 || r.ContentLength > smallBody {
		room = s.large
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	case <-r.Context().Done():
		return context.Cause(r.Context())
	}
	// A ResponseWriter that knows no deadline is a test's, or a wrapper's whose server has its own.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience))
	err := plan.Decode(http.MaxBytesReader(w, r.Body, most), v)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return refuse(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", most)
	case err != nil:
		return refuse(http.StatusBadRequest, "the request cannot be read: %v", err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return nil
}

// reply writes the answer, or what went wrong. What the database says is for the log only.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, answer any, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	status := http.StatusOK
	var f *failure
	switch {
	case errors.As(err, &f):
		if status = f.status; f.after > 0 {
			h.Set("Retry-After", fmt.Sprint(f.after))
		}
		if status == http.StatusUnauthorized {
			h.Set("Www-Authenticate", "Bearer")
		}
		answer = map[string]string{"error": f.text}
	case err != nil && r.Context().Err() != nil:
		return // nobody is there any more
	case err != nil:
		s.count.failed.Add(1)
		s.o.Log.Error("answer a machine", "path", r.URL.Path, "from", r.RemoteAddr, "err", err)
		status = http.StatusServiceUnavailable
		h.Set("Retry-After", "5")
		answer = map[string]string{"error": "the server cannot use its registry just now: ask again"}
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.o.Log.Info("answer a machine", "path", r.URL.Path, "to", r.RemoteAddr, "err", err)
	}
}

func checkSchema(schema int) error {
	if schema != plan.Schema {
		return refuse(http.StatusBadRequest, "the request's schema is %d and this server knows %d: boot the initramfs of a release that fits the server", schema, plan.Schema)
	}
	return nil
}
