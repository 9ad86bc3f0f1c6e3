// Package api is the server's HTTP side: the list of everything that is served, who may ask for it, and the REST API for
// people and programs. Requests come in; answers as JSON, events as they happen (SSE) and metrics go out. What it serves of
// other packages (boot scripts, releases, the machines' side) it is given as handlers.
//
// It never decides what a machine may do, never trusts an address unless the configuration says so for old scripts, and
// never writes a token into a log or an answer, but for the one answer that makes it.
package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// Store is what the API needs of the registry.
type Store interface {
	Ping(ctx context.Context) error

	Host(ctx context.Context, sn string) (*registry.Host, error)
	Hosts(ctx context.Context, f registry.HostFilter) ([]registry.Host, error)
	Counts(ctx context.Context) (registry.Counts, error)
	PutHost(ctx context.Context, h registry.Host, by string, ifRevision int64) (*registry.Host, bool, error)
	PatchHost(ctx context.Context, sn string, patch []byte, by string, ifRevision int64) (*registry.Host, error)
	DeleteHost(ctx context.Context, sn, by string) error

	CreateOrder(ctx context.Context, o registry.Order, names int) (*registry.Order, error)
	Order(ctx context.Context, id string) (*registry.Order, error)
	Orders(ctx context.Context, f registry.OrderFilter) ([]registry.Order, error)
	Outlook(ctx context.Context, order string) (*plan.Outlook, error)
	CancelOrder(ctx context.Context, id, by, reason string) error
	Queue(ctx context.Context) ([]registry.Order, error)

	Events(ctx context.Context, f registry.EventFilter) ([]registry.Event, error)
	Watch(ctx context.Context, after int64) <-chan registry.Event

	Authenticate(ctx context.Context, secret string) (*registry.Token, error)
	CreateToken(ctx context.Context, name string, role registry.Role, expires time.Time) (string, *registry.Token, error)
	Tokens(ctx context.Context) ([]registry.Token, error)
	RevokeToken(ctx context.Context, name string) error

	Leases(ctx context.Context) ([]registry.Lease, error)
}

// Catalogue is what the API needs of the releases.
type Catalogue interface {
	List() []releases.Release
	Resolve(ctx context.Context, ref string) (*releases.Release, error)
}

// Handlers are those of other packages. Machine's handlers ask for the boot's nonce or the installation's token themselves.
type Handlers struct {
	IPXE     http.Handler // GET /boot/ipxe
	GRUB     http.Handler // GET /boot/grub.cfg
	Loaders  http.Handler // GET /boot/loader/{file}
	Images   http.Handler // GET /images/{name}/{version}/{file}
	Torrent  http.Handler // GET /torrent/{name}/{file}
	Announce http.Handler // GET torrent.AnnouncePath
	Scrape   http.Handler // GET /scrape
	Claim    http.Handler // POST plan.ClaimPath
	Events   http.Handler // POST plan.EventsPath
	Swarm    http.Handler // POST plan.SwarmPath
	Booted   http.Handler // POST plan.BootedPath
}

// Options are what an API is made of. Store, Catalogue, Swarm and Handlers are required.
type Options struct {
	Store     Store
	Catalogue Catalogue
	Swarm     Swarm
	Handlers  Handlers
	Limits    registry.SlotLimits
	// OrderExpiry is how long an order waits for its machine when it does not say.
	OrderExpiry time.Duration
	// LegacyClients are networks whose requests without a token may use the four calls of the old service.
	LegacyClients []netip.Prefix
	// TokensOverTLS refuses API tokens that come over a connection without TLS, but from this machine itself. HTTPS is the
	// address that is named then.
	TokensOverTLS bool
	HTTPS         string
	// Metrics is where the API's metrics go and what /metrics shows.
	Metrics *Metrics
	Log     *slog.Logger     // slog.Default()
	Now     func() time.Time // time.Now
	// KeepAlive is how often a stream of events says that it is alive; 15 s.
	KeepAlive time.Duration
	// SlowReader is how long the reader of a stream may take no byte before it is dropped; 30 s.
	SlowReader time.Duration
}

// API is the server's HTTP side.
type API struct {
	o       Options
	limiter *limiter
	openapi []byte
	mux     *http.ServeMux

	streams chan struct{} // one place for each stream
	drain   sync.Once
	drained chan struct{}
}

// bodyTime is how long a request's body may take.
const bodyTime = time.Minute

// maxStreams bounds how many streams of events there are at a time.
const maxStreams = 1000

// New returns the HTTP side.
func New(o Options) (*API, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = 15 * time.Second
	}
	if o.SlowReader <= 0 {
		o.SlowReader = 30 * time.Second
	}
	if o.OrderExpiry <= 0 {
		o.OrderExpiry = 24 * time.Hour
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	doc, err := openAPI()
	if err != nil {
		return nil, err
	}
	a := &API{
		o: o, limiter: newLimiter(o.Now), openapi: doc,
		mux: http.NewServeMux(), streams: make(chan struct{}, maxStreams), drained: make(chan struct{}),
	}
	if err := o.Metrics.register(newState(o.Store, o.Catalogue)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	for _, r := range a.Routes() {
		a.mux.Handle(r.Pattern, a.guard(r))
	}
	return a, nil
}

// Drain ends the streams of events, which would otherwise keep a stopping server waiting. Their readers come back.
func (a *API) Drain() { a.drain.Do(func() { close(a.drained) }) }

// ServeHTTP serves everything that Routes lists, and says no to everything else.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	began := a.o.Now()
	handler, pattern := a.mux.Handler(r)
	defer func() { a.finish(rec, r, pattern, began, recover()) }()
	if pattern == "" {
		nowhere(rec, r, handler)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // where it can: a body does not trickle in for ever
	}
	a.mux.ServeHTTP(rec, r)
}

// nowhere answers what no route is for, as JSON like everything else: 404, or 405 with the methods that there are.
func nowhere(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	silent := &silentWriter{header: http.Header{}}
	handler.ServeHTTP(silent, r)
	if allow := silent.header.Get("Allow"); silent.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s cannot be used here; there is %s", r.Method, allow))
		return
	}
	writeError(w, http.StatusNotFound, "there is nothing here; /openapi.json lists what there is")
}

// silentWriter keeps status and header and throws the body away.
type silentWriter struct {
	header http.Header
	status int
}

func (s *silentWriter) Header() http.Header         { return s.header }
func (s *silentWriter) Write(b []byte) (int, error) { return len(b), nil }
func (s *silentWriter) WriteHeader(status int)      { s.status = status }

// finish counts and logs a request, and answers for a handler that panicked. Neither the query nor a header is logged.
func (a *API) finish(rec *recorder, r *http.Request, pattern string, began time.Time, panicked any) {
	if panicked == http.ErrAbortHandler {
		panic(panicked)
	}
	if panicked != nil {
		a.o.Log.Error("a request ended in a fault of this program", "method", r.Method, "path", r.URL.Path, "fault", fmt.Sprint(panicked))
		if rec.status != 0 {
			panic(http.ErrAbortHandler) // part of an answer is out already
		}
		writeError(rec, http.StatusInternalServerError, "this is a fault of the server; its log has more")
	}
	took := a.o.Now().Sub(began)
	a.o.Metrics.request(r.Method, pattern, rec, took)
	a.o.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.code(), "bytes", rec.bytes, "took", took, "client", r.RemoteAddr)
}

// recorder notes what a handler answers.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write counts the bytes.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom hands files on to the connection, which has the kernel send them (sendfile).
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// writeJSON answers with a value.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("the answer cannot be written: %v", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that has gone needs no answer
}
