package discard

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"imgbuild/image/layout"
)

func kernel(t *testing.T, attrs map[string]string) System {
	t.Helper()
	root := t.TempDir()
	for path, data := range attrs {
		p := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return System{Sys: filepath.Join(root, "sys"), Dev: filepath.Join(root, "dev")}
}

func TestWhatADiskCanIsReadFromSysfs(t *testing.T) {
	for name, c := range map[string]struct {
		most, granularity string
		how               layout.Discard
		want              Plan
		says              string
	}{
		"nothing is asked for":             {"0\n", "0\n", layout.DiscardNone, Plan{}, ""},
		"an empty layout":                  {"0\n", "0\n", "", Plan{}, ""},
		"an SSD":                           {"2147450880\n", "512\n", layout.DiscardBlocks, Plan{method: blocks, size: 4 << 30, piece: 1 << 30}, ""},
		"a thin LUN of 42 MiB pages":       {"2147450880\n", "44040192\n", layout.DiscardBlocks, Plan{method: blocks, size: 4 << 30, piece: 24 * 44040192}, ""},
		"a hard disk":                      {"0\n", "0\n", layout.DiscardBlocks, Plan{}, "prepare to discard all blocks of sda: the device cannot do that: neither it nor its controller"},
		"a hard disk, securely":            {"0\n", "0\n", layout.DiscardSecure, Plan{}, "prepare to erase sda securely: the device cannot do that: it is neither an NVMe"},
		"something else":                   {"0\n", "0\n", "shred", Plan{}, `no way called "shred"`},
		"attributes that make no sense":    {"many\n", "0\n", layout.DiscardBlocks, Plan{}, `has "many\n", which is no size`},
		"a granularity larger than pieces": {"1\n", "8589934592\n", layout.DiscardBlocks, Plan{method: blocks, size: 4 << 30, piece: 1 << 30}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := kernel(t, map[string]string{"sys/block/sda/size": "8388608\n", "sys/block/sda/queue/discard_max_bytes": c.most,
				"sys/block/sda/queue/discard_granularity": c.granularity, "dev/sda": ""})
			got, err := Prepare(s, "sda", c.how)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Fatalf("got %v, want %q", err, c.says)
			}
			if strings.Contains(c.says, "cannot") != errors.Is(err, ErrUnsupported) {
				t.Errorf("is it ErrUnsupported? %v", err)
			}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	if _, err := Prepare(kernel(t, nil), "sda", layout.DiscardBlocks); err == nil || errors.Is(err, ErrUnsupported) {
		t.Errorf("a disk that is not there: %v", err)
	}
}

func TestPiecesCoverTheWholeDisk(t *testing.T) {
	if got, want := pieces(10, 4), [][2]uint64{{0, 4}, {4, 4}, {8, 2}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := pieces(0, 4); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestCommandsHaveTheKernelsShape(t *testing.T) {
	if n := unsafe.Sizeof(adminCommand{}); n != 72 {
		t.Errorf("the command has %d bytes, want 72", n)
	}
	cmd := adminCommand{Opcode: opFormat, NSID: 0x01020304, Addr: 0x1122334455667788, DataLen: 0x0a0b0c0d, CDW10: 0x200, TimeoutMS: 7}
	b := (*[72]byte)(unsafe.Pointer(&cmd))[:]
	ne := binary.NativeEndian
	if b[0] != 0x80 || ne.Uint32(b[4:]) != 0x01020304 || ne.Uint64(b[24:]) != 0x1122334455667788 || ne.Uint32(b[36:]) != 0x0a0b0c0d ||
		ne.Uint32(b[40:]) != 0x200 || ne.Uint32(b[64:]) != 7 {
		t.Errorf("the command is % x", b)
	}
}

func TestOnlyTheOneNamespaceOfAControllerIsFormatted(t *testing.T) {
	list := func(ids ...uint32) []byte {
		b := make([]byte, identifySize)
		for i, id := range ids {
			binary.LittleEndian.PutUint32(b[4*i:], id)
		}
		return b
	}
	for name, c := range map[string]struct {
		oacs        uint16
		nn          uint32
		flbas, dps  byte
		active      []byte
		want        uint32
		says        string
		isTheReason bool
	}{
		"one namespace":                      {2, 1, 0, 0, list(1), 0x200, "", false},
		"one of a possible 128, 4 KiB":       {0xffff, 128, 1, 0, list(1), 0x201, "", false},
		"with metadata and protection":       {2, 1, 0x13, 0x0a, list(1), 0x200 | 3 | 1<<4 | 2<<5 | 1<<8, "", false},
		"with many formats":                  {2, 1, 0x62, 0, list(1), 0x200 | 2 | 3<<12, "", false},
		"an old controller with one":         {2, 1, 0, 0, nil, 0x200, "", false},
		"an old controller with two":         {2, 2, 0, 0, nil, 0, "the controller has 2 namespaces", true},
		"two namespaces":                     {2, 128, 0, 0, list(1, 2), 0, "the controller has 2 namespaces, and formatting one may erase the others", true},
		"none":                               {2, 128, 0, 0, list(), 0, "the controller has 0 namespaces", true},
		"another one than the kernel's":      {2, 128, 0, 0, list(3), 0, "is number 3 and the kernel's number 1", true},
		"a controller that does not know it": {0xfffd, 1, 0, 0, list(1), 0, "does not know the command", true},
	} {
		control, namespace := make([]byte, identifySize), make([]byte, identifySize)
		binary.LittleEndian.PutUint16(control[256:], c.oacs)
		binary.LittleEndian.PutUint32(control[516:], c.nn)
		namespace[26], namespace[29] = c.flbas, c.dps
		got, err := formatCommand(control, namespace, c.active, 1)
		if got != c.want || errors.Is(err, errFormat) != c.isTheReason || c.says != "" && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %#x, %v", name, got, err)
		}
	}
}

func TestNothingIsDoneWhereNothingIsAskedFor(t *testing.T) {
	if err := (Plan{}).Run(context.Background(), nil, nil); err != nil || (Plan{}).String() != "nothing" {
		t.Errorf("got %v", err)
	}
}
