package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/image/plan"
	"imgbuild/installer/blob"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

var secret = []byte("a secret of the server")

// start serves an empty blob.
func start(t testing.TB, size int, table *image.ChunkTable, memory int64, change ...func(*Server)) (*Server, *blob.Blob, *reporttest.Lines) {
	t.Helper()
	b, err := blob.New(int64(size), table, memory)
	if err != nil {
		t.Fatal(err)
	}
	l := &reporttest.Lines{}
	s, err := New(Options{Blob: b, Report: report.New(l), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	s.SetSecret(secret)
	for _, f := range change {
		f(s)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	t.Cleanup(func() {
		b.Close()
		s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, b, l
}

func holds(d time.Duration) func(*Server) { return func(s *Server) { s.hold = d } }

// client asks a Server over connections of its own.
func client(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func ticket() string { return plan.Ticket(secret, time.Now().Add(time.Hour)) }

// request is one for a range, with a good ticket.
func request(ctx context.Context, s *Server, method, ranges string) *http.Request {
	r, _ := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", s.Port(), plan.ChunksPath), nil)
	r.Header.Set("Authorization", "Bearer "+ticket())
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	return r
}

func TestRangesAreServedAsTheyAreAskedFor(t *testing.T) {
	data, table := imagetest.Random(t, 2*image.ChunkSize+100, 1)
	s, b, _ := start(t, len(data), table, 4*image.ChunkSize)
	for i := range table.Digests {
		if err := b.Put(i, imagetest.Chunk(data, i)); err != nil {
			t.Fatal(err)
		}
	}
	c := client(t)
	const mib = image.ChunkSize
	sent := int64(0)
	for _, x := range []struct {
		ranges     string
		status     int
		first, end int
	}{
		{"bytes=0-0", 206, 0, 1},
		{"bytes=0-1048575", 206, 0, mib},
		{"bytes=1048570-1048580", 206, mib - 6, mib + 5},
		{"bytes=1048576-", 206, mib, len(data)},
		{"bytes=-100", 206, len(data) - 100, len(data)},
		{"bytes=5-99999999999999999999", 206, 5, len(data)},
		{"", 200, 0, len(data)},
		{"bytes=2097252-", 416, 0, 0},
		{"bytes=0-1,5-6", 416, 0, 0},
		{"lines=0-1", 416, 0, 0},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			r, err := c.Do(request(t.Context(), s, method, x.ranges))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			r.Body.Close()
			want := data[x.first:x.end]
			if err != nil || r.StatusCode != x.status || x.status != 416 && r.ContentLength != int64(len(want)) {
				t.Errorf("%s %s: %s, %d bytes, %v", method, x.ranges, r.Status, r.ContentLength, err)
			}
			if x.status != 416 && method == "GET" {
				sent += int64(len(want))
				if !bytes.Equal(got, want) {
					t.Errorf("%s: %d wrong bytes", x.ranges, len(got))
				}
			}
			content := map[int]string{206: fmt.Sprintf("bytes %d-%d/%d", x.first, x.end-1, len(data)), 416: fmt.Sprintf("bytes */%d", len(data))}
			if got := r.Header.Get("Content-Range"); got != content[x.status] {
				t.Errorf("%s: Content-Range is %q", x.ranges, got)
			}
		}
	}
	for s.Stats().Sent < sent {
		time.Sleep(time.Millisecond) // it counts what it sent a moment later
	}
	if st := s.Stats(); st.Sent != sent || st.Readers != 1 {
		t.Errorf("%+v, and %d bytes were sent on one connection", st, sent)
	}
}

func TestNobodyGetsAByteWithoutAGoodTicket(t *testing.T) {
	data, table := imagetest.Random(t, 1000, 1)
	s, b, _ := start(t, len(data), table, image.ChunkSize)
	b.Put(0, data)
	c := client(t)
	ask := func(change func(r *http.Request)) *http.Response {
		r := request(t.Context(), s, "GET", "bytes=0-9")
		change(r)
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, _ := io.ReadAll(res.Body); bytes.Contains(got, data[:10]) != (res.StatusCode == 206) {
			t.Errorf("%s with %q", res.Status, got)
		}
		return res
	}
	for name, auth := range map[string]string{
		"no ticket": "", "no scheme": ticket(), "another scheme": "Basic " + ticket(), "junk": "Bearer junk",
		"an expired one":   "Bearer " + plan.Ticket(secret, time.Now().Add(-time.Second)),
		"one for another":  "Bearer " + plan.Ticket([]byte("another secret"), time.Now().Add(time.Hour)),
		"one of no secret": "Bearer " + plan.Ticket(nil, time.Now().Add(time.Hour)),
	} {
		if r := ask(func(r *http.Request) { r.Header.Set("Authorization", auth) }); r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %s", name, r.Status)
		}
	}
	if r := ask(func(r *http.Request) { r.Method = "POST" }); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s", r.Status)
	}
	if r := ask(func(r *http.Request) { r.URL.Path = "/" }); r.StatusCode != 404 {
		t.Errorf("another path: %s", r.Status)
	}
	if st := s.Stats(); st.Readers != 0 || st.Sent != 0 {
		t.Errorf("%+v", st)
	}
	if r := ask(func(r *http.Request) {}); r.StatusCode != 206 {
		t.Errorf("with a ticket: %s", r.Status)
	}
	s.SetSecret([]byte("another one"))
	if r := ask(func(r *http.Request) {}); r.StatusCode != 401 {
		t.Errorf("with a ticket of the secret before: %s", r.Status)
	}
}

// The server may name a machine to others before the machine has its secret.
func TestWhoComesBeforeTheSecretWaitsForIt(t *testing.T) {
	data, table := imagetest.Random(t, image.ChunkSize, 1)
	unknown := func(s *Server) { s.secret, s.known = nil, make(chan struct{}) }
	s, b, _ := start(t, len(data), table, image.ChunkSize, unknown, holds(time.Millisecond))
	if err := b.Put(0, data); err != nil {
		t.Fatal(err)
	}
	r, err := client(t).Do(request(t.Context(), s, "GET", "bytes=0-9"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 503 || r.Header.Get(Header) != Waiting {
		t.Errorf("without a secret: %s, %q", r.Status, r.Header.Get(Header))
	}
	s, b, _ = start(t, len(data), table, image.ChunkSize, unknown, holds(time.Minute))
	if err := b.Put(0, data); err != nil {
		t.Fatal(err)
	}
	status := make(chan int, 1)
	go func() {
		r, err := client(t).Do(request(t.Context(), s, "GET", "bytes=0-9"))
		if err != nil {
			status <- 0
			return
		}
		r.Body.Close()
		status <- r.StatusCode
	}()
	s.SetSecret(secret)
	if got := <-status; got != 206 {
		t.Errorf("when the secret has come: %d", got)
	}
}

func TestAServerSaysWhyItHasNoBytes(t *testing.T) {
	data, table := imagetest.Random(t, 4*image.ChunkSize, 1)
	for name, c := range map[string]struct {
		before func(b *blob.Blob)
		want   string
	}{
		"the chunk is to come":   {func(*blob.Blob) {}, Waiting},
		"the chunk was released": {func(b *blob.Blob) { b.Release(0, image.ChunkSize) }, Gone},
		"the transfer has ended": {func(b *blob.Blob) { b.Close() }, Busy},
	} {
		s, b, _ := start(t, len(data), table, 2*image.ChunkSize, holds(time.Millisecond))
		c.before(b)
		r, err := client(t).Do(request(t.Context(), s, "GET", "bytes=0-9"))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 503 || r.Header.Get(Header) != c.want {
			t.Errorf("%s: %s, %q", name, r.Status, r.Header.Get(Header))
		}
	}
}

func TestABodyGoesOnAsChunksComeAndEndsEarlyWhenOneDoesNot(t *testing.T) {
	data, table := imagetest.Random(t, 4*image.ChunkSize, 1)
	s, b, _ := start(t, len(data), table, 4*image.ChunkSize, holds(2*time.Minute))
	c := client(t)
	b.Put(0, imagetest.Chunk(data, 0))
	r, err := c.Do(request(t.Context(), s, "GET", "bytes=1048000-"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	got := make([]byte, 576) // of chunk 0: the chunk's end does not wait for the next one
	if _, err := io.ReadFull(r.Body, got); err != nil || !bytes.Equal(got, data[1048000:image.ChunkSize]) {
		t.Fatal(err)
	}
	for i := 1; i < 3; i++ {
		b.Put(i, imagetest.Chunk(data, i))
		got := make([]byte, image.ChunkSize)
		if _, err := io.ReadFull(r.Body, got); err != nil || !bytes.Equal(got, imagetest.Chunk(data, i)) {
			t.Fatal(err)
		}
	}
	b.Release(3*image.ChunkSize, image.ChunkSize) // it is gone
	if n, err := r.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the last chunk: %d, %v", n, err)
	}
	s2, b2, _ := start(t, len(data), table, 4*image.ChunkSize, holds(time.Millisecond))
	b2.Put(0, imagetest.Chunk(data, 0))
	if r, err = c.Do(request(t.Context(), s2, "GET", "bytes=0-1048576")); err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if all, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(all, imagetest.Chunk(data, 0)) {
		t.Errorf("%d bytes, %v", len(all), err)
	}
}

func TestReadersAreBounded(t *testing.T) {
	data, table := imagetest.Random(t, 1000, 1)
	s, b, _ := start(t, len(data), table, image.ChunkSize)
	b.Put(0, data)
	status := func(c *http.Client) string {
		r, err := c.Do(request(t.Context(), s, "GET", "bytes=0-9"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		io.Copy(io.Discard, r.Body)
		return fmt.Sprint(r.StatusCode, r.Header.Get(Header))
	}
	var clients []*http.Client
	for range maxReaders {
		clients = append(clients, client(t))
		if got := status(clients[len(clients)-1]); got != "206" {
			t.Fatal(got)
		}
	}
	late := client(t)
	for range 3 {
		if got := status(late); got != "503busy" {
			t.Error("one more:", got)
		}
	}
	if got := status(clients[0]); got != "206" { // a place is kept between requests
		t.Error("the first one again:", got)
	}
	clients[3].CloseIdleConnections()
	for s.Stats().Readers == maxReaders {
		time.Sleep(time.Millisecond) // until the server sees the connection's end
	}
	if got := status(late); got != "206" {
		t.Error("after another left:", got)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	_, table := imagetest.Random(t, 10, 1)
	s, _, _ := start(t, 10, table, image.ChunkSize)
	for range maxConnections + 1 {
		c, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("one more than the bound is let in")
	}
}

func TestAReaderThatTakesNothingIsDroppedAndOthersGoOn(t *testing.T) {
	data, table := imagetest.Random(t, 40*image.ChunkSize, 1)
	s, b, l := start(t, len(data), table, int64(len(data)), func(s *Server) { s.timeout = 100 * time.Millisecond })
	for i := range table.Digests {
		b.Put(i, imagetest.Chunk(data, i))
	}
	stuck, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	fmt.Fprintf(stuck, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", plan.ChunksPath, ticket())
	for !strings.Contains(l.String(), "took nothing for 1 s") || s.Stats().Readers > 0 {
		time.Sleep(time.Millisecond) // it never reads, so its socket is full
	}
	r, err := client(t).Do(request(t.Context(), s, "GET", "bytes=-5"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, data[len(data)-5:]) {
		t.Errorf("another: %s, %v", r.Status, err)
	}
}

func TestTheEndOfTheTransferEndsWhatIsBeingServed(t *testing.T) {
	data, table := imagetest.Random(t, 2*image.ChunkSize, 1)
	for name, end := range map[string]func(s *Server, b *blob.Blob){
		"the transfer": func(_ *Server, b *blob.Blob) { b.Close() },
		"the server":   func(s *Server, _ *blob.Blob) { s.Close() },
	} {
		s, b, _ := start(t, len(data), table, 2*image.ChunkSize)
		b.Put(0, imagetest.Chunk(data, 0))
		r, err := client(t).Do(request(t.Context(), s, "GET", ""))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := io.ReadFull(r.Body, make([]byte, image.ChunkSize)); err != nil {
			t.Fatal(err)
		}
		end(s, b)
		if _, err := r.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunEndsWithItsContextAndCloseWithoutRun(t *testing.T) {
	_, table := imagetest.Random(t, 10, 1)
	b, _ := blob.New(10, table, 0)
	s, err := New(Options{Blob: b, Report: report.New(&reporttest.Lines{})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s, err = New(Options{Blob: b, Report: report.New(&reporttest.Lines{})}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := New(Options{Listen: "256.0.0.1:0"}); err == nil || !strings.HasPrefix(err.Error(), "listen for other machines: ") {
		t.Error(err)
	}
}
