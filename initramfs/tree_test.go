package initramfs

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
)

func TestTreeStaysInsideLikeAChroot(t *testing.T) {
	tr, err := openTree(rootWith(t, map[string][]byte{
		"etc/alternatives/mkfs@": []byte("/usr/sbin/mkfs.real"),
		"sbin@":                  []byte("usr/sbin"),
		"usr/sbin/mkfs@":         []byte("../../../../../etc/alternatives/mkfs"),
		"usr/sbin/mkfs.real":     []byte("program"),
		"loop@":                  []byte("/loop"),
		"outside@":               []byte("/../../../../../../etc/hostname-of-nobody"),
		"dangling@":              []byte("nothing"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	for _, test := range []struct {
		name, path, want string
		err              error
	}{
		{"a plain file", "usr/sbin/mkfs.real", "usr/sbin/mkfs.real", nil},
		{"absolute links, relative ones and dots past the top", "/sbin/mkfs", "usr/sbin/mkfs.real", nil},
		{"a link that leads out of the tree leads to nothing in it", "outside", "", fs.ErrNotExist},
		{"a link to nothing", "dangling", "", fs.ErrNotExist},
		{"a link to itself", "loop", "", errTooManyLinks},
		{"a directory is no file", "usr/sbin", "", fs.ErrNotExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := tr.find(test.path)
			if found.path != test.want || !errors.Is(err, test.err) {
				t.Errorf("got %q, %v; want %q, %v", found.path, err, test.want, test.err)
			}
		})
	}
	if names, err := tr.glob("sbin", "mkfs*"); err != nil || !slices.Equal(names, []string{"mkfs", "mkfs.real"}) {
		t.Errorf("glob: %v, %v", names, err)
	}
}

func TestArchiveStoresAFileOnce(t *testing.T) {
	tr, err := openTree(rootWith(t, map[string][]byte{"usr/sbin/mke2fs": []byte("x"), "usr/sbin/mkfs.ext4@": []byte("mke2fs")}))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	a := newArchive()
	for _, name := range []string{"/sbin/mke2fs", "/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4", "/usr/lib/deep/er/name"} {
		found, err := tr.find("usr/sbin/mkfs.ext4")
		if err != nil {
			t.Fatal(err)
		}
		if err := a.addFile(sectionTools, name, 0o755, tr, found); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"usr/sbin/mke2fs": "", "usr/sbin/mkfs.ext4": "mke2fs", "usr/lib/deep/er/name": "../../../sbin/mke2fs"} {
		if got, ok := a.entries[name]; !ok || got.link != want {
			t.Errorf("%s: link %q, want %q (there: %v)", name, got.link, want, ok)
		}
	}
}
