package fetch

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/image/plan"
	"imgbuild/installer/blob"
	"imgbuild/installer/relay"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// counted is a server and how often it was asked for bytes.
type counted struct {
	http.Handler
	asked atomic.Int64
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.asked.Add(1)
	c.Handler.ServeHTTP(w, r)
}

// swarm is a transfer from several sources, read as an unpacker reads.
type swarm struct {
	t     *testing.T
	data  []byte
	table *image.ChunkTable
	f     *Fetcher
	said  *reporttest.Lines
	*Transfer
	blob *blob.Blob
	done chan error
}

// newSwarm prepares a transfer of n bytes.
func newSwarm(t *testing.T, n int, o Options, memory int64) *swarm {
	t.Helper()
	s := &swarm{t: t, done: make(chan error, 1)}
	s.data, s.table = imagetest.Random(t, n, 1)
	s.f, s.said = impatient(o)
	var err error
	if s.blob, err = blob.New(int64(n), s.table, memory); err != nil {
		t.Fatal(err)
	}
	s.Transfer = s.f.NewTransfer(s.blob)
	return s
}

func (s *swarm) start() { go func() { s.done <- s.Run(s.t.Context()) }() }

// read takes the bytes from off to end, which have to be right.
func (s *swarm) read(off, end int64) {
	s.t.Helper()
	p := make([]byte, 300_000)
	for off < end {
		n, err := s.blob.ReadAt(p[:min(int64(len(p)), end-off)], off)
		if err != nil && err != io.EOF {
			s.t.Fatalf("read at %d: %v\n%s", off, err, s.said)
		}
		if !bytes.Equal(p[:n], s.data[off:off+int64(n)]) {
			s.t.Fatalf("wrong bytes at %d", off)
		}
		s.blob.Release(off, int64(n))
		off += int64(n)
	}
}

// finish reads everything and ends the transfer.
func (s *swarm) finish() {
	s.t.Helper()
	failed := make(chan struct{})
	defer close(failed)
	go func() { // so that what ends the transfer wakes the reader
		select {
		case err := <-s.done:
			s.blob.Fail(err)
			s.done <- err
		case <-failed:
		}
	}()
	size := int64(len(s.data))
	s.read(size*9/10, size)
	s.read(0, size*9/10)
	s.blob.Close()
	if err := <-s.done; err != nil {
		s.t.Errorf("the transfer ended with: %v", err)
	}
}

// got is what a source brought.
func (s *swarm) got(id string) plan.SwarmSource {
	for _, x := range s.Sources() {
		if x.ID == id {
			return x
		}
	}
	return plan.SwarmSource{}
}

// all fails the test unless the sources brought the whole file together.
func (s *swarm) all(ids ...string) {
	s.t.Helper()
	sum := int64(0)
	for _, id := range ids {
		sum += s.got(id).Got
	}
	if refetched := s.blob.Stats().Refetched; sum < int64(len(s.data)) || sum > int64(len(s.data))+refetched {
		s.t.Errorf("%v brought %d of %d bytes: %+v\n%s", ids, sum, len(s.data), s.Sources(), s.said)
	}
}

// peer serves data as a relay does that wants the given ticket; odd, if not nil, may answer in its place.
func peer(t *testing.T, data []byte, ticket string, odd func(w http.ResponseWriter, r *http.Request, first int64) bool) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		var first, last int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil || last-first >= 16*mib {
			t.Errorf("a relay was asked for %q", r.Header.Get("Range"))
		}
		if r.URL.Path != plan.ChunksPath || r.Header.Get("Authorization") != "Bearer "+ticket {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if odd != nil && odd(w, r, first) {
			return
		}
		static(data)(w, r)
	}) + plan.ChunksPath
}

