//go:build integration

package torrent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// told runs a peer tool and returns what it prints.
func told(t *testing.T, argv ...string) string {
	t.Helper()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		t.Skipf("this test compares with %s: %v", argv[0], err)
	}
	out, err := exec.CommandContext(t.Context(), path, argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func writeFile(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPeersReadWhatIsWritten(t *testing.T) {
	m := hashed(content(3*PieceSize + 17))
	m.Trackers = []string{"http://10.1.0.1:8080/announce", "http://10.1.0.2:8080/announce"}
	m.WebSeeds = []string{"http://10.1.0.1:8080/images/demo/1/rootfs.squashfs"}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, t.TempDir(), "rootfs.torrent", data)
	want := append([]string{m.Hash().String(), "rootfs.squashfs"}, append(m.Trackers, m.WebSeeds...)...)
	for name, test := range map[string]struct {
		argv []string
		want []string
	}{
		"aria2":        {[]string{"aria2c", "--no-conf", "--show-files", file}, []string{"786,449", "256KiB"}},
		"transmission": {[]string{"transmission-show", file}, []string{"Private torrent", "Piece Count: 4", "Piece Size: 256"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := told(t, test.argv...)
			for _, w := range append(test.want, want...) {
				if !strings.Contains(got, w) {
					t.Errorf("it does not say %s:\n%s", w, got)
				}
			}
		})
	}
}

func TestTransmissionMakesTheSameInfoOfTheSameFile(t *testing.T) {
	dir, data := t.TempDir(), content(5*PieceSize)
	file := writeFile(t, dir, "rootfs.squashfs", data)
	out := filepath.Join(dir, "other.torrent")
	told(t, "transmission-create", "--private", "--piecesize", "256", "--tracker", "http://10.1.0.1/announce", "--outfile", out, file)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if m := hashed(data); other.Hash() != m.Hash() {
		t.Errorf("transmission's info-hash is %s and ours %s", other.Hash(), m.Hash())
	}
}
