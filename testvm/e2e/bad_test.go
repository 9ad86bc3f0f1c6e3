//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"imgbuild/image"
	"imgbuild/testvm"
)

// What is to become of the disk of a machine whose installation fails.
type diskRule int

const (
	untouched  diskRule = iota // not one byte is written
	unbootable                 // something may be written, and no firmware boots it
)

type badCase struct {
	name string
	// says is matched against the one sentence of the failure.
	says    string
	disk    diskRule
	disks   func(t *testing.T) []testvm.Disk // default: one empty disk
	nics    []testvm.NIC
	memory  int
	prepare func(t *testing.T, n *testvm.Network)
	args    []string
}

func badCases() []badCase {
	half := shared.manifest.Files[image.RootfsFile].Size / 2
	return []badCase{
		{name: "tampered-rootfs", says: `(?i)chunk|signed`, disk: unbootable, prepare: func(_ *testing.T, n *testvm.Network) {
			n.Web().Inject(image.RootfsFile, testvm.Fault{Flip: true, FlipAt: half})
		}},
		{name: "truncated-download", says: `(?i)bytes|shorter|truncated|ends|range`, disk: unbootable, prepare: func(_ *testing.T, n *testvm.Network) {
			n.Web().Inject(image.RootfsFile, testvm.Fault{Shorten: true, ShortenTo: half})
		}},
		{name: "missing-rootfs", says: `404`, disk: unbootable, prepare: func(_ *testing.T, n *testvm.Network) {
			n.Web().Inject(image.RootfsFile, testvm.Fault{Status: 404})
		}},
		{name: "foreign-signature", says: `(?i)signature`, prepare: signWithAnotherKey},
		{name: "tampered-manifest", says: `(?i)signature`, prepare: func(_ *testing.T, n *testvm.Network) {
			n.Web().Inject(image.ManifestFile, testvm.Fault{Flip: true, FlipAt: 100})
		}},
		{name: "missing-manifest", says: `404`, prepare: func(_ *testing.T, n *testvm.Network) {
			n.Web().Inject(image.ManifestFile, testvm.Fault{Status: 404})
		}},
		{name: "server-refuses", says: `(?i)refused|reach|connect`, prepare: func(t *testing.T, n *testvm.Network) {
			if err := n.Web().Refuse(); err != nil {
				t.Error(err)
			}
		}},
		{name: "no-dhcp", says: `(?i)DHCP`, prepare: func(_ *testing.T, n *testvm.Network) { n.StopDHCP() }},
		{name: "no-link", says: `(?i)link|cable`, nics: []testvm.NIC{{Unplugged: true}}},
		{name: "no-card", says: `(?i)network|interface|link`, nics: []testvm.NIC{}},
		{name: "no-disk", says: `(?i)disk`, disks: func(*testing.T) []testvm.Disk { return nil }},
		{name: "small-disk", says: `(?i)small|needs|MiB|GiB`, disks: func(t *testing.T) []testvm.Disk { return []testvm.Disk{emptyDisk(t, "SMALL", 512<<20)} }},
		{name: "two-disks", says: `(?i)disks?`, disks: func(t *testing.T) []testvm.Disk {
			return []testvm.Disk{emptyDisk(t, "ONE", 8<<30), emptyDisk(t, "TWO", 8<<30)}
		}},
		{name: "disk-with-lvm", says: `(?i)LVM`, disks: func(t *testing.T) []testvm.Disk { return []testvm.Disk{lvmDisk(t)} }},
		{name: "disk-with-gpt", says: `(?i)GPT|partition`, disks: func(t *testing.T) []testvm.Disk { return []testvm.Disk{gptDisk(t)} }},
		{name: "disk-with-ext4", says: `(?i)ext4`, disks: func(t *testing.T) []testvm.Disk { return []testvm.Disk{ext4Disk(t)} }},
		{name: "unknown-disk", says: `NOTHERE`, args: []string{"imgbuild.disk=NOTHERE"}},
		{name: "bad-argument", says: `(?i)imgbuild\.done`, args: []string{"imgbuild.done=dance"}},
	}
}