// says answers as a relay that has no bytes.
func says(w http.ResponseWriter, what string) bool {
	w.Header().Set(relay.Header, what)
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

func relayAt(url string) Source {
	return Source{ID: "machine", Kind: plan.SourceRelay, URL: url, Ticket: "t"}
}

func originAt(url string) Source { return Source{ID: "origin", URL: url, Tier: 1} }

func TestARelayIsReadAndTheOriginLeftAloneAsLongAsItWorks(t *testing.T) {
	s := newSwarm(t, 20*mib+5, Options{Stall: 10 * time.Second}, 64*mib)
	origin := &counted{Handler: static(s.data)}
	var busy, most atomic.Int64
	u := peer(t, s.data, "t", func(_ http.ResponseWriter, _ *http.Request, _ int64) bool {
		most.Store(max(most.Load(), busy.Add(1)))
		defer busy.Add(-1)
		return false
	})
	s.Use([]Source{originAt(serve(t, origin.ServeHTTP)), relayAt(u)})
	s.start()
	s.finish()
	s.all("machine")
	if origin.asked.Load() != 0 || most.Load() != 1 {
		t.Errorf("the origin was asked %d times, and %d requests were at the relay together", origin.asked.Load(), most.Load())
	}
}

func TestWhatARelaySaysIsHeeded(t *testing.T) {
	var n atomic.Int64
	corrupt := static(everyTenthWrong(t, 24*mib))
	for name, c := range map[string]struct {
		stall        time.Duration // 10 s, so that a busy machine does not look dead
		odd          func(w http.ResponseWriter, r *http.Request, first int64) bool
		relay        [2]int64 // what it brings, at least and at most, in MiB
		origin       [2]int64
		bad          int
		said, unsaid string
	}{
		"it waits for its chunks at times, and is waited for": {
			odd: func(w http.ResponseWriter, _ *http.Request, _ int64) bool {
				return n.Add(1)%2 == 1 && says(w, relay.Waiting)
			},
			relay: [2]int64{24, 24}, unsaid: "trying again",
		},
		"it waits for ever, and others bring what they can": {
			stall: 100 * time.Millisecond,
			odd:   func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return says(w, relay.Waiting) },
			relay: [2]int64{0, 0}, origin: [2]int64{24, 24},
		},
		"it dropped some chunks, and only those come from elsewhere, and one more after two in a row": {
			odd: func(w http.ResponseWriter, r *http.Request, first int64) bool {
				if i := first / mib; i == 3 || i == 7 || i == 8 {
					return says(w, relay.Gone)
				}
				var last int64
				fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
				for _, i := range []int64{3, 7, 8} { // its body ends before what it does not have
					if first/mib < i && last >= i*mib {
						r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, i*mib-1))
						break
					}
				}
				return false
			},
			relay: [2]int64{20, 20}, origin: [2]int64{4, 4}, unsaid: "trying again",
		},
		"it is busy, and somebody else is asked": {
			odd:   func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return says(w, relay.Busy) },
			relay: [2]int64{0, 0}, origin: [2]int64{24, 24}, said: "serves as many others as it can",
		},
		"it corrupts every tenth chunk, and is asked no more": {
			odd: func(w http.ResponseWriter, r *http.Request, first int64) bool {
				corrupt(w, r)
				return true
			},
			relay: [2]int64{0, 23}, origin: [2]int64{1, 24}, bad: 1, said: "is not used any more: it sent a wrong chunk",
		},
		"it is no relay": {
			odd: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
				return true
			},
			relay: [2]int64{0, 0}, origin: [2]int64{24, 24}, said: "302 Found",
		},
		"it does not know ranges": {
			odd: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				r.Header.Del("Range")
				return false
			},
			relay: [2]int64{0, 0}, origin: [2]int64{24, 24}, said: "sends no ranges",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n.Store(0)
			s := newSwarm(t, 24*mib, Options{Stall: cmp.Or(c.stall, 10*time.Second), Patience: time.Minute}, 64*mib)
			s.Use([]Source{relayAt(peer(t, s.data, "t", c.odd)), originAt(serve(t, static(s.data)))})
			s.start()
			s.finish()
			s.all("machine", "origin")
			within := func(id string, limits [2]int64) {
				if got := s.got(id).Got; got < limits[0]*mib || got > limits[1]*mib {
					t.Errorf("%s brought %d bytes: %+v\n%s", id, got, s.Sources(), s.said)
				}
			}
			within("machine", c.relay)
			within("origin", c.origin)
			if m := s.got("machine"); m.Bad < c.bad || c.bad == 0 && m.Bad > 0 {
				t.Errorf("%d bad chunks", m.Bad)
			}
			if !strings.Contains(s.said.String(), c.said) || c.unsaid != "" && strings.Contains(s.said.String(), c.unsaid) {
				t.Errorf("it was said:\n%s", s.said)
			}
		})
	}
}

