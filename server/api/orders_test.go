package api

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

func (s *service) host(t testing.TB, sn, more string) {
	t.Helper()
	s.want(t, call{method: "PUT", path: "/api/v1/servers/" + sn, as: Operate, body: `{"sn":"` + sn + `"` + more + `}`}, 201, "")
}

func (s *service) order(t testing.TB, sn string) registry.Order {
	t.Helper()
	var o registry.Order
	s.want(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: `{"sn":"` + sn + `","image":"web/1.0","reason":"new disk"}`}, 201, "").into(t, &o)
	return o
}

func TestAnOrderIsMadeByAPersonForAReleaseThatIsThere(t *testing.T) {
	s := serve(t)
	s.host(t, "SNA001", "")
	s.host(t, "SNA002", `,"image":"web"`)
	s.host(t, "SNP001", `,"protect":true`)
	for name, test := range map[string]struct {
		body, want string
		status     int
	}{
		"no host":                   {`{"reason":"x"}`, `"field":"sn"`, 422},
		"a host that isn't":         {`{"sn":"SNX009","image":"web","reason":"x"}`, `SNX009`, 404},
		"no reason":                 {`{"sn":"SNA001","image":"web"}`, `"reason"`, 422},
		"no image anywhere":         {`{"sn":"SNA001","reason":"x"}`, `"field":"image"`, 422},
		"a release that isn't":      {`{"sn":"SNA001","image":"web/9","reason":"x"}`, `"field":"image"`, 422},
		"done by magic":             {`{"sn":"SNA001","image":"web","reason":"x","done":"magic"}`, `"done"`, 422},
		"already expired":           {`{"sn":"SNA001","image":"web","reason":"x","expires":"2020-01-01T00:00:00Z"}`, `"expires"`, 422},
		"a time that is none":       {`{"sn":"SNA001","image":"web","reason":"x","expires":"soon"}`, ``, 400},
		"an unknown field":          {`{"sn":"SNA001","image":"web","reason":"x","force":true}`, `"field":"force"`, 422},
		"protected, named once":     {`{"sn":"SNP001","image":"web","reason":"x"}`, `SNP001`, 409},
		"protected, named wrongly":  {`{"sn":"SNP001","image":"web","reason":"x","protected":"SNA001"}`, `"field":"protected"`, 422},
		"two objects":               {`{"sn":"SNA001"}{"sn":"SNA002"}`, `more after`, 400},
		"by somebody else's name":   {`{"sn":"SNA001","image":"web","reason":"x","by":"root"}`, `"field":"by"`, 422},
		"a list where a text is":    {`{"sn":["SNA001"],"image":"web","reason":"x"}`, `"field":"sn"`, 422},
		"the state that it will be": {`{"sn":"SNA001","image":"web","reason":"x","state":"done"}`, `"field":"state"`, 422},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: test.body})
			if a.status != test.status && !(name == "protected, named once" && a.status == 422) || !strings.Contains(string(a.body), test.want) {
				t.Errorf("%d %s, want %d and %s", a.status, a.body, test.status, test.want)
			}
		})
	}
	var o registry.Order
	a := s.want(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: `{"sn":"SNA002","reason":"new disk"}`}, 201, `"image":"web/2.0"`)
	a.into(t, &o)
	if o.By != "operateer" || o.State != registry.OrderOpen || a.header.Get("Location") != "/api/v1/orders/"+o.ID || time.Until(o.Expires) > 24*time.Hour || time.Until(o.Expires) < 23*time.Hour {
		t.Errorf("%+v", o)
	}
	s.want(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: `{"sn":"SNA002","reason":"again"}`}, 409, "")
	s.want(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: `{"sn":"SNP001","image":"web","reason":"x","protected":"SNP001"}`}, 201, "")
	s.want(t, call{path: "/api/v1/orders/" + o.ID, as: Read}, 200, o.ID)
	s.want(t, call{path: "/api/v1/orders/nothing", as: Read}, 404, "")
	s.want(t, call{path: "/api/v1/orders?sn=SNA002&state=open", as: Read}, 200, o.ID)
	s.want(t, call{path: "/api/v1/orders?state=opne", as: Read}, 400, `"field":"state"`)
	s.want(t, call{method: "DELETE", path: "/api/v1/servers/SNA002", as: Operate}, 409, o.ID)
	s.want(t, call{method: "DELETE", path: "/api/v1/orders/" + o.ID + "?reason=wrong%20rack", as: Operate}, 204, "")
	s.want(t, call{method: "DELETE", path: "/api/v1/orders/nothing", as: Operate}, 404, "there is no order nothing")
	s.want(t, call{path: "/api/v1/events?order=" + o.ID, as: Read}, 200, "wrong rack")
}