func TestBadInputEndsInOneSentenceAndASafeDisk(t *testing.T) {
	for _, tt := range badCases() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			disks := []testvm.Disk{emptyDisk(t, "EMPTY", 8<<30)}
			if tt.disks != nil {
				disks = tt.disks(t)
			}
			before := digests(t, disks)
			s := scenario(t, tt.name, disks...)
			s.Via, s.Args, s.NICs, s.MemoryMiB, s.Timeout = testvm.BootKernel, tt.args, tt.nics, tt.memory, longTimeout
			if tt.prepare != nil {
				s.Prepare = func(n *testvm.Network) { tt.prepare(t, n) }
			}
			var mu sync.Mutex
			var lines []string
			s.Live = func(l string) { mu.Lock(); lines = append(lines, l); mu.Unlock() }
			_, err := shared.host.Install(t.Context(), s)
			var failed *testvm.InstallerError
			if !errors.As(err, &failed) {
				t.Fatalf("got %v, want the installer's failure", err)
			}
			t.Logf("it says: %s", failed)
			if failed.Sentence == "" || !regexp.MustCompile(tt.says).MatchString(failed.Sentence) {
				t.Errorf("the sentence %q does not match %q", failed.Sentence, tt.says)
			}
			mu.Lock()
			mustBeOneClearSentence(t, lines)
			mu.Unlock()
			for i, d := range disks {
				mustBeSafe(t, d.Path, before[i], tt.disk)
			}
		})
	}
}

func mustBeOneClearSentence(t *testing.T, lines []string) {
	t.Helper()
	n := 0
	for _, l := range lines {
		if strings.Contains(l, "imgbuild: failed: ") {
			n++
		}
		if strings.Contains(l, "goroutine ") || strings.Contains(l, "panic:") {
			t.Errorf("the console shows the program's inside: %q", l)
		}
	}
	if n != 1 {
		t.Errorf("%d lines say that it failed, want one", n)
	}
}

func mustBeSafe(t *testing.T, disk, before string, rule diskRule) {
	t.Helper()
	if rule == unbootable {
		mustBeUnbootable(t, disk)
		return
	}
	after, err := testvm.HashDisk(disk)
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("the disk was written to")
	}
}

func digests(t *testing.T, disks []testvm.Disk) []string {
	t.Helper()
	var hs []string
	for _, d := range disks {
		h, err := testvm.HashDisk(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
	}
	return hs
}

func signWithAnotherKey(t *testing.T, n *testvm.Network) {
	key, err := image.GenerateKey()
	if err != nil {
		t.Error(err)
		return
	}
	manifest, err := os.ReadFile(filepath.Join(shared.release, image.ManifestFile))
	if err != nil {
		t.Error(err)
		return
	}
	n.Web().Put(image.SignatureFile, image.Sign(manifest, key))
}

func emptyDisk(t *testing.T, serial string, size int64) testvm.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := testvm.CreateDisk(path, size); err != nil {
		t.Fatal(err)
	}
	return testvm.Disk{Path: path, Serial: serial}
}

// lvmDisk has the label of an LVM physical volume in its second sector, with its checksum (LVM2 format, lib/format_text).
func lvmDisk(t *testing.T) testvm.Disk {
	t.Helper()
	const size = 8 << 30
	d := emptyDisk(t, "LVMPV", size)
	sector := make([]byte, 512)
	copy(sector, "LABELONE")
	binary.LittleEndian.PutUint64(sector[8:], 1)   // the sector that it is in
	binary.LittleEndian.PutUint32(sector[20:], 32) // where the header begins
	copy(sector[24:], "LVM2 001")
	copy(sector[32:], "abcdefghijklmnopqrstuvwxyz012345")
	binary.LittleEndian.PutUint64(sector[64:], size)
	// LVM's CRC-32 starts with a number of its own and is not inverted at either end.
	binary.LittleEndian.PutUint32(sector[16:], ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, sector[20:]))
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(sector, 512)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return d
}

func gptDisk(t *testing.T) testvm.Disk {
	t.Helper()
	d := emptyDisk(t, "GPTDATA", 8<<30)
	tool(t, "sgdisk", "-n", "1:2048:+1G", "-c", "1:data", "-n", "2:0:0", "-t", "2:8e00", d.Path)
	return d
}

func ext4Disk(t *testing.T) testvm.Disk {
	t.Helper()
	d := emptyDisk(t, "EXT4DATA", 8<<30)
	tool(t, "mkfs.ext4", "-q", "-F", "-L", "precious", d.Path)
	return d
}

// tool runs a program of this host, without the test's context, which has ended when a test cleans up.
func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("find %s: %v; %v", name, err, testvm.ErrTool)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &out, &errs)
	}
	return out.Bytes()
}

// allocated returns the bytes that a sparse file takes.
func allocated(fi fs.FileInfo) int64 {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		panic(fmt.Sprintf("file information of type %T on Linux", fi.Sys()))
	}
	return st.Blocks * 512
}
