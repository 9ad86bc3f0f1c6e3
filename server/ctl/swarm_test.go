package ctl

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"imgbuild/image/plan"
	"imgbuild/server/client"
	"imgbuild/server/ctl/ctltest"
	"imgbuild/server/ctl/show"
	"imgbuild/server/swarm"
)

// transfers has a machine say how its transfer goes, to a server's planner.
func transfers(t *testing.T, s *ctltest.Server, sn string, r plan.Swarm) {
	t.Helper()
	r.Schema, r.Total, r.Held = plan.Schema, 400<<20, r.Got
	if !r.Done { // who is done here has gone on to its own system
		r.Port = 9000
	}
	who := swarm.Machine{Order: "o-" + strings.TrimPrefix(sn, "SN-"), SN: sn, Hostname: "web" + strings.TrimPrefix(sn, "SN-"), Image: "web/1.0", Group: "rack r1", Address: netip.MustParseAddr("10.0.0.1"), Transport: plan.TransportRelay, Base: "http://10.0.0.9"}
	if _, err := s.Swarm.Report(t.Context(), who, r); err != nil {
		t.Fatal(err)
	}
}

func from(id string, kind plan.SourceKind, got int64) []plan.SwarmSource {
	return []plan.SwarmSource{{ID: id, Kind: kind, Got: got, Rate: 20 << 20}}
}

// chain is a swarm of four: one that is done, and three in a chain of which the last has read some from the origin.
func chain(t *testing.T, s *ctltest.Server) {
	t.Helper()
	transfers(t, s, "SN-A", plan.Swarm{Got: 200 << 20, Rate: 20 << 20, SendRate: 20 << 20, Sources: from("origin", plan.SourceOrigin, 200<<20)})
	transfers(t, s, "SN-B", plan.Swarm{Got: 196 << 20, Rate: 20 << 20, Sources: from("o-A", plan.SourceRelay, 196<<20)})
	transfers(t, s, "SN-C", plan.Swarm{Got: 100 << 20, Rate: 10 << 20, Full: true, Sources: append(from("o-B", plan.SourceRelay, 97<<20), plan.SwarmSource{ID: "origin", Kind: plan.SourceOrigin, Got: 3 << 20})})
	transfers(t, s, "SN-D", plan.Swarm{Got: 400 << 20, Done: true, Sources: from("o-B", plan.SourceRelay, 400<<20)})
}

func TestASwarmIsDrawnAsAChain(t *testing.T) {
	s := ctltest.Start(t)
	tl, out, _ := tool(t, s)
	if err := tl.Swarm(t.Context(), "web", false); err != nil || out.String() != "no machine reads web now\n" {
		t.Errorf("%q, %v", out, err)
	}
	chain(t, s)
	out.text.Reset()
	if err := tl.Swarm(t.Context(), "web/1.0", false); err != nil {
		t.Fatal(err)
	}
	const want = `web/1.0 (400 MiB): 3 machines reading, 1 done; 50 MiB/s in all, 20 MiB/s of it from the origin
MACHINE RACK DONE RATE SENDS LEFT FROM
SN-D webD      r1    done  -         -         -     relay 100 %
origin
└─ SN-A webA   r1    50 %  20 MiB/s  20 MiB/s  10 s  origin 100 %
   ↓ SN-B webB  r1    49 %  20 MiB/s  -         10 s  relay 100 %
   ↓ SN-C webC  r1    25 %  10 MiB/s  -         30 s  relay 97 %, origin 3 %  ! waits-disk
`
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("%s\nwant\n%s", out, want)
	}
	tl.Format = show.JSON
	out.text.Reset()
	if err := tl.Swarm(t.Context(), "", false); err != nil || !strings.Contains(out.String(), `"from": "o-A"`) {
		t.Errorf("%s, %v", out, err)
	}
}

// squeeze makes columns' widths not matter.
func squeeze(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.Join(lines, "\n")
}

func TestASwarmIsWatched(t *testing.T) {
	s := ctltest.Start(t)
	tl, out, _ := tool(t, s)
	if err := tl.Swarm(t.Context(), "", true); err == nil || !strings.Contains(err.Error(), "terminal") {
		t.Error(err)
	}
	tl.Live = true
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- tl.Swarm(ctx, "web", true) }()
	out.await(t, "no machine reads web now")
	chain(t, s)
	out.await(t, "↓ SN-C webC")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHostsThatInstallShowTheirTransfers(t *testing.T) {
	s := ctltest.Start(t)
	tl, out, _ := tool(t, s)
	order(t, tl, "SN-C", "SN-E")
	play(t, s, "SN-C", "boot", plan.Event{})
	out.text.Reset()
	if err := tl.List(t.Context(), client.HostQuery{}); err != nil || strings.Contains(out.String(), "TRANSFER") {
		t.Errorf("%s, %v", out, err)
	}
	chain(t, s)
	out.text.Reset()
	if err := tl.List(t.Context(), client.HostQuery{}); err != nil || !strings.Contains(out.String(), "TRANSFER") || !strings.Contains(out.String(), "25 %, 10 MiB/s, 30 s left, relay 97 %, origin 3 %") {
		t.Errorf("%s, %v", out, err)
	}
}

func TestRatesAreShownAndChanged(t *testing.T) {
	s := ctltest.Start(t)
	tl, out, _ := tool(t, s)
	text := func(s string) *string { return &s }
	for _, tt := range []struct {
		name   string
		change RateChange
		want   []string // lines, with one blank between columns
	}{
		{"as configured", RateChange{}, []string{"global none what leaves the server in all the server's configuration"}},
		{"one is changed", RateChange{Global: text("5Gbit")}, []string{"global 625MB what leaves the server in all imgctl rates", "per-machine none what one machine reads imgctl rates"}},
		{"another is changed and the first stays", RateChange{PerMachine: text("200MB")}, []string{"global 625MB what", "per-machine 200MB what"}},
		{"one ends", RateChange{Global: text("none")}, []string{"global none what", "per-machine 200MB what"}},
		{"all end", RateChange{Reset: true}, []string{"per-machine none what one machine reads the server's configuration"}},
	} {
		out.text.Reset()
		if err := tl.Rates(t.Context(), tt.change); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, w := range tt.want {
			if !strings.Contains(squeeze(out.String()), w) {
				t.Errorf("%s: %s\nwant %s", tt.name, out, w)
			}
		}
	}
	for _, c := range []RateChange{{Global: text("fast")}, {Global: text("5Gbit"), Reset: true}} {
		if err := tl.Rates(t.Context(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
