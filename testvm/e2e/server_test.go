//go:build e2e

package e2e_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"imgbuild/server/registry"
	"imgbuild/testvm"
	"imgbuild/testvm/standin"
)

// rack is a network with a real imgserve that gives out addresses, boot loaders, scripts and releases.
type rack struct {
	t       *testing.T
	network *testvm.Network
	server  *testvm.Imgserve
	key     ssh.Signer
}

// newRack starts the server. More is further YAML of its configuration.
func newRack(t *testing.T, name string, more ...string) *rack {
	t.Helper()
	n, err := shared.host.NewNetwork(t.Context(), testvm.NetworkConfig{NoDHCP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf(`interface: br0
listen: :8080
url: %s
images: %q
state: %q
dhcp:
  subnets:
    - subnet: 10.77.0.0/24
      range: 10.77.0.100-10.77.0.199
      lease: 10m
%s`, testvm.ServerURL, filepath.Dir(filepath.Dir(shared.release)), filepath.Join(t.TempDir(), "state"), strings.Join(more, ""))
	log := &strings.Builder{}
	s, err := n.StartImgserve(t.Context(), testvm.ImgserveConfig{
		Imgserve: filepath.Join(root, "build/imgserve"), Imgctl: filepath.Join(root, "build/imgctl"), Dir: t.TempDir(), YAML: yaml,
		Log: func(l string) { log.WriteString(l + "\n") },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		if shared.logs != "" {
			if err := os.WriteFile(filepath.Join(shared.logs, name+"-imgserve.log"), []byte(log.String()), 0o644); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			t.Logf("imgserve says:\n%s", log)
		}
	})
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &rack{t, n, s, key}
}

func (r *rack) ctl(args ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	out, err := r.server.Ctl(ctx, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *rack) host(sn string) registry.Host {
	r.t.Helper()
	var hosts []registry.Host
	out := r.ctl("hosts", "show", sn, "-o", "json")
	if err := json.Unmarshal([]byte(out), &hosts); err != nil {
		var one registry.Host
		if err := json.Unmarshal([]byte(out), &one); err != nil {
			r.t.Fatalf("read what imgctl prints: %v\n%s", err, out)
		}
		return one
	}
	if len(hosts) != 1 {
		r.t.Fatalf("imgctl shows %d hosts for %s", len(hosts), sn)
	}
	return hosts[0]
}

// know writes a host into the registry. More is further YAML, indented by two.
func (r *rack) know(sn, more string) {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "hosts.yaml")
	text := fmt.Sprintf("- sn: %s\n  users:\n    - name: root\n      ssh_keys: [%q]\n%s", sn, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(r.key.PublicKey()))), more)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.ctl("hosts", "import", file)
}

// machine starts a server as it stands in a rack: it asks the network first at every start, and restarts when it likes.
func (r *rack) machine(s testvm.Scenario, phase string) *testvm.Machine {
	r.t.Helper()
	logs := shared.logs
	if logs == "" {
		logs = r.t.TempDir()
	}
	transcript := filepath.Join(logs, s.Name+"-"+phase+".log")
	r.t.Cleanup(func() {
		if b, err := os.ReadFile(transcript); r.t.Failed() && err == nil {
			r.t.Logf("console, %s:\n%s", phase, b[max(0, len(b)-8000):])
		}
	})
	if s.NICs == nil {
		s.NICs = []testvm.NIC{{}}
	}
	m, err := r.network.Start(r.t.Context(), testvm.Config{
		Name: s.Name, Firmware: s.Firmware, Disks: s.Disks, NICs: s.NICs, SMBIOS: s.SMBIOS, Boot: testvm.Boot{Kind: testvm.BootRack},
		VarsFile: testvm.VarsFile(s.Disks[0].Path), KeepOnReset: true,
	}, testvm.ConsoleConfig{Transcript: transcript})
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rack) expect(m *testvm.Machine, patience time.Duration, pattern string) testvm.Match {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	match, err := m.Console().Expect(ctx, regexp.MustCompile(pattern), regexp.MustCompile(`imgbuild: failed: (.*)|Kernel panic - not syncing.*`))
	if err != nil {
		r.t.Fatal(err)
	}
	if match.Index != 0 {
		r.t.Fatalf("awaiting %q, the machine says %q", pattern, match.Groups[0])
	}
	return match
}

