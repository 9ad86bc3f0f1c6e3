package testvm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestADisksDigestDependsOnItsContentsAlone(t *testing.T) {
	const size = 1 << 20
	make1 := func(writes map[int64]string) string {
		path := filepath.Join(t.TempDir(), "d")
		if err := CreateDisk(path, size); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for off, s := range writes {
			if _, err := f.WriteAt([]byte(s), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		h, err := HashDisk(path)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	empty := make1(nil)
	if make1(map[int64]string{0: "\x00\x00", 400000: "\x00"}) != empty {
		t.Error("zeros are not a hole")
	}
	seen := map[string]bool{empty: true}
	for _, w := range []map[int64]string{{0: "a"}, {1: "a"}, {0: "b"}, {65536: "a"}, {size - 1: "a"}} {
		if h := make1(w); seen[h] {
			t.Errorf("%v has the digest of another", w)
		} else {
			seen[h] = true
		}
	}
}

func TestBootableSaysWhatAFirmwareWouldFind(t *testing.T) {
	const size = 1 << 20
	for _, tt := range []struct {
		name  string
		write map[int64]string
		want  []string
	}{
		{"an empty disk", nil, nil},
		{"data that is no boot code", map[int64]string{4096: "data"}, nil},
		{"a boot sector", map[int64]string{0: "\xeb\x3c", 510: "\x55\xaa"}, []string{"boot signature 55 AA in sector 0", "boot code in sector 0"}},
		{"a GPT", map[int64]string{512: "EFI PART", size - 512: "EFI PART"}, []string{"GPT header in sector 1", "backup GPT header in the last sector"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "d")
			if err := CreateDisk(path, size); err != nil {
				t.Fatal(err)
			}
			empty, err := HashDisk(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			for off, s := range tt.write {
				if _, err := f.WriteAt([]byte(s), off); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := Bootable(path)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v", got, err)
			}
			if h, err := HashDisk(path); err != nil || (h == empty) != (tt.write == nil) {
				t.Errorf("hash %s, of the empty disk %s, %v", h, empty, err)
			}
			if CreateDisk(path, size) == nil {
				t.Error("a disk that is there was overwritten")
			}
		})
	}
}
