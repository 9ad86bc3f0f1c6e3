package boot

import (
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

func TestAnAddressThatAsksTooFastHasToWait(t *testing.T) {
	p := NewPace(100)
	a, b, now := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), time.Now()
	n := 0
	for p.Allow(a, now) {
		n++
	}
	if n != 1000 {
		t.Errorf("%d at once", n)
	}
	if !p.Allow(b, now) {
		t.Error("another address has to wait too")
	}
	n = 0
	for p.Allow(a, now.Add(time.Second)) {
		n++
	}
	if n != 100 {
		t.Errorf("%d a second later", n)
	}
	six := func(s string) bool { return p.Allow(netip.MustParseAddr(s), now) }
	for six("fd00::1") {
	}
	if six("fd00::2") || !six("fd00:0:0:1::1") {
		t.Error("a /64 is not one client")
	}
	if p := NewPace(-1); !p.Allow(a, now) || len(p.even) != 0 {
		t.Error("no limit is one")
	}
}

func TestABootLoaderThatAsksTooFastIsToldToWait(t *testing.T) {
	s := newScene(t)
	s.pace = NewPace(0.5)
	code := 200
	for i := 0; code == 200 && i < 50; i++ {
		w := httptest.NewRecorder()
		s.IPXE().ServeHTTP(w, httptest.NewRequest("GET", "/boot/ipxe?serial=SN-WEB", nil))
		code = w.Code
	}
	if code != 429 {
		t.Errorf("%d", code)
	}
	w := httptest.NewRecorder()
	if s.IPXE().ServeHTTP(w, httptest.NewRequest("GET", "/boot/ipxe", nil)); w.Code != 200 {
		t.Error("the script that asks again, and costs nothing, is refused")
	}
}
