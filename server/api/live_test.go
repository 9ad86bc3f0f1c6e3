package api

import (
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

func TestWhatAHostRunsIsWrittenAndShown(t *testing.T) {
	s := serve(t)
	s.want(t, call{method: "POST", path: "/api/v1/servers", as: Operate, body: `{"sn":"SNA001","image":"web","live":{"image":"web/1.0","size":"4GiB","persist":["/var=VAR"],"root":"nfs:10.0.0.1:/srv/web"}}`}, 201, `"live":{"image":"web/1.0"`)
	s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Operate, body: `{"live":{"size":"lots"}}`}, 422, `"field":"live.size"`)
	s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Operate, body: `{"live":{"sise":"1GiB"}}`}, 422, `"field":"live.sise"`)
	s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Read, body: `{"live":null}`}, 403, "")
	s.want(t, call{path: "/api/v1/servers?live=starting,running", as: Read}, 200, "[]")
	s.want(t, call{path: "/api/v1/servers?live=runing", as: Read}, 400, `"field":"live"`)
	now := time.Now()
	if err := s.store.OfferLive(t.Context(), "SNA001", "web/1.0", "boot", now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.StartLive(t.Context(), registry.LiveBoot{SN: "SNA001", Image: "web/1.0", Boot: "boot"}, "token", now); err != nil {
		t.Fatal(err)
	}
	var h registry.Host
	s.want(t, call{path: "/api/v1/servers/SNA001", as: Read}, 200, `"state":"starting"`).into(t, &h)
	if _, err := s.store.ReportLive(t.Context(), h.LiveBoot.ID, []plan.Event{{Seq: 1, Time: now, Kind: plan.KindDone, Text: "it runs"}}, now); err != nil {
		t.Fatal(err)
	}
	s.want(t, call{path: "/api/v1/servers?live=running", as: Read}, 200, `"live_boot":{"id":"`+h.LiveBoot.ID+`","image":"web/1.0","state":"running"`)
	s.want(t, call{path: "/api/v1/events?order=" + h.LiveBoot.ID, as: Read}, 200, `"live":true`)
	s.want(t, call{path: "/metrics", as: Read}, 200, `imgserve_live_hosts{state="running"} 1`)
	s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Operate, body: `{"live":null,"live_boot":null}`}, 200, `"live_boot":`)
}