// everyTenthWrong is the file of these tests with a wrong byte in every tenth chunk.
func everyTenthWrong(t *testing.T, size int) []byte {
	data, _ := imagetest.Random(t, size, 1)
	for i := 9; i < size/mib; i += 10 {
		data[i*mib+77] ^= 1
	}
	return data
}

func TestTheListOfSourcesMayChangeAtAnyTime(t *testing.T) {
	s := newSwarm(t, 24*mib, Options{Patience: 300 * time.Millisecond, Stall: 10 * time.Second}, 4*mib)
	began := make(chan struct{}, 100)
	ended := make(chan struct{}, 100)
	stuck := serve(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	s.start()
	s.Use([]Source{{ID: "stuck", URL: stuck}})
	<-began
	s.Use(nil) // its requests end, and it pauses
	<-ended
	a := Source{ID: "a", URL: serve(t, static(s.data))}
	s.Use([]Source{a})
	s.read(0, 3*mib)
	s.Use([]Source{a, a}) // twice the same is once
	s.read(3*mib, 6*mib)
	moved := a
	moved.URL = serve(t, static(s.data)) + "/moved"
	s.Use([]Source{moved})
	s.read(6*mib, 12*mib)
	s.Use([]Source{{ID: "b", URL: serve(t, static(s.data))}})
	s.finish()
	s.all("a", "b")
	list := s.Sources()
	if len(list) != 2 || list[0].ID != "b" || list[1].ID != "a" || list[1].Got < 12*mib || list[0].Kind != plan.SourceOrigin {
		t.Errorf("%+v", list)
	}
}

func TestARelayThatSentABadChunkStaysDownHoweverItIsPlanned(t *testing.T) {
	s := newSwarm(t, 24*mib, Options{Stall: 10 * time.Second, Patience: time.Minute}, 4*mib)
	var asked atomic.Int64
	count := func(http.ResponseWriter, *http.Request, int64) bool { asked.Add(1); return false }
	m := relayAt(peer(t, everyTenthWrong(t, 24*mib), "t", nil))
	o := originAt(serve(t, static(s.data)))
	s.Use([]Source{m, o})
	s.start()
	s.read(0, 12*mib)
	if x := s.got("machine"); x.Bad == 0 || x.Down == "" {
		t.Fatalf("%+v", x)
	}
	s.Use([]Source{o})
	s.Use([]Source{m, o})
	m.URL = peer(t, s.data, "t", count)
	s.Use([]Source{m, o})
	s.finish()
	if x := s.got("machine"); asked.Load() != 0 || x.Down == "" {
		t.Errorf("asked %d times, %+v", asked.Load(), x)
	}
}

func TestATicketThatExpiredIsReplaced(t *testing.T) {
	s := newSwarm(t, 16*mib, Options{Stall: 10 * time.Second, Patience: time.Minute}, 4*mib)
	m := relayAt(peer(t, s.data, "new", nil))
	s.Use([]Source{m, originAt(serve(t, static(s.data)))})
	s.start()
	s.read(0, 4*mib)
	if x := s.got("machine"); x.Got != 0 || !strings.Contains(x.Down, "ticket") {
		t.Fatalf("%+v", x)
	}
	m.Ticket = "new"
	s.Use([]Source{m})
	s.finish()
	s.all("machine", "origin")
	if x := s.got("machine"); x.Got == 0 || x.Down != "" {
		t.Errorf("%+v", x)
	}
}

func TestARunThatFailedMayBeRunAgainWithOtherSources(t *testing.T) {
	s := newSwarm(t, 4*mib, Options{}, 16*mib)
	s.Use([]Source{{ID: "a", URL: serve(t, http.NotFound)}})
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "404 Not Found") || s.blob.Err() != nil {
		t.Errorf("%v, %v", err, s.blob.Err())
	}
	s.Use([]Source{{ID: "b", URL: serve(t, static(s.data))}})
	s.start()
	s.finish()
	s.all("b")
}

