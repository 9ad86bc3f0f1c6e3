//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"imgbuild/testvm"
)

// exported is the release's tree for an NFS server, as imgbuild writes it.
func exported(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "trees")
	cmd := exec.CommandContext(t.Context(), filepath.Join("..", "..", "build", "imgbuild"), "export", shared.release, dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("imgbuild export:\n%s", out)
	return filepath.Join(dir, shared.manifest.Name+"-"+shared.manifest.Version)
}

// ganeshaConfig is for one export, with numbers in place of names, no callbacks to other daemons, and no wait after a start for clients of
// an earlier one (ganesha-core-config(8), ganesha-export-config(8)).
const ganeshaConfig = `
NFS_CORE_PARAM { Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
NFSv4 { Graceless = true; Only_Numeric_Owners = true; RecoveryRoot = "%[1]s"; }
EXPORT {
  Export_Id = 1; Path = "%[2]s"; Pseudo = "%[2]s"; Access_Type = RO; Squash = %[3]s; SecType = sys; Protocols = 4; Transports = TCP;
  FSAL { Name = VFS; }
}
LOG { Default_Log_Level = EVENT; }
`

// serveNFS starts an NFS server beside a network's others, which exports a tree, and returns when it serves.
func serveNFS(t *testing.T, n *testvm.Network, tree, squash string) *testvm.Process {
	t.Helper()
	path, err := exec.LookPath("ganesha.nfsd")
	if err != nil {
		t.Skip("there is no ganesha.nfsd; make setup installs it")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "ganesha.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, ganeshaConfig, dir, tree, squash), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &awaited{word: "NFS SERVER INITIALIZED", seen: make(chan struct{})}
	cmd := exec.Command(path, "-F", "-L", "STDOUT", "-f", config, "-p", filepath.Join(dir, "pid"))
	cmd.Stdout = log
	p, err := n.Command(cmd)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-log.seen:
	case <-p.Done():
		t.Fatalf("the NFS server ended: %v\n%s", p.Err(), log)
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
	return p
}

// awaited is a log in which a word is waited for.
type awaited struct {
	word string
	seen chan struct{}

	mu   sync.Mutex
	text strings.Builder
	done bool
}

func (a *awaited) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text.Write(p)
	if !a.done && strings.Contains(a.text.String(), a.word) {
		a.done = true
		close(a.seen)
	}
	return len(p), nil
}

func (a *awaited) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.String()
}

// nfsRoot is the kernel argument for a tree of the network's own server.
func nfsRoot(tree string) string { return "live.root=nfs:10.77.0.1:" + tree }

// assumed counts how often NetworkManager has taken the card over as it was.
const assumed = "echo assumed $(journalctl -b -u NetworkManager | grep -c 'assume: will attempt to assume matching connection')"

// A machine without a disk runs from a tree that an NFS server exports: nothing is fetched into memory, the network stays up whatever
// NetworkManager does, and the machine shuts down.
func TestAMachineRunsFromAnExportedTree(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	tree := exported(t)
	s := scenario(t, "nfs")
	s.Disks, s.Via, s.MemoryMiB, s.Args = nil, testvm.BootKernel, 768, []string{nfsRoot(tree)}
	s.Prepare = func(n *testvm.Network) { serveNFS(t, n, tree, "No_Root_Squash") }
	var out string
	s.Ask = func(ctx context.Context, c *testvm.Console) (err error) {
		out, err = inLive(ctx, c, "findmnt -no FSTYPE /", "findmnt -no FSTYPE,OPTIONS /run/imgbuild/live/ro", "ls /run/imgbuild/live", "free -m",
			"cat /sys/module/nfs/parameters/nfs4_unique_id /etc/machine-id", "stat -c '%U %G %a' /usr/bin/su /etc/shadow",
			"nmcli -g GENERAL.STATE,GENERAL.CONNECTION,IP4.ADDRESS,IP4.GATEWAY device show $(ls /sys/class/net | grep -v lo)",
			"nmcli -f DHCP4 device show | grep lease_time", "ip route", assumed,
			"systemctl restart NetworkManager && nm-online -q -t 60; echo restarted $?",
			"echo 3 > /proc/sys/vm/drop_caches; find /usr/share -type f | head -2000 | xargs cat | wc -c; echo answers $?",
			assumed, "ip -4 -o addr", "touch /root/written && echo writes",
			"dmesg | grep 'nfs: server'; echo said $?", "systemctl --failed --no-legend; echo failed listed")
		return err
	}
	f, err := shared.host.RunLive(t.Context(), s)
	t.Logf("it says:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("login after %v; units that failed: %v", f.BootTime, f.FailedUnits)
	for _, want := range []string{"overlay\n", "nfs4 ", "vers=4.2", "imgbuild-root", "lease_time", "assumed 1\n", "restarted 0", "assumed 2\n", "answers 0", "writes\n", "said 1", "root root 4755"} {
		if !strings.Contains(out, want) {
			t.Errorf("it did not say %q", want)
		}
	}
	if strings.Contains(out, "image\n") {
		t.Error("the image is in memory")
	}
}

// A machine whose tree cannot be mounted says why in a sentence, and stops.
func TestAnExportedTreeThatIsNotThereIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	tree := exported(t)
	for name, c := range map[string]struct {
		root    string
		prepare func(*testing.T, *testvm.Network)
		want    string
	}{
		"no server": {tree, nil, "reach the NFS server 10.77.0.1: it took no connection at port 2049 for 45 s"},
		"no export": {"/srv/other", func(t *testing.T, n *testvm.Network) { serveNFS(t, n, tree, "No_Root_Squash") }, "the server does not give it to this machine (NFS 4.2: no such file or directory"},
		"squashed":  {tree, func(t *testing.T, n *testvm.Network) { serveNFS(t, n, tree, "Root_Squash") }, "export it with no_root_squash"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := scenario(t, "nfs-"+strings.ReplaceAll(name, " ", "-"))
			s.Disks, s.Via, s.MemoryMiB, s.Args = nil, testvm.BootKernel, 768, []string{nfsRoot(c.root)}
			if c.prepare != nil {
				s.Prepare = func(n *testvm.Network) { c.prepare(t, n) }
			}
			_, err := shared.host.RunLive(t.Context(), s)
			var refused *testvm.InstallerError
			if !errors.As(err, &refused) || !strings.Contains(refused.Sentence, c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
				return
			}
			t.Log(refused.Sentence)
		})
	}
}

