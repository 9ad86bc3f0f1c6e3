package config

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/profiles/strict"
	"imgbuild/server/tftp"
)

var update = flag.Bool("update", false, "write docs/imgserve-reference.md anew")

// load writes text to imgserve.yaml in a new directory and loads it.
func load(t *testing.T, text string, flags ...Flag) (*Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("imgserve.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load("imgserve.yaml", flags, Surroundings{Dir: "/home/me"})
}

func TestMistakesAreReportedAllAtOnceWithTheirPlaces(t *testing.T) {
	subnet := "images: /i\ninterface: br0\ndhcp:\n  subnets:\n    - subnet: 10.1.0.0/24\n"
	tests := map[string]struct{ text, want string }{
		"an unknown key": {"images: /i\nintreface: br0\n",
			`imgserve.yaml:2:1: there is no key "intreface"; did you mean interface?`},
		"a key in the wrong place": {"images: /i\nsubnets: []\n",
			`imgserve.yaml:2:1: there is no key "subnets"; it belongs in dhcp`},
		"wrong types": {"images: [/i]\nlimits: {global: many, per_rack: -1}\ntftp: {enabled: yes please}\n",
			"imgserve.yaml:1:9: images is a list, and text is wanted\nimgserve.yaml:2:18: limits.global is text, and a whole number is wanted\n" +
				"imgserve.yaml:2:34: limits.per_rack is -1; it can be 0 to 100000\nimgserve.yaml:3:17: tftp.enabled is text, and true or false is wanted"},
		"values that cannot be": {"images: /i\nlisten: 8080\nurl: ftp://x\nunknown: instal\norder_expiry: soon\nlegacy_clients: [10.1.2.3/8, 10.0.0.0]\n",
			"imgserve.yaml:2:9: listen is a number, and text is wanted; put it in quotes: \"8080\"\n" +
				"imgserve.yaml:3:6: url is \"ftp://x\", and not an address such as http://10.1.0.1:8080\n" +
				"imgserve.yaml:4:10: unknown is \"instal\"; it can be inspect or localboot\n" +
				"imgserve.yaml:5:15: order_expiry is \"soon\", and not a time such as 90s, 12h or 7d\n" +
				"imgserve.yaml:6:18: legacy_clients[0] is \"10.1.2.3/8\", an address with its network; the network is 10.0.0.0/8\n" +
				"imgserve.yaml:6:30: legacy_clients[1] is \"10.0.0.0\", and not a network such as 10.1.0.0/24"},
		"no images":                       {"interface: br0\n", "imgserve.yaml:1:1: images is missing: the directory of releases, where imgbuild writes them (--images DIR)"},
		"DHCP without an interface":       {"images: /i\ndhcp: {mode: proxy}\n", "imgserve.yaml:1:1: interface is missing: DHCP in mode proxy is served on one network interface (--interface NAME, or dhcp.mode: off)"},
		"a server without subnets":        {"images: /i\ninterface: br0\ndhcp: {mode: server}\n", "imgserve.yaml:3:8: dhcp.mode is server, and there are no addresses to give out: add dhcp.subnets"},
		"a proxy with subnets":            {subnet + "  mode: proxy\n", "imgserve.yaml:6:3: dhcp.mode is proxy, and dhcp.subnets are for mode: server alone"},
		"a gateway that is elsewhere":     {subnet + "      gateway: 10.2.0.1\n", "imgserve.yaml:6:7: dhcp.subnets[0].gateway has 10.2.0.1, which is not in 10.1.0.0/24"},
		"a gateway that is the broadcast": {subnet + "      gateway: 10.1.0.255\n", "imgserve.yaml:6:7: dhcp.subnets[0].gateway has 10.1.0.255, the network's own or its broadcast address"},
		"a range with the gateway in it":  {subnet + "      gateway: 10.1.0.7\n      range: 10.1.0.2-10.1.0.9\n", "imgserve.yaml:7:7: dhcp.subnets[0].range contains the gateway 10.1.0.7, which would be given to a machine"},
		"a range that runs backwards":     {subnet + "      range: 10.1.0.9-10.1.0.2\n", `imgserve.yaml:6:14: dhcp.subnets[0].range is "10.1.0.9-10.1.0.2": its end is before its beginning`},
		"a range that leaves the subnet":  {subnet + "      range: 10.1.0.9-10.1.1.2\n", "imgserve.yaml:6:7: dhcp.subnets[0].range has 10.1.1.2, which is not in 10.1.0.0/24"},
		"subnets that overlap":            {subnet + "    - subnet: 10.1.0.128/25\n", "imgserve.yaml:6:7: dhcp.subnets[1].subnet is 10.1.0.128/25, which overlaps with 10.1.0.0/24 of dhcp.subnets[0]"},
		"a subnet without a network":      {"images: /i\ninterface: br0\ndhcp:\n  subnets:\n    - domain: example.org\n", "imgserve.yaml:5:7: dhcp.subnets[0].subnet is missing: the network, as 10.1.0.0/24"},
		"a subnet for two machines":       {"images: /i\ninterface: br0\ndhcp: {subnets: [{subnet: 10.1.0.0/31}]}\n", "imgserve.yaml:3:19: dhcp.subnets[0].subnet is 10.1.0.0/31; a network of machines is a /8 to a /30"},
		"a lease of seconds":              {subnet + "      lease: 10s\n", "imgserve.yaml:6:7: dhcp.subnets[0].lease is 10s; it can be 1m to 30d"},
		"a certificate without its key":   {"images: /i\ntls: {cert: c.pem}\n", "imgserve.yaml:2:1: tls.key is missing: the private key of tls.cert"},
		"two kinds of certificates":       {"images: /i\ntls: {cert: c.pem, key: k.pem, self: true}\n", "imgserve.yaml:2:32: tls.self is true, and there is a certificate already: give either self, or cert and key"},
		"HTTPS without a certificate":     {"images: /i\ntls: {listen: \":443\"}\n", "imgserve.yaml:2:7: tls.listen is given, and there is no certificate: add self: true, or cert and key"},
		"BitTorrent where HTTP is":        {"images: /i\ntransport: torrent\ntorrent: {listen: \":8080\"}\n", "imgserve.yaml:3:11: torrent.listen is :8080, where HTTP is (listen)"},
		"BitTorrent where HTTPS is":       {"images: /i\ntls: {self: true}\ntorrent: {listen: \":8443\", enabled: true}\n", "imgserve.yaml:3:11: torrent.listen is :8443, where HTTPS is (tls.listen)"},
		"HTTPS where HTTP is":             {"images: /i\nlisten: 10.1.0.1:8443\ntls: {self: true}\n", "imgserve.yaml:3:1: tls.listen is :8443, where HTTP is (listen)"},
		"GRUB without Secure Boot":        {"images: /i\nloaders: {files: {grubx64.efi: g.efi}}\n", "imgserve.yaml:2:19: loaders.files[\"grubx64.efi\"] is for Secure Boot: add secure_boot: true to loaders"},
		"a loader that there isn't":       {"images: /i\nloaders: {files: {ipxe.elf: g}}\n", "imgserve.yaml:2:19: a name in loaders.files is \"ipxe.elf\"; it can be undionly.kpxe, ipxe.efi, ipxe-arm64.efi, ipxe-ia32.efi, shimx64.efi, grubx64.efi, shimaa64.efi or grubaa64.efi; did you mean ipxe.efi?"},
		"a reservation for two clients":   {subnet + "  reservations: [{address: 10.1.0.9, sn: SN001, mac: \"52:54:00:00:00:01\"}]\n", "imgserve.yaml:6:19: dhcp.reservations[0] names 2 clients; it has exactly one of sn, mac and client_id"},
		"a reservation elsewhere":         {subnet + "  reservations: [{address: 10.2.0.9, sn: SN001}]\n", "imgserve.yaml:6:19: dhcp.reservations[0].address is 10.2.0.9, which is in none of dhcp.subnets"},
		"two reservations of an address":  {subnet + "  reservations: [{address: 10.1.0.9, sn: SN001}, {address: 10.1.0.9, sn: SN002}]\n", "imgserve.yaml:6:51: dhcp.reservations[1].address is 10.1.0.9, which dhcp.reservations[0] keeps already"},
		"networks that are there twice":   {"images: /i\nlegacy_clients: [10.0.0.0/8, 10.0.0.0/8]\n", "imgserve.yaml:2:30: legacy_clients[1] is 10.0.0.0/8, which legacy_clients[0] is too"},
		"another database":                {"images: /i\ndatabase: mysql://h/d\n", `imgserve.yaml:2:11: database begins with "mysql"://; it is a file's path, or an address with postgres://`},
		"a tag":                           {"images: !reset /i\n", "imgserve.yaml:1:9: the tag !reset is unknown; a configuration has no tags"},
		"nothing":                         {"\n", "imgserve.yaml: the file is empty; a configuration has at least images"},
		"a list":                          {"- a\n", "imgserve.yaml:1:1: a configuration is a map of keys such as images: and interface:, not a list"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.text)
			if err == nil || err.Error() != test.want {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
			if _, ok := err.(strict.Errors); !ok {
				t.Errorf("the error is a %T", err)
			}
		})
	}
}

