package answers

import (
	"errors"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"imgbuild/image/accounts"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/crypt"
	"imgbuild/profiles/strict"
)

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops@example.org"

func full() Answers {
	return Answers{
		Schema: plan.Schema, Disks: []string{"S1", "/dev/disk/by-path/pci-0000:00:05.0"}, Wipe: []string{"S1"}, Unseal: []string{"OLD-1"},
		Layout: &layout.Layout{Preset: layout.Mirror, Filesystem: "ext4"}, Fresh: true, Done: "poweroff",
		Host: plan.Host{
			Hostname: "node-1.example.org", SerialConsole: "ttyS0,115200n8",
			Network: &plan.Network{
				Ethernets: []plan.Ethernet{{Name: "lan", Match: plan.Match{MAC: "52:54:00:12:34:56"}, IP: plan.IP{
					Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24")}, Gateway4: netip.MustParseAddr("192.0.2.1"),
				}}},
				DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			},
			Users:    []plan.User{{Name: "root", Password: crypt.SHA512("geheim", "salt"), SSHKeys: []string{key}}, {Name: "ops", Groups: []string{"wheel"}, Sudo: "all", UID: 1000}},
			Files:    []plan.File{{Path: "/etc/motd", Content: "<hello> & ä\n", Mode: "0644"}},
			Metadata: []byte(`{"rack":"r1"}`),
		},
	}
}

func TestWhatIsSavedIsReadAsTheSame(t *testing.T) {
	for _, a := range []Answers{{Schema: plan.Schema}, full()} {
		data, err := a.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse("answers.json", data)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		again, err := got.Marshal()
		if err != nil || string(again) != string(data) {
			t.Errorf("%v: saved again it is\n%s\nand was\n%s", err, again, data)
		}
		// Only the layout of metadata may differ: it is indented.
		got.Host.Metadata, a.Host.Metadata = nil, nil
		if !reflect.DeepEqual(got, a) {
			t.Errorf("got\n%+v\nwant\n%+v", got, a)
		}
	}
}

func TestTheExampleOfTheDocumentationIsRead(t *testing.T) {
	doc, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(doc, -1)
	if len(examples) == 0 {
		t.Fatal("there is none")
	}
	for _, e := range examples {
		if _, err := Parse("docs/install.md", e[1]); err != nil {
			t.Error(err)
		}
	}
}

