package medium

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// descriptor is a volume's with a label.
func descriptor(name string) []byte {
	d := make([]byte, 2048)
	d[0] = 1
	copy(d[1:], "CD001\x01")
	copy(d[40:72], name+strings.Repeat(" ", 32-len(name)))
	return d
}

// rig is a machine with drives.
func rig(t *testing.T, drives map[string]string) Options {
	t.Helper()
	o := Options{Label: "DEMO-1", Sys: filepath.Join(t.TempDir(), "sys"), Dev: t.TempDir(), Mount: t.TempDir(), Wait: time.Millisecond, Report: report.New(&reporttest.Lines{})}
	for name, text := range drives {
		if err := os.MkdirAll(filepath.Join(o.Sys, "block", name), 0o755); err != nil {
			t.Fatal(err)
		}
		if text == "" {
			continue // an empty drive
		}
		if err := os.WriteFile(filepath.Join(o.Dev, name), append(make([]byte, 16*2048), descriptor(text)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func TestTheMediumIsTheOneWithTheLabel(t *testing.T) {
	for name, c := range map[string]struct {
		drives map[string]string
		want   string // of the device's name
		err    string
	}{
		"a CD":           {drives: map[string]string{"sr0": "DEMO-1", "sda": "", "sr1": "OTHER"}, want: "sr0"},
		"none":           {drives: map[string]string{"sda": ""}, err: "there is no other medium"},
		"another one":    {drives: map[string]string{"sr0": "DEMO-2", "sr1": "ALSO"}, err: "there are others, ALSO, DEMO-2"},
		"the same twice": {drives: map[string]string{"sr0": "DEMO-1", "sdb": "DEMO-1"}, err: "leave only one of them"},
	} {
		o := rig(t, c.drives)
		got, err := o.await(t.Context())
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want something with %q", name, err, c.err)
			}
			continue
		}
		if err != nil || got != filepath.Join(o.Dev, c.want) {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := rig(t, nil)
	if err := os.MkdirAll(filepath.Join(o.Sys, "block"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.Wait = time.Hour
	if _, err := o.await(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("looking does not end: %v", err)
	}
}

func TestAMediumThatComesLateIsWaitedFor(t *testing.T) {
	o, lines := rig(t, map[string]string{"sr0": "DEMO-2"}), &reporttest.Lines{}
	o.Wait, o.Report = time.Hour, report.New(lines)
	ended := false
	o.Discover = func(ctx context.Context) {
		if err := os.WriteFile(filepath.Join(o.Dev, "sr0"), append(make([]byte, 16*2048), descriptor(o.Label)...), 0o600); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		ended = true
	}
	got, err := o.await(t.Context())
	if err != nil || got != filepath.Join(o.Dev, "sr0") || !ended {
		t.Errorf("got %s, %v; drivers are looked for no more: %v", got, err, ended)
	}
	if s := lines.String(); !strings.Contains(s, "the medium DEMO-1 is not there yet: it is waited for, up to 3600 s") {
		t.Errorf("it says %s", s)
	}
}

func TestWhatCannotBeReadIsGoneOrDamaged(t *testing.T) {
	o := rig(t, map[string]string{"sr0": "DEMO-1", "sr1": ""})
	for device, c := range map[string]struct {
		want error
		says string
	}{
		"sr0": {ErrDamaged, "read vmlinuz of the medium DEMO-1, chunk 0: "},
		"sr1": {ErrGone, "the medium DEMO-1, which was " + filepath.Join(o.Dev, "sr1") + ", is gone: "},
	} {
		m, dir, _ := written(t)
		m.Device, m.label = filepath.Join(o.Dev, device), o.Label
		// What cannot be read as a file is, for this, as good as a file on a bad sector.
		kernel := filepath.Join(dir, image.KernelFile)
		if err := errors.Join(os.Remove(kernel), os.Mkdir(kernel, 0o700)); err != nil {
			t.Fatal(err)
		}
		var lost error
		f, err := told{m, func(err error) { lost = err }}.Open(image.KernelFile)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Read(make([]byte, 9))
		if !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), c.says) || !errors.Is(lost, c.want) {
			t.Errorf("%s: it says %v, and tells %v", device, err, lost)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if _, err := (told{m, func(err error) { t.Error(err) }}).Open("nothing"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file that is not there: %v", err)
		}
	}
}

func FuzzLabel(f *testing.F) {
	f.Add(descriptor("DEMO-1"))
	f.Fuzz(func(t *testing.T, d []byte) {
		if l := label(d); len(l) > 32 {
			t.Errorf("%q", l)
		}
	})
}

// written is a directory in the place of a mounted medium, with a release.
func written(t *testing.T) (*Medium, string, image.PrivateKey) {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{image.KernelFile: []byte("a kernel"), image.InitramfsFile: []byte("an initramfs"), image.RootfsFile: make([]byte, 3*image.ChunkSize+5)}
	m := releaseManifest(t, files)
	key, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	files[image.ManifestFile], files[image.SignatureFile] = raw, image.Sign(raw, key)
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &Medium{files: root}, dir, key
}

func TestAMediumIsCheckedAgainstItsManifest(t *testing.T) {
	for want, spoil := range map[string]func(dir string) error{
		"": func(string) error { return nil },
		"rootfs.squashfs is not as it was written: chunk 2 is wrong": func(dir string) error {
			return write(dir, image.RootfsFile, 2*image.ChunkSize+9)
		},
		"rootfs.squashfs is not as it was written: chunks [0 3] are wrong": func(dir string) error {
			return errors.Join(write(dir, image.RootfsFile, 0), write(dir, image.RootfsFile, 3*image.ChunkSize))
		},
		"vmlinuz is not as it was written: its SHA-256": func(dir string) error { return write(dir, image.KernelFile, 3) },
		"initramfs.img has 3 bytes":                     func(dir string) error { return os.Truncate(filepath.Join(dir, image.InitramfsFile), 3) },
		"signature":                                     func(dir string) error { return write(dir, image.ManifestFile, 100) },
		"no such file":                                  func(dir string) error { return os.Remove(filepath.Join(dir, image.KernelFile)) },
	} {
		m, dir, key := written(t)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		_, err := m.Check(t.Context(), []image.PublicKey{key.Public()}, report.New(&reporttest.Lines{}))
		switch {
		case want == "" && err != nil:
			t.Errorf("a good medium: %v", err)
		case want != "" && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want)):
			t.Errorf("got %v, want something with %q", err, want)
		}
	}
}

// write changes one byte.
func write(dir, name string, at int64) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 0x55
	_, err = f.WriteAt(b[:], at)
	return err
}

func TestAMediumIsReadAsAnyOtherServer(t *testing.T) {
	m, _, _ := written(t)
	c := http.Client{Transport: m.RoundTripper(func(err error) { t.Error(err) })}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(ManifestURL, image.ManifestFile, image.KernelFile, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Range", "bytes=2-4")
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusPartialContent || !reflect.DeepEqual(body, []byte("ker")) {
		t.Errorf("%d, %q, %v", res.StatusCode, body, err)
	}
}

func releaseManifest(t *testing.T, files map[string][]byte) *image.Manifest {
	t.Helper()
	m := &image.Manifest{
		Schema: image.Schema, Name: "demo", Version: "1", Arch: "x86_64", KernelRelease: "5.14.0-1.el9.x86_64", KernelArgs: []string{"console=tty0"},
		Distro: image.Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"}, LockDigest: strings.Repeat("0", 64), SELinux: "enforcing",
		NetworkFormat: image.NMKeyfile, Created: 1790000000, UnpackedBytes: 1 << 20, Files: map[string]image.File{},
		Tools: []string{"extlinux", "mkfs.xfs", "mkfs.ext4", "mkfs.vfat"},
	}
	for name, data := range files {
		f, err := image.Describe(strings.NewReader(string(data)), name == image.RootfsFile)
		if err != nil {
			t.Fatal(err)
		}
		m.Files[name] = f
	}
	return m
}
