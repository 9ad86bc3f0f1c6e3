package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/mbr"
)

const testSize = 8 << 20

type put struct {
	off  int64 // from the end where negative
	data string
}

func disk(size int64, puts ...put) []byte {
	b := make([]byte, size)
	for _, p := range puts {
		if p.off < 0 {
			p.off += size
		}
		copy(b[p.off:], p.data)
	}
	return b
}

func le32(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }

func TestWhatIsOnADiskIsNamed(t *testing.T) {
	for want, puts := range map[string][]put{
		`LVM physical volume`:                          {{512, "LABELONE"}, {536, "LVM2 001"}},
		`Linux RAID member (metadata 0.90)`:            {{-0x10000, mdMagic}},
		`Linux RAID member (metadata 1.0) "n:0"`:       {{-8192, mdMagic + "\x01\x00\x00\x00"}, {-8192 + 32, "n:0"}},
		`Linux RAID member (metadata 1.1)`:             {{0, mdMagic + "\x01\x00\x00\x00"}},
		`Linux RAID member (metadata 1.2) "host:boot"`: {{4096, mdMagic + "\x01\x00\x00\x00"}, {4096 + 32, "host:boot"}},
		`DDF RAID member`:                              {{-512, "\xde\x11\xde\x11"}},
		`LSI RAID member`:                              {{-512, "$XIDE$"}},
		`NVIDIA RAID member`:                           {{-1024, "NVIDIA  "}},
		`Promise RAID member`:                          {{-63 * 512, "Promise Technology, Inc."}},
		`Intel RAID member`:                            {{-1024, "Intel Raid ISM Cfg Sig. 1.3.00"}},
		`LUKS encrypted volume`:                        {{0, "LUKS\xba\xbe\x00\x01"}},
		`LUKS2 encrypted volume "secret"`:              {{0, "LUKS\xba\xbe\x00\x02"}, {24, "secret"}},
		`LUKS2 encrypted volume (second header)`:       {{0x4000, "SKUL\xba\xbe\x00\x02"}},
		`Ceph OSD (BlueStore) "0a-1"`:                  {{0, "bluestore block device\n0a-1"}},
		`ZFS pool member "tank"`: {{256<<10 + 128<<10 + 4096, "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
			{256<<10 + 16<<10 + 100, "\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x04tank"}},
		`VMFS-L file system "OSDATA"`:           {{0x200000, "\x5f\xf1\xab\x2f"}, {0x20001d, "OSDATA"}},
		`GPFS disk`:                             {{1024, "T7$V"}, {1100, "NSD descriptor for /dev/sdb created by GPFS Thu Oct 17 2013"}},
		`Oracle ASM disk "DATA_0001"`:           {{32, "ORCLDISK"}, {72, "DATA_0001"}},
		`bcachefs file system "b"`:              {{0x1018, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"}, {0x1048, "b"}},
		`Lustre target (ext4) "lustre-OST0001"`: {{1024 + 0x38, "\x53\xef"}, {1024 + 0x60, le32(0x40)}, {1024 + 0x78, "lustre-OST0001"}},
		`UFS2 file system`:                      {{65536 + 1372, "\x19\x01\x54\x19"}},
		`HFS+ file system`:                      {{1024, "H+\x00\x04"}},
		`BSD disk label "ad0s1"`:                {{512, "\x57\x45\x56\x82"}, {644, "\x57\x45\x56\x82"}, {536, "ad0s1"}},
		`Sun disk label`:                        {{508, "\xda\xbe\xda\xbe"}},
		`Apple partition table`:                 {{0, "ER"}, {512, "PM\x00\x00"}},
		`MBR partition table with 0 partitions`: {{440, "abcd"}, {510, "\x55\xaa"}},
		`VMFS extent`:                           {{0x100000, "\x0d\xd0\x01\xc0"}},
		`VMFS file system "ds1"`:                {{0x200000, "\x5e\xf1\xab\x2f"}, {0x20001d, "ds1"}},
		`Oracle ASM disk "DATA1"`:               {{32, "ORCLDISK"}, {40, "DATA1"}},
		`DRBD device`:                           {{-4096 + 60, "\x83\x74\x02\x6b"}},
		`VDO volume`:                            {{0, "dmvdo001"}},
		`Stratis pool member`:                   {{0x204, "!Stra0tis\x86\xff\x02^\x41rh"}},
		`GFS2 file system`:                      {{0x10000, "\x01\x16\x19\x70\x00\x00\x00\x01"}, {0x10018, "\x00\x00\x07\x09"}},
		`OCFS2 file system`:                     {{4096, "OCFSV2"}},
		`ext4 journal`:                          {{1024 + 0x38, "\x53\xef"}, {1024 + 0x60, le32(8)}},
		`ISO 9660 file system "CD"`:             {{0x8001, "CD001"}, {0x8028, "CD                "}},
		`NTFS file system`:                      {{3, "NTFS    "}, {510, "\x55\xaa"}},
		`FAT file system`:                       {{54, "FAT16   "}, {43, "NO NAME    "}, {510, "\x55\xaa"}},
		`swap space with a hibernated system`:   {{4096 - 10, "S1SUSPEND\x00"}},
		`APFS container`:                        {{32, "NXSB"}},
		`unknown data in the first MiB`:         {{700_000, "x"}},
		`unknown data in the last MiB`:          {{-1, "x"}},
	} {
		t.Run(want, func(t *testing.T) {
			found, _, err := Disk(bytes.NewReader(disk(testSize, puts...)), testSize)
			if err != nil || len(found) != 1 || found[0].String() != want || found[0].Size != testSize {
				t.Errorf("found %v, %v", found, err)
			}
		})
	}
}

func TestWhatHasNoHeaderIsCalledRandom(t *testing.T) {
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	for want, puts := range map[string][]put{
		"random data in the first MiB, as of an encrypted volume without a header": {{0, string(noise)}},
		"unknown data in the first MiB":                                            {{0, strings.Repeat("All work and no play. ", 40000)}},
		"MBR partition table with 1 partition; partition 1: random data, as of an encrypted volume without a header (1 MiB)": {
			{446, entry(0x83, 2048, 2048)}, {510, "\x55\xaa"}, {1 << 20, string(noise)}},
	} {
		found, _, err := Disk(bytes.NewReader(disk(testSize, puts...)), testSize)
		if err != nil || join(found) != want {
			t.Errorf("found %s, %v, want %s", join(found), err, want)
		}
	}
}

// The same MBR, written by a disk of 4 KiB sectors that is now behind a controller with small ones.
func TestPartitionsAreFoundInTheSectorsThatTheyWereMadeWith(t *testing.T) {
	b := disk(testSize, put{446, entry(0x83, 256, 256)}, put{510, "\x55\xaa"}, put{1 << 20, "XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x02\x00"})
	found, parts, err := Disk(bytes.NewReader(b), testSize)
	if err != nil || len(parts) != 1 || parts[0] != (Part{1, 1 << 20, 1 << 20}) || !strings.Contains(join(found), "partition 1: XFS") {
		t.Errorf("found %s, %v, %v", join(found), parts, err)
	}
}

func TestPartitionsWithoutASuperblockAreNamedByTheirType(t *testing.T) {
	tab := &gpt.Table{GUID: uuid.New(), SectorSize: 512, Sectors: testSize / 512, Partitions: []gpt.Partition{
		{Number: 1, Type: uuid.MustParse("37affc90-ef7d-4e96-91c3-2d7ae055b174"), GUID: uuid.New(), First: 2048, Last: 6143, Name: "GPFS:"},
	}}
	groups, err := tab.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := disk(testSize)
	for _, w := range slices.Concat(groups...) {
		copy(b[w.Offset:], w.Data)
	}
	found, _, err := Disk(bytes.NewReader(b), testSize)
	if want := `GUID partition table with 1 partition; partition 1 "GPFS:": GPFS disk (2 MiB)`; err != nil || join(found) != want {
		t.Errorf("found %s, %v, want %s", join(found), err, want)
	}
}

func TestLabelsCannotSpeakToTheTerminal(t *testing.T) {
	found, _, err := Disk(bytes.NewReader(disk(testSize, put{0, "LUKS\xba\xbe\x00\x02"}, put{24, "a\x1b[2Jb\nimgbuild: done"})), testSize)
	if err != nil || len(found) != 1 || found[0].Label != "a[2Jbimgbuild: done" {
		t.Errorf("found %q, %v", found, err)
	}
}

func TestAnEmptyDiskHasNothing(t *testing.T) {
	for _, size := range []int64{512, 4096, 1 << 20, testSize, testSize + 512} {
		found, parts, err := Disk(bytes.NewReader(make([]byte, size)), size)
		if err != nil || len(found) != 0 || len(parts) != 0 {
			t.Errorf("%d zero bytes: %v, %v, %v", size, found, parts, err)
		}
	}
	// What an install that was cut short leaves behind: data, but none at the edges.
	b := disk(testSize, put{2 << 20, "XFSB"}, put{3 << 20, "junk"})
	if found, _, err := Disk(bytes.NewReader(b), testSize); err != nil || len(found) != 0 {
		t.Errorf("an interrupted install is %v, %v", found, err)
	}
}

func TestADiskThatCannotBeReadIsAnError(t *testing.T) {
	broken := errors.New("I/O error")
	if _, _, err := Disk(failing{broken}, testSize); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, _, err := Disk(bytes.NewReader(make([]byte, 100)), testSize); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that ends early gives %v", err)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func withGPT(t testing.TB) []byte {
	t.Helper()
	tab := &gpt.Table{GUID: uuid.New(), SectorSize: 512, Sectors: testSize / 512, Partitions: []gpt.Partition{
		{Number: 1, Type: uuid.MustParse(gpt.TypeLinux), GUID: uuid.New(), First: 2048, Last: 6143, Name: "a"},
		{Number: 7, Type: uuid.MustParse(gpt.TypeLinux), GUID: uuid.New(), First: 6144, Last: 8191, Name: "b"},
	}}
	groups, err := tab.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := disk(testSize, put{1 << 20, "XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x02\x00"}, put{1<<20 + 108, "data"})
	for _, w := range slices.Concat(groups...) {
		copy(b[w.Offset:], w.Data)
	}
	return b
}

func TestPartitionsAreLookedInto(t *testing.T) {
	want := "GUID partition table with 2 partitions; partition 1 \"a\": XFS file system \"data\" (2 MiB); partition 7 \"b\": nothing known (1 MiB)"
	b := withGPT(t)
	found, parts, err := Disk(bytes.NewReader(b), testSize)
	if err != nil || join(found) != want || len(parts) != 2 || parts[1] != (Part{7, 3 << 20, 1 << 20}) {
		t.Errorf("found %s, %v, %v", join(found), parts, err)
	}
	clear(b[:1<<20])
	found, _, err = Disk(bytes.NewReader(b), testSize)
	if err != nil || !strings.Contains(join(found), "the one at the end of the disk is whole") || !strings.Contains(join(found), "XFS") {
		t.Errorf("with only the backup table: %s, %v", join(found), err)
	}
	b = withGPT(t)
	clear(b[512 : 1<<20])
	clear(b[testSize-1<<20:])
	found, _, err = Disk(bytes.NewReader(b), testSize)
	if err != nil || join(found) != "protective MBR of a GUID partition table that is gone" {
		t.Errorf("with only the protective MBR: %s, %v", join(found), err)
	}
}

func join(fs []Finding) string {
	var s []string
	for _, f := range fs {
		s = append(s, f.String())
	}
	return strings.Join(s, "; ")
}

func entry(typ byte, start, n uint32) string {
	return "\x00\x00\x00\x00" + string([]byte{typ}) + "\x00\x00\x00" + le32(start) + le32(n)
}

func TestLogicalPartitionsAreFollowedAndLoopsEnd(t *testing.T) {
	b := disk(testSize,
		put{446, entry(0x83, 2048, 2048) + entry(0x05, 4096, 8192)}, put{510, "\x55\xaa"},
		put{4096*512 + 446, entry(0x8e, 2, 100) + entry(0x05, 1024, 100)}, put{4096*512 + 510, "\x55\xaa"},
		put{4096*512 + 2*512 + 512, "LABELONE"}, put{4096*512 + 2*512 + 512 + 24, "LVM2 001"},
		put{5120*512 + 446, entry(0x83, 2, 100) + entry(0x05, 1024, 100)}, put{5120*512 + 510, "\x55\xaa"},
	)
	found, parts, err := Disk(bytes.NewReader(b), testSize)
	if err != nil || len(parts) != 1+mbr.MaxLogical || !strings.HasPrefix(join(found), "MBR partition table with 129 partitions; partition 1: nothing known (1 MiB); partition 5: LVM physical volume") {
		t.Errorf("found %.200s, %d partitions, %v", join(found), len(parts), err)
	}
}

func TestBytesAreWrittenForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1 << 20: "1 MiB", 20 << 30: "20 GiB", 1536 << 20: "1.5 GiB", 1<<40 - 1: "1 TiB", 480103981056: "447.1 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

func FuzzDisk(f *testing.F) {
	f.Add(withGPT(f)[:18<<10])
	f.Add(disk(4<<10, put{446, entry(0x05, 1, 10)}, put{510, "\x55\xaa"}, put{512 + 446, entry(0x83, 1, 1) + entry(5, 0xffffffff, 1)}, put{1022, "\x55\xaa"}))
	for _, m := range []put{{0x8000, "JFS1"}, {1024, "\x10\x20\xf5\xf2"}, {3, "NTFS    "}, {3, "EXFAT   "}, {0x8001, "NSR02"}, {1024, "BD"}, {508, "\xda\xbe\xda\xbe"}} {
		f.Add(disk(40<<10, m))
	}
	f.Add(disk(4<<10, put{0, "LUKS\xba\xbe\x00\x02"}, put{1024 + 0x38, "\x53\xef"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, parts, err := Disk(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		zero := len(bytes.Trim(data, "\x00")) == 0
		if zero != (len(found) == 0) && len(data) <= 2<<20 {
			t.Errorf("all zero is %v and found is %v", zero, found)
		}
		for _, p := range parts {
			if p.Start < 0 || p.Size <= 0 || p.Start+p.Size > int64(len(data)) {
				t.Errorf("partition outside of the disk: %+v", p)
			}
		}
	})
}
