package api

import (
	"net/netip"
	"strings"
	"testing"

	"imgbuild/image/plan"
	"imgbuild/server/swarm"
)

// transfer has a machine say how its transfer goes.
func (s *service) transfer(t *testing.T, order, from string, got int64) {
	t.Helper()
	r := plan.Swarm{Schema: plan.Schema, Port: 9000, Total: 1 << 20, Got: got, Held: got, Rate: 1000, Sources: []plan.SwarmSource{{ID: from, Kind: plan.SourceOrigin, Got: got, Rate: 1000}}}
	who := swarm.Machine{Order: order, SN: "SN-" + order, Hostname: "web", Image: "web/1.0", Group: "rack r1", Address: netip.MustParseAddr("10.0.0.1"), Transport: plan.TransportRelay, Base: "http://10.0.0.9"}
	if _, err := s.swarm.Report(t.Context(), who, r); err != nil {
		t.Fatal(err)
	}
}

func TestTheSwarmIsShown(t *testing.T) {
	s := serve(t)
	s.want(t, call{path: "/api/v1/swarm", as: Read}, 200, "[]")
	s.transfer(t, "o1", "origin", 500)
	s.transfer(t, "o2", "o1", 400)
	for path, n := range map[string]int{"": 1, "?image=web/1.0": 1, "?image=web": 1, "?image=web/2.0": 0, "?image=we": 0} {
		var list []swarm.View
		s.want(t, call{path: "/api/v1/swarm" + path, as: Read}, 200, "").into(t, &list)
		if len(list) != n {
			t.Errorf("%s: %+v", path, list)
		}
		if n == 1 && (len(list[0].Machines) != 2 || list[0].Machines[1].From != "o1" || list[0].Machines[1].Depth != 1 || list[0].OriginRate != 2000) {
			t.Errorf("%+v", list[0])
		}
	}
	s.want(t, call{path: "/api/v1/swarm?imag=web", as: Read}, 400, "imag")
}

func TestRatesChangeWhileTheServerRuns(t *testing.T) {
	s := serve(t)
	s.want(t, call{path: "/api/v1/rates", as: Read}, 200, `{"global":5000000,"per_subnet":0,"per_machine":0,"own":false}`)
	s.want(t, call{method: "PUT", path: "/api/v1/rates", as: Read, body: `{"global":0}`}, 403, "")
	for body, want := range map[string]string{`{"global":5}`: `"field":"global"`, `{"per_machine":-1}`: `"field":"per_machine"`, `{"globl":5000}`: "globl", `5`: "error"} {
		if a := s.do(t, call{method: "PUT", path: "/api/v1/rates", as: Operate, body: body}); a.status != 400 && a.status != 422 || !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d %s, want %s", body, a.status, a.body, want)
		}
	}
	s.want(t, call{method: "PUT", path: "/api/v1/rates", as: Operate, body: `{"global":9000000,"per_machine":1000000}`}, 200, `{"global":9000000,"per_subnet":0,"per_machine":1000000,"own":true}`)
	s.want(t, call{path: "/api/v1/rates", as: Read}, 200, `"own":true`)
	s.want(t, call{method: "DELETE", path: "/api/v1/rates", as: Operate}, 200, `{"global":5000000,"per_subnet":0,"per_machine":0,"own":false}`)
}
