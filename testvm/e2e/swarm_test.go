//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/server/registry"
	"imgbuild/testvm"
)

// came is what an installation says of where its bytes came from.
const came = `came: ([^\n;]*)`

// pair starts two machines of a rack that are to be installed together.
func (r *rack) pair(name string) (machines [2]*testvm.Machine, sns [2]string) {
	r.t.Helper()
	for i := range machines {
		sns[i] = fmt.Sprintf("SN-%s-%d", strings.ToUpper(name), i+1)
		r.know(sns[i], fmt.Sprintf("  hostname: %s-%d.example.org\n  rack: r1\n", name, i+1))
		r.ctl("order", "install", sns[i], "--image", shared.manifest.Name, "--reason", "two at once")
	}
	for i := range machines {
		s := scenario(r.t, fmt.Sprintf("%s-%d", name, i+1), emptyDisk(r.t, "E2E"+strings.ToUpper(name), 8<<30))
		s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sns[i]}
		machines[i] = r.machine(s, "install")
	}
	return machines, sns
}

// mustBootInstalled sees a machine restart from its disk, and its host become what it is.
func (r *rack) mustBootInstalled(m *testvm.Machine, sn string) {
	r.t.Helper()
	r.expect(m, finish, `imgbuild: done: `)
	r.expect(m, reach, `imgserve: machine `+sn+` .*boots its`)
	ctx, cancel := context.WithTimeout(r.t.Context(), finish)
	defer cancel()
	if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
		r.t.Fatal(err)
	}
	r.awaitState(sn, registry.Installed)
}

// Two machines that are installed together take the image from the server once, whichever way they pass it on.
func TestTwoMachinesInstalledTogetherTakeTheImageOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	for _, transport := range []string{"relay", "torrent"} {
		t.Run(transport, func(t *testing.T) { // one after the other: four machines at a time on two cores are slower than the limits of a stall
			r := newRack(t, "pair-"+transport, "transport: "+transport+"\nrates:\n  global: 3MB\n")
			before, err := r.network.Sent()
			if err != nil {
				t.Fatal(err)
			}
			machines, sns := r.pair("pair-" + transport)
			for i, m := range machines {
				t.Logf("%s: %s", sns[i], r.expect(m, finish+reach, came).Groups[1])
			}
			after, err := r.network.Sent()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("the swarm:\n%s", r.ctl("swarm", shared.manifest.Name))
			// Each loads kernel and initramfs, and nobody the image a second time; headers are some per cent.
			files := shared.manifest.Files
			boot, rootfs := files[image.KernelFile].Size+files[image.InitramfsFile].Size, files[image.RootfsFile].Size
			sent, most := after-before, (2*boot+rootfs)*108/100+rootfs/10
			t.Logf("the server sent %d MiB; kernel and initramfs have %d MiB, the root file system %d MiB", sent>>20, boot>>20, rootfs>>20)
			if sent > most {
				t.Errorf("the server sent %d bytes, more than %d", sent, most)
			}
			for i, m := range machines {
				r.mustBootInstalled(m, sns[i])
			}
		})
	}
}

// A machine gets all of its image from aria2, an ordinary BitTorrent client that knows nothing of us, after the server has
// gone; and the server is back when it starts its disk.
func TestAMachineIsInstalledFromAnOrdinarySeedAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	if _, err := exec.LookPath("aria2c"); err != nil {
		t.Skipf("aria2c is missing: %v", err)
	}
	const name = "aria2"
	r := newRack(t, name, "transport: torrent\ntorrent:\n  enabled: false\n")
	seed := t.TempDir()
	for _, f := range []string{image.RootfsFile, image.TorrentFile} {
		if err := os.Symlink(filepath.Join(shared.release, f), filepath.Join(seed, f)); err != nil {
			t.Fatal(err)
		}
	}
	aria2, err := r.network.Command(exec.Command("aria2c", "--dir", seed, "--check-integrity=true", "--seed-ratio=0.0", "--enable-dht=false", "--enable-dht6=false",
		"--bt-enable-lpd=false", "--enable-peer-exchange=false", "--file-allocation=none", "--listen-port=6881", "--bt-external-ip=10.77.0.1",
		"--bt-tracker="+testvm.ServerURL+"/announce", filepath.Join(seed, image.TorrentFile)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { aria2.Kill() })
	const sn = "SN-ARIA2"
	r.know(sn, "  hostname: aria2.example.org\n")
	r.ctl("order", "install", sn, "--image", shared.manifest.Name, "--reason", "a seed alone")
	s := scenario(t, name, emptyDisk(t, "E2EARIA2", 8<<30))
	s.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sn}
	m := r.machine(s, "install")
	r.expect(m, reach+finish, `imgbuild: rootfs (\d\d|[2-9])%`)
	r.server.Kill()
	sources := r.expect(m, finish, came).Groups[1]
	t.Logf("it came: %s", sources)
	if !strings.Contains(sources, "by torrent") || strings.Contains(sources, "MiB by origin") {
		t.Errorf("the image came: %s", sources)
	}
	if err := r.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mustBootInstalled(m, sn)
}
