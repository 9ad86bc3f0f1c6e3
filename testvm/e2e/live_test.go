//go:build e2e

package e2e_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/testvm"
)

// A machine runs the image from memory, to the login, as itself, and its disk is not touched.
func TestTheImageRunsFromMemory(t *testing.T) {
	for _, firmware := range []testvm.Firmware{testvm.BIOS, testvm.UEFI} {
		if firmware != testvm.BIOS && testing.Short() {
			continue // make e2e has them all
		}
		t.Run(string(firmware), func(t *testing.T) {
			t.Parallel()
			s := scenario(t, "live-"+string(firmware), testvm.Disk{})
			s.Firmware, s.MemoryMiB, s.DiskBytes = firmware, 1536, 1<<30
			s.Args = []string{"live.size=300MiB"}
			var out string
			s.Ask = func(ctx context.Context, c *testvm.Console) (err error) {
				out, err = inLive(ctx, c, "findmnt -no FSTYPE /", "findmnt -no SIZE /run/imgbuild/live/rw", "cat /etc/machine-id", "systemctl is-system-running --wait", "grep -c imgbuild.mode=live /proc/cmdline",
					"cat /proc/sys/kernel/tainted", "dd if=/dev/zero of=/var/tmp/full bs=1M count=400; echo written $?", "rm /var/tmp/full; touch /root/still-works && echo works")
				return err
			}
			f, err := shared.host.RunLive(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s runs %s from memory:\n%s", f.Serial, f.KernelRelease, out)
			if f.KernelRelease != shared.manifest.KernelRelease || f.Serial != "TESTVM-LIVE-"+strings.ToUpper(string(firmware)) {
				t.Errorf("%+v", f)
			}
			for _, want := range []string{"overlay\n", "300M\n", "No space left on device", "written 1", "works\n", "running\n"} {
				if !strings.Contains(out, want) {
					t.Errorf("the live system did not say %q", want)
				}
			}
			disk, err := os.ReadFile(s.Disks[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			if sha256.Sum256(disk) != sha256.Sum256(make([]byte, len(disk))) {
				t.Error("something was written to the disk")
			}
		})
	}
}

// inLive runs commands, and returns what they say.
func inLive(ctx context.Context, c *testvm.Console, commands ...string) (string, error) {
	var b strings.Builder
	for _, command := range commands {
		out, _, err := c.Run(ctx, command)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "$ %s\n%s\n", command, out)
	}
	return b.String(), nil
}

// A machine that cannot run an image from memory says why, and stops.
func TestALiveStartThatCannotBeIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	for name, c := range map[string]struct {
		memory  int
		args    []string
		prepare func(*testvm.Network)
		want    string
	}{
		"too little memory": {memory: 448, want: "needs "},
		"nothing to keep":   {memory: 1536, args: []string{"live.persist=/var=NOWHERE"}, want: "find the file system with the label NOWHERE"},
		"a flipped byte": {memory: 1536, want: "chunk 40", prepare: func(n *testvm.Network) {
			n.Web().Inject(image.RootfsFile, testvm.Fault{Flip: true, FlipAt: 40<<20 + 7})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := scenario(t, "live-"+strings.ReplaceAll(name, " ", "-"))
			s.Via, s.MemoryMiB, s.Args, s.Prepare = testvm.BootKernel, c.memory, c.args, c.prepare
			_, err := shared.host.RunLive(t.Context(), s)
			var refused *testvm.InstallerError
			if !errors.As(err, &refused) || !strings.Contains(refused.Sentence, c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}

// The medium of a release runs it on any firmware, as a CD and as a stick, with no network.
func TestTheMediumRunsTheImage(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e; the medium that a person installs from is started in any case")
	}
	type try struct {
		firmware testvm.Firmware
		bus      testvm.Bus
	}
	for _, c := range []try{{testvm.SecureBoot, testvm.CD}, {testvm.BIOS, testvm.USB}, {testvm.BIOS, testvm.CD}, {testvm.UEFI, testvm.USB}, {testvm.UEFI, testvm.CD}, {testvm.SecureBoot, testvm.USB}} {
		t.Run(fmt.Sprintf("%s, %s", c.firmware, c.bus), func(t *testing.T) {
			t.Parallel()
			s := scenario(t, fmt.Sprintf("iso-%s-%s", c.firmware, c.bus), testvm.Disk{Path: medium(t), Bus: c.bus, ReadOnly: true})
			s.Firmware, s.FreshVariables, s.NICs, s.MemoryMiB = c.firmware, true, []testvm.NIC{}, 1536
			var out string
			s.Ask = func(ctx context.Context, c *testvm.Console) (err error) {
				out, err = inLive(ctx, c, "findmnt -no FSTYPE /", "cat /proc/cmdline", "cat /sys/class/dmi/id/product_serial")
				return err
			}
			f, err := shared.host.BootDisk(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s by %s:\n%s", f.KernelRelease, f.Firmware, out)
			want := c.firmware
			if want == testvm.SecureBoot {
				want = testvm.UEFI
			}
			if !strings.Contains(out, "overlay\n") || !strings.Contains(out, "imgbuild.medium=") || f.Firmware != want {
				t.Errorf("%+v", f)
			}
		})
	}
}

// medium is the release's.
func medium(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shared.release, image.ISOFile)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Two machines of a rack run the image from memory as who they are; one of them has it from the other.
func TestARackRunsFromMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	for _, c := range []struct {
		transport string
		firmware  testvm.Firmware
	}{{"relay", testvm.BIOS}, {"relay", testvm.UEFI}, {"torrent", testvm.BIOS}} {
		name := fmt.Sprintf("%s-%s", c.transport, c.firmware)
		t.Run(name, func(t *testing.T) { // one after the other, as every pair of machines
			rackRunsFromMemory(t, "live-"+name, c.transport, c.firmware)
		})
	}
}

func rackRunsFromMemory(t *testing.T, name, transport string, firmware testvm.Firmware) {
	r := newRack(t, name, "transport: "+transport+"\nrates:\n  global: 3MB\n")
	var machines []*testvm.Machine
	var sns []string
	for i := range 2 {
		sn := fmt.Sprintf("SN-%s-%d", strings.ToUpper(name), i+1)
		r.know(sn, fmt.Sprintf("  hostname: node%d.example.org\n  rack: r1\n  metadata: {role: compute%d}\n", i+1, i+1))
		sns = append(sns, sn)
	}
	r.ctl(append([]string{"live", "--image", shared.manifest.Name, "--size", "400MiB"}, sns...)...)
	before, err := r.network.Sent()
	if err != nil {
		t.Fatal(err)
	}
	for i, sn := range sns {
		s := scenario(t, fmt.Sprintf("%s-%d", name, i+1), emptyDisk(t, fmt.Sprintf("E2ENODE%d", i+1), 1<<30))
		s.Firmware, s.SMBIOS = firmware, testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: sn}
		machines = append(machines, r.machine(s, "live"))
	}
	for i, m := range machines {
		r.expect(m, reach, `imgserve: machine `+sns[i]+` .*runs`)
		t.Logf("%s: %s", sns[i], r.expect(m, finish, came).Groups[1])
	}
	after, err := r.network.Sent()
	if err != nil {
		t.Fatal(err)
	}
	files := shared.manifest.Files
	most := (2*(files[image.KernelFile].Size+files[image.InitramfsFile].Size)+files[image.RootfsFile].Size)*108/100 + files[image.RootfsFile].Size/10
	if sent := after - before; sent > most {
		t.Errorf("the server sent %d bytes, more than %d", sent, most)
	}
	for i, m := range machines {
		ctx, cancel := context.WithTimeout(t.Context(), finish)
		defer cancel()
		if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
			t.Fatal(err)
		}
		out, err := inLive(ctx, m.Console(), "hostname -f; cat /etc/imgbuild/host.json; findmnt -no FSTYPE /; ip -4 -br addr")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s:\n%s", sns[i], out)
		for _, want := range []string{fmt.Sprintf("node%d.example.org\n", i+1), fmt.Sprintf("compute%d", i+1), "overlay\n", "10.77.0."} {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not say %q", sns[i], want)
			}
		}
	}
	t.Logf("the server knows:\n%s%s", r.ctl("live"), r.ctl("swarm", shared.manifest.Name))
}

// A system that runs from memory is installed from itself, by a person at its console.
func TestALiveSystemIsInstalledFromItself(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	s := scenario(t, "live-install", testvm.Disk{Bus: testvm.SATA, Serial: "E2EHERE"})
	s.Via, s.MemoryMiB, s.DiskBytes = testvm.BootKernel, 2048, 8<<30
	const enter, tab = "\r", "\t"
	s.Ask = func(ctx context.Context, c *testvm.Console) error {
		if err := c.Send("imgbuild-install; printf 'it ended: %s\\n' $?" + enter); err != nil {
			return err
		}
		for _, step := range []struct{ await, send string }{
			{`1 of 6`, " " + enter + enter},
			{`2 of 6`, enter + enter},
			{`3 of 6`, "from-itself.example.org" + tab + tab + enter},
			{`4 of 6`, "itself" + enter + "itself" + enter + enter + enter},
			{`host name: from-itself\.example\.org`, ""},
			{`Next >`, enter},
			{`Type sda`, "sda" + enter + enter},
			{`The installation is complete`, enter},
		} {
			if _, err := c.Expect(ctx, regexp.MustCompile(step.await)); err != nil {
				return err
			}
			if err := c.Send(step.send); err != nil {
				return err
			}
		}
		_, err := c.Expect(ctx, regexp.MustCompile(`it ended: 0`)) // and not only its last words, as the shell hears what is typed next
		return err
	}
	if _, err := shared.host.RunLive(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.Ask, s.Password, s.SMBIOS.Serial = nil, "itself", "TESTVM-LIVE-INSTALL"
	f, err := shared.host.BootDisk(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if f.Hostname != "from-itself.example.org" {
		t.Errorf("its host name is %q", f.Hostname)
	}
}

// What a machine writes to a directory that it keeps is there at its next start, and the rest is as in the image.
func TestADirectoryIsKeptFromOneLiveStartToTheNext(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	disk := emptyDisk(t, "E2EKEEP", 1<<30)
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", "-L", "NODEVAR", disk.Path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	s := scenario(t, "live-keep", disk)
	s.Via, s.MemoryMiB, s.Args = testvm.BootKernel, 1536, []string{"live.persist=/var=NODEVAR"}
	var said []string
	s.Ask = func(ctx context.Context, c *testvm.Console) error {
		out, err := inLive(ctx, c, "cat /var/lib/kept /root/lost; findmnt -no FSTYPE /var; test -d /var/lib/rpm && echo 'the image is below'; systemctl is-system-running --wait",
			"echo 'of the first start' > /var/lib/kept; touch /root/lost; journalctl --list-boots | wc -l")
		said = append(said, out)
		return err
	}
	for range 2 {
		if _, err := shared.host.RunLive(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the first start:\n%s\nthe second:\n%s", said[0], said[1])
	for i, want := range []string{"cat: /var/lib/kept: No such file", "of the first start"} {
		if !strings.Contains(said[i], want) || !strings.Contains(said[i], "cat: /root/lost: No such file") || !strings.Contains(said[i], "the image is below") || !strings.Contains(said[i], "running\n") {
			t.Errorf("start %d did not say %q, and what belongs to it", i+1, want)
		}
	}
}
