package registry

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"imgbuild/image/plan"
)

func TestSerialNumbersAreOrderedByBytesEverywhere(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		want := []string{"A-10", "A10", "B1_", "a-10", "b10"}
		for _, sn := range []string{"b10", "A10", "a-10", "B1_", "A-10"} {
			if _, _, err := s.PutHost(t.Context(), Host{SN: sn}, "alice", 0); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := s.Hosts(t.Context(), HostFilter{After: after, Limit: 2})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, h := range page {
				got = append(got, h.SN)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestPutHostCreatesReplacesAndCounts(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		h := Host{SN: " SN-1 ", Hostname: "web1.example.org.", IP: "10.0.0.7", Netmask: "/24", GW: "10.0.0.1", MACs: []string{"52-54-00-AA-BB-01", "52:54:00:aa:bb:01"},
			UUID: "4C4C4544-0000-1111-2222-000000000001", Metadata: json.RawMessage(`{"role":"web"}`), DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2")},
			State: Installed, Revision: 77}
		got, created, err := s.PutHost(ctx, h, "alice", 0)
		if err != nil || !created {
			t.Fatal(got, created, err)
		}
		if got.SN != "SN-1" || got.Hostname != "web1.example.org" || got.Netmask != "255.255.255.0" || !slices.Equal(got.MACs, []string{"52:54:00:aa:bb:01"}) ||
			got.UUID != "4c4c4544-0000-1111-2222-000000000001" || got.State != Known || got.Revision != 1 {
			t.Errorf("stored as %+v", got)
		}
		if read, err := s.Host(ctx, "SN-1"); err != nil || !same(t, *read, *got) {
			t.Errorf("read back as %+v, %v", read, err)
		}
		if again, created, err := s.PutHost(ctx, h, "alice", 1); err != nil || created || again.Revision != 1 {
			t.Errorf("writing the same again changes it: %+v, %v, %v", again, created, err)
		}
		h.Hostname = "web2"
		if _, _, err := s.PutHost(ctx, h, "alice", 2); !errors.Is(err, ErrConflict) {
			t.Errorf("a revision that was never there: %v", err)
		}
		if _, _, err := s.PutHost(ctx, h, "alice", MustNotExist); !errors.Is(err, ErrConflict) {
			t.Errorf("it is created over one that is there: %v", err)
		}
		if got, created, err = s.PutHost(ctx, h, "bob", 1); err != nil || created || got.Revision != 2 {
			t.Errorf("%+v, %v, %v", got, created, err)
		}
		if _, _, err := s.PutHost(ctx, Host{SN: "SN-2"}, "alice", 5); !errors.Is(err, ErrConflict) {
			t.Errorf("a host that is gone is replaced: %v", err)
		}
		events, err := s.Events(ctx, EventFilter{SN: "SN-1"})
		if err != nil || len(events) != 2 || events[1].By != "bob" || events[1].Text != `hostname: "web1.example.org" → "web2"` {
			t.Errorf("the diary has %+v, %v", events, err)
		}
		if err := s.DeleteHost(ctx, "SN-1", "alice"); err != nil {
			t.Error(err)
		}
		for _, err := range []error{s.DeleteHost(ctx, "SN-1", "alice"), second(s.Host(ctx, "SN-1")), second(s.HostByMAC(ctx, "52:54:00:aa:bb:01"))} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("a deleted host: %v", err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func same(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(x) == string(y)
}

func TestPatchHostFollowsRFC7396(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		known(t, s, "SN-1")
		step := func(patch, want string) *Host {
			t.Helper()
			h, err := s.PatchHost(ctx, "SN-1", []byte(patch), "alice", 0)
			switch {
			case err == nil && want == "":
			case err == nil || want == "" || !strings.Contains(err.Error(), want):
				t.Errorf("%s: got %v, want %q", patch, err, want)
			}
			return h
		}
		h := step(`{"rack":"r1","oob":{"type":"ipmi","address":"10.9.0.7","user":"root","password":"geheim"},"metadata":{"a":{"b":1,"c":12345678901234567890}}}`, "")
		if h.Rack != "r1" || h.OOB.Password != "" || !h.OOB.PasswordSet || h.Hostname != "host" {
			t.Errorf("%+v %+v", h, h.OOB)
		}
		h = step(`{"metadata":{"a":{"b":null,"d":[1]}},"state":"installed","revision":9,"inventory":null,"oob":{"user":"admin","password_set":false}}`, "")
		if string(h.Metadata) != `{"a":{"c":12345678901234567890,"d":[1]}}` || h.State != Known || h.OOB.User != "admin" || !h.OOB.PasswordSet {
			t.Errorf("%s %+v %+v", h.Metadata, h, h.OOB)
		}
		if p, err := s.OOBPassword(ctx, "SN-1"); p != "geheim" || err != nil {
			t.Errorf("the password is %q, %v", p, err)
		}
		if h = step(`{"oob":{"password":null},"metadata":null,"protect":true}`, ""); h.OOB.PasswordSet || h.Metadata != nil || !h.Protect {
			t.Errorf("%+v %+v", h, h.OOB)
		}
		h = step(`{"network":{"ethernets":[{"name":"e0","match":{"order":1},"dhcp4":true}]}}`, "")
		if h.Network == nil || !h.Network.Ethernets[0].DHCP4 {
			t.Errorf("%+v", h.Network)
		}
		step(`{"oob":null,"network":null,"protect":null}`, "")
		before, _ := s.Host(ctx, "SN-1")
		for patch, want := range map[string]string{
			`{"ip":"10.0.0.300"}`:                 `ip: "10.0.0.300" is not an IPv4 or IPv6 address`,
			`{"ip":7}`:                            "ip: a number is not what belongs here",
			`{"IP":"10.0.0.9"}`:                   "IP: a host has no such field",
			`{"oob":{"Address":"10.9.0.8"}}`:      "oob.Address: there is no such field",
			`{"oob":{"user":[]}}`:                 "oob.user: a array is not what belongs here",
			`{"network":{"ethernets":[{"n":1}]}}`: "network.ethernets[0].n: there is no such field",
			`{"dns":["x"]}`:                       "dns: ",
			`{"sn":"SN-2"}`:                       "sn: it cannot be changed",
			`{"metadata":[]}`:                     "metadata: a JSON object is wanted",
			`{"gw":null,"netmask":null}`:          "netmask: it is wanted with an ip",
			`[]`:                                  "a JSON object is wanted",
			`{} {}`:                               "nothing after it",
			``:                                    "a JSON object is wanted",
		} {
			step(patch, want)
		}
		if after, _ := s.Host(ctx, "SN-1"); !same(t, before, after) {
			t.Errorf("refused patches changed it: %+v", after)
		}
		if _, err := s.PatchHost(ctx, "SN-1", []byte(`{"rack":"r2"}`), "alice", before.Revision-1); !errors.Is(err, ErrConflict) {
			t.Errorf("an old revision: %v", err)
		}
		if _, err := s.PatchHost(ctx, "SN-9", []byte(`{}`), "alice", 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("no such host: %v", err)
		}
	})
}

func TestTheMergePatchesOfRFC7396AppendixA(t *testing.T) {
	for _, c := range [][3]string{ // those with objects on both sides
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`}, {`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`}, {`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`}, {`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`}, {`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`}, {`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`}, {`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		target, err := parseObject([]byte(c[0]))
		if err != nil {
			t.Fatal(err)
		}
		patch, err := parseObject([]byte(c[1]))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(mergePatch(target, patch)); string(got) != c[2] {
			t.Errorf("%s patched by %s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestThePasswordIsStoredAndNeverShown(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		h, _, err := s.PutHost(ctx, Host{SN: "SN-1", OOB: &OOB{Type: "redfish", Password: "geheim"}}, "alice", 0)
		if err != nil {
			t.Fatal(err)
		}
		if h.OOB.Password != "" || !h.OOB.PasswordSet {
			t.Errorf("%+v", h.OOB)
		}
		if h, _, err = s.PutHost(ctx, Host{SN: "SN-1", Rack: "r1", OOB: &OOB{Type: "ipmi"}}, "alice", 0); err != nil || !h.OOB.PasswordSet {
			t.Errorf("a password that is not given goes: %+v, %v", h.OOB, err)
		}
		if p, err := s.OOBPassword(ctx, "SN-1"); p != "geheim" || err != nil {
			t.Error(p, err)
		}
		if _, err := s.PatchHost(ctx, "SN-1", []byte(`{"oob":{"password":"anders"}}`), "alice", 0); err != nil {
			t.Fatal(err)
		}
		list, err := s.Hosts(ctx, HostFilter{Inventory: true})
		if err != nil {
			t.Fatal(err)
		}
		events, err := s.Events(ctx, EventFilter{})
		if err != nil {
			t.Fatal(err)
		}
		shown, _ := json.Marshal([]any{h, list, events})
		for _, secret := range []string{"geheim", "anders"} {
			if strings.Contains(string(shown), secret) {
				t.Errorf("%s is in %s", secret, shown)
			}
		}
		if last := events[len(events)-1].Text; last != "oob.password changed" {
			t.Errorf("the diary says %q", last)
		}
		if h, _, err = s.PutHost(ctx, Host{SN: "SN-1"}, "alice", 0); err != nil || h.OOB != nil {
			t.Fatal(h, err)
		}
		if h, err = s.PatchHost(ctx, "SN-1", []byte(`{"oob":{"type":"ipmi"}}`), "alice", 0); err != nil || h.OOB.PasswordSet {
			t.Errorf("the password of a controller that was taken away comes back: %+v, %v", h.OOB, err)
		}
		if clear := (Host{OOB: &OOB{Password: "x"}}).Redacted(); clear.OOB.Password != "" || !clear.OOB.PasswordSet {
			t.Errorf("%+v", clear.OOB)
		}
	})
}

func TestHostsAreFoundByWhatTheyAre(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		for _, h := range []Host{
			{SN: "SN-1", Hostname: "Web1", Rack: "r1", Owner: "ops", Image: "web/1.0", MACs: []string{"52:54:00:00:00:01"}},
			{SN: "SN-2", Hostname: "db_1", Rack: "r1", Owner: "dba", Image: "web"},
			{SN: "SN-3", Rack: "r2", Owner: "ops", Image: "web2/1.0", Model: "PowerEdge R640"},
			{SN: "SN-4", IP: "2001:db8::7", Netmask: "64"},
		} {
			h.Hostname = strings.ReplaceAll(h.Hostname, "_", "-")
			if _, _, err := s.PutHost(ctx, h, "alice", 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := s.SeeMachine(ctx, plan.Inventory{Serial: "SN-5", Product: "100%", NICs: []plan.NIC{{MAC: "52:54:00:00:00:05"}}}); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			f    HostFilter
			want string
		}{
			"all":                     {HostFilter{}, "SN-1 SN-2 SN-3 SN-4 SN-5"},
			"a rack":                  {HostFilter{Rack: "r1"}, "SN-1 SN-2"},
			"an owner":                {HostFilter{Owner: "ops"}, "SN-1 SN-3"},
			"an image's name":         {HostFilter{Image: "web"}, "SN-1 SN-2"},
			"an image's version":      {HostFilter{Image: "web/1.0"}, "SN-1"},
			"states":                  {HostFilter{States: []State{New, Lost}}, "SN-5"},
			"a part of a name":        {HostFilter{Match: "wEB1"}, "SN-1"},
			"a part of a model":       {HostFilter{Match: "edge r6"}, "SN-3"},
			"a MAC":                   {HostFilter{Match: "00:00:05"}, "SN-5"},
			"an address":              {HostFilter{Match: "2001:DB8"}, "SN-4"},
			"a percent sign as it is": {HostFilter{Match: "0%"}, "SN-5"},
			"an underscore as it is":  {HostFilter{Match: "_"}, ""},
			"a page":                  {HostFilter{After: "SN-2", Limit: 2}, "SN-3 SN-4"},
			"everything at once":      {HostFilter{Rack: "r1", Owner: "ops", States: []State{Known}, Match: "sn"}, "SN-1"},
		} {
			list, err := s.Hosts(ctx, c.f)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, h := range list {
				got = append(got, h.SN)
				if h.Inventory != nil {
					t.Errorf("%s: nobody asked for inventories", name)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: got %v, want %s", name, got, c.want)
			}
		}
	})
}

func TestAMACLeadsToOneHost(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		see := func(sn string, macs ...string) (*Host, bool) {
			t.Helper()
			inv := plan.Inventory{Serial: sn, UUID: "4C4C4544-0000-1111-2222-000000000001", Product: "R640\x1b[31m", CPUs: 2}
			for _, m := range macs {
				inv.NICs = append(inv.NICs, plan.NIC{MAC: m})
			}
			h, created, err := s.SeeMachine(ctx, inv)
			if err != nil {
				t.Fatal(err)
			}
			return h, created
		}
		by := func(mac, want string) {
			t.Helper()
			h, err := s.HostByMAC(ctx, mac)
			switch {
			case want == "" && errors.Is(err, ErrNotFound):
			case err != nil || h.SN != want:
				t.Errorf("%s leads to %+v, %v; want %q", mac, h, err, want)
			}
		}
		h, created := see("SN-1", "52:54:00:00:00:01", "52:54:00:00:00:02")
		if !created || h.State != New || len(h.MACs) != 2 || h.Model != "R640[31m" || h.UUID == "" {
			t.Errorf("%+v", h)
		}
		by("52-54-00-00-00-02", "SN-1")
		// Another machine says that it has the same card: it is registered, without it.
		if h, _ = see("SN-2", "52:54:00:00:00:02", "52:54:00:00:00:03"); !slices.Equal(h.MACs, []string{"52:54:00:00:00:03"}) {
			t.Errorf("%+v", h)
		}
		by("52:54:00:00:00:02", "SN-1")
		if _, err := s.PatchHost(ctx, "SN-2", []byte(`{"macs":["52:54:00:00:00:01"]}`), "alice", 0); err == nil || !strings.Contains(err.Error(), "52:54:00:00:00:01 is host SN-1's") {
			t.Errorf("a MAC is written down for two hosts: %v", err)
		}
		// A card that nobody wrote down leads to the machine that has it, as long as one has it.
		known(t, s, "SN-3")
		if _, created := see("SN-3", "52:54:00:00:00:09"); created {
			t.Error("a known machine is registered again")
		}
		by("52:54:00:00:00:09", "SN-3")
		known(t, s, "SN-4")
		see("SN-4", "52:54:00:00:00:09")
		by("52:54:00:00:00:09", "")
		if _, err := s.HostByMAC(ctx, "nonsense"); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
		h, err := s.Host(ctx, "SN-3")
		if err != nil || h.State != Known || h.Inventory == nil || h.Inventory.Product != "R640[31m" || len(h.MACs) != 0 {
			t.Errorf("%+v, %v", h, err)
		}
		revision := h.Revision
		if h, _ = see("SN-3", "52:54:00:00:00:09"); h.Revision != revision {
			t.Error("the same inventory again changes the host")
		}
		// An empty patch approves.
		if h, err = s.PatchHost(ctx, "SN-1", []byte(`{}`), "alice", 0); err != nil || h.State != Known {
			t.Errorf("%+v, %v", h, err)
		}
		if _, _, err := s.SeeMachine(ctx, plan.Inventory{Serial: "Default string"}); !errors.Is(err, ErrInvalid) {
			t.Errorf("a junk serial number is registered: %v", err)
		}
	})
}
