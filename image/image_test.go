package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image/layout"
)

func sample(t testing.TB, rootfs []byte) *Manifest {
	t.Helper()
	f, err := Describe(bytes.NewReader(rootfs), true)
	if err != nil {
		t.Fatal(err)
	}
	return &Manifest{
		Schema: Schema, Name: "demo", Version: "1", Arch: "x86_64",
		Distro:        Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"},
		KernelRelease: "5.14.0-503.el9.x86_64", KernelArgs: []string{"console=tty0", "quiet"}, NoKexec: []string{"Dell Inc. PowerEdge R6?0*"},
		LockDigest: strings.Repeat("0", 64), SELinux: "enforcing", NetworkFormat: NMKeyfile, Created: 1,
		Layout: layout.Layout{Preset: layout.LVM, Filesystem: "ext4"}, Tools: []string{"lvm"},
		BootLoader:    BootLoader{Extlinux: &Extlinux{}, GRUB: &GRUB{Loader: "/boot/efi/EFI/centos/grubx64.efi", ConfigDir: "EFI/centos", Label: "CentOS Stream"}},
		UnpackedBytes: 1 << 30,
		Files:         map[string]File{RootfsFile: f},
	}
}

func TestASignedManifestComesBackAsItWas(t *testing.T) {
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	want := sample(t, bytes.Repeat([]byte("rootfs"), 400_000))
	data, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sig := Sign(data, key)
	got, err := Open(data, sig, []PublicKey{other.Public(), key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, again) {
		t.Errorf("the manifest changed on its way:\n%s\n%s", data, again)
	}
}

func TestWhatIsNotSignedIsNotRead(t *testing.T) {
	key, _ := GenerateKey()
	other, _ := GenerateKey()
	data, err := sample(t, []byte("x")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sig := Sign(data, key)
	flipped := bytes.Clone(data)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		data, sig []byte
		keys      []PublicKey
		is        error
	}{
		"a flipped bit in the manifest":      {flipped, sig, []PublicKey{key.Public()}, ErrSignature},
		"a key that nobody trusts":           {data, sig, []PublicKey{other.Public()}, ErrSignature},
		"no key at all":                      {data, sig, nil, ErrSignature},
		"an empty signature":                 {data, nil, []PublicKey{key.Public()}, nil},
		"a signature that is a web page":     {data, []byte("<html>404</html>\n"), []PublicKey{key.Public()}, nil},
		"a signature cut short":              {data, sig[:len(sig)-8], []PublicKey{key.Public()}, nil},
		"a bare signature without a context": {data, []byte("untrusted comment: x\n" + strings.Repeat("A", 86) + "==\n"), []PublicKey{key.Public()}, ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Open(c.data, c.sig, c.keys)
			if err == nil || m != nil {
				t.Fatalf("it was accepted: %v", m)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %v", err, c.is)
			}
		})
	}
}

func TestManifestsThatContradictThemselvesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Manifest)
		says   string
	}{
		"a newer schema":                    {func(m *Manifest) { m.Schema = 3 }, "schema 3"},
		"a name that climbs out":            {func(m *Manifest) { m.Name = "../x" }, "name"},
		"a version with a slash":            {func(m *Manifest) { m.Version = "1/2" }, "version"},
		"an unknown arch":                   {func(m *Manifest) { m.Arch = "vax" }, "arch"},
		"a kernel release that climbs out":  {func(m *Manifest) { m.KernelRelease = "../../x" }, "kernel release"},
		"a kernel argument with a line end": {func(m *Manifest) { m.KernelArgs = []string{"a\nb"} }, "kernel argument"},
		"a glob of models that is none":     {func(m *Manifest) { m.NoKexec = []string{"Dell *", "HPE [a"} }, `"HPE [a" is not a glob`},
		"a model that is nothing":           {func(m *Manifest) { m.NoKexec = []string{" "} }, "not a glob"},
		"no rootfs":                         {func(m *Manifest) { m.Files = nil }, "rootfs.squashfs"},
		"a file name with a slash":          {func(m *Manifest) { m.Files["a/b"] = m.Files[RootfsFile] }, "not a plain name"},
		"a chunk table that is too short":   {func(m *Manifest) { m.Files[RootfsFile].Chunks.Digests = nil }, "digests"},
		"a chunk size of its own":           {func(m *Manifest) { m.Files[RootfsFile].Chunks.Size = 1 }, "chunks have 1 bytes"},
		"a layout that is none":             {func(m *Manifest) { m.Layout.Preset = "sumple" }, "preset"},
		"an unknown SELinux mode":           {func(m *Manifest) { m.SELinux = "maybe" }, "selinux"},
		"an empty tree":                     {func(m *Manifest) { m.UnpackedBytes = 0 }, "unpacked size"},
	} {
		t.Run(name, func(t *testing.T) {
			m := sample(t, []byte("x"))
			c.change(m)
			err := m.Validate()
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
		})
	}
}

