package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/image/plan"
	"imgbuild/installer/control"
	"imgbuild/installer/fetch"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// world is a release's origin, and the server that plans.
type world struct {
	t     *testing.T
	data  []byte
	table *image.ChunkTable
	http  *httptest.Server

	mu    sync.Mutex
	said  map[string]plan.Swarm // by token: the last report
	plans map[string]func(*world) plan.Upstreams
	sent  int64 // by the origin
	down  bool  // the planning side
	news  chan struct{}
}

func newWorld(t *testing.T, size int) *world {
	w := &world{t: t, said: map[string]plan.Swarm{}, plans: map[string]func(*world) plan.Upstreams{}, news: make(chan struct{}, 1)}
	w.data, w.table = imagetest.Random(t, size, 5)
	w.http = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.http.Close)
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/rootfs" {
		http.ServeContent(&counting{ResponseWriter: rw, w: w}, r, "", time.Time{}, bytes.NewReader(w.data))
		return
	}
	var s plan.Swarm
	err := plan.Decode(r.Body, &s)
	if err == nil {
		err = s.Validate()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	f := w.plans[token]
	switch {
	case w.down:
		http.Error(rw, `{"error":"down"}`, http.StatusServiceUnavailable)
		return
	case err != nil || r.URL.Path != plan.SwarmPath || f == nil:
		http.Error(rw, fmt.Sprintf(`{"error":"%v"}`, err), http.StatusBadRequest)
		return
	}
	w.said[token] = s
	u := f(w)
	u.AskSeconds = 0.05
	select {
	case w.news <- struct{}{}:
	default:
	}
	if err := json.NewEncoder(rw).Encode(u); err != nil {
		w.t.Error(err)
	}
}

type counting struct {
	http.ResponseWriter
	w *world
}

func (c *counting) Write(p []byte) (int, error) {
	c.w.mu.Lock()
	c.w.sent += int64(len(p))
	c.w.mu.Unlock()
	return c.ResponseWriter.Write(p)
}

func (w *world) originSent() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

func (w *world) origin() plan.Upstream {
	return plan.Upstream{ID: "origin", Kind: plan.SourceOrigin, URL: w.http.URL + "/rootfs"}
}

// secretOf is what a machine's tickets are made with.
func secretOf(token string) []byte { return []byte("the secret of " + token) }

// relayOf is a machine as an upstream, once it has said where it serves.
func (w *world) relayOf(token string) []plan.Upstream {
	s, ok := w.said[token]
	if !ok || s.Port == 0 {
		return nil
	}
	return []plan.Upstream{{ID: token, Kind: plan.SourceRelay, URL: fmt.Sprintf("http://127.0.0.1:%d%s", s.Port, plan.ChunksPath),
		Ticket: plan.Ticket(secretOf(token), time.Now().Add(time.Minute))}}
}

// machine begins a transfer. Its console is returned too.
func (w *world) machine(token string, memory int64) (*Transfer, *reporttest.Lines) {
	w.t.Helper()
	said := &reporttest.Lines{}
	say := report.New(said)
	o := Options{
		Report: say, Fetcher: fetch.New(fetch.Options{Report: say, Backoff: 10 * time.Millisecond}), Size: int64(len(w.data)), Chunks: w.table,
		URLs: []string{w.http.URL + "/rootfs"}, Transport: plan.TransportRelay, Memory: memory, Spill: w.t.TempDir(), Token: token,
	}
	if token != "" {
		o.Server = control.New(control.Options{Server: w.http.URL, Report: say})
	}
	t, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := t.Run(context.WithoutCancel(w.t.Context())); err != nil {
			w.t.Errorf("%s: %v", token, err)
		}
	}()
	w.t.Cleanup(func() {
		if err := t.Close(); err != nil {
			w.t.Error(err)
		}
		<-ended
	})
	return t, said
}

