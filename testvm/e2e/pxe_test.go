//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"imgbuild/testvm"
)

// The names that docs/pxe.md has for the machine and its disk.
const (
	pxeMAC  = "52:54:00:12:34:56"
	pxeDisk = "S3Z2NB0K500123"
)

// pxeLab is a server that was set up by doing what docs/pxe.md says, in directories of its own.
type pxeLab struct {
	t       *testing.T
	dir     string
	blocks  map[string]string // the document's, by the names that their first lines give
	network *testvm.Network

	mu  sync.Mutex // there may be two DHCP servers
	log strings.Builder
}

// pxeBlocks are the fenced blocks of a document. A block's name is what its first comment says, or, of a Foreman template, its name.
func pxeBlocks(text string) map[string]string {
	title := regexp.MustCompile(`(?m)\A(?:#!ipxe\n)?(?:# (.*)|<%#\nkind: .*\nname: (.*))$`)
	blocks := map[string]string{}
	var block *strings.Builder
	for line := range strings.Lines(text) {
		switch {
		case !strings.HasPrefix(line, "```") && block != nil:
			block.WriteString(line)
		case !strings.HasPrefix(line, "```"):
		case block == nil:
			block = &strings.Builder{}
		default:
			if m := title.FindStringSubmatch(block.String()); m != nil {
				blocks[m[1]+m[2]] = block.String()
			}
			block = nil
		}
	}
	return blocks
}

func newPXELab(t *testing.T) *pxeLab {
	t.Helper()
	for _, path := range []string{"/usr/lib/PXELINUX/pxelinux.0", "/usr/lib/shim/shimx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "/usr/lib/ipxe/undionly.kpxe"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("docs/pxe.md copies the boot loaders of Debian's packages: %v", err)
		}
	}
	text, err := os.ReadFile("../../docs/pxe.md")
	if err != nil {
		t.Fatal(err)
	}
	l := &pxeLab{t: t, dir: t.TempDir(), blocks: pxeBlocks(string(text))}
	l.serve(t)
	for name, block := range l.blocks {
		if strings.HasPrefix(block, "# ") && strings.Contains(block, "\ncp ") {
			if out, err := exec.CommandContext(t.Context(), "sh", "-eu", "-c", l.here(block)).CombinedOutput(); err != nil {
				t.Fatalf("do what %q says: %v\n%s", name, err, out)
			}
		}
	}
	return l
}

// here puts this laboratory's addresses and directories in place of the document's.
func (l *pxeLab) here(block string) string {
	return strings.NewReplacer("10.0.0.", "10.77.0.", "eth0", "br0", "/srv/", l.dir+"/srv/", "out/demo/1", shared.release).Replace(block)
}

// block is one of the document's.
func (l *pxeLab) block(name string) string {
	l.t.Helper()
	block, ok := l.blocks[name]
	if !ok {
		l.t.Fatalf("docs/pxe.md has no block %q", name)
	}
	return l.here(block)
}

// put writes blocks to the files that they name: the text before a colon and a blank.
func (l *pxeLab) put(names ...string) {
	l.t.Helper()
	for _, name := range names {
		path, _, _ := strings.Cut(name, ": ")
		l.write(path, l.block(name))
	}
}

func (l *pxeLab) write(path, text string) {
	l.t.Helper()
	path = filepath.Join(l.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// remove takes one machine's files away.
func (l *pxeLab) remove(paths ...string) {
	l.t.Helper()
	for _, path := range paths {
		if err := os.Remove(filepath.Join(l.dir, path)); err != nil {
			l.t.Fatal(err)
		}
	}
}

// serve makes the network with its web server. There is no DHCP on it.
func (l *pxeLab) serve(t *testing.T) {
	t.Helper()
	www := filepath.Join(l.dir, "srv/www")
	if err := os.MkdirAll(www, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	l.network, err = shared.host.NewNetwork(t.Context(), testvm.NetworkConfig{Dir: www, NoDHCP: true, Log: l.note})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.network.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Logf("dnsmasq says:\n%s", l.log.String())
		}
	})
}

// note keeps what a DHCP server says.
func (l *pxeLab) note(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log.WriteString(line + "\n")
}

// dnsmasq starts the server with one of the document's files.
func (l *pxeLab) dnsmasq(name string) {
	l.t.Helper()
	l.put(name)
	if err := l.network.Dnsmasq(l.t.Context(), filepath.Join(l.dir, name)); err != nil {
		l.t.Fatal(err)
	}
}

