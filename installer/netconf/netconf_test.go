package netconf

import (
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"imgbuild/image"
	"imgbuild/image/plan"
)

var update = flag.Bool("update", false, "write the golden files")

// cards are those of a machine with two ports on board and two on one card, of which the first has no link.
var cards = []plan.NIC{
	{Name: "eth3", MAC: "52:54:00:00:00:04", PCI: "0000:3b:00.1", Link: true},
	{Name: "eth0", MAC: "52:54:00:00:00:01", PCI: "0000:00:03.0", Link: true},
	{Name: "eth1", MAC: "52:54:00:00:00:0B", PCI: "0000:00:04.0", Link: true},
	{Name: "eth2", MAC: "52:54:00:00:00:03", PCI: "0000:3b:00.0"},
}

func read(t testing.TB, text string) *plan.Network {
	t.Helper()
	var n plan.Network
	if err := yaml.UnmarshalWithOptions([]byte(text), &n, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if err := n.Validate(); err != nil {
		t.Fatal(err)
	}
	return &n
}

// networks are the files of testdata: one network each, as a host's record has it.
func networks(t testing.TB) map[string]*plan.Network {
	t.Helper()
	found, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(found) == 0 {
		t.Fatal(err, "no networks in testdata")
	}
	list := map[string]*plan.Network{}
	for _, f := range found {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		list[strings.TrimSuffix(filepath.Base(f), ".yaml")] = read(t, string(data))
	}
	return list
}

var forms = map[string]Options{
	"el7":  {Format: image.Ifcfg, Major: 7, Serial: "S1"},
	"el8":  {Format: image.NMKeyfile, Major: 8, Serial: "S1"},
	"el9":  {Format: image.NMKeyfile, Major: 9, Serial: "S1"},
	"el9i": {Format: image.Ifcfg, Major: 9, Serial: "S1"},
}

func TestFilesAreTheGoldenOnes(t *testing.T) {
	for name, n := range networks(t) {
		for form, o := range forms {
			t.Run(name+"."+form, func(t *testing.T) {
				golden := "testdata/" + name + "." + form
				if form == "el9i" && name != "bond" { // the same as EL7's but for the names of ports
					t.Skip("one case is enough")
				}
				files, err := Files(n, "web1.example.org", cards, o)
				if form != "el7" && form != "el8" && len(n.Teams) > 0 {
					if err == nil || len(files) > 0 {
						t.Error("teams of a system that has none were written")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				var b strings.Builder
				for _, f := range files {
					fmt.Fprintf(&b, "== %s %04o\n%s", f.Name, f.Mode, f.Content)
				}
				if form == "el9" {
					// EL8 and EL9 get the same files, so there is one golden file of both.
					golden = "testdata/" + name + ".el8"
				} else if *update {
					if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil || string(want) != b.String() {
					t.Errorf("%s: %v; got\n%s", golden, err, b.String())
				}
			})
		}
	}
}

func TestTheSameMachineHasTheSameFiles(t *testing.T) {
	n := networks(t)["bond"]
	a, err := Files(n, "", cards, forms["el8"])
	if err != nil {
		t.Fatal(err)
	}
	shuffled := slices.Clone(cards)
	slices.Reverse(shuffled)
	b, _ := Files(n, "", shuffled, forms["el8"])
	if !slices.Equal(a, b) {
		t.Error("the order in which the kernel found the cards makes a difference")
	}
	c, _ := Files(n, "", cards, Options{Format: image.NMKeyfile, Major: 8, Serial: "S2"})
	if c[0].Content == a[0].Content {
		t.Error("two machines have the same UUIDs")
	}
	// By hand: python3 -c 'import uuid; print(uuid.uuid5(uuid.UUID("6a0d8e5b-35c1-4f27-9b7e-510e1f6cd244"), "S1/bond0"))'
	if got := uuid("S1", "bond0"); got != "a18a9e6d-6b55-598a-9079-44f2d9101dea" {
		t.Error(got)
	}
}

func TestAPortIsChosen(t *testing.T) {
	for _, c := range []struct{ match, want string }{
		{"{mac: '52:54:00:00:00:0b'}", "eth1"},
		{"{mac: '52-54-00-00-00-0B'}", "eth1"},
		{"{pci: '0000:3b:00.1'}", "eth3"},
		{"{pci: '0000:3B:00.1'}", "eth3"},
		{"{pci: '3b:00.1'}", "eth3"},
		{"{pci: '0000:3b:*.0'}", "eth2"},
		{"{pci: '*:04.?'}", "eth1"},
		{"{order: 1}", "eth0"},
		{"{order: 3}", "eth2"},
		{"{link: 3}", "eth3"},
	} {
		n := read(t, "ethernets: [{name: lan0, dhcp4: true, match: "+c.match+"}]")
		l, err := newLayout(n, cards, "")
		if err != nil || l.links[0].nic.Name != c.want || len(l.unused) != 3 {
			t.Errorf("%s: %v, %v", c.match, l, err)
		}
	}
	for _, c := range []struct{ match, want string }{
		{"{mac: '52:54:00:00:00:99'}", "no card is the one with the MAC address 52:54:00:00:00:99; the machine has eth0 (52:54:00:00:00:01) at 0000:00:03.0, eth1"},
		{"{pci: '0000:3b:*'}", "several cards are at the PCI address 0000:3b:*: eth2 (52:54:00:00:00:03) at 0000:3b:00.0 without a link, eth3"},
		{"{link: 4}", "no card is number 4 of those with a link"},
		{"{order: 5}", "no card is number 5"},
	} {
		n := read(t, "ethernets: [{name: lan0, dhcp4: true, match: "+c.match+"}]")
		if _, err := newLayout(n, cards, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.match, err)
		}
	}
	twice := read(t, "ethernets: [{name: a, dhcp4: true, match: {order: 1}}, {name: b, match: {link: 1}}]")
	if _, err := newLayout(twice, cards, ""); err == nil || !strings.Contains(err.Error(), "its card eth0 (52:54:00:00:00:01) is that of a already") {
		t.Error(err)
	}
	same := slices.Clone(cards)
	same[2].MAC = same[1].MAC
	one := read(t, "ethernets: [{name: a, dhcp4: true, match: {order: 1}}]")
	if _, err := newLayout(one, same, ""); err == nil || !strings.Contains(err.Error(), "the machine has 2 cards with the MAC address") {
		t.Error(err)
	}
	if _, err := newLayout(one, nil, ""); err == nil || !strings.Contains(err.Error(), "the machine has none") {
		t.Error(err)
	}
}

func TestCardsAreInTheOrderOfTheirPCIAddresses(t *testing.T) {
	want := []plan.NIC{{Name: "a", PCI: "0000:02:00.0"}, {Name: "b", PCI: "0000:0a:00.0"}, {Name: "eth2", PCI: "0001:00:00.0"}, {Name: "eth10", PCI: "0001:00:00.0"},
		{Name: "c", PCI: "10000:01:00.0"}, {Name: "usb0"}, {Name: "usb1"}}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortStableFunc(got, compareNICs)
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestWhatASystemCannotHaveIsRefused(t *testing.T) {
	n := networks(t)
	for _, c := range []struct {
		network string
		o       Options
		want    string
	}{
		{"team", forms["el9"], `team0 is a team, which EL9 does not have; give the host this bond instead, with the team's addresses: {"name":"team0","members":["lan0","lan1"],"mode":"802.3ad","lacp_rate":"fast","hash_policy":"layer3+4","min_links":1}`},
		{"static", Options{Format: image.Networkd, Major: 9}, "build the image with one of these"},
		{"static", Options{Format: image.NMKeyfile, Major: 7}, "network: ifcfg"},
		{"static", Options{Format: image.Ifcfg, Major: 10}, "network: nm-keyfile"},
	} {
		_, err := Files(n[c.network], "", cards, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.network, err)
		}
	}
	bad := *n["static"]
	bad.DNS = append(slices.Clone(bad.DNS), bad.DNS...)
	if _, err := Files(&bad, "", cards, forms["el9"]); err == nil {
		t.Error("a network that contradicts itself was written")
	}
}

func TestAHostNameMustBeOne(t *testing.T) {
	for _, bad := range []string{"localhost", "localhost.localdomain", "a b", "web_1", "web1.", "-a", "192.0.2.1", strings.Repeat("a", 65), "a..b", "a\nb"} {
		if _, err := Files(nil, bad, nil, forms["el9"]); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestWithoutANetworkOnlyTheHostNameIsWritten(t *testing.T) {
	files, err := Files(nil, "web1", nil, Options{Format: image.Networkd})
	if err != nil || len(files) != 2 || files[0].Name != "etc/NetworkManager/conf.d/90-imgbuild.conf" || strings.Contains(files[0].Content, "no-auto-default") || files[1].Content != "web1\n" {
		t.Errorf("%+v, %v", files, err)
	}
	if files, err := Files(nil, "", nil, Options{}); err != nil || len(files) > 0 {
		t.Errorf("%+v, %v", files, err)
	}
}

func TestTheImagesHostsAreKept(t *testing.T) {
	n := networks(t)["static"]
	o := forms["el9"]
	o.Hosts = "127.0.0.1 localhost\n# ours\n10.1.1.1 mirror\n127.0.1.1 web1.example.org web1" // a build's leftover, without a line's end
	files, err := Files(n, "web1.example.org", cards, o)
	if err != nil {
		t.Fatal(err)
	}
	want := "127.0.0.1 localhost\n# ours\n10.1.1.1 mirror\n192.0.2.5 web1.example.org web1\n2001:db8::5 web1.example.org web1\n"
	if got := files[len(files)-1]; got.Name != "etc/hosts" || got.Content != want {
		t.Errorf("%+v", got)
	}
}

func TestAPrimaryPortHasANameThatNoOtherCardCanHave(t *testing.T) {
	text := "ethernets: [{name: eth0, match: {order: 1}}, {name: b, match: {order: 2}}]\nbonds: [{name: bond0, members: [eth0, b], mode: active-backup, primary: eth0, dhcp4: true}]\n"
	files, err := Files(read(t, text), "", cards, forms["el9"])
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(files)
	for _, want := range []string{"primary=nic-eth0\n", `ATTR{address}=="52:54:00:00:00:01", NAME="nic-eth0"`} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
	text += "vlans: [{name: nic-eth0, id: 5, link: bond0}]"
	if _, err := Files(read(t, text), "", cards, forms["el9"]); err == nil || !strings.Contains(err.Error(), "call it lan0") {
		t.Error(err)
	}
}

func TestTheImagesOwnConnectionsAreReplaced(t *testing.T) {
	matches := func(f image.NetworkFormat, name string) bool {
		return slices.ContainsFunc(Replaced(f), func(glob string) bool { ok, err := path.Match(glob, name); return ok && err == nil })
	}
	const dir = "etc/sysconfig/network-scripts/"
	for _, name := range []string{"ifcfg-eth0", "ifcfg-lan0", "ifcfg-lo0", "ifcfg-l", "route-eth0", "route6-eth0", "rule-eth0", "keys-eth0"} {
		if !matches(image.Ifcfg, dir+name) || matches(image.NMKeyfile, dir+name) {
			t.Error(name)
		}
	}
	for _, name := range []string{"ifcfg-lo", "ifup", "ifup-eth", "network-functions", "init.ipv6-global", "ifdown"} {
		if matches(image.Ifcfg, dir+name) {
			t.Error(name)
		}
	}
	if !matches(image.NMKeyfile, "etc/NetworkManager/system-connections/eth0.nmconnection") {
		t.Error("keyfile")
	}
}

func TestATeamBecomesTheBondThatDoesTheSame(t *testing.T) {
	for _, c := range []struct{ team, want string }{
		{"runner: lacp", `"mode":"802.3ad"`},
		{"runner: lacp, tx_hash: [eth, ipv4]", `"mode":"802.3ad","hash_policy":"layer2+3"`},
		{"runner: loadbalance, tx_hash: [eth]", `"mode":"balance-xor","hash_policy":"layer2"`},
		{"runner: activebackup, primary: b", `"mode":"active-backup","primary":"b"`},
		{"runner: roundrobin, updelay: 250, downdelay: 500", `"mode":"balance-rr","miimon":50,"updelay":250,"downdelay":500`},
		{"runner: broadcast", `"mode":"broadcast"`},
	} {
		n := read(t, "ethernets: [{name: a, match: {order: 1}}, {name: b, match: {order: 2}}]\nteams: [{name: t, members: [a, b], dhcp4: true, "+c.team+"}]")
		b := TeamBond(n.Teams[0])
		if want := `{"name":"t","members":["a","b"],` + c.want + "}"; bondText(b) != want {
			t.Errorf("%s: %s", c.team, bondText(b))
		}
		bonded := *n
		b.DHCP4 = true
		bonded.Bonds, bonded.Teams = []plan.Bond{b}, nil
		if err := bonded.Validate(); err != nil {
			t.Errorf("%s: %v", c.team, err)
		}
	}
}
