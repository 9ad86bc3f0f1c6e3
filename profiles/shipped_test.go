package profiles

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// reload writes a profile's YAML to a file and loads it.
func reload(t *testing.T, p *Profile) *Profile {
	t.Helper()
	out, err := p.YAML()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "again.yaml")
	if err := os.WriteFile(path, out, 0o644); err != nil {
		t.Fatal(err)
	}
	q, err := Load(t.Context(), path)
	if err != nil {
		t.Fatalf("what YAML prints does not load: %v\n%s", err, out)
	}
	return q
}

// said is a profile without where it comes from.
func said(p *Profile) Profile {
	q := *p
	q.Dir, q.Sources, q.tree = "", nil, nil
	return q
}

func TestEveryShippedProfileLoadsAndSurvivesBeingPrinted(t *testing.T) {
	want := []string{"almalinux-9", "centos-7", "centos-stream-10", "centos-stream-9", "demo", "openstack-compute", "rocky-9"}
	if got := Shipped(); !slices.Equal(got, want) {
		t.Errorf("shipped are %v", got)
	}
	for _, name := range Shipped() {
		t.Run(name, func(t *testing.T) {
			p, err := Load(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if p.Name != name || p.Description == "" || p.Dir != "" {
				t.Errorf("name %q, description %q, dir %q", p.Name, p.Description, p.Dir)
			}
			if !reflect.DeepEqual(said(p), said(reload(t, p))) {
				t.Error("it is another profile after it was printed and loaded")
			}
		})
	}
}

func TestEverythingThatCanBeSaidSurvivesBeingPrinted(t *testing.T) {
	forEachArchive(t, "merge", "show", func(t *testing.T) string {
		p, err := Load(t.Context(), "profile.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(said(p), said(reload(t, p))) {
			t.Error("it is another profile after it was printed and loaded")
		}
		out, err := p.YAML()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(string(out), "\n") + "\n# sources: " + strings.Join(p.Sources, ", ")
	})
}

func TestShippedKeysAreThosePublished(t *testing.T) {
	// CentOS, Rocky and AlmaLinux publish these on their pages about keys.
	want := map[string]string{
		"RPM-GPG-KEY-CentOS-7":           "6341AB2753D78A78A7C27BB124C6A8A7F4A80EB5",
		"RPM-GPG-KEY-CentOS-Official":    "99DB70FAE1D7CE227FB6488205B555B38483C65D",
		"RPM-GPG-KEY-CentOS-SIG-Cloud":   "736AF5116D9C40E2AF6B074BF9B9FEE7764429E6",
		"RPM-GPG-KEY-CentOS-SIG-NFV":     "35154228174901BEFA8E69A621465E289D2A76A7",
		"RPM-GPG-KEY-CentOS-SIG-Storage": "74129C0B173B071A3775951AD4A2E50BE451E5B5",
		"RPM-GPG-KEY-Rocky-9":            "21CB256AE16FC54C6E652949702D426D350D275D",
		"RPM-GPG-KEY-AlmaLinux-9":        "BF18AC2876178908D6E71267D36CB86CB86B3716",
	}
	for _, name := range keyNames() {
		data, err := Key(name)
		if err != nil {
			t.Fatal(err)
		}
		prints, err := fingerprints(data)
		if err != nil || len(prints) != 1 || prints[0] != want[name] {
			t.Errorf("%s has %v, %v; want %s", name, prints, err, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not shipped: %v", want)
	}
}

func TestEveryShippedProfilePinsEveryShippedKey(t *testing.T) {
	for _, name := range Shipped() {
		p, err := Load(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for id, r := range p.Repositories {
			for _, k := range r.GPGKeys {
				if k.Shipped == "" {
					if name != "demo" {
						t.Errorf("%s: %s has a key that is not shipped", name, id)
					}
					continue
				}
				if _, err := k.Armored(); err != nil || k.Fingerprint == "" {
					t.Errorf("%s: %s: fingerprint %q, %v", name, id, k.Fingerprint, err)
				}
			}
		}
	}
}

func TestAKeyIsRefusedWhen(t *testing.T) {
	rocky, err := Key("RPM-GPG-KEY-Rocky-9")
	if err != nil {
		t.Fatal(err)
	}
	alma, err := Key("RPM-GPG-KEY-AlmaLinux-9")
	if err != nil {
		t.Fatal(err)
	}
	pin := "21CB256AE16FC54C6E652949702D426D350D275D"
	lines := strings.Split(string(rocky), "\n")
	lines[4] = strings.Replace(lines[4], lines[4][:1], "A", 1)
	tests := map[string]struct{ key, want string }{
		"one letter of it is changed":       {strings.Join(lines, "\n"), "the checksum is wrong"},
		"another key is in the same file":   {string(rocky) + string(alma), "besides the key " + pin + " it holds 1 more"},
		"it is another key":                 {string(alma), "is pinned"},
		"it is cut off":                     {string(rocky[:len(rocky)/2]), "it ends before the line"},
		"it is not base64":                  {strings.Replace(string(rocky), "ksBEADF", "ks!EADF", 1), "not base64"},
		"it is empty":                       {"", "not an OpenPGP public key"},
		"it is text":                        {"-----BEGIN CERTIFICATE-----", "not an OpenPGP public key"},
		"it is private":                     {"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "private key"},
		"its packets are cut off":           {armored([]byte{0x99, 0x02, 0x0d, 4}), "ends in the middle of a packet"},
		"its packet has a partial length":   {armored([]byte{0xc6, 0xe1, 4}), "partial length"},
		"it is of an old version":           {armored([]byte{0xc6, 6, 3, 0, 0, 0, 0, 0}), "version 3"},
		"it holds something else":           {armored([]byte{0xcd, 1, 'x'}), "no OpenPGP public key"},
		"it holds what is not any packet":   {armored([]byte{0x01, 1, 'x'}), "not made of OpenPGP packets"},
		"it is binary and private":          {string([]byte{0xc5, 1, 4}), "private key"},
		"it has a length of four that ends": {armored([]byte{0xc6, 255, 0, 0}), "ends in the middle of a packet"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.asc")
			if err := os.WriteFile(path, []byte(test.key), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := GPGKey{File: path, Fingerprint: pin}.Armored()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	if _, err := Key("RPM-GPG-KEY-Rocky-8"); err == nil || !strings.Contains(err.Error(), "RPM-GPG-KEY-Rocky-9") {
		t.Errorf("a key that is not shipped: %v", err)
	}
}

func armored(packets []byte) string {
	return "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n" + base64.StdEncoding.EncodeToString(packets) + "\n-----END PGP PUBLIC KEY BLOCK-----\n"
}

func TestABinaryKeyIsTakenLikeAnArmoredOne(t *testing.T) {
	text, err := Key("RPM-GPG-KEY-AlmaLinux-9")
	if err != nil {
		t.Fatal(err)
	}
	data, err := dearmor(text)
	if err != nil {
		t.Fatal(err)
	}
	prints, err := fingerprints(data)
	if err != nil || !slices.Equal(prints, []string{"BF18AC2876178908D6E71267D36CB86CB86B3716"}) {
		t.Errorf("got %v, %v", prints, err)
	}
}

func TestTheDemoLoadsBeforeItsRepositoryIsMade(t *testing.T) {
	dir := t.TempDir()
	text := `name: local
distro: {id: standin, release: "9"}
repositories:
  local:
    baseurl: [file://` + dir + `/repo]
    gpgkeys: [{file: ` + dir + `/key}]
packages: {install: [a]}
`
	path := filepath.Join(dir, "p.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), path); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "repo", "repodata"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "repo", "repodata", "repomd.xml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), path); err == nil || !strings.Contains(err.Error(), "it does not exist") {
		t.Errorf("with a repository and without its key: %v", err)
	}
}
