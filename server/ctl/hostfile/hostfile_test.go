package hostfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// full is a host with every field that people write.
func full() registry.Host {
	yes := true
	return registry.Host{
		SN: "0042", Hostname: "web1.example", IP: "10.0.0.5", Netmask: "255.255.255.0", GW: "10.0.0.1",
		DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")}, Search: []string{"example", "corp.example"},
		MACs: []string{"52:54:00:12:34:56", "52:54:00:12:34:57"}, UUID: "4c4c4544-0042-4a10-8053-b4c04f4b3132", Model: `Power "Edge", R640`,
		OOB:           &registry.OOB{Type: "ipmi", Address: "10.9.0.5", Netmask: "24", Gateway: "10.9.0.1", User: "root"},
		SerialConsole: "ttyS1,115200n8", Image: "web/1.2", Owner: "ops; night shift", Rack: "r12", Position: "7", Protect: true,
		Network: &plan.Network{
			Ethernets: []plan.Ethernet{{Name: "a", Match: plan.Match{PCI: "0000:00:03.0"}}, {Name: "b", Match: plan.Match{Link: 2}}},
			Bonds: []plan.Bond{{Name: "bond0", Members: []string{"a", "b"}, Mode: "802.3ad", IP: plan.IP{
				Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}, Gateway4: netip.MustParseAddr("10.0.0.1"), AcceptRA: &yes, MTU: 9000,
			}}},
		},
		CheckNetwork: &yes,
		Live:         &registry.Live{Image: "web", LiveOptions: plan.LiveOptions{Size: "25%", Persist: []string{"/var=VAR", "/home=HOME"}, Root: "nfs:10.0.0.1:/srv/web"}},
		Users:        []plan.User{{Name: "ops", Password: "$6$abc$def", SSHKeys: []string{"ssh-ed25519 AAAA ada@example"}, UID: 1000}},
		Files:        []plan.File{{Path: "/etc/motd", Content: "hello\n  world: #1\n\n", Mode: "0644"}},
		Metadata:     json.RawMessage(`{"list":[1,2.5,"3"],"role":"web","spare":true,"zip":"0123"}`),
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	server := full()
	server.State, server.Revision, server.Created = registry.Installed, 7, time.Now()
	server.OOB.PasswordSet = true
	hosts := []registry.Host{server, {SN: "#odd \"one\"", Hostname: "x", Owner: "- a: b", Rack: "0x1F", Position: "1e3"}, {SN: "true", Owner: "null", Live: &registry.Live{Image: "web/1"}}}
	for _, f := range Formats() {
		var b bytes.Buffer
		if err := Write(&b, Format(f), hosts); err != nil {
			t.Fatal(err)
		}
		if got := FormatOf("hosts", b.Bytes()); got != Format(f) {
			t.Errorf("%s is taken for %s", f, got)
		}
		file, problems := Read(b.Bytes(), Format(f))
		if len(problems) > 0 || len(file.Entries) != len(hosts) || len(file.Ignored) > 0 {
			t.Errorf("%s: %d entries, ignored %v, %v\n%s", f, len(file.Entries), file.Ignored, problems, b.String())
			continue
		}
		for i, e := range file.Entries {
			var h registry.Host
			if wrong := e.Apply(&h); len(wrong) > 0 {
				t.Errorf("%s: %v", f, wrong)
			}
			if want := Own(hosts[i]); asJSON(t, h) != asJSON(t, want) {
				t.Errorf("%s: got  %s\nwant %s\nfrom %s", f, asJSON(t, h), asJSON(t, want), b.String())
			}
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	j, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var x any
	if err := json.Unmarshal(j, &x); err != nil {
		t.Fatal(err)
	}
	j, _ = json.Marshal(x)
	return string(j)
}

func TestEveryFieldOfAHostIsPeoplesOrTheServers(t *testing.T) {
	for _, f := range fieldsOf(reflect.TypeFor[registry.Host]()) {
		people := slices.ContainsFunc(Fields(), func(n string) bool { return n == f.name || strings.HasPrefix(n, f.name+".") })
		if people == slices.Contains(serverFields(), f.name) {
			t.Errorf("%s: people's %v; say in serverFields whose it is", f.name, people)
		}
	}
}

func TestOwnLeavesNothingOfTheServers(t *testing.T) {
	h := full()
	v := reflect.ValueOf(&h).Elem()
	for _, f := range fieldsOf(v.Type()) {
		if to := v.FieldByIndex(f.index); slices.Contains(serverFields(), f.name) {
			switch to.Kind() {
			case reflect.Pointer:
				to.Set(reflect.New(f.typ.Elem()))
			case reflect.String:
				to.SetString("x")
			case reflect.Int64:
				to.SetInt(1)
			default:
				to.Set(reflect.ValueOf(time.Now()))
			}
		}
	}
	h.OOB.PasswordSet = true
	if got, want := asJSON(t, Own(h)), asJSON(t, full()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		format Format
		text   string
		want   string
	}{
		{"a synonym in the header names the field", CSV, "serial,host,gateway\nA,b,c\n",
			"1: gateway: there is no field of this name; did you mean gw?\n1: host: there is no field of this name; did you mean hostname?\n1: serial: there is no field of this name; did you mean sn?"},
		{"a misspelt column names the field", TSV, "sn\thostnmae\nA\tb\n", "1: hostnmae: there is no field of this name; did you mean hostname?"},
		{"no serial number in the header", CSV, "hostname,ip\na,10.0.0.1\n", "1: the first line names the columns, and there is none named sn: the serial number is what a host is known by"},
		{"a column twice", CSV, "sn,ip,IP\n", "1: IP: this column is here twice"},
		{"every bad line is reported, the good ones are not", CSV, "sn,dns,protect,network\nA,10.0.0.1,yes,\nB,nowhere,,\n,10.0.0.1,,\nD,,maybe,{\nA,,,\n",
			"3: dns[0]: \"nowhere\" is not an IP address\n4: sn: there is no serial number\n5: network: the JSON value has no end; in a table this field is written as JSON\n" +
				"5: protect: \"maybe\" is neither true nor false\n6: sn: A is here a second time; the first is in line 2"},
		{"a line is too short", CSV, "sn,ip\n\nA\nB,10.0.0.1\n", "3: this line has 1 columns and the header has 2"},
		{"lines are counted through cells with line breaks", CSV, "sn,owner\nA,\"two\nlines\"\nB\n", "4: this line has 1 columns and the header has 2"},
		{"a stray quote", CSV, "sn,owner\nA,x\"y\n", "2: a quote stands inside of a cell without quotes: put the whole cell into quotes and write the inner one twice (\"\"); what follows cannot be read"},
		{"tabs in a CSV file", CSV, "sn\tip\nA\t1\n", "1: the columns are separated by tabs: is it a TSV file?"},
		{"an unknown key of a map inside", YAML, "- sn: A\n  network:\n    bonds:\n      - name: bond0\n        memebrs: [a]\n", "5: network.bonds[0].memebrs: there is no field of this name; did you mean members?"},
		{"mistakes in several hosts, with broken YAML between", YAML, "- sn: A\n  ipp: 1\n- sn: B\n  ip: [\n- sn: C\n  users:\n    - name: x\n      uid: many\n",
			"2: ipp: there is no field of this name; did you mean ip?\n4: this is not YAML: sequence end token ']' not found\n8: users[0].uid: \"many\" is not a whole number"},
		{"a list where text belongs", YAML, "- sn: A\n  ip: [10.0.0.1]\n", "2: ip: this is a list where text belongs"},
		{"a key twice", YAML, "- sn: A\n  ip: 10.0.0.1\n  ip: 10.0.0.2\n", "3: ip: this field is here a second time; the first is in line 2"},
		{"an alias", YAML, "- sn: A\n  dns: *d\n", "2: anchors and aliases are not taken in a file of hosts: write the value where it belongs"},
		{"null inside of metadata", YAML, "- sn: A\n  metadata: {a: {b: null}}\n", "2: metadata.a.b: null has no meaning here: leave the key out"},
		{"metadata that is no object", CSV, "sn,metadata\nA,5\n", "2: metadata: this is text where a map belongs"},
		{"no list", JSON, "5", "1: a file of hosts is a list of objects, not text"},
		{"broken JSON", JSON, "[{\"sn\": \"A\"},\n {\"sn\" \"B\"}]", "2: this is not JSON: invalid character '\"' after object key"},
		{"cut off JSON", JSON, "[{\"sn\": \"A\"},\n", "1: the JSON value has no end"},
		{"nothing", CSV, "", "0: there is no host in this file"},
		{"a header only", CSV, "sn,ip\n", "0: there is no host in this file"},
		{"UTF-16", CSV, "\xff\xfes\x00n\x00", "1: the file is UTF-16; save it as UTF-8"},
		{"Latin-1", CSV, "sn,owner\nA,B\xfccher\n", "2: the byte 0xfc is not UTF-8; save the file as UTF-8"},
		{"serial numbers that differ in case only", CSV, "sn\nabc\nABC\n", "3: sn: ABC is here a second time; the first is in line 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := Read([]byte(c.text), c.format)
			var got []string
			for _, p := range problems {
				got = append(got, fmt.Sprintf("%d: %s", p.Line, p))
			}
			if s := strings.Join(got, "\n"); s != c.want {
				t.Errorf("got\n%s\nwant\n%s", s, c.want)
			}
		})
	}
}

func TestReading(t *testing.T) {
	for _, c := range []struct {
		name string
		file string // its name
		text string
		want string // JSON of the hosts
	}{
		{"numbers that are text stay as they are written", "h.yaml", "- sn: 0042\n  netmask: 24\n  rack: 1e3\n  position: 0x10\n",
			`[{"sn":"0042","hostname":"","ip":"","netmask":"24","gw":"","rack":"1e3","position":"0x10"}]`},
		{"a byte order mark, CRLF, semicolons, capitals and blanks", "h.csv", "\ufeffSN; Hostname ;IP\r\nA;web1;10.0.0.1\r\n;;\r\n",
			`[{"sn":"A","hostname":"web1","ip":"10.0.0.1","netmask":"","gw":""}]`},
		{"lists in a cell", "h.csv", "sn,dns,macs\nA,10.0.0.1 10.0.0.2,\"52:54:00:00:00:01, 52:54:00:00:00:02\"\n",
			`[{"sn":"A","hostname":"","ip":"","netmask":"","gw":"","dns":["10.0.0.1","10.0.0.2"],"macs":["52:54:00:00:00:01","52:54:00:00:00:02"]}]`},
		{"metadata by key", "h.tsv", "sn\tmetadata.role\tmetadata.n\tmetadata.empty\nA\tweb\t3\t\n",
			`[{"sn":"A","hostname":"","ip":"","netmask":"","gw":"","metadata":{"n":3,"role":"web"}}]`},
		{"one host as imgctl hosts show prints it, with the server's fields", "h.yaml", "sn: A\nhostname: x\nstate: new\nrevision: 3\noob:\n  address: 10.0.0.1\n  password_set: true\n",
			`[{"sn":"A","hostname":"x","ip":"","netmask":"","gw":"","oob":{"address":"10.0.0.1"}}]`},
		{"several documents", "h.yaml", "---\nsn: A\n---\n# nothing\n---\n- sn: B\n- sn: C\n...\n", `[{"sn":"A","hostname":"","ip":"","netmask":"","gw":""},{"sn":"B","hostname":"","ip":"","netmask":"","gw":""},{"sn":"C","hostname":"","ip":"","netmask":"","gw":""}]`},
		{"comments", "h.csv", "# from the old tool\nsn\n# gone: B\nA\n", `[{"sn":"A","hostname":"","ip":"","netmask":"","gw":""}]`},
		{"one text as a list", "h.yaml", "- sn: A\n  dns: 10.0.0.1\n", `[{"sn":"A","hostname":"","ip":"","netmask":"","gw":"","dns":["10.0.0.1"]}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, problems := Read([]byte(c.text), FormatOf(c.file, nil))
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			hosts := []registry.Host{}
			for _, e := range file.Entries {
				var h registry.Host
				e.Apply(&h)
				hosts = append(hosts, h)
			}
			j, _ := json.Marshal(hosts)
			if string(j) != c.want {
				t.Errorf("got\n%s\nwant\n%s", j, c.want)
			}
		})
	}
}

func TestAnEntryChangesWhatItMentionsAndNothingElse(t *testing.T) {
	h := full()
	h.OOB.PasswordSet = true
	file, problems := Read([]byte("sn,rack,owner,oob.user,oob.password,metadata.role\n0042,r13,,admin,,\n"), CSV)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	e := file.Entries[0]
	if wrong := e.Apply(&h); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	want := full()
	want.Rack, want.Owner, want.OOB.User, want.OOB.PasswordSet = "r13", "", "admin", true
	want.Metadata = json.RawMessage(`{"list":[1,2.5,"3"],"spare":true,"zip":"0123"}`)
	if asJSON(t, h) != asJSON(t, want) {
		t.Errorf("got  %s\nwant %s", asJSON(t, h), asJSON(t, want))
	}
	if e.ClearsPassword() {
		t.Error("an empty cell clears the password")
	}
	for _, text := range []string{"- {sn: A, oob: null}", "- {sn: A, oob: {password: null}}"} {
		file, _ := Read([]byte(text), YAML)
		if len(file.Entries) != 1 || !file.Entries[0].ClearsPassword() {
			t.Errorf("%s does not clear the password", text)
		}
	}
}

func TestAssignments(t *testing.T) {
	e, err := Assignments("A", []string{"ip=10.0.0.1", "dns=10.0.0.2 10.0.0.3", "oob.password=a=b", "protect=true", `users=[{"name":"x"}]`, "rack="})
	if err != nil {
		t.Fatal(err)
	}
	h := registry.Host{Rack: "r1"}
	e.Apply(&h)
	if h.IP != "10.0.0.1" || len(h.DNS) != 2 || h.OOB.Password != "a=b" || !h.Protect || h.Users[0].Name != "x" || h.Rack != "" {
		t.Errorf("%+v", h)
	}
	for word, want := range map[string]string{
		"ip":            `"ip" is not of the form field=value`,
		"ipp=1":         "ipp: there is no field of this name; did you mean ip?",
		"state=new":     "state: this is the server's to write",
		"sn=B":          "sn: a host cannot get another serial number; delete it and write the other one down",
		"dns=x":         `dns[0]: "x" is not an IP address`,
		"protect=maybe": `protect: "maybe" is neither true nor false`,
	} {
		if _, err := Assignments("A", []string{word}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestTenThousandHostsAreReadInSeconds(t *testing.T) {
	var yaml, csv strings.Builder
	csv.WriteString("sn,hostname,ip,netmask,gw,macs,rack\n")
	for i := range 10000 {
		fmt.Fprintf(&yaml, "- sn: S%05d\n  hostname: h%d.example\n  ip: 10.1.%d.%d\n  netmask: 255.255.0.0\n  gw: 10.1.0.1\n  macs:\n    - \"52:54:00:00:%02x:%02x\"\n  rack: r%d\n", i, i, i/256, i%256, i/256, i%256, i/40)
		fmt.Fprintf(&csv, "S%05d,h%d.example,10.1.%d.%d,255.255.0.0,10.1.0.1,52:54:00:00:%02x:%02x,r%d\n", i, i, i/256, i%256, i/256, i%256, i/40)
	}
	for f, text := range map[Format]string{YAML: yaml.String(), CSV: csv.String()} {
		began := time.Now()
		file, problems := Read([]byte(text), f)
		if len(problems) > 0 || len(file.Entries) != 10000 {
			t.Errorf("%s: %d entries, %v", f, len(file.Entries), problems)
		}
		t.Logf("%s: %s", f, time.Since(began).Round(time.Millisecond))
	}
}

func FuzzRead(f *testing.F) {
	h := full()
	for i, format := range Formats() {
		var b bytes.Buffer
		if err := Write(&b, Format(format), []registry.Host{h}); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes(), uint8(i))
	}
	f.Add([]byte("- sn: [\n- - - -\n? a\n: &x !!str *y\n"), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		format := Format(Formats()[int(which)%4])
		file, problems := Read(data, format)
		for _, p := range problems {
			if p.Line < 0 || p.Line > bytes.Count(data, []byte("\n"))+2 || p.Text == "" {
				t.Errorf("%+v of %q", p, data)
			}
		}
		var hosts []registry.Host
		for _, e := range file.Entries {
			var h registry.Host
			if wrong := e.Apply(&h); len(wrong) > 0 {
				t.Errorf("%q: %v", data, wrong)
			}
			if registry.ValidateHost(&h) == nil {
				hosts = append(hosts, h)
			}
		}
		var b bytes.Buffer
		if err := Write(&b, format, hosts); err != nil {
			t.Errorf("%q: %s", data, err)
		}
		if len(hosts) == 0 || len(problems) > 0 {
			return
		}
		back, problems := Read(b.Bytes(), format)
		if len(problems) > 0 || len(back.Entries) != len(hosts) {
			t.Fatalf("%q as %s became %q: %v", data, format, b.String(), problems)
		}
		for i, e := range back.Entries {
			var h registry.Host
			e.Apply(&h)
			if asJSON(t, h) != asJSON(t, hosts[i]) {
				t.Errorf("%q as %s became %q\nand  %s\nfrom %s", data, format, b.String(), asJSON(t, h), asJSON(t, hosts[i]))
			}
		}
	})
}

func FuzzLayoutFilesAreGoodOrSayWhatIsWrong(f *testing.F) {
	f.Add([]byte("preset: mirror\nmatch: {transport: nvme}\n"), true)
	f.Add([]byte("disks:\n  - partitions:\n      - {mount: /, fs: zfs, size: 1GB}\n"), true)
	f.Add([]byte(`{"preset":"lvm","volume_groups":[{"name":"x"}]}`), false)
	f.Add([]byte("layout: {preset: lvm}"), true)
	f.Fuzz(func(t *testing.T, data []byte, asYAML bool) {
		format := JSON
		if asYAML {
			format = YAML
		}
		l, wrong := Layout(data, format)
		switch {
		case (l == nil) == (len(wrong) == 0):
			t.Fatalf("%+v, %v", l, wrong)
		case l != nil && l.Validate() != nil:
			t.Fatalf("it is taken and is wrong: %v", l.Validate())
		}
		for _, p := range wrong {
			if p.Text == "" || p.Line < 0 || p.Line > 1+bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r")) { // YAML ends lines with either
				t.Errorf("%+v", p)
			}
		}
	})
}
