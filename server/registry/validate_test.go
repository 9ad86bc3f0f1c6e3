package registry

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"imgbuild/image/plan"
)

func TestWhatPeopleWriteOfAHostIsChecked(t *testing.T) {
	addressed := func(ip, mask, gw string) Host { return Host{SN: "SN-1", IP: ip, Netmask: mask, GW: gw} }
	for name, c := range map[string]struct {
		h    Host
		want string // field: and what is said of it; empty if nothing is wrong
	}{
		"a serial number is enough":           {Host{SN: "SN-1"}, ""},
		"no serial number":                    {Host{}, "sn: a serial number is wanted"},
		"a junk serial number":                {Host{SN: "Default string"}, "sn: the serial number"},
		"a serial number of 65 characters":    {Host{SN: strings.Repeat("ab", 32) + "c"}, "sn: "},
		"the five old fields":                 {Host{SN: "SN-1", Hostname: "web-1", IP: "10.0.0.7", Netmask: "255.255.255.0", GW: "10.0.0.1"}, ""},
		"a host name with an underscore":      {Host{SN: "SN-1", Hostname: "web_1"}, "hostname: "},
		"a host name that ends with a dash":   {Host{SN: "SN-1", Hostname: "web-.example.org"}, "hostname: "},
		"a host name that is an address":      {Host{SN: "SN-1", Hostname: "10.0.0.7"}, "hostname: "},
		"a host name of 65 characters":        {Host{SN: "SN-1", Hostname: strings.Repeat("a", 60) + ".bcde"}, "hostname: it has 65 characters"},
		"an empty label":                      {Host{SN: "SN-1", Hostname: "a..b"}, "hostname: "},
		"a prefix length for a netmask":       {addressed("10.0.0.7", "24", "10.0.0.1"), ""},
		"IPv6":                                {addressed("2001:db8::7", "64", "2001:db8::1"), ""},
		"IPv6 with a link-local gateway":      {addressed("2001:db8::7", "/64", "fe80::1"), ""},
		"IPv6 with a dotted netmask":          {addressed("2001:db8::7", "255.255.255.0", ""), "netmask: "},
		"no netmask":                          {addressed("10.0.0.7", "", ""), "netmask: it is wanted"},
		"no ip":                               {addressed("", "24", ""), "netmask: there is no ip"},
		"a gateway without an ip":             {addressed("", "", "10.0.0.1"), "gw: there is no ip"},
		"a netmask with a hole":               {addressed("10.0.0.7", "255.0.255.0", ""), "netmask: 255.0.255.0 is not a netmask: its ones"},
		"a prefix length of 33":               {addressed("10.0.0.7", "33", ""), "netmask: 33 is not a prefix length"},
		"a prefix length of 0":                {addressed("10.0.0.7", "0", ""), "netmask: "},
		"an ip with its prefix length":        {addressed("10.0.0.7/24", "", ""), "ip: \"10.0.0.7/24\": the prefix length belongs in netmask"},
		"an ip that is none":                  {addressed("10.0.0.256", "24", ""), "ip: "},
		"an ip with leading zeros":            {addressed("10.0.0.07", "24", ""), "ip: "},
		"a multicast ip":                      {addressed("224.0.0.1", "24", ""), "ip: "},
		"an ip with a zone":                   {addressed("fe80::1%eth0", "64", ""), "ip: "},
		"the network's own address":           {addressed("10.0.0.0", "24", ""), "ip: 10.0.0.0 is the network's own address"},
		"the broadcast address":               {addressed("10.0.3.255", "22", ""), "ip: 10.0.3.255 is the network's own address or its broadcast"},
		"both ends of a /31":                  {addressed("10.0.0.0", "31", "10.0.0.1"), ""},
		"a gateway outside":                   {addressed("10.0.0.7", "24", "10.0.1.1"), "gw: 10.0.1.1 is not in the host's network 10.0.0.0/24"},
		"a gateway that is the host":          {addressed("10.0.0.7", "24", "10.0.0.7"), "gw: it is the host's own"},
		"a gateway of the other family":       {addressed("10.0.0.7", "24", "2001:db8::1"), "gw: "},
		"a gateway that is the broadcast":     {addressed("10.0.0.7", "24", "10.0.0.255"), "gw: "},
		"a MAC that is none":                  {Host{SN: "SN-1", MACs: []string{"52:54:00:00:00:01", "x"}}, `macs[1]: "x" is not a MAC address`},
		"a MAC of a group":                    {Host{SN: "SN-1", MACs: []string{"01:00:5e:00:00:01"}}, "macs[0]: "},
		"a MAC of zeros":                      {Host{SN: "SN-1", MACs: []string{"00:00:00:00:00:00"}}, "macs[0]: "},
		"an InfiniBand address":               {Host{SN: "SN-1", MACs: []string{"00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"}}, "macs[0]: "},
		"a UUID that is none":                 {Host{SN: "SN-1", UUID: "4c4c"}, "uuid: "},
		"a name server that is unspecified":   {Host{SN: "SN-1", DNS: []netip.Addr{netip.IPv4Unspecified()}}, "dns[0]: "},
		"a search domain with a space":        {Host{SN: "SN-1", Search: []string{"a b"}}, "search[0]: "},
		"a rack of two lines":                 {Host{SN: "SN-1", Rack: "r1\nr2"}, "rack: "},
		"an owner with an escape sequence":    {Host{SN: "SN-1", Owner: "\x1b[31mops"}, "owner: "},
		"an owner who is not UTF-8":           {Host{SN: "SN-1", Owner: "\xff"}, "owner: it is not UTF-8"},
		"an owner of 256 bytes":               {Host{SN: "SN-1", Owner: strings.Repeat("a", 256)}, "owner: it has 256 bytes"},
		"an owner with umlauts":               {Host{SN: "SN-1", Owner: "Jörg"}, ""},
		"a release with two slashes":          {Host{SN: "SN-1", Image: "a/b/c"}, "image: "},
		"a release that climbs":               {Host{SN: "SN-1", Image: "../x"}, "image: "},
		"a console":                           {Host{SN: "SN-1", SerialConsole: "ttyS1,115200n8"}, ""},
		"a console with an argument in it":    {Host{SN: "SN-1", SerialConsole: "ttyS1 init=/bin/sh"}, "serial_console: "},
		"a controller":                        {Host{SN: "SN-1", OOB: &OOB{Type: "ipmi", Address: "bmc1.example.org"}}, ""},
		"a controller's netmask alone":        {Host{SN: "SN-1", OOB: &OOB{Netmask: "24"}}, "oob.netmask: "},
		"a controller's address that is none": {Host{SN: "SN-1", OOB: &OOB{Address: "a b"}}, "oob.address: "},
		"a password of two lines":             {Host{SN: "SN-1", OOB: &OOB{Password: "a\nb"}}, "oob.password: "},
		"a network that contradicts itself":   {Host{SN: "SN-1", Network: &plan.Network{Ethernets: []plan.Ethernet{{Name: "e0", Match: plan.Match{Order: 1}, IP: plan.IP{DHCP4: true}}, {Name: "e0", Match: plan.Match{Order: 2}}}}}, "network: "},
		"metadata that is a list":             {Host{SN: "SN-1", Metadata: json.RawMessage("[1]")}, "metadata: "},
		"metadata that is broken":             {Host{SN: "SN-1", Metadata: json.RawMessage("{")}, "metadata: "},
		"a user":                              {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", SSHKeys: []string{"ssh-ed25519 AAAA ops@example.org"}, Sudo: "nopasswd", Shell: "/bin/bash"}}}, ""},
		"a user's options before the key":     {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", SSHKeys: []string{`from="10.0.0.0/8" ssh-ed25519 AAAA`}}}}, ""},
		"a user with a capital":               {Host{SN: "SN-1", Users: []plan.User{{Name: "Ops"}}}, "users[0].name: "},
		"a user twice":                        {Host{SN: "SN-1", Users: []plan.User{{Name: "ops"}, {Name: "ops"}}}, "users[1].name: there are two"},
		"a password as it is":                 {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", Password: "geheim"}}}, "users[0].password: it is not a crypt(5) hash"},
		"a hash with a colon":                 {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", Password: "$6$abcdefgh$ijklmnop:0"}}}, "users[0].password: "},
		"a hash":                              {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", Password: "$6$abcdefgh$ijklmnopqrstuv"}}}, ""},
		"a key of two lines":                  {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", SSHKeys: []string{"ssh-rsa A\nssh-rsa B"}}}}, "users[0].ssh_keys[0]: it is more than one line"},
		"a private key":                       {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", SSHKeys: []string{"-----BEGIN"}}}}, "users[0].ssh_keys[0]: "},
		"a shell that is not absolute":        {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", Shell: "bash"}}}, "users[0].shell: "},
		"a comment with a colon":              {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", Comment: "a:b"}}}, "users[0].comment: "},
		"sudo for some":                       {Host{SN: "SN-1", Users: []plan.User{{Name: "ops", Sudo: "some"}}}, "users[0].sudo: "},
		"a file":                              {Host{SN: "SN-1", Files: []plan.File{{Path: "/etc/motd", Content: "hello\n", Mode: "0640", Owner: "root"}}}, ""},
		"a file that climbs":                  {Host{SN: "SN-1", Files: []plan.File{{Path: "/etc/../shadow"}}}, "files[0].path: "},
		"a file twice":                        {Host{SN: "SN-1", Files: []plan.File{{Path: "/a"}, {Path: "/a"}}}, "files[1].path: there are two"},
		"a file's mode in decimal":            {Host{SN: "SN-1", Files: []plan.File{{Path: "/a", Mode: "0648"}}}, "files[0].mode: "},
		"a host of more than a MiB":           {Host{SN: "SN-1", Files: []plan.File{{Path: "/a", Content: strings.Repeat("x", maxHost)}}}, "it has 1048"},
	} {
		err := ValidateHost(&c.h)
		var wrong *Invalid
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want == "":
			again := c.h
			if err := ValidateHost(&again); err != nil || !same(t, again, c.h) {
				t.Errorf("%s: what was normalised is not taken as it is: %v", name, err)
			}
		case !errors.As(err, &wrong) || !errors.Is(err, ErrInvalid) || len(wrong.Fields) != 1 || !strings.HasPrefix(err.Error(), c.want):
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestAllThatIsWrongIsInOneError(t *testing.T) {
	err := ValidateHost(&Host{Hostname: "a_b", IP: "x", MACs: []string{"y", "z"}, UUID: "u"})
	var wrong *Invalid
	if !errors.As(err, &wrong) || len(wrong.Fields) != 6 {
		t.Errorf("%v", err)
	}
	data, _ := json.Marshal(wrong.Fields[2])
	if string(data) != `{"field":"ip","error":"\"x\" is not an IPv4 or IPv6 address"}` {
		t.Errorf("%s", data)
	}
}

func TestWhatWasDecodedSaysWhereItIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		`{"sn":"a","state":"installed","revision":7}`:      "",
		`{"sn":"a","metadata":null,"oob":null,"dns":null}`: "",
		`{"sn":1,"ip":[]}`:                                    "ip: a array is not what belongs here; sn: a number is not what belongs here",
		`{"sn":"a","hostnam":"b"}`:                            "hostnam: a host has no such field",
		`{"users":[{"name":"a"},{"name":"b","keys":[]}]}`:     "users[1].keys: there is no such field",
		`{"network":{"ethernets":[{"gateway4":"10.0.0.x"}]}}`: "network: ",
		`{"dns":["10.0.0.x"]}`:                                "dns: ",
		`null`:                                                "a JSON object is wanted",
		`[]`:                                                  "a JSON object is wanted",
		`{"sn":"a"} x`:                                        "a JSON object is wanted",
		``:                                                    "a JSON object is wanted: there is nothing",
		`{"sn":"a"`:                                           "a JSON object is wanted",
	} {
		_, err := DecodeHost([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// FuzzHost feeds what comes from outside through all that a host goes through before it is stored.
func FuzzHost(f *testing.F) {
	f.Add(`{"sn":"SN-1","hostname":"a","ip":"10.0.0.7","netmask":"24","gw":"10.0.0.1"}`, `{"macs":["52:54:00:00:00:01"],"ip":null}`)
	f.Add(`{"sn":"SN-1","oob":{"type":"ipmi"},"metadata":{"a":[1,{"b":null}]}}`, `{"oob":{"password":"x"},"metadata":{"a":null}}`)
	f.Add(`{"sn":"SN-1","network":{"bonds":[{"name":"b","members":["x"],"mode":"802.3ad"}]},"users":[{"name":"a"}],"files":[{"path":"/a"}]}`, `{"network":{"bonds":[]}}`)
	f.Fuzz(func(t *testing.T, text, patch string) {
		h, err := DecodeHost([]byte(text))
		if err == nil {
			err = ValidateHost(&h)
		}
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v is not ErrInvalid", text, err)
			}
			return
		}
		again := h.clone()
		if err := ValidateHost(&again); err != nil || !same(t, again, h.clone()) {
			t.Errorf("%q: valid, and then not any more: %v", text, err)
		}
		doc, err := document(h)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeHost([]byte(doc))
		if err != nil {
			t.Fatalf("%q is stored as %q, which cannot be read: %v", text, doc, err)
		}
		if twice, err := document(back); err != nil || twice != doc {
			t.Errorf("%q is read back as %q, %v", doc, twice, err)
		}
		change, err := parseObject([]byte(patch))
		if err != nil {
			return
		}
		whole, err := parseObject([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		merged, err := json.Marshal(mergePatch(whole, change))
		if err != nil {
			t.Fatal(err)
		}
		if h, err := DecodeHost(merged); err == nil {
			_ = ValidateHost(&h)
		} else if !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v is not ErrInvalid", merged, err)
		}
	})
}