// start starts the machine that the document speaks of.
func (l *pxeLab) start(c testvm.Config) *testvm.Machine {
	l.t.Helper()
	c.NICs = []testvm.NIC{{MAC: pxeMAC}}
	logs := shared.logs
	if logs == "" {
		logs = l.t.TempDir()
	}
	transcript := filepath.Join(logs, c.Name+".log")
	l.t.Cleanup(func() {
		if b, err := os.ReadFile(transcript); l.t.Failed() && err == nil {
			l.t.Logf("console of %s:\n%s", c.Name, b[max(0, len(b)-8000):])
		}
	})
	m, err := l.network.Start(l.t.Context(), c, testvm.ConsoleConfig{Transcript: transcript})
	if err != nil {
		l.t.Fatal(err)
	}
	return m
}

// say waits until the machine says something.
func (l *pxeLab) say(m *testvm.Machine, pattern string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), reach)
	defer cancel()
	match, err := m.Console().Expect(ctx, regexp.MustCompile(pattern),
		regexp.MustCompile(`imgbuild: failed: (.*)|Kernel panic - not syncing.*|No bootable (device|option)|grub rescue>|^grub>|Failed to load ldlinux|Access Denied|Verification failed`))
	if err != nil {
		l.t.Fatal(err)
	}
	if match.Index != 0 {
		l.t.Fatalf("awaiting %q, the machine says %q", pattern, match.Groups[0])
	}
}

// inside logs in, runs commands, and turns the machine off.
func (l *pxeLab) inside(m *testvm.Machine, commands ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), finish)
	defer cancel()
	if err := m.Console().Login(ctx, "root", testvm.DemoPassword); err != nil {
		l.t.Fatal(err)
	}
	out, err := inLive(ctx, m.Console(), commands...)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		l.t.Fatal(err)
	}
	return out
}

// live sees to it that the machine runs the image from memory, and that the boot loader named the card that it came from.
func (l *pxeLab) live(m *testvm.Machine, want ...string) {
	l.t.Helper()
	l.say(m, `imgbuild: starting the system that runs from memory`)
	out := l.inside(m, "findmnt -no FSTYPE /", "cat /proc/cmdline", "systemctl is-system-running --wait")
	l.t.Logf("%s", out)
	for _, want := range append(want, "overlay\n", "imgbuild.mode=live", "running\n") {
		if !strings.Contains(out, want) {
			l.t.Errorf("the live system does not say %q", want)
		}
	}
	if !regexp.MustCompile(`(?i)BOOTIF=(01-)?52[:-]54[:-]00[:-]12[:-]34[:-]56`).MatchString(out) {
		l.t.Error("the boot loader did not say which card the machine booted from")
	}
}

// What docs/pxe.md says, done: each of its files, with nothing of imgserve's.
func TestAPXEServerThatIsThereBootsTheImage(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	const machine = "/srv/tftp/pxelinux.cfg/01-52-54-00-12-34-56"
	const grub = "/srv/tftp/grub/52:54:00:12:34:56.cfg"
	for _, c := range []struct {
		name     string
		firmware testvm.Firmware
		dnsmasq  string
		other    bool // somebody else's DHCP server gives the addresses
		files    []string
		want     string
	}{
		{"pxelinux", testvm.BIOS, "/etc/dnsmasq.d/pxe.conf", false, []string{"/srv/tftp/pxelinux.cfg/default", machine + ": from memory"}, "BOOTIF=01-"},
		{"grub", testvm.UEFI, "/etc/dnsmasq.d/pxe.conf", false, []string{"/srv/tftp/grub/grub.cfg", grub}, "BOOT_IMAGE=/images/demo/1/vmlinuz"},
		{"grub-secureboot", testvm.SecureBoot, "/etc/dnsmasq.d/pxe.conf", false, []string{"/srv/tftp/grub/grub.cfg", grub}, "BOOT_IMAGE=/images/demo/1/vmlinuz"},
		{"ipxe", testvm.BIOS, "/etc/dnsmasq.d/ipxe.conf", false, []string{"/srv/www/ipxe/boot.ipxe", "/srv/www/ipxe/52-54-00-12-34-56.ipxe"}, "BOOTIF=01-"},
		{"proxy-pxelinux", testvm.BIOS, "/etc/dnsmasq.d/proxy.conf", true, []string{"/srv/tftp/pxelinux.cfg/default", machine + ": from memory"}, "BOOTIF=01-"},
		{"cobbler", testvm.BIOS, "/etc/dnsmasq.d/pxe.conf", false, []string{machine + ": Cobbler's"}, "inst.ks=http://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newPXELab(t)
			l.put(c.files...)
			if c.name == "cobbler" { // cobbler sync copies them
				l.copyRelease("/srv/tftp/images/imgbuild-demo-1")
			}
			if c.other {
				if err := l.network.OtherDHCP(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			l.dnsmasq(c.dnsmasq)
			l.live(l.start(testvm.Config{Name: "pxe-" + c.name, Firmware: c.firmware, MemoryMiB: 1536, Boot: testvm.Boot{Kind: testvm.BootNetwork}}), c.want)
		})
	}
}

// copyRelease puts kernel and initramfs where another server has them.
func (l *pxeLab) copyRelease(to string) {
	l.t.Helper()
	for _, name := range []string{"vmlinuz", "initramfs.img"} {
		b, err := os.ReadFile(filepath.Join(shared.release, name))
		if err != nil {
			l.t.Fatal(err)
		}
		l.write(filepath.Join(to, name), string(b))
	}
}

// A machine that boots from the network first is installed by PXELINUX, and when its file is gone it boots its disk.
func TestAPXEServerThatIsThereInstallsOneMachineOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	l := newPXELab(t)
	const machine = "/srv/tftp/pxelinux.cfg/01-52-54-00-12-34-56"
	l.put("/srv/tftp/pxelinux.cfg/default", machine+": installed")
	l.dnsmasq("/etc/dnsmasq.d/pxe.conf")
	disk := emptyDisk(t, pxeDisk, 8<<30)
	c := testvm.Config{Name: "pxe-install", MemoryMiB: 2048, Disks: []testvm.Disk{disk}, Boot: testvm.Boot{Kind: testvm.BootRack}}
	m := l.start(c)
	ctx, cancel := context.WithTimeout(t.Context(), reach+finish)
	defer cancel()
	in, err := testvm.FollowInstaller(ctx, m.Console())
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := m.Wait(ctx); err != nil || !exit.PoweredOff() {
		t.Fatalf("it ended by %q: %v", exit.Reason, err)
	}
	t.Logf("%s was written: %s", in.Writing, in.Done)
	l.remove(machine)
	c.Name = "pxe-installed"
	m = l.start(c)
	out := l.inside(m, "findmnt -no SOURCE,FSTYPE /", "cat /proc/cmdline")
	t.Logf("%s", out)
	if strings.Contains(out, "imgbuild.") || !strings.Contains(out, "/dev/vda") {
		t.Error("it does not run from its disk")
	}
}