func TestTwoFlagsAreAWorkingServer(t *testing.T) {
	exists := func(p string) bool {
		return p == "/etc/imgbuild/release.key.pub"
	}
	c, err := Load("", []Flag{{"images", []string{"out/"}}, {"interface", []string{"br0"}}}, Surroundings{Dir: "/home/op", State: "/var/lib/imgserve", Exists: exists})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	want := `interface: br0
listen: ":8080"
images: /home/op/out
trust:
  - /etc/imgbuild/release.key.pub
state: /var/lib/imgserve
database: /var/lib/imgserve/imgserve.db
unknown: inspect
order_expiry: "24h"
keep_progress: "30d"
limits:
  global: 50
  per_rack: 0
  per_image: 0
transport: relay
torrent:
  enabled: false
  listen: ":6881"
dhcp:
  mode: proxy
  probe: true
tftp:
  enabled: true
  listen: ":69"
log: info
`
	if string(out) != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestTheRegistryAloneNeedsNoImages(t *testing.T) {
	c, err := Load("", []Flag{{"database", []string{"r.db"}}}, Surroundings{Dir: "/d", OnlyRegistry: true})
	if err != nil || c.Database != "/d/r.db" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestFlagsTakeTheFilesPlaceAndAreNamedInMistakes(t *testing.T) {
	c, err := load(t, "images: /i\nlisten: \":81\"\ntrust: [a.pub]\n", Flag{"listen", []string{":80"}}, Flag{"trust", []string{"b.pub", "/c.pub"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":80" || !slices.Equal(c.Trust, []string{"/home/me/b.pub", "/c.pub"}) {
		t.Errorf("listen %s, trust %q", c.Listen, c.Trust)
	}
	_, err = load(t, "images: /i\n", Flag{"url", []string{"nowhere"}}, Flag{"listen", []string{":99999"}})
	if err == nil || !strings.Contains(err.Error(), `--url: url is "nowhere"`) || !strings.Contains(err.Error(), `--listen: listen is ":99999", and a port is 1 to 65535`) {
		t.Errorf("the error is %v", err)
	}
}

func TestPathsOfTheFileStartFromTheFile(t *testing.T) {
	c, err := load(t, "images: ../i\ndatabase: postgres://u:hunter2@db/imgserve\ntrust: [k.pub]\n")
	if err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if c.Images != filepath.Join(filepath.Dir(wd), "i") || c.Trust[0] != filepath.Join(wd, "k.pub") || c.Database != "postgres://u:hunter2@db/imgserve" {
		t.Errorf("%+v", c)
	}
}

func TestAPasswordOfTheDatabaseIsNeverShown(t *testing.T) {
	for _, db := range []string{"postgres://u:hunter2@db/imgserve", "postgres://db/imgserve?user=u&password=hunter2"} {
		c, err := load(t, "images: /i\ndatabase: "+db+"\n")
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.YAML()
		if err != nil || bytes.Contains(out, []byte("hunter2")) || !bytes.Contains(out, []byte("imgserve")) {
			t.Errorf("%v\n%s", err, out)
		}
	}
	for _, db := range []string{"postgres://u:hunter2@db/", "mysql://u:hunter2@db/x", "\"postgres://u:hunter2@db/%zz\"", "[postgres://u:hunter2@db/x]"} {
		if _, err := load(t, "images: /i\ndatabase: "+db+"\n"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", db, err)
		}
	}
}

func TestWhatIsPrintedLoadsAgain(t *testing.T) {
	text := `interface: br0
images: /i
dhcp:
  subnets:
    - subnet: 10.1.0.0/24
      range: 10.1.0.100-10.1.0.199
      gateway: 10.1.0.254
      dns: [10.1.0.254, 9.9.9.9]
      lease: 90m
      relay_only: true
tls: {self: true, names: [boot.example.org]}
limits: {global: 0}
legacy_clients: [10.0.0.0/8, "2001:db8::/32"]
`
	c, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if s := c.DHCP.Subnets[0]; c.DHCP.Mode != "server" || time.Duration(s.Lease) != 90*time.Minute || s.Range.Size() != 100 || s.DNS[1] != netip.MustParseAddr("9.9.9.9") || *c.Limits.Global != 0 {
		t.Errorf("%+v", c)
	}
	out, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := load(t, string(out))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !reflect.DeepEqual(c, again) {
		t.Errorf("it is another configuration after it was printed and loaded:\n%s", out)
	}
}

func TestDurationsAreReadAndWritten(t *testing.T) {
	for text, want := range map[string]string{"7d": "7d", "26h": "26h", "90s": "1m30s", "10s": "10s", "24h": "24h", "1h30m": "1h30m", "20m": "20m", "100ms": "100ms"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		out, err := d.MarshalText()
		var back Duration
		if err != nil || string(out) != want || back.UnmarshalText(out) != nil || back != d {
			t.Errorf("%s is %s and read again %v: %v", text, out, back, err)
		}
	}
	for _, bad := range []string{"", "d", "-1d", "1w", "99999999d", "5"} {
		if err := new(Duration).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestEveryFormatAcceptsItsExamples(t *testing.T) {
	forms := strict.NewForms(formats())
	for name, f := range forms.Formats {
		for _, e := range f.Examples {
			if p := forms.Text(name, e); p != "" {
				t.Errorf("the example %q of %s %s", e, name, p)
			}
		}
	}
}

func TestTheLoadersAreThoseOfTFTP(t *testing.T) {
	var want []string
	for _, l := range tftp.Loaders() {
		want = append(want, l.Name)
	}
	if !slices.Equal(loaderNames(), want) {
		t.Errorf("got %q, want %q", loaderNames(), want)
	}
}

func TestEveryKeyIsDescribedAndChecked(t *testing.T) {
	docs, err := descriptions()
	if err != nil {
		t.Fatal(err)
	}
	known, used := formats(), map[string]bool{}
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		for _, f := range strict.Fields(typ) {
			name := typ.Name() + "." + f.Name
			if d := docs[name]; !strings.HasPrefix(d, "`"+f.Key+"` ") || !strings.HasSuffix(d, ".") {
				t.Errorf("the comment of %s is %q", name, d)
			}
			form := f.Tag.Get("check")
			if _, ok := known[form]; form != "" && !ok {
				t.Errorf("%s has the unknown format %q", name, form)
			}
			used[form] = true
			keys := f.Tag.Get("keys")
			if _, ok := known[keys]; keys != "" && !ok {
				t.Errorf("%s has the unknown format %q", name, keys)
			}
			used[keys] = true
			leaf := f.Typ
			for leaf.Kind() == reflect.Slice || leaf.Kind() == reflect.Pointer || leaf.Kind() == reflect.Map {
				leaf = leaf.Elem()
			}
			switch {
			case leaf.Kind() == reflect.Struct && len(strict.Fields(leaf)) > 0:
				walk(leaf)
			case leaf.Kind() != reflect.Bool && form == "":
				t.Errorf("%s is not checked", name)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	for name := range known {
		if !used[name] {
			t.Errorf("no key has the format %s", name)
		}
	}
}

func TestReferenceIsCurrent(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "imgserve-reference.md")
	want, err := Reference()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the types say (%v); write it anew with go test ./server/config -run TestReferenceIsCurrent -update", path, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("images: /i\ninterface: br0\ndhcp: {subnets: [{subnet: 10.1.0.0/24, range: 10.1.0.1-10.1.0.9, lease: 1h}]}\n"))
	f.Add([]byte("images: /i\ntls: {self: true}\nlegacy_clients: [10.0.0.0/8]\n"))
	path := filepath.Join(f.TempDir(), "c.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path, nil, Surroundings{})
		if err != nil {
			return
		}
		out, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if isAddress(c.Database) {
			return // its password is not printed
		}
		if err := os.WriteFile(path, out, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Load(path, nil, Surroundings{})
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