// over runs a command on the installed system over SSH, with the registry's key.
func (r *rack) over(address, command string) string {
	r.t.Helper()
	conn, err := r.network.Dial(r.t.Context(), address+":22")
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	// The host's key was made a minute ago on a network that nobody else is on.
	c, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(r.key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: time.Minute,
	})
	if err != nil {
		r.t.Fatalf("log in to %s with the registry's key: %v", address, err)
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := session.CombinedOutput(command)
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

const (
	reach  = 8 * time.Minute  // from power on to the installer's first word, or to the boot script
	finish = 15 * time.Minute // an installation, or the boot of what was installed
)

// A blank machine that knows nothing but its serial number becomes what the registry has for it; started again, its disk is
// its own.
func TestAMachineBecomesWhatTheRegistryHasForItsSerialNumber(t *testing.T) {
	bond := `  network:
    ethernets:
      - {name: port1, match: {order: 1}}
      - {name: port2, match: {order: 2}}
    bonds:
      - {name: bond0, members: [port1, port2], mode: active-backup, addresses: [10.77.0.52/24], gateway4: 10.77.0.1}
    dns: [10.77.0.1]
`
	for _, tt := range []struct {
		name     string
		firmware testvm.Firmware
		nics     int
		address  string
		host     string
		kill     bool // the server, in the middle
	}{
		{"rack-bios", testvm.BIOS, 1, "10.77.0.51", "  ip: 10.77.0.51\n  netmask: 255.255.255.0\n  gw: 10.77.0.1\n", true},
		{"rack-uefi", testvm.UEFI, 2, "10.77.0.52", bond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t, tt.name)
			sn := "SN-" + strings.ToUpper(tt.name)
			r.know(sn, "  hostname: "+tt.name+".example.org\n"+tt.host)
			r.ctl("order", "install", sn, "--image", shared.manifest.Name, "--reason", "a new machine")
			s := scenario(t, tt.name, emptyDisk(t, "E2E"+strings.ToUpper(tt.name), 8<<30))
			s.Firmware, s.NICs = tt.firmware, make([]testvm.NIC, tt.nics)
			s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sn}
			m := r.machine(s, "install")
			if tt.kill {
				r.expect(m, reach, `imgbuild: rootfs \d`)
				r.server.Kill()
				if err := r.server.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			r.expect(m, finish, `imgbuild: done: `)
			// It restarts by itself, asks the network again and is told to boot its disk.
			r.expect(m, reach, `imgserve: machine `+sn+` .*boots its own disk`)
			ctx, cancel := context.WithTimeout(t.Context(), finish)
			defer cancel()
			if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
				t.Fatal(err)
			}
			f, err := testvm.GatherFacts(ctx, m.Console(), testvm.FactsOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range f.Problems(shared.manifest, s.Firmware) {
				t.Error(p)
			}
			if f.Hostname != tt.name+".example.org" {
				t.Errorf("its host name is %q", f.Hostname)
			}
			if want := netip.MustParsePrefix(tt.address + "/24"); !slices.Equal(f.Addresses, []netip.Prefix{want}) {
				t.Errorf("its addresses are %v and not %v alone", f.Addresses, want)
			}
			if out := r.over(tt.address, "cat /etc/imgbuild/host.json; hostname"); !strings.Contains(out, tt.name+".example.org") {
				t.Errorf("over SSH it says %q", out)
			}
			r.awaitState(sn, registry.Installed)
			t.Logf("the diary:\n%s", r.ctl("logs", sn))
			r.mustStayInstalled(m, s, sn)
		})
	}
}

// awaitState follows the host's diary until it is in the state.
func (r *rack) awaitState(sn string, want registry.State) {
	r.t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for {
		h := r.host(sn)
		if h.State == want {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s is %s and not %s", sn, h.State, want)
		}
		time.Sleep(time.Second) // imgctl is a program, and shows a state, not a change
	}
}

// mustStayInstalled starts the machine again: without an order it is told to boot its disk, and until it does not a byte of
// that is written.
func (r *rack) mustStayInstalled(m *testvm.Machine, s testvm.Scenario, sn string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), finish)
	defer cancel()
	if err := m.Console().Send("systemctl poweroff\n"); err != nil {
		r.t.Fatal(err)
	}
	if exit, err := m.Wait(ctx); err != nil || !exit.PoweredOff() {
		r.t.Fatalf("it did not power off: %+v, %v", exit, err)
	}
	if err := m.Close(); err != nil {
		r.t.Fatal(err)
	}
	before := digests(r.t, s.Disks)
	again := r.machine(s, "again")
	r.expect(again, reach, `imgserve: machine `+sn+` .*boots its own disk`)
	if err := again.Close(); err != nil {
		r.t.Fatal(err)
	}
	if after := digests(r.t, s.Disks); !slices.Equal(before, after) {
		r.t.Error("a boot from the network without an order changed the disk")
	}
}

