// Package boot answers machines that start from the network: the query of an iPXE or GRUB comes in, a script made for this
// one boot goes out, after the gate has said what the machine may do.
//
// It never decides itself, never leaves a machine without an answer that boots something, and never puts into a script what
// could be read as more than one word: values are typed, checked and escaped. The nonce of a script is the only thing that
// it gives away.
package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// Registry is what is asked of the registry.
type Registry interface {
	Host(ctx context.Context, sn string) (*registry.Host, error)
	HostByMAC(ctx context.Context, mac string) (*registry.Host, error)
	LiveOrder(ctx context.Context, sn string) (*registry.Order, error)
	Offer(ctx context.Context, sn, order, digest string, now time.Time) error
	OfferLive(ctx context.Context, sn, image, digest string, now time.Time) error
	Append(ctx context.Context, events ...registry.Event) error
}

// Images is what is asked of the catalogue.
type Images interface {
	Resolve(ctx context.Context, ref string) (*releases.Release, error)
	Newest(ctx context.Context, arch string) (*releases.Release, error)
}

// Options say how to answer. Registry, Images and Key are required.
type Options struct {
	Registry Registry
	Images   Images
	// Key is what plans are signed with: the machine is told to believe no other.
	Key image.PublicKey
	// URL is the address that machines are given for everything else, as http://10.0.0.1:8080. Empty takes the address
	// that the machine itself has asked.
	URL    string
	Policy gate.Policy
	// Again is how soon a machine that was started for inspection may be started for it again: until then it boots its
	// disk, so that one whose inspection fails is not kept from its work. 15 min.
	Again time.Duration
	// Rate is as in NewPace.
	Rate float64
	Log  *slog.Logger     // slog.Default()
	Now  func() time.Time // time.Now
}

// Server makes boot scripts. It is safe for use from many goroutines.
type Server struct {
	o     Options
	pace  *Pace
	count counts

	mu        sync.Mutex
	inspected map[string]time.Time // by serial number: when a script for inspection was given
	diary     map[string]said      // by serial number: the last decision that was written down
}

// counts are how many scripts were given.
type counts struct{ install, preview, live, inspect, local, chain, failed atomic.Int64 }

// Counts are how many scripts a server has given since it started, by what they do.
type Counts struct {
	Install, Preview, Live, Inspect, LocalBoot, Chain int64
	// Failed are those of LocalBoot that are there because the registry or the catalogue failed.
	Failed int64
}

// New returns a Server.
func New(o Options) (*Server, error) {
	if o.Again <= 0 {
		o.Again = 15 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.URL != "" {
		if err := CheckURL(o.URL); err != nil {
			return nil, err
		}
	}
	return &Server{o: o, pace: NewPace(o.Rate), inspected: map[string]time.Time{}, diary: map[string]said{}}, nil
}

// Counts returns how many scripts were given.
func (s *Server) Counts() Counts {
	c := &s.count
	return Counts{c.install.Load(), c.preview.Load(), c.live.Load(), c.inspect.Load(), c.local.Load(), c.chain.Load(), c.failed.Load()}
}

// IPXE is the handler of /boot/ipxe. Without a query it answers with the script that asks again with one.
func (s *Server) IPXE() http.Handler {
	return s.handler("iPXE", func(ctx context.Context, q question) string {
		if q.empty {
			s.count.chain.Add(1)
			return ipxeChain(q.base)
		}
		return ipxeScript(q, s.answer(ctx, q))
	})
}

// GRUB is the handler of /boot/grub.cfg, as IPXE.
func (s *Server) GRUB() http.Handler {
	return s.handler("GRUB", func(ctx context.Context, q question) string { return s.grub(ctx, q) })
}

func (s *Server) grub(ctx context.Context, q question) string {
	if q.empty {
		s.count.chain.Add(1)
		return grubChain(q.base)
	}
	return grubScript(q, s.answer(ctx, q))
}

func (s *Server) handler(loader string, script func(context.Context, question) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", "GET")
			http.Error(w, "boot scripts are only read", http.StatusMethodNotAllowed)
			return
		}
		base, err := Base(s.o.URL, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		q := ask(loader, base, r.URL.Query())
		if client := Client(r); !q.empty && !s.pace.Allow(client, s.o.Now()) {
			w.Header().Set("Retry-After", "5") // the script that iPXE has runs it again
			http.Error(w, "too many requests from "+client.String(), http.StatusTooManyRequests)
			return
		}
		text := script(r.Context(), q)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if _, err := io.WriteString(w, text); err != nil {
			s.o.Log.Info("send a boot script", "to", r.RemoteAddr, "err", err)
		}
	})
}

// answer is what a script says.
type answer struct {
	verdict gate.Verdict
	host    *registry.Host    // nil if there is none
	release *releases.Release // to boot with; nil with LocalBoot
	nonce   string            // of this boot; empty with LocalBoot
	key     string
}

