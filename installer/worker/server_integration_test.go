//go:build integration

package worker

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/control"
	"imgbuild/installer/firstboot"
	"imgbuild/installer/hw"
	"imgbuild/installer/report"
	"imgbuild/server/boot"
	"imgbuild/server/gate"
	"imgbuild/server/machine"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

const (
	sn      = "SN-WORKER-1"
	nonce   = "AAECAwQFBgcICQoLDA0ODw"
	kernel  = "5.14.0-1.el9.x86_64"
	codeDir = "/usr/lib/syslinux/mbr"
	size    = 1 << 30
)

// site is a real server with its registry and its machines' side, and a machine whose disk is a loop device.
type site struct {
	t       *testing.T
	store   *registry.Store
	key     image.PrivateKey // the server's
	signer  image.PrivateKey // of releases
	machine http.Handler

	address string
	mu      sync.Mutex
	http    *http.Server

	file string // the disk's
	loop string
	hook func(line string) // hears every line of the installer
	said []string
}

func (s *site) Line(_ report.Class, text string) {
	text = strings.TrimPrefix(text, report.Prefix)
	s.mu.Lock()
	s.said = append(s.said, text)
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		hook(text)
	}
}

func (s *site) console() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.said, "\n")
}

// declared is the release's layout.
func declared() layout.Layout {
	return layout.Layout{Firmware: layout.BIOS, BIOSLoader: layout.Extlinux, Filesystem: "ext4", BootSize: "256MiB"}
}

// Resolve implements machine.Images: there is one release.
func (s *site) Resolve(context.Context, string) (*releases.Release, error) {
	return &releases.Release{Name: "test", Version: "1", Layout: declared(), Tools: []string{"mkfs.ext4", "extlinux"}}, nil
}