// Two machines that a server knows run from one tree at the same time, one of them with an address of its own.
func TestARackRunsFromAnExportedTree(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	tree := exported(t)
	r := newRack(t, "nfs-rack")
	serveNFS(t, r.network, tree, "No_Root_Squash")
	var machines []*testvm.Machine
	sns := []string{"SN-NFS-1", "SN-NFS-2"}
	for i, network := range []string{"", "  network:\n    ethernets:\n      - {name: lan, match: {order: 1}, addresses: [10.77.0.52/24], gateway4: 10.77.0.1}\n    dns: [10.77.0.1]\n"} {
		r.know(sns[i], fmt.Sprintf("  hostname: node%d.example.org\n%s", i+1, network))
	}
	r.ctl(append([]string{"live", "--image", shared.manifest.Name, "--root", "nfs:10.77.0.1:" + tree}, sns...)...)
	for i, sn := range sns {
		s := scenario(t, fmt.Sprintf("nfs-node%d", i+1), emptyDisk(t, fmt.Sprintf("E2ENFS%d", i+1), 1<<30))
		s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sn}
		machines = append(machines, r.machine(s, "live"))
	}
	for i, m := range machines {
		ctx, cancel := context.WithTimeout(t.Context(), reach+finish)
		defer cancel()
		r.expect(m, reach, `imgserve: machine `+sns[i]+` .*runs`)
		if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range machines {
		ctx, cancel := context.WithTimeout(t.Context(), finish)
		defer cancel()
		out, err := inLive(ctx, m.Console(), "hostname -f; findmnt -no FSTYPE /; findmnt -no FSTYPE /run/imgbuild/live/ro", "systemctl is-system-running --wait", "nmcli -g GENERAL.CONNECTION,IP4.ADDRESS device show eth0",
			assumed, "systemctl restart NetworkManager && nm-online -q -t 60; echo restarted $?", "echo 3 > /proc/sys/vm/drop_caches; find /usr/share -type f | head -500 | xargs cat | wc -c; echo answers $?",
			"ip -4 -o addr show dev eth0", "dmesg | grep 'nfs: server'; echo said $?")
		t.Logf("%s:\n%s", sns[i], out)
		if err != nil {
			t.Fatal(err)
		}
		wants := []string{fmt.Sprintf("node%d.example.org\n", i+1), "overlay\n", "nfs4\n", "assumed 1\n", "restarted 0", "answers 0", "said 1"}
		if i == 1 {
			// The lease's address ends with the lease: nobody renews it.
			wants = append(wants, "lan\n", "10.77.0.52/24")
		}
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not say %q", sns[i], want)
			}
		}
		if err := m.Console().Send("systemctl poweroff\n"); err != nil {
			t.Fatal(err)
		}
		if exit, err := m.Wait(ctx); err != nil || !exit.PoweredOff() {
			t.Errorf("%s did not power off: %+v, %v", sns[i], exit, err)
		}
	}
	t.Logf("the server knows:\n%s", r.ctl("live"))
}
