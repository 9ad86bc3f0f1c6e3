package plan

import (
	"strings"
	"testing"
	"time"

	"imgbuild/image"
)

func signed(t *testing.T, p Plan) (Signed, image.PublicKey) {
	t.Helper()
	key, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Sign(p, key)
	if err != nil {
		t.Fatal(err)
	}
	return s, key.Public()
}

func TestAPlanServesOneBootOfOneMachine(t *testing.T) {
	p := Plan{Boot: "b1", Serial: "S1", Action: Install, Order: "o1", Manifest: "http://10.0.0.1/m.json", Token: "t", Issued: time.Unix(1, 0).UTC()}
	s, key := signed(t, p)
	got, err := Open(s, key, "b1", "S1")
	if err != nil || got.Order != "o1" || !got.Issued.Equal(p.Issued) {
		t.Errorf("got %+v, %v", got, err)
	}
	_, other := signed(t, p)
	changed := Signed{Plan: append([]byte(" "), s.Plan...), Signature: s.Signature}
	for name, f := range map[string]func() error{
		"another boot":    func() error { _, err := Open(s, key, "b2", "S1"); return err },
		"another machine": func() error { _, err := Open(s, key, "b1", "S2"); return err },
		"another server":  func() error { _, err := Open(s, other, "b1", "S1"); return err },
		"changed":         func() error { _, err := Open(changed, key, "b1", "S1"); return err },
		"no signature":    func() error { _, err := Open(Signed{Plan: s.Plan}, key, "b1", "S1"); return err },
		"no key":          func() error { _, err := Open(s, image.PublicKey{}, "b1", "S1"); return err },
	} {
		if f() == nil {
			t.Errorf("%s: the plan is taken", name)
		}
	}
}

func TestAPlanThatContradictsItselfIsRefused(t *testing.T) {
	for name, p := range map[string]Plan{
		"install without a token": {Action: Install, Order: "o", Manifest: "http://a/m"},
		"wait without a time":     {Action: Wait},
		"an unknown action":       {Action: "wipe"},
		"a bond without members":  {Action: Inspect, Host: Host{Network: &Network{Bonds: []Bond{{Name: "bond0", Mode: "802.3ad"}}}}},
	} {
		s, key := signed(t, p)
		if _, err := Open(s, key, "", ""); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestUnknownFieldsAndWhatFollowsAreRefused(t *testing.T) {
	for _, text := range []string{`{"seq":1,"kid":"x"}`, `{"seq":1} {}`, `{"seq":1}x`, ``, strings.Repeat(" ", MaxBytes) + `{}`} {
		var e Event
		if err := Decode(strings.NewReader(text), &e); err == nil {
			t.Errorf("%.20q: taken", text)
		}
	}
}

func TestAKeyIsOneWord(t *testing.T) {
	_, key := signed(t, Plan{})
	back, err := image.ParsePublicKeyText(key.Text())
	if err != nil || back.Text() != key.Text() || strings.ContainsAny(key.Text(), " =+/") {
		t.Errorf("%q: %v", key.Text(), err)
	}
	for _, bad := range []string{"", "AAAA", key.Text() + "=", key.Text()[1:]} {
		if _, err := image.ParsePublicKeyText(bad); err == nil {
			t.Errorf("%q: taken", bad)
		}
	}
}

func FuzzOpen(f *testing.F) {
	key, err := image.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"schema":1,"action":"inspect","boot":"b","serial":"s","issued":"2026-01-01T00:00:00Z","reason":"","host":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Open(Signed{Plan: data, Signature: image.SignPlan(data, key)}, key.Public(), "b", "s")
		if err == nil && (p.Boot != "b" || p.Serial != "s") {
			t.Errorf("took %+v", p)
		}
	})
}