func TestMistakesAreToldWithTheirPlaces(t *testing.T) {
	long := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for name, c := range map[string]struct{ text, want string }{
		"an empty file":                 {"\n", `a.json:1:1: the file is empty; answers are an object, such as {"disks": ["SERIAL"]}`},
		"a list":                        {`["S1"]`, `a.json:1:1: is a list, and an object is wanted`},
		"no JSON":                       {"{\n  disks: [\"S1\"]\n}", `a.json:2:3: this is not JSON: invalid character 'd' looking for beginning of object key string`},
		"a comma too many":              {"{\n  \"disks\": [\"S1\",]\n}", `a.json:2:18: this is not JSON: invalid character ']' looking for beginning of value`},
		"a file that was cut off":       {"{\n  \"disks\": [\"S1\"", `a.json:2:17: the file ends inside of a value`},
		"more than one value":           {"{}\n{}", `a.json:2:1: this is not JSON: invalid character '{' after top-level value`},
		"a misspelt key":                {"{\n  \"diks\": [\"S1\"]\n}", `a.json:2:3: there is no key "diks"; did you mean disks?`},
		"a misspelt key below":          {"{\"host\": {\n\t\"hostnme\": \"a\"}}", `a.json:2:2: there is no key "hostnme" in host; did you mean hostname?`},
		"a key that means nothing":      {`{"host": {"users": [{"name": "a", "zzzzzz": 1}]}}`, `a.json:1:35: there is no key "zzzzzz" in host.users[0]; there are name, password, ssh_keys, groups, sudo, uid, shell and comment`},
		"a key twice":                   {"{\"disks\": [\"a\"],\n\"disks\": [\"b\"]}", `a.json:2:1: disks is here a second time`},
		"what is a server's":            {`{"order": "1"}`, `a.json:1:2: order is in a server's plans only: leave it out here`},
		"what is an argument's":         {`{"mirrors": []}`, `a.json:1:2: mirrors is for the kernel's arguments to say, as imgbuild.mirror=: leave it out here`},
		"another schema":                {`{"schema": 7}`, `a.json:1:12: schema is 7, and this installer knows 1: write the answers anew, or boot the release that they were made with`},
		"text for a list":               {`{"disks": "S1"}`, `a.json:1:11: disks is text, and a list is wanted`},
		"a number for text":             {`{"disks": [5]}`, `a.json:1:12: disks[0] is the number "5", and text is wanted`},
		"text for a truth":              {`{"fresh": "yes"}`, `a.json:1:11: fresh is text, and true or false is wanted`},
		"nothing":                       {`{"fresh": null}`, `a.json:1:11: fresh is null; give it a value or leave the key out`},
		"a path elsewhere":              {`{"disks": ["sda/../x"]}`, `a.json:1:12: disks[0] is "sda/../x", a path that does not lie below /dev; give a serial number, a WWN or a path below /dev`},
		"a disk twice":                  {`{"wipe": ["a", "a"]}`, `a.json:1:16: wipe[1] names "a" a second time`},
		"an end that is none":           {`{"done": "reboto"}`, `a.json:1:10: done is "reboto"; it can be reboot, kexec, poweroff or wait; did you mean reboot?`},
		"an unknown preset":             {`{"layout": {"preset": "mirrored"}}`, `a.json:1:23: layout.preset is "mirrored", which is none of simple, lvm, server, mirror`},
		"a layout that cannot be":       {`{"layout": {"preset": "lvm", "volume_groups": [{"name": "x"}]}}`, `a.json:1:`},
		"a host name":                   {`{"host": {"hostname": "web_1"}}`, `a.json:1:23: host.hostname is "web_1", and a host name has letters, digits and dashes between its dots, and no dash first or last`},
		"an address for a name":         {`{"host": {"hostname": "10.0.0.1"}}`, `a.json:1:23: host.hostname is "10.0.0.1", which is an address and not a name`},
		"an address without its prefix": {`{"host": {"network": {"ethernets": [{"name": "lan", "match": {"order": 1}, "addresses": ["10.0.0.1"]}]}}}`, `a.json:1:90: host.network.ethernets[0].addresses[0] is "\"10.0.0.1\"", and not an address with its prefix length, such as 192.0.2.5/24`},
		"a network of two minds":        {`{"host": {"network": {"ethernets": [{"name": "lan", "match": {"order": 1}}]}}}`, `a.json:1:22: host.network is wrong: no link has an address, DHCP or router advertisements: nobody could reach the machine`},
		"a password as it is":           {`{"host": {"users": [{"name": "root", "password": "geheim"}]}}`, "a.json:1:50: host.users[0].password is not a crypt hash (the value is not shown); make one with `openssl passwd -6`, and never write a password as it is"},
		"a weak hash":                   {`{"host": {"users": [{"name": "root", "password": "$1$abcdefgh$AbCdEfGhIjKlMnOpQrStU0"}]}}`, "a.json:1:50: host.users[0].password is not a crypt hash"},
		"a private key":                 {`{"host": {"users": [{"name": "root", "ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}]}}`, "a.json:1:51: host.users[0].ssh_keys[0] is a private key"},
		"a key that was cut off":        {`{"host": {"users": [{"name": "root", "ssh_keys": ["` + key[:60] + `"]}]}}`, "a.json:1:51: host.users[0].ssh_keys[0] is not an SSH public key: "},
		"a user without a name":         {`{"host": {"users": [{"uid": 5}]}}`, "a.json:1:21: host.users[0] has no name"},
		"a file without a path":         {`{"host": {"files": [{"content": "x"}]}}`, "a.json:1:21: host.files[0] has no path"},
		"a file of no mode":             {`{"host": {"files": [{"path": "/x", "content": "x", "mode": "rw"}]}}`, "a.json:1:60: host.files[0].mode is \"rw\""},
		"metadata that is no object":    {`{"host": {"metadata": [1]}}`, "a.json:1:23: host.metadata is not an object"},
		"two mistakes":                  {"{\"fresh\": 1,\n\"done\": 2}", "a.json:1:11: fresh is the number \"1\", and true or false is wanted\na.json:2:9: done is the number \"2\", and text is wanted"},
		"a depth that nobody needs":     {`{"host": {"metadata": {"a": ` + long + `}}}`, ""},
	} {
		_, err := Parse("a.json", []byte(c.text))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var es strict.Errors
		if !errors.As(err, &es) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got\n%v\nwant\n%s", name, err, c.want)
		}
		if strings.Contains(c.text, "geheim") && strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the password is shown: %v", name, err)
		}
	}
}