func newSite(t *testing.T) *site {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices, mounts and namespaces need root")
	}
	for _, p := range []string{"losetup", "addpart", "delpart", "mksquashfs", "mkfs.ext4", "extlinux", "blkid"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
	if _, err := os.Stat(codeDir); err != nil {
		t.Skipf("syslinux-common is not installed: %v", err)
	}
	s := &site{t: t}
	var err1, err2, err3 error
	s.store, err1 = registry.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"))
	s.key, err2 = image.GenerateKey()
	s.signer, err3 = image.GenerateKey()
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	server, err := machine.New(machine.Options{Registry: s.store, Images: s, Key: s.key, Policy: gate.Policy{InspectUnknown: true}, Rate: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(plan.ClaimPath, server.Claim())
	mux.Handle(plan.EventsPath, server.Events())
	mux.Handle(plan.BootedPath, server.Booted())
	mux.Handle(releases.Prefix+"test/1/", http.StripPrefix(releases.Prefix+"test/1/", http.FileServer(http.Dir(s.release()))))
	s.machine = mux
	s.start()
	t.Cleanup(s.kill)
	s.file = filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(s.file)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.loop = s.command("losetup", "--find", "--show", s.file)
	t.Cleanup(func() {
		s.forget()
		s.command("losetup", "--detach", s.loop)
	})
	return s
}

func (s *site) command(argv ...string) string {
	s.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// start starts the server, at the same address as before.
func (s *site) start() {
	address := s.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Error(err)
		return
	}
	h := &http.Server{Handler: s.machine}
	s.mu.Lock()
	s.address, s.http = l.Addr().String(), h
	s.mu.Unlock()
	go h.Serve(l) // ends with kill
}

// kill ends the server and every connection, as kill -9 would.
func (s *site) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.http.Close()
}

// release makes a release whose script is this program, and returns its directory.
func (s *site) release() string {
	t := s.t
	t.Helper()
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if libs, err := self.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Skipf("this test needs C libraries that the image has not (%q, %v): compile it with CGO_ENABLED=0, as make does", libs, err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	tree, dir := t.TempDir(), t.TempDir()
	put := func(name, data string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), mode), os.Chmod(p, mode)); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n", 0o644)
	put("etc/group", "root:x:0:\nwheel:x:10:\n", 0o644)
	put("etc/shadow", "root:!!:19000:0:99999:7:::\n", 0)
	put("etc/machine-id", "", 0o444)
	put("boot/vmlinuz-"+kernel, strings.Repeat("kernel", 100_000), 0o755)
	put("boot/initramfs-"+kernel+".img", strings.Repeat("initramfs", 100_000), 0o600)
	put("usr/share/big", string(bytes.Repeat([]byte("0123456789abcdef"), 1<<18)), 0o644)
	put(image.InstallScripts+"/10-note", string(program), 0o755)
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "root", "home"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rootfs := filepath.Join(dir, image.RootfsFile)
	s.command("mksquashfs", tree, rootfs, "-comp", "zstd", "-Xcompression-level", "1", "-noappend", "-no-progress", "-quiet")
	f, err := os.Open(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	desc, err := image.Describe(f, true)
	if err != nil {
		t.Fatal(err)
	}
	m := &image.Manifest{
		Schema: image.Schema, Name: "test", Version: "1", Arch: "x86_64", Distro: image.Distro{ID: "test", Name: "Test Linux 9", Release: "9"},
		KernelRelease: kernel, KernelArgs: []string{"quiet"}, LockDigest: strings.Repeat("0", 64), SELinux: "disabled", NetworkFormat: image.NMKeyfile, Created: 1,
		Layout:     declared(),
		BootLoader: image.BootLoader{Extlinux: &image.Extlinux{}}, UnpackedBytes: 64 << 20, Files: map[string]image.File{image.RootfsFile: desc},
	}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(filepath.Join(dir, image.ManifestFile), data, 0o644), os.WriteFile(filepath.Join(dir, image.SignatureFile), image.Sign(data, s.signer), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// order writes the host down, orders its installation and starts its boot.
func (s *site) order(preview bool) *registry.Order {
	t := s.t
	t.Helper()
	done := "poweroff"
	if preview {
		done = ""
	}
	_, _, err := s.store.PutHost(t.Context(), registry.Host{
		SN: sn, Hostname: "web1.example.org", SerialConsole: "ttyS1,115200n8", Metadata: json.RawMessage(`{"role":"db"}`),
		Users: []plan.User{{Name: "anna", Groups: []string{"wheel"}, SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna"}}},
		Files: []plan.File{{Path: "/etc/motd", Content: "hello\n"}},
	}, "anna", 0)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.store.CreateOrder(t.Context(), registry.Order{SN: sn, Image: "test/1", By: "anna", Reason: "new disks", Disks: []string{s.loop}, Preview: preview, Done: done, Expires: time.Now().Add(time.Hour)}, 1)
	if err == nil {
		err = s.store.Offer(t.Context(), sn, o.ID, boot.Digest(nonce), time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// install is the worker from the network on.
func (s *site) install(more string) (Outcome, error) {
	t := s.t
	t.Helper()
	args, err := cmdline.Parse("imgbuild.server=http://" + s.address + " imgbuild.serverkey=" + s.key.Public().Text() + " imgbuild.boot=" + nonce + " " + more)
	if err != nil {
		t.Fatal(err)
	}
	console := report.New(s)
	events := control.NewEvents(console)
	w := &worker{
		say: events, console: console, log: slog.New(slog.DiscardHandler), version: "test", args: args, keys: []image.PublicKey{s.signer.Public()},
		machine: hw.Machine{Serial: sn, SerialSource: "system", Firmware: hw.BIOS, MemoryBytes: 8 << 30, CPUs: 2, Product: "Loop"},
		system:  installer.System{Work: t.TempDir(), Syslinux: codeDir, Program: "/proc/self/exe"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	served := w.serve(ctx, events)
	defer served.close()
	out, err := served.run(ctx)
	if t.Failed() || testing.Verbose() {
		t.Log("\n" + s.console())
	}
	return out, err
}

func (s *site) diary() string {
	s.t.Helper()
	events, err := s.store.Events(s.t.Context(), registry.EventFilter{SN: sn})
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%s: %s\n", e.Kind, e.Text)
	}
	return b.String()
}

// The server dies in the middle, and is back when the disk is ready: the installation finishes, and the diary has all of
// it.
func TestAServersPlanIsCarriedOutAndTheFirstBootReported(t *testing.T) {
	s := newSite(t)
	o := s.order(false)
	var once, again sync.Once
	s.hook = func(line string) {
		switch {
		case strings.HasPrefix(line, "step 6/"): // everything of the image has arrived
			once.Do(s.kill)
		case strings.HasPrefix(line, "step 9/"):
			again.Do(func() { time.AfterFunc(2*time.Second, s.start) })
		}
	}
	out, err := s.install("imgbuild.onerror=reboot")
	if err != nil || !out.Installed || out.Done != cmdline.DonePoweroff {
		t.Fatalf("%+v, %v\n%s", out, err, s.console())
	}
	for _, want := range []string{"info: plan: order " + o.ID, "step: get the manifest", "step: write the partition table", "the image's script 10-note has run", "done: the image is installed, and the disk boots"} {
		if !strings.Contains(s.diary(), want) {
			t.Errorf("the diary does not have %q:\n%s", want, s.diary())
		}
	}
	s.checkSeal(o)
	s.look(func(dir string) { s.firstBoot(dir, o) })
	// The order is used up: the same boot is told so.
	out, err = s.install("")
	if err != nil || out.Installed || !strings.Contains(out.Text, "there is no order for "+sn) {
		t.Errorf("%+v, %v", out, err)
	}
}

// firstBoot looks at the installed system and does what its unit would.
func (s *site) firstBoot(dir string, o *registry.Order) {
	t := s.t
	t.Helper()
	for name, want := range map[string]string{
		"etc/hostname": "web1.example.org\n", "etc/motd": "hello\n", "etc/imgbuild/host.json": "{\"role\":\"db\"}\n",
		"etc/seen-by-script":             fmt.Sprintf(`["/usr/lib/imgbuild/install.d/10-note","web1.example.org","db",%q,"{\"role\":\"db\"}\n"]`, sn),
		"boot/extlinux/extlinux.conf":    " ro quiet console=tty0 console=ttyS1,115200n8\n",
		"home/anna/.ssh/authorized_keys": "ssh-ed25519 ", firstboot.UnitFile: "ExecStart=/usr/libexec/imgbuild/firstboot firstboot\n",
		"var/lib/imgbuild/manifest.json": `"quiet"`,
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("/%s: %v\n%s", name, err, b)
		}
	}
	if h, err := s.store.Host(t.Context(), sn); err != nil || h.State != registry.Installing {
		t.Errorf("before its first boot the host is %+v, %v", h, err)
	}
	first := firstboot.System{Root: dir, Log: slog.New(slog.DiscardHandler), Facts: func(context.Context) plan.Booted {
		return plan.Booted{Serial: sn, Hostname: "web1.example.org", Kernel: kernel}
	}}
	if err := first.Run(t.Context()); err != nil {
		t.Error(err)
	}
	h, err1 := s.store.Host(t.Context(), sn)
	done, err2 := s.store.Order(t.Context(), o.ID)
	if err := errors.Join(err1, err2); err != nil || h.State != registry.Installed || h.Booted == nil || done.State != registry.OrderDone {
		t.Errorf("after its first boot: %+v, %+v, %v", h, done, err)
	}
	if _, err := os.Stat(filepath.Join(dir, firstboot.Program)); err == nil {
		t.Error("the program is still there")
	}
}

func TestAnOrderThatIsCancelledStopsBeforeTheFirstWrite(t *testing.T) {
	s := newSite(t)
	o := s.order(false)
	before := s.digest()
	s.hook = func(line string) {
		if strings.HasPrefix(line, "step 3/") {
			if err := s.store.CancelOrder(context.Background(), o.ID, "bob", "wrong rack"); err != nil {
				t.Error(err)
			}
		}
	}
	out, err := s.install("")
	if err != nil || out.Installed || out.Done != cmdline.DoneReboot || !strings.Contains(out.Text, "stop before anything is written") || !strings.Contains(out.Text, "was not touched") || s.digest() != before {
		t.Errorf("got %+v, %v\n%s", out, err, s.console())
	}
	if !strings.Contains(s.console(), "the old system is started by a reboot: ") {
		t.Errorf("it says\n%s", s.console())
	}
}

func TestAPreviewTellsTheServerWhatWouldBeDoneAndWritesNothing(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("with something on the disk: %v", full), func(t *testing.T) {
			s := newSite(t)
			o := s.order(true)
			if full {
				s.command("mkfs.ext4", "-q", "-F", "-L", "precious", s.loop)
			}
			before := s.digest()
			out, err := s.install("")
			if err != nil || out.Installed || out.Done != cmdline.DoneReboot || s.digest() != before {
				t.Fatalf("got %+v, %v", out, err)
			}
			got, err := s.store.Outlook(t.Context(), o.ID)
			if err != nil || got == nil {
				t.Fatalf("the server has %+v, %v", got, err)
			}
			i := slices.IndexFunc(got.Disks, func(d plan.OutlookDisk) bool { return d.Path == s.loop })
			if i < 0 || got.Disks[i].Use != "erased" || got.Scheme == nil || !strings.Contains(got.Text, "ext4 \"root\" at /") {
				t.Errorf("the server has %+v", got)
			}
			if full != strings.Contains(got.Refused, "is not empty: ext4 file system \"precious\"") || full != strings.Contains(out.Text, "would be refused") {
				t.Errorf("refused: %q; %s", got.Refused, out.Text)
			}
			if table := "| erased:"; !strings.Contains(s.console(), table) || strings.Contains(s.diary(), table) {
				t.Errorf("%q is not on the console, or in the diary, besides the order\n%s\n%s", table, s.console(), s.diary())
			}
			if h, err := s.store.Host(t.Context(), sn); err != nil || h.State == registry.Installing || h.State == registry.Installed || h.State == registry.Failed {
				t.Errorf("the host is %+v, %v", h, err)
			}
		})
	}
}

func TestAFailureIsInTheDiary(t *testing.T) {
	s := newSite(t)
	s.order(false)
	s.command("mkfs.ext4", "-q", "-F", s.loop)
	before := s.digest()
	_, err := s.install("")
	if !errors.Is(err, installer.ErrNotEmpty) || !strings.Contains(err.Error(), "; to destroy that, order it with --wipe "+s.loop) || s.digest() != before {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(s.diary(), "failed: check disk: "+s.loop) {
		t.Errorf("the diary is\n%s", s.diary())
	}
}

func TestAMachineThatNobodyKnowsIsInspectedAndBootsItsDisk(t *testing.T) {
	s := newSite(t)
	if err := s.store.Offer(t.Context(), sn, "", boot.Digest(nonce), time.Now()); err != nil {
		t.Fatal(err)
	}
	out, err := s.install("imgbuild.mode=inspect")
	if err != nil || out.Installed || out.Done != cmdline.DoneReboot {
		t.Fatalf("%+v, %v", out, err)
	}
	h, err := s.store.Host(t.Context(), sn)
	if err != nil || h.State != registry.New || h.Inventory == nil || h.Inventory.Product != "Loop" {
		t.Errorf("%+v, %v", h, err)
	}
}
