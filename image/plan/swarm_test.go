package plan

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestATicketIsForOneSecretAndOneTime(t *testing.T) {
	now := time.Unix(1790000000, 0)
	secret := []byte("a machine's own")
	ticket := Ticket(secret, now.Add(time.Minute))
	if !CheckTicket(secret, ticket, now) {
		t.Error("a good ticket is refused")
	}
	later := Ticket(secret, now.Add(time.Hour))
	for name, ok := range map[string]bool{
		"another machine's secret": CheckTicket([]byte("another's"), ticket, now),
		"no secret":                CheckTicket(nil, Ticket(nil, now.Add(time.Minute)), now),
		"at its end":               CheckTicket(secret, ticket, now.Add(time.Minute)),
		"cut off":                  CheckTicket(secret, ticket[:len(ticket)-1], now),
		"empty":                    CheckTicket(secret, "", now),
		"another expiry":           CheckTicket(secret, later[:10]+ticket[10:], now),
	} {
		if ok {
			t.Errorf("%s: the ticket is taken", name)
		}
	}
}

func TestWhatMakesNoSenseInASwarmIsRefused(t *testing.T) {
	good := Swarm{Schema: Schema, Total: 10, Got: 5, Held: 5, Rate: 1, Sources: []SwarmSource{{ID: "origin", Kind: SourceOrigin}}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Swarm){
		"schema":    func(s *Swarm) { s.Schema++ },
		"more":      func(s *Swarm) { s.Got = 11 },
		"held":      func(s *Swarm) { s.Held = -1 },
		"rate":      func(s *Swarm) { s.Rate = math.NaN() },
		"port":      func(s *Swarm) { s.Port = 70000 },
		"peer":      func(s *Swarm) { s.PeerID = "xx" },
		"source":    func(s *Swarm) { s.Sources[0].ID = "" },
		"a crowd":   func(s *Swarm) { s.Sources = make([]SwarmSource, maxSources+1) },
		"no file":   func(s *Swarm) { s.Total = 0 },
		"peer port": func(s *Swarm) { s.PeerPort = -1 },
	} {
		s := good
		s.Sources = slices.Clone(good.Sources)
		change(&s)
		if s.Validate() == nil {
			t.Errorf("%s: %+v is taken", name, s)
		}
	}
	up := Upstreams{Upstreams: []Upstream{{ID: "origin", Kind: SourceOrigin, URL: "http://10.0.0.1/x"}}, Peers: []string{"10.0.0.2:6881", "[2001:db8::1]:6881"}}
	if err := up.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Upstreams){
		"another scheme": func(u *Upstreams) { u.Upstreams[0].URL = "file:///etc/passwd" },
		"no ID":          func(u *Upstreams) { u.Upstreams[0].ID = "" },
		"a kind":         func(u *Upstreams) { u.Upstreams[0].Kind = SourceTorrent },
		"a peer's name":  func(u *Upstreams) { u.Peers[0] = "host:6881" },
		"a rate":         func(u *Upstreams) { u.Rate = -1 },
		"for ever":       func(u *Upstreams) { u.AskSeconds = math.Inf(1) },
	} {
		u := up
		u.Upstreams, u.Peers = slices.Clone(up.Upstreams), slices.Clone(up.Peers)
		change(&u)
		if u.Validate() == nil {
			t.Errorf("%s: %+v is taken", name, u)
		}
	}
}