func TestTheQueueHasWhoRunsAndWhoWaits(t *testing.T) {
	s := serve(t)
	s.want(t, call{path: "/api/v1/queue", as: Read}, 200, `{"limits":{"global":2,"per_rack":1,"per_image":0},"running":[],"waiting":[]}`)
	for i, sn := range []string{"SNA001", "SNA002"} {
		s.host(t, sn, `,"rack":"r1"`)
		o := s.order(t, sn)
		digest := registry.Digest("nonce " + sn)
		if err := s.store.Offer(t.Context(), sn, o.ID, digest, time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Consume(t.Context(), o.ID, digest, time.Now()); err != nil {
			t.Fatal(err)
		}
		place, err := s.store.StartOrder(t.Context(), o.ID, registry.Digest("token "+sn), s.api.o.Limits, time.Now())
		if err != nil || place != i {
			t.Fatalf("place %d, %v", place, err)
		}
	}
	var q queueView
	s.want(t, call{path: "/api/v1/queue", as: Read}, 200, "").into(t, &q)
	if len(q.Running) != 1 || len(q.Waiting) != 1 || q.Running[0].SN != "SNA001" || q.Waiting[0].Place != 1 {
		t.Errorf("%+v", q)
	}
	s.want(t, call{path: "/metrics", as: Read}, 200, `imgserve_installations{phase="running"} 1`)
	s.want(t, call{path: "/metrics", as: Read}, 200, `imgserve_installations{phase="waiting"} 1`)
	s.want(t, call{path: "/metrics", as: Read}, 200, `imgserve_hosts{state="installing"} 1`)
	s.want(t, call{path: "/metrics", as: Read}, 200, `imgserve_http_requests_total{method="POST",route="/api/v1/orders",status="201"} 2`)
}

func TestWhatElseThereIsToRead(t *testing.T) {
	s := serve(t)
	s.want(t, call{path: "/healthz"}, 200, `{"status":"ok"}`)
	s.want(t, call{path: "/readyz"}, 200, `{"status":"ready"}`)
	s.want(t, call{path: "/api/v1/images", as: Read}, 200, `"name":"web","version":"2.0"`)
	s.want(t, call{path: "/api/v1/leases", as: Read}, 200, "[]")
	a := s.want(t, call{path: "/images/web/1.0/rootfs.squashfs"}, 200, "")
	if len(a.body) != 1<<20 {
		t.Errorf("%d bytes", len(a.body))
	}
	s.want(t, call{path: "/metrics", as: Read}, 200, `imgserve_http_response_bytes_total{route="/images/{name}/{version}/{file}"} 1.048576e+06`)
	s.want(t, call{path: "/metrics", as: Read}, 200, `imgserve_images{usable="yes"} 2`)
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	s.want(t, call{path: "/healthz"}, 200, "")
	s.want(t, call{path: "/readyz"}, 503, "database")
	s.api.Drain()
	s.want(t, call{path: "/readyz"}, 503, "stopping")
}

func TestTokensAreMadeShownAndRevoked(t *testing.T) {
	s := serve(t)
	var made madeToken
	a := s.want(t, call{method: "POST", path: "/api/v1/tokens", as: Admin, body: `{"name":"ci","role":"read"}`}, 201, `"secret":"imgt_`)
	a.into(t, &made)
	s.want(t, call{path: "/api/v1/orders", token: made.Secret}, 200, "")
	list := s.want(t, call{path: "/api/v1/tokens", as: Admin}, 200, `"name":"ci"`)
	if strings.Contains(string(list.body), made.Secret) || strings.Contains(s.log.String(), made.Secret) {
		t.Error("the secret is told twice")
	}
	s.want(t, call{method: "POST", path: "/api/v1/tokens", as: Admin, body: `{"name":"ci","role":"read"}`}, 409, "")
	s.want(t, call{method: "POST", path: "/api/v1/tokens", as: Admin, body: `{"name":"x","role":"root"}`}, 422, `"field":"role"`)
	s.want(t, call{method: "POST", path: "/api/v1/tokens", as: Admin, body: `{"name":"","role":"read"}`}, 422, `"field":"name"`)
	s.want(t, call{method: "DELETE", path: a.header.Get("Location"), as: Admin}, 204, "")
	s.want(t, call{method: "DELETE", path: a.header.Get("Location"), as: Admin}, 404, "")
	s.want(t, call{path: "/api/v1/orders", token: made.Secret}, 401, "")
}

func TestEventsAreListedFromEitherEnd(t *testing.T) {
	s := serve(t)
	for i := range 30 {
		if err := s.store.Append(t.Context(), registry.Event{SN: "SNA00" + strconv.Itoa(i%2), Kind: "note", Text: "line " + strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	var list []registry.Event
	a := s.want(t, call{path: "/api/v1/events?sn=SNA001&limit=10", as: Read}, 200, `"line 1"`)
	a.into(t, &list)
	if len(list) != 10 || list[9].Text != "line 19" {
		t.Errorf("%d: %+v", len(list), list[len(list)-1])
	}
	next := strings.TrimSuffix(strings.TrimPrefix(a.header.Get("Link"), "<"), `>; rel="next"`)
	s.want(t, call{path: next, as: Read}, 200, `"line 29"`).into(t, &list)
	if len(list) != 5 {
		t.Errorf("%d on the second page", len(list))
	}
	s.want(t, call{path: "/api/v1/events?last=true&limit=1", as: Read}, 200, `"line 29"`)
	s.want(t, call{path: "/api/v1/events?limit=99999", as: Read}, 400, `"field":"limit"`)
}

// stream opens a stream of events and returns its lines.
func (s *service) stream(t *testing.T, path string, header map[string]string) (<-chan string, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+s.tokens[Read])
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	lines := make(chan string, 1000)
	go func() { // ends with the response
		defer close(lines)
		defer func() { _ = resp.Body.Close() }()
		scanner := bufio.NewScanner(resp.Body)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	return lines, cancel
}

// until reads lines to the first that begins so.
func until(t *testing.T, lines <-chan string, prefix string) string {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the stream ended before %q", prefix)
			}
			if strings.HasPrefix(line, prefix) {
				return line
			}
		case <-timeout:
			t.Fatalf("there is no line %q", prefix)
		}
	}
}

func TestAStreamTellsEventsAsTheyHappenAndGoesOnWhereItBroke(t *testing.T) {
	s := serve(t, func(o *Options) { o.KeepAlive = 50 * time.Millisecond })
	note := func(sn, text string) {
		t.Helper()
		err := s.store.Append(t.Context(), registry.Event{SN: sn, Kind: "step", Text: text, Machine: &plan.Event{Seq: 1, Kind: plan.KindStep, Time: time.Now()}})
		if err != nil {
			t.Fatal(err)
		}
	}
	note("SNA001", "before")
	lines, cancel := s.stream(t, "/api/v1/events?sn=SNA001", nil)
	until(t, lines, ": events after ")
	note("SNA002", "another machine's")
	note("SNA001", "now\nwith a line break")
	id := strings.TrimPrefix(until(t, lines, "id: "), "id: ")
	if data := until(t, lines, "data: "); !strings.Contains(data, `"text":"now`) || !strings.Contains(data, `"sn":"SNA001"`) {
		t.Errorf("%s", data)
	}
	until(t, lines, ": alive")
	cancel()
	note("SNA001", "while nobody listened")
	lines, _ = s.stream(t, "/api/v1/events?sn=SNA001", map[string]string{"Last-Event-ID": id})
	if data := until(t, lines, "data: "); !strings.Contains(data, "while nobody listened") {
		t.Errorf("%s", data)
	}
	lines, _ = s.stream(t, "/api/v1/events?after=0", nil)
	until(t, lines, "data: ")
	s.want(t, call{path: "/api/v1/events", as: Read, header: map[string]string{"Accept": "text/event-stream", "Last-Event-ID": "x"}}, 400, "Last-Event-ID")
	s.api.Drain()
	for range lines {
	} // it ends
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	s := serve(t, func(o *Options) { o.KeepAlive = 20 * time.Millisecond })
	lines, _ := s.stream(t, "/api/v1/events", nil)
	until(t, lines, ": alive")
	if err := s.store.RevokeToken(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	for range lines {
	} // it ends
}

func TestAReaderThatTakesNothingIsDropped(t *testing.T) {
	s := serve(t, func(o *Options) { o.SlowReader = 100 * time.Millisecond })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/v1/events?after=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+s.tokens[Read])
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	long := strings.Repeat("x", 900)
	for deadline := time.Now().Add(60 * time.Second); !strings.Contains(s.log.String(), "a reader of events was dropped"); {
		if time.Now().After(deadline) {
			t.Fatal("it was not dropped")
		}
		batch := make([]registry.Event, 500)
		for i := range batch {
			batch[i] = registry.Event{SN: "SNA001", Kind: "note", Text: long}
		}
		if err := s.store.Append(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	s.want(t, call{path: "/metrics", as: Read}, 200, "imgserve_event_streams_dropped_total 1")
}
