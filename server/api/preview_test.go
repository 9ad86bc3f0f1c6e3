package api

import (
	"strings"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

func TestWhatAnOrderSaysOfDisks(t *testing.T) {
	s := serve(t)
	s.host(t, "SNA001", "")
	post := func(more string, status int, want string) answer {
		t.Helper()
		return s.want(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: `{"sn":"SNA001","image":"web/1.0","reason":"x"` + more + `}`}, status, want)
	}
	post(`,"disk":"WD-1","disks":["WD-1"]`, 422, `"field":"disk"`)
	post(`,"disks":["WD-1","WD-1"]`, 422, `"field":"disks[1]"`)
	post(`,"unseal":["Default string"]`, 422, `"field":"unseal[0]"`)
	post(`,"preview":true,"done":"kexec"`, 422, `"field":"done"`)
	post(`,"layout":{"preset":"miror"}`, 422, `"field":"layout.preset"`)
	post(`,"layout":{"moon":1}`, 422, `moon`)
	post(`,"layout":{"disks":[{"partitions":[{"fs":"xfs","mount":"/","size":"4GB"}]}]}`, 422, `layout.disks[0].partitions[0].size`)
	post(`,"layout":{"preset":"mirror"}`, 422, `the layout needs mdadm, which the initramfs of web/1.0 does not have`)
	s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Operate, body: `{"layout":{"preset":"mirror","table":"atari"}}`}, 422, `"field":"layout.table"`)
	s.want(t, call{method: "PATCH", path: "/api/v1/servers/SNA001", as: Operate, body: `{"layout":{"preset":"mirror"}}`}, 200, `"layout":{"preset":"mirror"}`)
	post("", 422, `"field":"layout"`)
	s.want(t, call{path: "/api/v1/images", as: Read}, 200, `"tools":["extlinux",`)
	var o registry.Order
	post(`,"disk":"WD-1","layout":{"preset":"lvm"},"unseal":["SN-OLD"],"fresh":true,"done":"kexec"`, 201, "").into(t, &o)
	if len(o.Disks) != 1 || o.Disks[0] != "WD-1" || o.Layout == nil || o.Layout.Preset != layout.LVM || !o.Fresh || o.Done != "kexec" || len(o.Unseal) != 1 {
		t.Errorf("%+v", o)
	}
	s.want(t, call{path: "/api/v1/orders/" + o.ID + "/outlook", as: Read}, 409, "is for an installation, not for a preview")
}

func TestTheOutlookOfAPreview(t *testing.T) {
	s := serve(t)
	s.host(t, "SNA001", `,"protect":true`)
	var o registry.Order
	s.want(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: `{"sn":"SNA001","image":"web","reason":"x","preview":true}`}, 201, `"preview":true`).into(t, &o)
	path := "/api/v1/orders/" + o.ID + "/outlook"
	s.want(t, call{path: "/api/v1/orders/nothing/outlook", as: Read}, 404, "there is no order nothing")
	s.want(t, call{path: path}, 401, "")
	s.want(t, call{path: path, as: Read}, 409, "has not made the preview of order "+o.ID+" yet: it is open")
	s.want(t, call{path: "/api/v1/servers/SNA001", as: Read}, 200, `"state":"known"`)
	now := time.Now()
	digest := registry.Digest("a nonce")
	if err := s.store.Offer(t.Context(), "SNA001", o.ID, digest, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Consume(t.Context(), o.ID, digest, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.StartOrder(t.Context(), o.ID, registry.Digest("a token"), s.api.o.Limits, now); err != nil {
		t.Fatal(err)
	}
	s.want(t, call{path: path, as: Read}, 409, "it is consumed")
	found := &plan.Outlook{Text: "one line\n", Disks: []plan.OutlookDisk{{Disk: plan.Disk{Path: "/dev/vda"}, Use: "erased"}}, Scheme: &layout.Scheme{Firmware: layout.BIOS}}
	if _, err := s.store.Report(t.Context(), o.ID, []plan.Event{{Seq: 1, Time: now, Kind: plan.KindPreview, Text: "it is known", Outlook: found}}, now); err != nil {
		t.Fatal(err)
	}
	var got plan.Outlook
	s.want(t, call{path: path, as: Read}, 200, `"use":"erased"`).into(t, &got)
	if got.Text != "one line\n" || got.Scheme == nil || got.Scheme.Firmware != layout.BIOS {
		t.Errorf("%+v", got)
	}
	a := s.want(t, call{path: "/api/v1/events?order=" + o.ID, as: Read}, 200, `"kind":"preview"`)
	if strings.Contains(string(a.body), "outlook") {
		t.Errorf("the diary has the outlook too: %s", a.body)
	}
	s.want(t, call{path: "/api/v1/servers/SNA001", as: Read}, 200, `"state":"known"`)
	s.want(t, call{method: "POST", path: "/api/v1/orders", as: Operate, body: `{"sn":"SNA001","image":"web","reason":"x","preview":true}`}, 201, "").into(t, &o)
	s.want(t, call{method: "DELETE", path: "/api/v1/orders/" + o.ID, as: Operate}, 204, "")
	s.want(t, call{path: "/api/v1/orders/" + o.ID + "/outlook", as: Read}, 409, "there is no preview of order "+o.ID+": it is cancelled")
}
