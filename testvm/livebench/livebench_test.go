package livebench

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMemoryInUseIsWhatNewProgramsCannotHave(t *testing.T) {
	const good = "MemTotal:        2013276 kB\nMemFree:         1399000 kB\nMemAvailable:    1537276 kB\nShmem:            204800 kB\nHugePages_Total:       0\n"
	for name, c := range map[string]struct {
		text         string
		used, shared int64
		says         string
	}{
		"of a kernel":            {good, 476000 << 10, 204800 << 10, ""},
		"without MemAvailable":   {strings.ReplaceAll(good, "MemAvailable", "MemOther"), 0, 0, "it does not say MemAvailable"},
		"with what is no number": {strings.ReplaceAll(good, "204800", "many"), 0, 0, `Shmem is "many"`},
		"empty":                  {"", 0, 0, "it does not say MemTotal"},
	} {
		t.Run(name, func(t *testing.T) {
			used, shared, err := parseMeminfo(c.text)
			if used != c.used || shared != c.shared || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%d, %d, %v", used, shared, err)
			}
		})
	}
}

const smaps = `55d000000000-55d000800000 r-xp 00000000 08:01 1234 /usr/bin/qemu-system-x86_64
Size:               8192 kB
Rss:                4096 kB
7f0000000000-7f0080000000 rw-p 00000000 00:00 0
Size:            2097152 kB
KernelPageSize:        4 kB
Rss:              700000 kB
7f0090000000-7f0090001000 ---p 00000000 00:00 0
Size:                  4 kB
Rss:                   0 kB
`

func TestTheMachinesMemoryIsTheMappingOfItsSize(t *testing.T) {
	if n, err := residentOf([]byte(smaps), 2<<30); n != 700000<<10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := residentOf([]byte(smaps), 1<<30); err == nil || !strings.Contains(err.Error(), "no mapping of 1073741824 bytes") {
		t.Errorf("%d, %v", n, err)
	}
}

func TestModulesOfAnInitramfsAreRead(t *testing.T) {
	const list = `Image: initramfs.img: 12M
========================================================================
drwxr-xr-x   2 root     root            0 Nov 16 10:17 usr/lib/modules/6.1/kernel.ko
-rw-r--r--   1 root     root        13049 Nov 16 10:17 usr/lib/modules/6.1/kernel/arch/x86/crypto/crc32-pclmul.ko
-rw-r--r--   1 root     root        13049 Nov 16 10:17 usr/lib/modules/6.1/kernel/net/virtio_net.ko.xz
-rw-r--r--   1 root     root        13049 Nov 16 10:17 usr/lib/modules/6.1/modules.dep
lrwxrwxrwx   1 root     root            7 Nov 16 10:17 lib -> usr/lib
`
	if got := slices.Sorted(maps.Keys(moduleNames(list))); !slices.Equal(got, []string{"crc32_pclmul", "virtio_net"}) {
		t.Errorf("they are %q", got)
	}
}

func TestDracutCompressesAsTheReleaseDoes(t *testing.T) {
	for name, c := range map[string]struct{ head, want string }{
		"zstd":                {"\x28\xb5\x2f\xfd\x04\x68", "--zstd"},
		"xz":                  {"\xfd7zXZ\x00", "--xz"},
		"gzip":                {"\x1f\x8b\x08\x00\x00\x00", "--gzip"},
		"in a way of its own": {"070701", ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "initramfs")
			if err := os.WriteFile(file, []byte(c.head+"rest"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := compressionOf(file); strings.Join(got, " ") != c.want || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestTheMiddleOfSeveralStartsCounts(t *testing.T) {
	of := func(s started) float64 { return s.login().Seconds() }
	var starts []started
	for _, s := range []int{9, 1, 2} {
		starts = append(starts, started{system: time.Duration(s) * time.Second})
	}
	if got := median(starts, of); got != 2 {
		t.Errorf("of three it is %v", got)
	}
	if got := median(starts[:2], of); got != 5 {
		t.Errorf("of two it is %v", got)
	}
}

func FuzzWhatKernelsSay(f *testing.F) {
	f.Add(smaps)
	f.Add("MemTotal: 9 kB\nMemAvailable: 1 kB\nShmem: 1 kB\n")
	f.Add("-rw-r--r-- 1 root root 1 Nov 16 10:17 a.ko.zst\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, shared, err := parseMeminfo(text); err == nil && shared%1024 != 0 {
			t.Errorf("%d bytes are no whole kibibytes", shared)
		}
		if n, err := residentOf([]byte(text), 2<<30); err == nil && n%1024 != 0 {
			t.Errorf("%d bytes are no whole kibibytes", n)
		}
		for name := range moduleNames(text) {
			if name == "" || strings.Contains(name, "/") {
				t.Errorf("a module has the name %q", name)
			}
		}
	})
}
