//go:build integration

package iso

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgbuild/builder/tool"
	"imgbuild/image"
	"imgbuild/image/imagetest"
)

func needTools(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := tool.Find(n); err != nil {
			t.Skipf("%v; scripts/setup.sh installs it", err)
		}
	}
}

// peer runs a program and returns all that it says.
func peer(t testing.TB, argv ...string) string {
	t.Helper()
	name, err := tool.Find(argv[0])
	if err != nil {
		t.Skipf("%v; scripts/setup.sh installs it", err)
	}
	out, err := exec.CommandContext(t.Context(), name, argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// biosOfHost is GRUB for BIOS as the build host has it.
func biosOfHost(t testing.TB) *BIOS {
	t.Helper()
	const dir = "/usr/lib/grub/i386-pc"
	mbr, err := os.ReadFile(filepath.Join(dir, "boot_hybrid.img"))
	if err != nil {
		t.Skipf("%v; scripts/setup.sh installs it", err)
	}
	mkimage := "grub-mkimage"
	if _, err := tool.Find(mkimage); err != nil {
		mkimage = "grub2-mkimage"
	}
	out := filepath.Join(t.TempDir(), "core")
	peer(t, append([]string{mkimage}, CoreArgs(dir, out)...)...)
	core, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return &BIOS{Core: core, MBR: mbr}
}

// small is a release of small files in a directory with a name that needs care.
func small(t *testing.T) Medium {
	t.Helper()
	m := Medium{
		Manifest: release(nil), Dir: filepath.Join(t.TempDir(), `a=b \ c`), BIOS: biosOfHost(t),
		UEFI: &UEFI{Shim: bytes.Repeat([]byte("shim"), 250_000), Loader: bytes.Repeat([]byte("grub"), 600_000), MokManager: []byte("mok")},
	}
	if err := os.Mkdir(m.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m.Manifest.Files = map[string]image.File{}
	for i, name := range []string{image.KernelFile, image.InitramfsFile, image.RootfsFile, image.TorrentFile, image.LockFile, "a=b", "Mixed.Case.and-a-rather-long-name.of.a.file"} {
		data, _ := imagetest.Random(t, 3_000_000/(i+1), byte(i))
		addFile(t, m, name, data)
	}
	addFile(t, m, image.ManifestFile, []byte("{}"))
	addFile(t, m, image.SignatureFile, []byte("signature"))
	delete(m.Manifest.Files, image.ManifestFile)
	delete(m.Manifest.Files, image.SignatureFile)
	return m
}

func addFile(t *testing.T, m Medium, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.Dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	m.Manifest.Files[name] = image.File{Size: int64(len(data))}
}

// made writes the medium and returns where it is.
func made(t *testing.T, m Medium) string {
	t.Helper()
	needTools(t, "xorriso", "mkfs.vfat", "mmd", "mcopy")
	dir := t.TempDir()
	out := filepath.Join(dir, image.ISOFile)
	if err := m.Write(t.Context(), tool.NewRunner(t.Output()), t.TempDir(), out, nil); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("there are %v, %v", left, err)
	}
	return out
}

func TestXorrisoFindsEveryFileAndLoader(t *testing.T) {
	m := small(t)
	out := made(t, m)
	report := peer(t, "xorriso", "-indev", out, "-report_el_torito", "plain", "-report_system_area", "plain")
	for _, want := range []string{
		`Volume id    : 'WEB-2026.11'`, `El Torito boot img :   1  BIOS  y   none`, `El Torito boot img :   2  UEFI  y   none`, `El Torito img path :   1  /boot/grub2/eltorito.img`,
		`El Torito img opts :   1  boot-info-table grub2-boot-info`, `grub2-mbr`, `GPT type GUID      :   2  28732ac11ff8d211ba4b00a0c93ec93b`, `Partition offset   : 16`,
	} {
		if !strings.Contains(report, want) {
			t.Errorf("it does not say %s", want)
		}
	}
	if t.Failed() {
		t.Log(report)
	}
	into := t.TempDir()
	peer(t, "osirrox", "-indev", out, "-extract", "/", into)
	peer(t, "chmod", "-R", "u+w", into) // the medium's directories are read-only
	for _, name := range m.files() {
		same(t, filepath.Join(m.Dir, name), filepath.Join(into, image.MediumDir, name))
	}
	for _, name := range []string{"EFI/BOOT/grub.cfg", "EFI/centos/grub.cfg"} {
		if got, err := os.ReadFile(filepath.Join(into, name)); err != nil || string(got) != finder("WEB-2026.11") {
			t.Errorf("%s is %s, %v", name, got, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(into, image.MediumDir))
	if err != nil || len(entries) != len(m.files()) {
		t.Errorf("there are %d files, and %d should be: %v", len(entries), len(m.files()), err)
	}
	if got, err := os.ReadFile(filepath.Join(into, menuFile)); err != nil || string(got) != menu(m.Manifest) {
		t.Errorf("its menu is %s, %v", got, err)
	}
}

func same(t *testing.T, want, got string) {
	t.Helper()
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	g, err := os.ReadFile(got)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(w, g) {
		t.Errorf("%s has other bytes on the medium", filepath.Base(want))
	}
}

// TestIsoinfoSeesWhatItShould asks another reader of ISO 9660.
func TestIsoinfoSeesWhatItShould(t *testing.T) {
	needTools(t, "isoinfo")
	m := small(t)
	out := made(t, m)
	head := peer(t, "isoinfo", "-d", "-i", out)
	for _, want := range []string{"Volume id: WEB-2026.11\n", "System id: LINUX\n", "Application id: IMGBUILD\n", "Rock Ridge signatures version 1 found"} {
		if !strings.Contains(head, want) {
			t.Errorf("it does not say %s", want)
		}
	}
	list := peer(t, "isoinfo", "-R", "-f", "-i", out)
	for _, name := range m.files() {
		if !strings.Contains(list, "/"+image.MediumDir+"/"+name+"\n") {
			t.Errorf("it does not find %s in\n%s", name, list)
		}
	}
}

// table is what sfdisk --json says.
type table struct {
	PartitionTable struct {
		Label, ID  string
		Partitions []struct {
			Start, Size int64
			Type        string
		}
	}
}

func TestAStickHasAnEFISystemPartition(t *testing.T) {
	m := small(t)
	out := made(t, m)
	if said := peer(t, "sgdisk", "-v", out); !strings.Contains(said, "No problems found") {
		t.Errorf("sgdisk says %s", said)
	}
	var got table
	if err := json.Unmarshal([]byte(peer(t, "sfdisk", "--json", out)), &got); err != nil {
		t.Fatal(err)
	}
	p := got.PartitionTable
	if p.Label != "gpt" || !strings.EqualFold(p.ID, diskGUID(m.Manifest)) || len(p.Partitions) < 2 {
		t.Fatalf("the table is %+v", p)
	}
	if p.Partitions[0].Type != typeData || p.Partitions[1].Type != typeESP {
		t.Errorf("the partitions are %+v", p.Partitions)
	}
	// What looks at partitions finds the volume in the first of them too.
	if said := peer(t, "blkid", "-p", "-O", strconv.FormatInt(p.Partitions[0].Start*512, 10), out); !strings.Contains(said, `LABEL="WEB-2026.11"`) {
		t.Errorf("blkid says %s", said)
	}
	esp := filepath.Join(t.TempDir(), "esp")
	cut(t, out, p.Partitions[1].Start*512, p.Partitions[1].Size*512, esp)
	peer(t, "fsck.fat", "-n", esp)
	for _, f := range m.systemFiles() {
		if got := peer(t, "mtype", "-i", esp, "::/"+strings.ToUpper(f.name)); got != string(f.data) {
			t.Errorf("%s has %d bytes, and %d should be", f.name, len(got), len(f.data))
		}
	}
	// The boot catalogue has the same partition for machines that see a CD.
	report := peer(t, "xorriso", "-indev", out, "-report_el_torito", "plain")
	at := regexp.MustCompile(`El Torito boot img :   2  UEFI .* (\d+)\n`).FindStringSubmatch(report)
	if at == nil || at[1] != strconv.FormatInt(p.Partitions[1].Start/4, 10) {
		t.Errorf("the boot catalogue has %v, and the partition begins at %d", at, p.Partitions[1].Start)
	}
}

func cut(t *testing.T, from string, offset, size int64, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, size)
	if _, err := f.ReadAt(data, offset); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTheSameReleaseMakesTheSameMedium(t *testing.T) {
	m := small(t)
	first := sum(t, made(t, m))
	// Dates of files, the zone and the order in which they were made say nothing.
	later := time.Now().Add(time.Hour)
	for _, name := range m.files() {
		if err := os.Chtimes(filepath.Join(m.Dir, name), later, later); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.CopyFS(elsewhere, os.DirFS(m.Dir)); err != nil {
		t.Fatal(err)
	}
	m.Dir = elsewhere
	// FAT keeps two seconds apart, ISO 9660 one.
	time.Sleep(time.Until(time.Now().Truncate(2 * time.Second).Add(2100 * time.Millisecond)))
	if again := sum(t, made(t, m)); again != first {
		t.Errorf("the first has the digest %s, the second %s", first, again)
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestMediaForOneFirmwareAlone(t *testing.T) {
	m := small(t)
	bios, uefi := m.BIOS, m.UEFI
	m.UEFI = nil
	report := peer(t, "xorriso", "-indev", made(t, m), "-report_el_torito", "plain", "-report_system_area", "plain")
	if strings.Contains(report, "UEFI") || strings.Contains(report, "GPT") || !strings.Contains(report, "grub2-mbr") || !regexp.MustCompile(`MBR partition      :   1   0x80`).MatchString(report) {
		t.Errorf("for BIOS: %s", report)
	}
	m.UEFI, m.BIOS = uefi, nil
	report = peer(t, "xorriso", "-indev", made(t, m), "-report_el_torito", "plain", "-report_system_area", "plain")
	if strings.Contains(report, "BIOS") || strings.Contains(report, "grub2-mbr") || !strings.Contains(report, "El Torito boot img :   1  UEFI") {
		t.Errorf("for UEFI: %s", report)
	}
	m.BIOS = bios
}

// TestFilesAbove4GiB also ends a run in the middle, and sees that nothing is left.
func TestFilesAbove4GiB(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 4 GiB")
	}
	m := small(t)
	const size = 4<<30 + 12345
	f, err := os.OpenFile(filepath.Join(m.Dir, image.RootfsFile), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("the end"), size-7)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	m.Manifest.Files[image.RootfsFile] = image.File{Size: size}
	dir, work := t.TempDir(), t.TempDir()
	out := filepath.Join(dir, image.ISOFile)
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped by a person")
	err = m.Write(ctx, tool.NewRunner(t.Output()), work, out, func(int) { cancel(stopped) })
	if !errors.Is(err, stopped) {
		t.Errorf("it ends with %v", err)
	}
	for _, d := range []string{dir, work} {
		if left, err := os.ReadDir(d); err != nil || len(left) != 0 {
			t.Errorf("%v is left, %v", left, err)
		}
	}
	out = made(t, m)
	var before, end int64 // what the extents before the last hold, and where that ends in the medium
	for _, s := range regexp.MustCompile(`File data lba: +\d+ , +(\d+) , +(\d+) , +4294979641 , '/imgbuild/rootfs.squashfs'`).FindAllStringSubmatch(
		peer(t, "xorriso", "-indev", out, "-find", "/imgbuild/rootfs.squashfs", "-exec", "report_lba"), -1) {
		lba, _ := strconv.ParseInt(s[1], 10, 64)
		n, _ := strconv.ParseInt(s[2], 10, 64)
		end = lba*2048 + size - before
		before += n * 2048
	}
	if before < size {
		t.Fatalf("it has %d bytes, and %d should be", before, int64(size))
	}
	iso, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer iso.Close()
	tail := make([]byte, 7)
	if _, err := iso.ReadAt(tail, end-7); err != nil || string(tail) != "the end" {
		t.Errorf("it ends in %q, %v", tail, err)
	}
}