func TestUnknownFieldsAndTrailingBytesAreRefused(t *testing.T) {
	data, err := sample(t, []byte("x")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(append(bytes.Clone(data), "{}"...)); err == nil {
		t.Error("bytes after the manifest were accepted")
	}
	if _, err := Parse(bytes.Replace(data, []byte(`"name"`), []byte(`"nmae": 1, "name"`), 1)); err == nil {
		t.Error("an unknown field was accepted")
	}
	if _, err := Parse([]byte(`{"schema": 7, "new": true}`)); err == nil || !strings.Contains(err.Error(), "schema 7") {
		t.Errorf("a manifest of the future gives %v", err)
	}
}

func TestChunksAreCheckedOneByOne(t *testing.T) {
	for _, size := range []int{1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 3*ChunkSize + 17} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * 31)
		}
		f, err := Describe(bytes.NewReader(data), true)
		if err != nil {
			t.Fatal(err)
		}
		if f.Size != int64(size) || len(f.Chunks.Digests) != (size+ChunkSize-1)/ChunkSize {
			t.Fatalf("%d bytes gave %d bytes in %d chunks", size, f.Size, len(f.Chunks.Digests))
		}
		for i := range f.Chunks.Digests {
			off, n := Chunk(f.Size, i)
			c := bytes.Clone(data[off : off+n])
			if err := f.Chunks.Verify(i, c); err != nil {
				t.Error(err)
			}
			c[n-1] ^= 0x80
			if err := f.Chunks.Verify(i, c); !errors.Is(err, ErrChunk) {
				t.Errorf("chunk %d with a flipped bit gives %v", i, err)
			}
		}
		if err := f.Chunks.Verify(len(f.Chunks.Digests), nil); err == nil {
			t.Error("a chunk after the last was accepted")
		}
	}
}

func TestKeysAreReadableByOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed: nothing to compare the key format with")
	}
	key, _ := GenerateKey()
	priv, err := key.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, priv, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(openssl, "pkey", "-in", file, "-pubout").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, pub) {
		t.Errorf("openssl reads another public key:\n%s\n%s", out, pub)
	}
	back, err := ParsePrivateKey(priv)
	if err != nil || back.Public().ID() != key.Public().ID() {
		t.Errorf("the key came back as %v, %v", back.Public().ID(), err)
	}
	keys, err := ParsePublicKeys(append(bytes.Clone(pub), pub...))
	if err != nil || len(keys) != 2 {
		t.Errorf("two public keys came back as %d, %v", len(keys), err)
	}
	if _, err := ParsePrivateKey(pub); err == nil {
		t.Error("a public key was taken for a private one")
	}
	if _, err := ParsePublicKeys(priv); err == nil {
		t.Error("a private key was taken for a public one")
	}
}

func FuzzParse(f *testing.F) {
	data, err := sample(f, []byte("x")).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"schema":2,"files":{"rootfs.squashfs":{"size":1,"chunks":{"size":1048576,"sha256":"AAAA"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		again, err := m.Marshal()
		if err != nil {
			t.Fatalf("what was parsed cannot be written: %v", err)
		}
		if _, err := Parse(again); err != nil {
			t.Fatalf("what was written cannot be parsed: %v", err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	key, _ := GenerateKey()
	other, _ := GenerateKey()
	f.Add([]byte("m"), Sign([]byte("m"), key))
	f.Fuzz(func(t *testing.T, manifest, sig []byte) {
		if Verify(manifest, sig, []PublicKey{other.Public()}) == nil {
			t.Fatal("a signature was accepted that the key's owner never made")
		}
	})
}

func BenchmarkHasher(b *testing.B) {
	buf := make([]byte, ChunkSize)
	b.SetBytes(ChunkSize)
	h := NewHasher()
	for b.Loop() {
		_, _ = h.Write(buf)
	}
}

func TestTheChunkTableIsSmallInJSON(t *testing.T) {
	d := make([][sha256.Size]byte, 1000)
	j, err := json.Marshal(ChunkTable{ChunkSize, d})
	if err != nil {
		t.Fatal(err)
	}
	if len(j) > 45*len(d) {
		t.Errorf("1000 chunks take %d bytes", len(j))
	}
}