// read reads everything, as an unpacker does, and compares.
func (w *world) read(t *Transfer) {
	w.t.Helper()
	got := make([]byte, 0, len(w.data))
	buf := make([]byte, 300<<10)
	for off := int64(0); off < int64(len(w.data)); {
		n, err := t.Blob().ReadAt(buf, off)
		if err != nil && err != io.EOF {
			w.t.Fatal(err)
		}
		got = append(got, buf[:n]...)
		t.Blob().Release(off, int64(n))
		off += int64(n)
	}
	if !bytes.Equal(got, w.data) {
		w.t.Fatal("other bytes came")
	}
}

func gotBy(t *Transfer, kind plan.SourceKind) int64 {
	n := int64(0)
	for _, s := range t.Sources() {
		if s.Kind == kind {
			n += s.Got
		}
	}
	return n
}

// A machine whose memory is much smaller than the image reads it from the origin; a second one that comes when the first has
// everything gets all of it from there, from its memory and its disk.
func TestALateMachineReadsEverythingFromTheOneThatTheServerNames(t *testing.T) {
	const size = 12<<20 + 12345
	w := newWorld(t, size)
	w.plans["a"] = func(w *world) plan.Upstreams {
		return plan.Upstreams{Upstreams: []plan.Upstream{w.origin()}, Secret: secretOf("a"), Keep: true, Linger: w.said["b"].Got < size}
	}
	w.plans["b"] = func(w *world) plan.Upstreams {
		return plan.Upstreams{Upstreams: append(w.relayOf("a"), w.origin()), Secret: secretOf("b")}
	}
	a, saidA := w.machine("a", 3<<20)
	w.read(a)
	before := w.originSent()
	lingered := make(chan struct{})
	go func() {
		a.Linger(t.Context())
		close(lingered)
	}()
	b, _ := w.machine("b", 3<<20)
	w.read(b)
	if got := gotBy(b, plan.SourceRelay); got != size {
		t.Errorf("%d of %d bytes came from the other machine", got, size)
	}
	if sent := w.originSent() - before; sent != 0 {
		t.Errorf("the origin sent %d bytes to the second machine", sent)
	}
	<-lingered
	if !strings.Contains(saidA.String(), "no other machine needs this one any more: it passed on 12 MiB") {
		t.Errorf("the first machine says\n%s", saidA)
	}
	if got := b.Summary(); got != "12 MiB of 12 MiB came: 12 MiB by relay" {
		t.Errorf("the summary is %q", got)
	}
}

