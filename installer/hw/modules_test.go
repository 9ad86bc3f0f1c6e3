package hw

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// write makes files below a new directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func release() map[string]string {
	return map[string]string{
		"modules.dep": `kernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/virtio/virtio-ring.ko kernel/virtio/virtio.ko
kernel/net/net_failover.ko:
kernel/virtio/virtio-ring.ko: kernel/virtio/virtio.ko
kernel/virtio/virtio.ko:
kernel/fs/xfs.ko.xz: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c_intel.ko.zst:
kernel/crypto/crc32c_generic.ko:
kernel/drivers/loop_a.ko:
kernel/drivers/ring_a.ko:
kernel/drivers/ring_b.ko:
kernel/drivers/loop_b.ko: kernel/drivers/loop_a.ko
kernel/drivers/mpt3sas.ko: kernel/drivers/gone.ko
/etc/passwd.ko:
`,
		"modules.alias": `# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias pci:v00001000d0000005Dsv*sd*bc*sc*i* mpt3sas
alias fs-xfs xfs
alias dmi*:svnACME*:pn*Rack*: loop_a
alias net-pf-17 af-packet
`,
		"modules.softdep":         "softdep libcrc32c pre: crc32c\nsoftdep xfs pre: crc32c-intel missing_one post: crc32c_generic\nsoftdep loop_a post: loop_b\nsoftdep ring_b pre: ring_a\nsoftdep ring_a pre: ring_b\n",
		"modules.builtin":         "kernel/net/packet/af_packet.ko\n",
		"modules.builtin.modinfo": "af_packet.alias=net-pf-17\x00ext4.alias=fs-ext4\x00ext4.license=GPL\x00",
	}
}

// recording returns Modules that only note what is loaded.
func recording(t *testing.T, fail map[string]error) (*Modules, func() []string) {
	t.Helper()
	x, err := OpenIndex(write(t, release()))
	if err != nil {
		t.Fatal(err)
	}
	m := NewModules(x)
	var mu sync.Mutex
	var loaded []string
	m.insert = func(path string) error {
		mu.Lock()
		defer mu.Unlock()
		n := Name(path)
		if fail[n] != nil {
			return fail[n]
		}
		loaded = append(loaded, n)
		return nil
	}
	return m, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(loaded) }
}

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	for name, c := range map[string]struct {
		ask  []string
		want []string
	}{
		"dependencies in order, each once":           {[]string{"virtio_net", "virtio-net"}, []string{"virtio", "virtio_ring", "net_failover", "virtio_net"}},
		"soft dependencies before and after":         {[]string{"fs-xfs"}, []string{"crc32c_intel", "libcrc32c", "xfs", "crc32c_generic"}},
		"what is built in is fine":                   {[]string{"af_packet", "af-packet", "net-pf-17", "fs-ext4"}, nil},
		"what comes after may need what came before": {[]string{"loop_a"}, []string{"loop_a", "loop_b"}},
		"a circle of soft dependencies is left out":  {[]string{"ring_a"}, []string{"ring_a"}},
	} {
		m, loaded := recording(t, nil)
		if err := m.Load(t.Context(), c.ask...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := loaded(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: loaded %q, want %q", name, got, c.want)
		}
	}
}