// A machine that nobody has written down makes itself known, and keeps what it has.
func TestAnUnknownMachineIsWrittenDownAndKeepsItsDisk(t *testing.T) {
	t.Parallel()
	const sn = "SN-STRANGER"
	r := newRack(t, "stranger")
	s := scenario(t, "stranger", ext4Disk(t))
	s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sn}
	before := digests(t, s.Disks)
	m := r.machine(s, "inspect")
	// Once it has told what it is, it restarts, asks again and is let be.
	r.expect(m, reach, `imgserve: machine `+sn+` .*boots its own disk`)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if after := digests(t, s.Disks); !slices.Equal(before, after) {
		t.Error("the disk was written to")
	}
	h := r.host(sn)
	if h.State != registry.New || h.Inventory == nil {
		t.Fatalf("the registry has %+v", h)
	}
	var holds []string
	for _, d := range h.Inventory.Disks {
		holds = append(holds, d.Holds...)
	}
	if inv := h.Inventory; inv.MemoryBytes == 0 || inv.CPUs == 0 || len(inv.NICs) != 1 || !strings.Contains(strings.Join(holds, "\n"), "ext4") {
		t.Errorf("its inventory is %+v", inv)
	}
	if _, err := r.server.Ctl(t.Context(), "order", "install", sn, "--image", shared.manifest.Name, "--reason", "too early"); err == nil {
		t.Error("a machine that nobody has approved can be ordered")
	}
}

// A junk serial number identifies nobody.
func TestAMachineWithoutASerialNumberBootsItsDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	r := newRack(t, "junk")
	s := scenario(t, "junk", ext4Disk(t))
	s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: "To be filled by O.E.M."}
	before := digests(t, s.Disks)
	m := r.machine(s, "boot")
	r.expect(m, reach, `boots its own disk`)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if after := digests(t, s.Disks); !slices.Equal(before, after) {
		t.Error("the disk was written to")
	}
	if out := r.ctl("hosts", "list", "-o", "json"); strings.Contains(out, "O.E.M") {
		t.Errorf("it was written down: %s", out)
	}
}

// With Secure Boot the firmware starts shim, shim GRUB, and GRUB the release's kernel: each signed, each asked of the same
// server, and the same gate decides.
func TestAMachineWithSecureBootIsInstalledThroughShimAndGRUB(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	if _, err := testvm.FindTools(testvm.HostFinder(), testvm.NeedSecureBoot); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	files := signedLoaders(t)
	r := newRack(t, "rack-secure", "loaders:\n  secure_boot: true\n  files:\n    shimx64.efi: "+files["shimx64.efi"]+"\n    grubx64.efi: "+files["grubx64.efi"]+"\n")
	const sn = "SN-SECURE"
	s := scenario(t, "rack-secure", emptyDisk(t, "E2ESECURE", 8<<30))
	s.Firmware = testvm.SecureBoot
	s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sn}
	r.know(sn, "  hostname: secure.example.org\n  macs: [\"52:54:00:77:00:01\"]\n")
	r.ctl("order", "install", sn, "--image", shared.manifest.Name, "--reason", "a new machine")
	m := r.machine(s, "install")
	r.expect(m, finish, `imgbuild: done: `)
	ctx, cancel := context.WithTimeout(t.Context(), finish)
	defer cancel()
	if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
		t.Fatal(err)
	}
	out, _, err := m.Console().Run(ctx, "dmesg | grep -i 'secure boot'; hostname")
	if err != nil || !strings.Contains(out, "Secure boot enabled") || !strings.Contains(out, "secure.example.org") {
		t.Errorf("the installed system says %q, %v", out, err)
	}
	r.awaitState(sn, registry.Installed)
	if h := r.host(sn); h.Inventory == nil || !h.Inventory.SecureBoot {
		t.Errorf("its inventory does not say that Secure Boot is on: %+v", h.Inventory)
	}
	t.Logf("the diary:\n%s", r.ctl("logs", sn))
}

// signedLoaders takes shim and GRUB out of the packages that the stand-in was made of: they are of the kernel's distribution.
func signedLoaders(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for name, from := range map[string][2]string{
		"shimx64.efi": {"shim-signed_*.deb", "usr/lib/shim/shimx64.efi.signed"},
		"grubx64.efi": {"grub-efi-amd64-signed_*.deb", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"},
	} {
		packages, err := filepath.Glob(filepath.Join(standin.DefaultDir, "debs", from[0]))
		if err != nil || len(packages) == 0 {
			t.Skipf("the stand-in's packages have no %s: %v", from[0], err)
		}
		dir := t.TempDir()
		tool(t, "dpkg-deb", "-x", packages[len(packages)-1], dir)
		files[name] = filepath.Join(dir, from[1])
		if _, err := os.Stat(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