func TestTheOriginTakesOverFromAMachineThatEnds(t *testing.T) {
	const size = 8 << 20
	w := newWorld(t, size)
	w.plans["a"] = func(w *world) plan.Upstreams {
		return plan.Upstreams{Upstreams: []plan.Upstream{w.origin()}, Secret: secretOf("a"), Keep: true}
	}
	w.plans["b"] = func(w *world) plan.Upstreams {
		return plan.Upstreams{Upstreams: append(w.relayOf("a"), w.origin()), Secret: secretOf("b")}
	}
	a, _ := w.machine("a", size)
	w.read(a)
	b, _ := w.machine("b", 2<<20) // it gets no further than its memory before it is read
	for gotBy(b, plan.SourceRelay) == 0 {
		<-w.news
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	w.read(b)
	if r, o := gotBy(b, plan.SourceRelay), gotBy(b, plan.SourceOrigin); r == 0 || o == 0 || r+o < size {
		t.Errorf("%d bytes came from the machine and %d from the origin", r, o)
	}
}

func TestAServerThatPlansNothingHoldsUpNothing(t *testing.T) {
	w := newWorld(t, 3<<20)
	w.down = true
	a, said := w.machine("a", 8<<20)
	w.read(a)
	begun := time.Now()
	a.Linger(t.Context())
	if d := time.Since(begun); d > lingerAlone {
		t.Errorf("it stays for %s where nobody reads", d)
	}
	if n := strings.Count(said.String(), "warning: ask the server"); n != 1 {
		t.Errorf("it warns %d times:\n%s", n, said)
	}
	alone, _ := w.machine("", 8<<20) // without any server
	w.read(alone)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	alone.Linger(ctx)
}

func TestATransferThatNobodyCanFeedFailsForWhoeverReads(t *testing.T) {
	w := newWorld(t, 1<<20)
	say := report.New(&reporttest.Lines{})
	tr, err := New(Options{Report: say, Fetcher: fetch.New(fetch.Options{Report: say}), Size: 1 << 20, Chunks: w.table, Memory: 1 << 20, URLs: []string{w.http.URL + "/gone"}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(t.Context()) }()
	if _, err := tr.Blob().ReadAt(make([]byte, 1), 0); err == nil || !strings.Contains(err.Error(), "the server answers 400") {
		t.Errorf("the reader gets %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the transfer has no error")
	}
	if err := tr.Close(); err == nil {
		t.Error("closing it tells nothing of what ended it")
	}
}

func TestProgressSaysWhatHasComeAndFromWhere(t *testing.T) {
	said := &reporttest.Lines{}
	say := report.New(said)
	data, table := imagetest.Random(t, 3<<20, 1)
	tr, err := New(Options{Report: say, Fetcher: fetch.New(fetch.Options{Report: say}), Size: 3 << 20, Chunks: table, Memory: 3 << 20, URLs: []string{"http://127.0.0.1/none"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := tr.Blob().Put(i, imagetest.Chunk(data, i)); err != nil {
			t.Fatal(err)
		}
		if complete := tr.progress(time.Now()); complete != (i == 2) {
			t.Errorf("after %d chunks of 3 complete is %v", i+1, complete)
		}
	}
	if got := said.String(); !strings.HasPrefix(got, "imgbuild: rootfs 33% 1.0 MiB of 3.0 MiB") || !strings.Contains(got, "rootfs 100% 3.0 MiB of 3.0 MiB") {
		t.Errorf("it says\n%s", got)
	}
}

func TestWhatTheServerPlansBecomesSourcesInItsOrder(t *testing.T) {
	own := []fetch.Source{{ID: "origin", Tier: tierOrigin}, {ID: "mirror-1", Tier: tierOrigin}}
	planned := []plan.Upstream{
		{ID: "x", Kind: plan.SourceRelay, URL: "http://10.0.0.2:1/chunks", Ticket: "t", Rate: 7}, {ID: "y", Kind: plan.SourceRelay}, {ID: "origin", Kind: plan.SourceOrigin, Rate: 9},
	}
	ids := func(list []fetch.Source) string {
		s := ""
		for _, x := range list {
			s += fmt.Sprintf("%s/%d ", x.ID, x.Tier)
		}
		return s
	}
	for _, c := range []struct {
		planned   []plan.Upstream
		transport plan.Transport
		want      string
	}{
		{planned, plan.TransportRelay, "x/0 y/1 origin/2 "},
		{[]plan.Upstream{planned[2], {ID: "mirror1", Kind: plan.SourceOrigin}, planned[0]}, plan.TransportRelay, fmt.Sprintf("origin/0 mirror1/0 x/%d ", fetch.LastResort+2)},
		{planned, plan.TransportHTTP, "origin/2 "},
		{planned[:2], plan.TransportRelay, "x/0 y/1 origin/1000 mirror-1/1000 "},
		{nil, plan.TransportRelay, "origin/1000 mirror-1/1000 "},
		{planned, plan.TransportTorrent, "origin/2 "},
	} {
		if got := ids(sources(c.planned, own, c.transport)); got != c.want {
			t.Errorf("%s: %s and not %s", c.transport, got, c.want)
		}
	}
	if s := sources(planned, own, plan.TransportRelay)[0]; s.Ticket != "t" || s.Rate != 7 || s.URL == "" || s.Kind != plan.SourceRelay {
		t.Errorf("got %+v", s)
	}
}