func TestModulesThatCannotBeLoadedAreNamedWithTheCause(t *testing.T) {
	m, _ := recording(t, map[string]error{"virtio": unix.ENOKEY})
	for name, want := range map[string]string{
		"nonsense": "load kernel module nonsense: it is neither in the initramfs nor built into the kernel",
		"mpt3sas":  "load kernel module mpt3sas, which needs gone: load kernel module gone: it is not in the initramfs",
	} {
		if err := m.Load(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Load(t.Context(), "virtio_net"); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("a dependency that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Load(ctx, "libcrc32c"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestManyAskersLoadEachModuleOnce(t *testing.T) {
	for range 50 {
		m, loaded := recording(t, nil)
		var wg sync.WaitGroup
		for _, n := range []string{"loop_a", "loop_b", "xfs", "libcrc32c", "crc32c_generic", "virtio_net", "loop_b", "xfs"} {
			wg.Go(func() {
				if err := m.Load(t.Context(), n); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got := loaded()
		slices.Sort(got)
		if n := len(got); n != len(slices.Compact(got)) || n != 10 {
			t.Fatalf("loaded %q", got)
		}
	}
}

func TestAModaliasFindsItsModules(t *testing.T) {
	x, err := OpenIndex(write(t, release()))
	if err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[string][]string{
		"virtio:d00000001v00001AF4":                             {"virtio_net"},
		"pci:v00001000d0000005Dsv00001000sd00009361bc01sc04i00": {"mpt3sas"},
		"dmi:bvnX:svnACMEInc:pnBigRack1:":                       {"loop_a"},
		"pci:v00008086d00001234":                                nil,
	} {
		got, known := x.Resolve(alias)
		if !reflect.DeepEqual(got, want) || known != (want != nil) {
			t.Errorf("%s: %q", alias, got)
		}
	}
	if _, err := OpenIndex(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory without modules.dep: %v", err)
	}
}

func TestPatternsMatchAsFnmatchDoes(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"*", "a/b", true}, {"a*c", "abbc", true}, {"a*c", "abcd", false}, {"a?c", "abc", true},
		{"a?c", "ac", false}, {"[0-9a]x", "5x", true}, {"[0-9a]x", "bx", false}, {"[!0-9]", "5", false}, {"[^0-9]", "x", true},
		{"[]a]", "]", true}, {"[a", "[a", true}, {`\*`, "*", true}, {`\*`, "x", false}, {"*a*b*c*", "xxaxxbxxcxx", true},
		{"*a*b*c*", "xxaxxcxxbxx", false}, {"usb:v0BDAp81[56]*", "usb:v0BDAp8152d2000", true}, {`a\`, `a\`, true},
		{"a**b", "ab", true}, {"[a-]", "-", true}, {`[\]]`, "]", true},
	} {
		if got := match(c.pattern, c.s); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.s, got)
		}
	}
	start := time.Now()
	if match(strings.Repeat("*a", 5000)+"b", strings.Repeat("a", 20000)) {
		t.Error("a text without b matches a pattern that ends in b")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("a hostile pattern took %s", d)
	}
}

func TestCompressedModulesAreUnpacked(t *testing.T) {
	want := bytes.Repeat([]byte("\x7fELF module "), 1000)
	for suffix, pack := range map[string]func(io.Writer) io.WriteCloser{
		".gz":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		".zst": func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
		".xz":  func(w io.Writer) io.WriteCloser { z, _ := xz.NewWriter(w); return z },
	} {
		var b bytes.Buffer
		w := pack(&b)
		w.Write(want)
		w.Close()
		packed := b.Bytes()
		got, err := unpack("a.ko"+suffix, bytes.NewReader(packed))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", suffix, len(got), err)
		}
		if _, err := unpack("a.ko"+suffix, bytes.NewReader(packed[:len(packed)/2])); err == nil {
			t.Errorf("%s: half a file was taken", suffix)
		}
	}
}

func TestColdplugFollowsTheDevicesThatModulesBring(t *testing.T) {
	sys := write(t, map[string]string{
		"devices/pci0/0000:00:01.0/modalias": "pci:v00001000d0000005Dsv0sd0bc01sc04i00\n",
		"devices/dmi/modalias":               "dmi:svnACME:pnRack:\n",
	})
	m, loaded := recording(t, nil)
	events := make(chan Uevent, 4)
	inner := m.insert
	m.insert = func(path string) error {
		if Name(path) == "loop_b" { // it brings a device, after a while
			go func() {
				time.Sleep(50 * time.Millisecond)
				os.MkdirAll(filepath.Join(sys, "devices/virtio0"), 0o755)
				os.WriteFile(filepath.Join(sys, "devices/virtio0/modalias"), []byte("virtio:d00000001v1\n"), 0o644)
				events <- Uevent{Action: "add", Path: "/devices/virtio0"}
			}()
		}
		return inner(path)
	}
	r, err := m.coldplug(t.Context(), sys, Settled{Quiet: 200 * time.Millisecond, Wait: 10 * time.Second,
		Expected: func() bool { return slices.Contains(loaded(), "virtio_net") }}, events)
	if err != nil || !slices.Contains(loaded(), "virtio_net") {
		t.Errorf("loaded %q, %v", loaded(), err)
	}
	if r.Devices != 3 || r.Served != 3 || len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Error(), "gone") {
		t.Errorf("%+v", r)
	}
}

func TestColdplugDoesNotWaitForEver(t *testing.T) {
	m, _ := recording(t, nil)
	sys := write(t, map[string]string{"devices/x": ""})
	start := time.Now()
	_, err := m.coldplug(t.Context(), sys, Settled{Quiet: 10 * time.Millisecond, Wait: 300 * time.Millisecond, Expected: func() bool { return false }}, nil)
	if d := time.Since(start); err != nil || d < 300*time.Millisecond || d > 10*time.Second {
		t.Errorf("%s, %v", d, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.coldplug(ctx, sys, Settled{Quiet: time.Hour, Wait: time.Hour}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestUeventsOfTheKernelAreUnderstood(t *testing.T) {
	e, ok := parseUevent([]byte("add@/devices/pci0/net/eth0\x00ACTION=add\x00SUBSYSTEM=net\x00INTERFACE=eth0\x00"))
	if !ok || e.Action != "add" || e.Path != "/devices/pci0/net/eth0" || e.Vars["INTERFACE"] != "eth0" {
		t.Errorf("%+v", e)
	}
	for _, s := range []string{"", "libudev\x00\xfe\xed", "add@", "add@x", "@/x", "\x00\x00"} {
		if e, ok := parseUevent([]byte(s)); ok {
			t.Errorf("%q became %+v", s, e)
		}
	}
}

func FuzzIndex(f *testing.F) {
	r := release()
	f.Add(r["modules.dep"], r["modules.alias"], r["modules.softdep"], r["modules.builtin.modinfo"], "pci:v1")
	f.Fuzz(func(t *testing.T, dep, alias, softdep, builtin, ask string) {
		x := &Index{builtin: parseBuiltinAliases([]byte(builtin))}
		x.files, x.deps = parseDep([]byte(dep))
		x.exact, x.globs = parseAlias([]byte(alias))
		x.pre, x.post = parseSoftdep([]byte(softdep))
		m := NewModules(x)
		m.insert = func(string) error { return nil }
		for _, file := range x.files {
			if !filepath.IsLocal(file) {
				t.Errorf("%q leads out of the modules' directory", file)
			}
		}
		x.Resolve(ask)
		for n := range x.files {
			if hardCircle(x, n, nil) {
				return // depmod makes none, and waiting for oneself has no end
			}
		}
		_ = m.Load(t.Context(), ask)
	})
}

func hardCircle(x *Index, n string, above []string) bool {
	if slices.Contains(above, n) {
		return true
	}
	for _, d := range x.deps[n] {
		if hardCircle(x, d, append(above, n)) {
			return true
		}
	}
	return false
}

func FuzzMatch(f *testing.F) {
	f.Add("a[b-", "a[b-")
	f.Add(`\`, `\`)
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if match(pattern, s) && !strings.ContainsAny(pattern, `*?[\`) && pattern != s {
			t.Errorf("%q matches %q", pattern, s)
		}
	})
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte("add@/x\x00A=b\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { parseUevent(b) })
}
