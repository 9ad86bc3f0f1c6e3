package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

const (
	bootNonce = "AAECAwQFBgcICQoLDA0ODw"
	token     = "token-1"
)

// contract is a server that speaks plan's contract: it answers claims with the plans that it was given, one after the other
// and the last one again and again, and keeps events.
type contract struct {
	t    *testing.T
	key  image.PrivateKey
	http *httptest.Server

	mu     sync.Mutex
	plans  []plan.Plan
	claims []plan.Claim
	events []plan.Event
	posts  int
	beats  int
	stop   string
	status []int                 // answered before anything else, one after the other
	poison func(plan.Event) bool // refuses a batch with such an event
	lazy   bool                  // acknowledges nothing
	change chan struct{}
}

func newContract(t *testing.T, plans ...plan.Plan) *contract {
	t.Helper()
	key, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{t: t, key: key, plans: plans, change: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+plan.ClaimPath, c.claim)
	mux.HandleFunc("POST "+plan.EventsPath, c.report)
	c.http = httptest.NewServer(mux)
	t.Cleanup(c.http.Close)
	return c
}

func (c *contract) fault(w http.ResponseWriter) bool {
	if len(c.status) == 0 {
		return false
	}
	s := c.status[0]
	c.status = c.status[1:]
	w.WriteHeader(s)
	fmt.Fprintf(w, `{"error":"because of %d"}`, s)
	return true
}

func (c *contract) claim(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault(w) {
		return
	}
	var claim plan.Claim
	if err := plan.Decode(r.Body, &claim); err != nil {
		c.t.Error(err)
	}
	c.claims = append(c.claims, claim)
	p := c.plans[0]
	if len(c.plans) > 1 {
		c.plans = c.plans[1:]
	}
	if p.Boot == "" {
		p.Boot = claim.Boot
	}
	if p.Serial == "" {
		p.Serial = claim.Inventory.Serial
	}
	s, err := plan.Sign(p, c.key)
	if err != nil {
		c.t.Error(err)
	}
	c.write(w, s)
}

func (c *contract) report(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts++
	if c.fault(w) {
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		c.t.Errorf("authorised by %q", r.Header.Get("Authorization"))
	}
	var rep plan.Report
	if err := plan.Decode(r.Body, &rep); err != nil {
		c.t.Error(err)
	}
	if len(rep.Events) == 0 {
		c.beats++
	}
	for _, e := range rep.Events {
		if c.poison != nil && c.poison(e) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
	}
	a := plan.Answer{Stop: c.stop != "", Reason: c.stop}
	if !c.lazy {
		for _, e := range rep.Events {
			if n := len(c.events); n == 0 || e.Seq > c.events[n-1].Seq {
				c.events = append(c.events, e)
			}
		}
		if n := len(c.events); n > 0 {
			a.Seq = c.events[n-1].Seq
		}
	}
	close(c.change)
	c.change = make(chan struct{})
	c.write(w, a)
}

func (c *contract) write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		c.t.Error(err)
	}
}

// until waits until what the server has is as wanted.
func (c *contract) until(want func() bool) {
	c.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		ok, change := want(), c.change
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-limit:
			c.t.Fatalf("20 s later the server has %d events, %d heartbeats", len(c.events), c.beats)
		}
	}
}

func (c *contract) with(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// texts are the events as a diary.
func (c *contract) texts() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, e := range c.events {
		fmt.Fprintf(&b, "%s %s\n", e.Kind, e.Text)
	}
	return b.String()
}

// console keeps what people in front of the machine see.
type console struct {
	mu    sync.Mutex
	lines []string
}

func (c *console) Line(_ report.Class, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, strings.TrimPrefix(text, report.Prefix))
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines, "\n")
}