// Foreman's templates are rendered with ERB as Foreman does it; what they make of the parameters boots.
func TestForemansTemplatesBootTheImage(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	ruby, err := exec.LookPath("ruby")
	if err != nil {
		t.Skipf("Foreman's templates are rendered by ruby: %v", err)
	}
	for _, c := range []struct {
		name, template, dnsmasq, file string
		firmware                      testvm.Firmware
	}{
		{"pxelinux", "imgbuild PXELinux", "/etc/dnsmasq.d/pxe.conf", "/srv/tftp/pxelinux.cfg/01-52-54-00-12-34-56", testvm.BIOS},
		{"pxegrub2", "imgbuild PXEGrub2", "/etc/dnsmasq.d/pxe.conf", "/srv/tftp/grub/52:54:00:12:34:56.cfg", testvm.UEFI},
		{"ipxe", "imgbuild iPXE", "/etc/dnsmasq.d/ipxe.conf", "/srv/www/ipxe/52-54-00-12-34-56.ipxe", testvm.BIOS},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newPXELab(t)
			l.put("/srv/tftp/grub/grub.cfg", "/srv/www/ipxe/boot.ipxe")
			cmd := exec.CommandContext(t.Context(), ruby, "-rerb", "-e", foremanERB, l.here("http://10.0.0.1/images/demo/1"))
			cmd.Stdin = strings.NewReader(l.block(c.template))
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s", out)
			l.write(c.file, string(out))
			l.dnsmasq(c.dnsmasq)
			m := l.start(testvm.Config{Name: "pxe-foreman-" + c.name, Firmware: c.firmware, MemoryMiB: 1024, Disks: []testvm.Disk{emptyDisk(t, pxeDisk, 8<<30)},
				Boot: testvm.Boot{Kind: testvm.BootNetwork}})
			l.say(m, fmt.Sprintf(`serial %s, 8 GiB`, pxeDisk))
			l.say(m, `imgbuild: nothing was written`)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// foremanERB renders a template with the macros that docs/pxe.md uses, as Foreman's template renderer defines them: parameters of the host, and the
// kernel options of its operating system.
const foremanERB = `
Host = Struct.new(:mac)
class Template
  def initialize(params)
    @host, @params = Host.new('` + pxeMAC + `'), params
  end
  def host_param!(name) = @params.fetch(name)
  def pxe_kernel_options = 'quiet modprobe.blacklist=nouveau'
  def render(text) = ERB.new(text, trim_mode: '-').result(binding)
end
print Template.new('imgbuild_files' => 'images/demo/1', 'imgbuild_url' => ARGV[0], 'imgbuild_args' => 'imgbuild.mode=preview').render(STDIN.read)
`