// answer asks the gate, and gives a nonce to whom it lets in. Whatever fails makes a LocalBoot that says so.
func (s *Server) answer(ctx context.Context, q question) answer {
	a, order, err := s.decide(ctx, &q)
	if err == nil && a.verdict.Action != plan.LocalBoot {
		err = s.equip(ctx, q, &a, order)
	}
	if err != nil {
		s.count.failed.Add(1)
		s.o.Log.Error("answer a machine", "loader", q.loader, "sn", q.seen.Serial, "mac", q.mac, "err", err)
		a.verdict = refusal("the server has a problem of its own, see its log: %s", public(err))
	}
	switch a.verdict.Action {
	case plan.Install:
		s.count.install.Add(1)
	case plan.Preview:
		s.count.preview.Add(1)
	case plan.Live:
		s.count.live.Add(1)
	case plan.Inspect:
		s.count.inspect.Add(1)
	default:
		s.count.local.Add(1)
	}
	s.note(ctx, q, a, order)
	return a
}

// decide finds who asks and lets the gate decide.
func (s *Server) decide(ctx context.Context, q *question) (answer, *registry.Order, error) {
	var a answer
	host, err := s.host(ctx, q)
	if err != nil {
		return a, nil, err
	}
	var order *registry.Order
	if host != nil {
		if order, err = s.o.Registry.LiveOrder(ctx, host.SN); err != nil {
			return a, nil, err
		}
	}
	a.host = host
	a.verdict = gate.Decide(s.o.Now(), s.o.Policy, host, order, q.seen)
	if a.verdict.Action == plan.Inspect && q.try <= 1 {
		if s.inspectedBefore(q.seen.Serial) {
			a.verdict = refusal("it was started for inspection less than %s ago; then because %s", s.o.Again, a.verdict.Reason)
		}
	}
	return a, order, nil
}

// host finds the host by serial number. GRUB may not know it: then the registry says which machine has the MAC, and the
// installer, which reads the serial number itself, has to confirm it.
func (s *Server) host(ctx context.Context, q *question) (*registry.Host, error) {
	var host *registry.Host
	var err error
	switch {
	case q.seen.Serial != "" && q.seen.SerialProblem == "":
		host, err = s.o.Registry.Host(ctx, q.seen.Serial)
	case q.loader == "GRUB" && q.mac != "":
		if host, err = s.o.Registry.HostByMAC(ctx, q.mac); err == nil && host != nil {
			q.seen.Serial, q.seen.SerialProblem = host.SN, ""
		} else if errors.Is(err, registry.ErrNotFound) && q.seen.SerialProblem == "" {
			q.seen.SerialProblem = "this GRUB does not tell it, and no machine in the registry has the MAC " + q.mac
		}
	}
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil
	}
	return host, err
}

// equip chooses what to boot with and offers this boot its nonce.
func (s *Server) equip(ctx context.Context, q question, a *answer, order *registry.Order) error {
	r, err := s.release(ctx, q, a, order)
	if errors.Is(err, releases.ErrNotFound) || errors.Is(err, releases.ErrRefused) {
		a.verdict = refusal("it cannot be started: %v; %s", err, a.verdict.Reason)
		return nil
	}
	if err != nil {
		return err
	}
	if q.arch != "" && q.arch != r.Arch {
		a.verdict = refusal("release %s is for %s and this machine is %s", r.Ref(), r.Arch, q.arch)
		return nil
	}
	nonce := newNonce()
	if err := s.offer(ctx, q, a, order, r, Digest(nonce)); err != nil {
		return err
	}
	if a.verdict.Action == plan.Inspect {
		s.inspecting(q.seen.Serial)
	}
	a.release, a.nonce, a.key = r, nonce, s.o.Key.Text()
	return nil
}

// offer stores what this boot is started for.
func (s *Server) offer(ctx context.Context, q question, a *answer, order *registry.Order, r *releases.Release, digest string) error {
	switch {
	case a.verdict.Action == plan.Live:
		return s.o.Registry.OfferLive(ctx, q.seen.Serial, r.Ref(), digest, s.o.Now())
	case order != nil:
		return s.o.Registry.Offer(ctx, q.seen.Serial, order.ID, digest, s.o.Now())
	}
	return s.o.Registry.Offer(ctx, q.seen.Serial, "", digest, s.o.Now())
}

// release is the ordered one for an installation or its preview, and the host's for what runs from memory. For an inspection any will do: the order's, the host's, the newest.
func (s *Server) release(ctx context.Context, q question, a *answer, order *registry.Order) (*releases.Release, error) {
	if a.verdict.Action == plan.Install || a.verdict.Action == plan.Preview {
		return s.o.Images.Resolve(ctx, order.Image)
	}
	if a.verdict.Action == plan.Live {
		return s.o.Images.Resolve(ctx, a.host.Live.Image)
	}
	var refs []string
	if order != nil {
		refs = append(refs, order.Image)
	}
	if a.host != nil && a.host.Image != "" {
		refs = append(refs, a.host.Image)
	}
	for _, ref := range refs {
		if r, err := s.o.Images.Resolve(ctx, ref); err == nil && (q.arch == "" || r.Arch == q.arch) {
			return r, nil
		}
	}
	return s.o.Images.Newest(ctx, q.arch)
}

// public is what of a failure may be shown on a machine's console: what it is about, not what the database said.
func public(err error) string {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "it took too long"
	case errors.Is(err, registry.ErrConflict):
		return "the registry was changed meanwhile"
	}
	return "the registry cannot be asked"
}

// refusal is the verdict for a machine that cannot be given what the gate allows.
func refusal(format string, a ...any) gate.Verdict {
	return gate.Verdict{Action: plan.LocalBoot, Reason: fmt.Sprintf(format, a...)}
}