func TestAnswersTakeThePlaceOfWhatTheySayAndLeaveTheRest(t *testing.T) {
	was := installer.Config{Args: cmdline.Args{Manifest: "http://x/manifest.json", Disks: []string{"K"}, Wipe: []string{"K"}, Preset: layout.LVM, Done: cmdline.DoneReboot}}
	was.Machine.Serial = "SN-1"
	c := was
	Answers{}.Apply(&c, nil)
	if !reflect.DeepEqual(c, was) {
		t.Errorf("answers that say nothing changed the installation: %+v", c)
	}
	full().Apply(&c, []plan.NIC{{Name: "eth0"}})
	if c.Args.Manifest != was.Args.Manifest || !reflect.DeepEqual(c.Args.Disks, full().Disks) || !reflect.DeepEqual(c.Args.Wipe, []string{"S1"}) || c.Args.Unseal[0] != "OLD-1" ||
		!c.Args.Fresh || c.Args.Done != cmdline.DonePoweroff || c.Args.Preset != "" || c.Layout.Filesystem != "ext4" {
		t.Errorf("got %+v and the layout %+v", c.Args, c.Layout)
	}
	if c.Host.Hostname != "node-1.example.org" || c.Host.Serial != "SN-1" || c.Host.NICs[0].Name != "eth0" {
		t.Errorf("got the host %+v", c.Host)
	}
	Answers{Layout: &layout.Layout{Preset: layout.Server}}.Apply(&c, nil)
	if c.Args.Preset != layout.Server || c.Layout != nil {
		t.Errorf("a preset alone has to be an argument, which leaves the release's file system: got %q and %+v", c.Args.Preset, c.Layout)
	}
}

func TestSSHKeys(t *testing.T) {
	for text, good := range map[string]bool{
		key:                                 true,
		`from="10.0.0.0/8 b",no-pty ` + key: true,
		"sk-ssh-ed25519@openssh.com " + key: false,
		strings.Replace(key, "AAAAC3", "BBBBC3", 1): false,
		"ssh-ed25519":                      false,
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5": false,
		"ssh-dss AAAA":                     false,
		key + "\n" + key:                   false,
		"":                                 false,
	} {
		if problem := accounts.CheckSSHKey(text); (problem == "") != good {
			t.Errorf("%q: %q", text, problem)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, err := full().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, s := range []string{"", "{}", `{"disks":["a"]}`, `{"host":{"network":null}}`, `{"layout":{"disks":[{}]}}`, "{\"a\":\xff}", `{"host":{"users":[{"name":1}]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Parse("a", data)
		if err != nil {
			var es strict.Errors
			if !errors.As(err, &es) || len(es) == 0 || es[0].Line < 1 || es[0].Column < 1 {
				t.Fatalf("a mistake without its place: %v", err)
			}
			return
		}
		out, err := a.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("b", out); err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, out)
		}
	})
}