func TestAFinishedTransferDoesNotMindThatItsSourcesAreGone(t *testing.T) {
	s := newSwarm(t, 4*mib, Options{}, 16*mib)
	s.Use([]Source{{ID: "a", URL: serve(t, static(s.data))}})
	s.start()
	if _, err := s.blob.ReadAt(make([]byte, 4*mib), 0); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.drop(s.sources[0], errors.New("somebody removed it"))
	s.mu.Unlock()
	s.finish()
}

func TestRatesAreKept(t *testing.T) {
	for name, c := range map[string]struct{ all, one int64 }{
		"of all together": {all: 10 * mib}, "of one source": {one: 10 * mib}, "of both": {all: 20 * mib, one: 10 * mib},
	} {
		s := newSwarm(t, 4*mib, Options{}, 16*mib)
		s.SetRate(c.all)
		s.Use([]Source{{ID: "a", URL: serve(t, static(s.data)), Rate: c.one}})
		begun := time.Now()
		s.start()
		s.finish()
		// The last piece is not waited for by those who read the others.
		if d := time.Since(begun); d < 300*time.Millisecond {
			t.Errorf("%s: 4 MiB at 10 MiB/s came in %s", name, d)
		}
	}
}

func TestAProxyIsAskedForEverythingButRelays(t *testing.T) {
	s := newSwarm(t, 6*mib, Options{}, 16*mib)
	var n atomic.Int64
	proxy, _ := url.Parse(serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if !r.URL.IsAbs() || r.URL.Host != "origin.invalid" {
			t.Errorf("the proxy was asked for %s", r.URL)
		}
		static(s.data)(w, r)
	}))
	f, _ := impatient(Options{Proxy: proxy})
	if data, err := f.Small(t.Context(), "http://origin.invalid/x", 100*mib); err != nil || len(data) != 6*mib || n.Load() != 1 {
		t.Errorf("a small file: %v", err)
	}
	s.Transfer = f.NewTransfer(s.blob)
	o := originAt("http://origin.invalid/rootfs")
	s.Use([]Source{relayAt(peer(t, s.data, "t", func(w http.ResponseWriter, _ *http.Request, first int64) bool {
		return first >= 2*mib && says(w, relay.Gone)
	})), o})
	s.start()
	s.finish()
	s.all("machine", "origin")
	if s.got("machine").Got == 0 || n.Load() < 2 {
		t.Errorf("%+v", s.Sources())
	}
}

func TestAChainOfRealRelaysBringsEverythingFromItsHead(t *testing.T) {
	const links = 3
	secret := []byte("a secret of the test")
	origin := &counted{Handler: http.HandlerFunc(nil)}
	from := Source{}
	var chain []*swarm
	for i := range links {
		s := newSwarm(t, 12*mib+9, Options{Patience: 20 * time.Second, Stall: 5 * time.Second}, 64*mib)
		if i == 0 {
			origin.Handler = static(s.data)
			from = Source{ID: "origin", URL: serve(t, origin.ServeHTTP)}
		}
		s.Use([]Source{from})
		r, err := relay.New(relay.Options{Blob: s.blob, Report: report.New(s.said), Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		r.SetSecret(secret)
		go r.Run(t.Context())
		t.Cleanup(func() { r.Close() })
		from = Source{ID: "machine", Kind: plan.SourceRelay, URL: fmt.Sprintf("http://127.0.0.1:%d%s", r.Port(), plan.ChunksPath),
			Ticket: plan.Ticket(secret, time.Now().Add(time.Hour))}
		chain = append(chain, s)
	}
	for i := range chain { // the last one first: it waits for the others
		chain[links-1-i].start()
	}
	for _, s := range chain {
		p := make([]byte, len(s.data))
		if _, err := s.blob.ReadAt(p, 0); err != nil && err != io.EOF || !bytes.Equal(p, s.data) {
			t.Fatalf("%v\n%s", err, s.said)
		}
	}
	for i, s := range chain {
		s.blob.Close()
		if err := <-s.done; err != nil {
			t.Error(err)
		}
		if i > 0 {
			s.all("machine")
		}
	}
}
