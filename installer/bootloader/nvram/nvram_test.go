package nvram

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

func sample() Entry {
	return Entry{Label: "CentOS", Partition: 1, First: 2048, Sectors: 1228800,
		GUID: uuid.MustParse("5ca3360b-5de6-4fcf-b4ce-419cee433b51"), File: "EFI/centos/shimx64.efi"}
}

func one() []Entry { return []Entry{sample()} }

// The bytes as efibootmgr writes them: HD(1,GPT,5ca3360b-…,0x800,0x12c000)/File(\EFI\centos\shimx64.efi).
const golden = "01000000" + "6200" + "430065006e0074004f0053000000" +
	"04012a00" + "01000000" + "0008000000000000" + "00c0120000000000" + "0b36a35ce65dcf4fb4ce419cee433b51" + "0202" +
	"04043400" + "5c004500460049005c00630065006e0074006f0073005c007300680069006d007800360034002e006500660069000000" +
	"7fff0400"

func TestALoadOptionHasTheBytesOfTheSpecification(t *testing.T) {
	want, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sample().Encode()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x, %v", got, want, err)
	}
	back, err := decode(got)
	if err != nil || back != sample() {
		t.Errorf("it came back as %+v, %v", back, err)
	}
	if _, err := (Entry{Label: "x"}).Encode(); err == nil {
		t.Error("an entry without a partition was encoded")
	}
}

type vars struct {
	t   *testing.T
	dir string
}

func newVars(t *testing.T) vars { return vars{t, t.TempDir()} }

func (v vars) set(name string, data []byte) {
	v.t.Helper()
	if err := os.WriteFile(file(v.dir, name), append([]byte{7, 0, 0, 0}, data...), 0o644); err != nil {
		v.t.Fatal(err)
	}
}

func (v vars) entry(n int, e Entry) {
	v.t.Helper()
	b, err := e.Encode()
	if err != nil {
		v.t.Fatal(err)
	}
	v.set(bootName(n), b)
}

func (v vars) names() string {
	v.t.Helper()
	list, err := os.ReadDir(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	var out []string
	for _, f := range list {
		n, _, _ := strings.Cut(f.Name(), "-")
		out = append(out, n)
	}
	return strings.Join(out, " ")
}

func TestOnlyOurOwnStaleEntriesAreRemoved(t *testing.T) {
	v := newVars(t)
	old, otherDisk, otherLabel := sample(), sample(), sample()
	old.GUID, otherDisk.GUID, otherLabel.GUID = uuid.New(), uuid.New(), uuid.New()
	otherLabel.Label = "Fedora"
	v.set("Boot0000", []byte("a network card's own entry"))
	v.entry(1, old)
	v.entry(2, otherDisk)
	v.entry(3, otherLabel)
	v.set("BootOrder", []byte{0, 0, 3, 0, 1, 0, 2, 0})
	r, err := Install(v.dir, one(), func(g uuid.UUID) bool { return g == otherDisk.GUID })
	if err != nil || !slices.Equal(r.Numbers, []int{4}) || !slices.Equal(r.Removed, []int{1}) {
		t.Fatalf("got %+v, %v", r, err)
	}
	if got := v.names(); got != "Boot0000 Boot0002 Boot0003 Boot0004 BootOrder" {
		t.Errorf("there are %s", got)
	}
	order, err := readOrder(v.dir)
	if err != nil || !slices.Equal(order, []int{4, 0, 3, 2}) {
		t.Errorf("the order is %v, %v", order, err)
	}
	// A second run replaces its own entry and nothing else.
	r, err = Install(v.dir, one(), func(g uuid.UUID) bool { return true })
	if err != nil || !slices.Equal(r.Numbers, []int{1}) || !slices.Equal(r.Removed, []int{4}) {
		t.Errorf("the second time: %+v, %v", r, err)
	}
	if order, err = readOrder(v.dir); err != nil || !slices.Equal(order, []int{1, 0, 3, 2}) {
		t.Errorf("the order is %v, %v", order, err)
	}
}

func TestEachMemberOfAMirrorGetsItsEntry(t *testing.T) {
	v := newVars(t)
	member := func(label string) Entry {
		e := sample()
		e.Label, e.Group, e.GUID = label, "CentOS", uuid.New()
		return e
	}
	gone, single, foreign, otherFile := member("CentOS (disk2 S-9)"), member("CentOS"), member("CentOS Stream"), member("CentOS (disk1)")
	otherFile.File = "EFI/other/shimx64.efi"
	for n, e := range []Entry{gone, single, foreign, otherFile} {
		v.entry(n+1, e)
	}
	v.set("BootOrder", []byte{3, 0, 1, 0, 2, 0, 4, 0})
	list := []Entry{member("CentOS (disk1 S-1)"), member("CentOS (disk2 S-2)")}
	r, err := Install(v.dir, list, func(uuid.UUID) bool { return false })
	if err != nil || !slices.Equal(r.Numbers, []int{0, 5}) || !slices.Equal(r.Removed, []int{1, 2}) {
		t.Fatalf("got %+v, %v", r, err)
	}
	if order, err := readOrder(v.dir); err != nil || !slices.Equal(order, []int{0, 5, 3, 4}) {
		t.Errorf("the order is %v, %v", order, err)
	}
	for i, n := range r.Numbers {
		b, err := read(v.dir, bootName(n))
		if err != nil {
			t.Fatal(err)
		}
		if e, err := decode(b); err != nil || e.Label != list[i].Label || e.GUID != list[i].GUID {
			t.Errorf("Boot%04X is %+v, %v", n, e, err)
		}
	}
}

func TestAnEntryThatCannotBeMadeChangesNothing(t *testing.T) {
	v := newVars(t)
	v.set("BootOrder", []byte{9, 0})
	bad := sample()
	bad.Sectors = 0
	if _, err := Install(v.dir, []Entry{sample(), bad}, func(uuid.UUID) bool { return false }); err == nil {
		t.Error("an entry without a size was made")
	}
	if got := v.names(); got != "BootOrder" {
		t.Errorf("there are %s", got)
	}
}

func TestFirmwareWithoutAnOrderGetsOne(t *testing.T) {
	v := newVars(t)
	if _, err := Install(v.dir, one(), func(uuid.UUID) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if order, err := readOrder(v.dir); err != nil || !slices.Equal(order, []int{0}) {
		t.Errorf("the order is %v, %v", order, err)
	}
}

func TestAVariableWithTheImmutableFlagIsReplaced(t *testing.T) {
	v := newVars(t)
	v.set("BootOrder", []byte{9, 0})
	f, err := os.Open(file(v.dir, "BootOrder"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutableFlag); err != nil {
		t.Skipf("this file system or user cannot set the immutable flag: %v", err)
	}
	if _, err := Install(v.dir, one(), func(uuid.UUID) bool { return false }); err != nil {
		t.Error(err)
	}
	if order, err := readOrder(v.dir); err != nil || !slices.Equal(order, []int{0, 9}) {
		t.Errorf("the order is %v, %v", order, err)
	}
}

func TestFirmwareThatShowsNoVariablesIsAnError(t *testing.T) {
	_, err := Install(filepath.Join(t.TempDir(), "none"), one(), nil)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := hex.DecodeString(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = decode(data)
	})
}
