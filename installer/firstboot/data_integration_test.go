//go:build integration

package firstboot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imgbuild/installer/looptest"
)

// dataDisk is a loop device with one partition, as the installer leaves a data disk.
type dataDisk struct {
	Disk
	loop, node string
}

func newDataDisk(t *testing.T, n int, fsType string) dataDisk {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	const size = 400 << 20
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	guid := uuid.New()
	looptest.Command(t, "sgdisk", "-n", "1:2048:0", "-u", "1:"+guid.String(), file)
	loop := strings.TrimSpace(looptest.Command(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { looptest.Command(t, "losetup", "-d", loop) })
	looptest.Partitions(t, "-a", loop)
	t.Cleanup(func() { looptest.Partitions(t, "-d", loop) })
	d := dataDisk{loop: loop, node: loop + "p1", Disk: Disk{Size: size, Number: 1, Partition: guid, UUID: uuid.NewString(), FS: fsType,
		Label: fmt.Sprintf("data%d", n), Mount: fmt.Sprintf("/data%d", n)}}
	d.Fstab = fmt.Sprintf("UUID=%s %s %s defaults,nofail 0 0\n", d.UUID, d.Mount, d.FS)
	return d
}

// dataSystem is an installed system with data disks to be formatted.
func dataSystem(t *testing.T, disks ...dataDisk) (System, *bytes.Buffer) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	dir := t.TempDir()
	var c DataConfig
	for _, d := range disks {
		c.Disks = append(c.Disks, d.Disk)
		t.Cleanup(func() { unix.Unmount(filepath.Join(dir, d.Mount), unix.MNT_DETACH) })
	}
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{DataFile: string(text), Program: "program", DataUnitFile: DataUnit(), DataWantsLink: "", "etc/fstab": "# mine\nUUID=R / xfs defaults 0 0"} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	log := &bytes.Buffer{}
	return System{Root: dir, Log: slog.New(slog.NewTextHandler(log, nil)), Patience: time.Nanosecond}, log
}

func needTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"sgdisk", "losetup", "partx", "mkfs.xfs", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
}

func mountedAs(t *testing.T, s System, d dataDisk) bool {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE,FSTYPE", "--mountpoint", filepath.Join(s.Root, d.Mount)).Output()
	return err == nil && strings.Join(strings.Fields(string(out)), " ") == d.node+" "+d.FS
}

func TestDataDisksAreFormattedAndMountedAtTheSameTime(t *testing.T) {
	needTools(t)
	a, b := newDataDisk(t, 1, "xfs"), newDataDisk(t, 2, "ext4")
	s, log := dataSystem(t, a, b)
	if err := s.Data(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	text, err := os.ReadFile(filepath.Join(s.Root, "etc/fstab"))
	if err != nil || !strings.HasPrefix(string(text), "# mine\nUUID=R / xfs defaults 0 0\nUUID=") || !strings.Contains(string(text), a.Fstab) || !strings.Contains(string(text), b.Fstab) {
		t.Errorf("%v; fstab is\n%s", err, text)
	}
	if st, err := os.Stat(filepath.Join(s.Root, "etc/fstab")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("fstab: %v, %v", st.Mode(), err)
	}
	for _, d := range []dataDisk{a, b} {
		if !mountedAs(t, s, d) {
			t.Errorf("%s is not mounted", d.Mount)
		}
		if got := strings.TrimSpace(looptest.Command(t, "blkid", "-p", "-o", "value", "-s", "UUID", d.node)); got != d.UUID {
			t.Errorf("%s has the UUID %s, want %s", d.node, got, d.UUID)
		}
	}
	for _, name := range []string{DataFile, DataUnitFile, DataWantsLink, dataState, StateDir, Program} {
		if _, err := os.Lstat(filepath.Join(s.Root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("/%s is still there: %v", name, err)
		}
	}
}

func TestADiskWithAnythingOnItIsNotFormatted(t *testing.T) {
	needTools(t)
	empty, full, other, gone := newDataDisk(t, 1, "xfs"), newDataDisk(t, 2, "xfs"), newDataDisk(t, 3, "ext4"), newDataDisk(t, 4, "ext4")
	looptest.Command(t, "mkfs.ext4", "-q", "-L", "precious", full.node)
	f, err := os.OpenFile(other.node, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("data that nobody knows"), 70_000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	gone.Partition = uuid.New()
	s, log := dataSystem(t, empty, full, other, gone)
	err = s.Data(t.Context())
	if err == nil {
		t.Fatal("all were formatted")
	}
	for _, want := range []string{
		"data disk for /data2: " + full.node + ` is not empty: it has ext4 file system "precious"`, "nothing was written",
		"data disk for /data3: " + other.node + " is not empty: it has unknown data in the first MiB",
		"data disk for /data4: the disk is not there:", "it is tried again at the next boot, until /" + DataFile + " is removed",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nobody said %q:\n%v", want, err)
		}
	}
	if !mountedAs(t, s, empty) {
		t.Errorf("the empty one is not mounted\n%s", log)
	}
	if got := strings.TrimSpace(looptest.Command(t, "blkid", "-p", "-o", "value", "-s", "LABEL", full.node)); got != "precious" {
		t.Errorf("the full one now has the label %q", got)
	}
	// Somebody empties one: the next boot does it, and leaves the first as it is.
	looptest.Command(t, "wipefs", "-a", full.node)
	looptest.Command(t, "dd", "if=/dev/zero", "of="+full.node, "bs=1M", "count=1", "conv=fsync", "status=none")
	if err := s.Data(t.Context()); err == nil || strings.Contains(err.Error(), "/data2") || !mountedAs(t, s, full) {
		t.Errorf("%v\n%s", err, log)
	}
	text, err := os.ReadFile(filepath.Join(s.Root, "etc/fstab"))
	if err != nil || strings.Count(string(text), empty.Fstab) != 1 || strings.Count(string(text), full.Fstab) != 1 || strings.Contains(string(text), other.UUID) {
		t.Errorf("%v; fstab is\n%s", err, text)
	}
}

func TestAFormatThatPowerInterruptedIsDoneAgain(t *testing.T) {
	needTools(t)
	a, b, c := newDataDisk(t, 1, "xfs"), newDataDisk(t, 2, "ext4"), newDataDisk(t, 3, "xfs")
	looptest.Command(t, "mkfs.xfs", "-q", "-m", "uuid="+a.UUID, a.node)
	looptest.Command(t, "mkfs.ext4", "-q", "-U", b.UUID, b.node)
	looptest.Command(t, "mkfs.xfs", "-q", "-m", "uuid="+c.UUID, c.node) // made, and its line is missing
	s, log := dataSystem(t, a, b, c)
	state := fmt.Sprintf("%s %s\n%s %s\n%s %s\n%s %s\n", begun, a.Partition, begun, b.Partition, begun, c.Partition, made, c.Partition)
	if err := os.WriteFile(filepath.Join(s.Root, dataState), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Data(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, d := range []dataDisk{a, b, c} {
		if !mountedAs(t, s, d) {
			t.Errorf("%s is not mounted", d.Mount)
		}
	}
	if n := strings.Count(log.String(), "formatting a data disk"); n != 2 {
		t.Errorf("%d were formatted:\n%s", n, log)
	}
}

func TestTwoCopiesOfADiskAreRefused(t *testing.T) {
	needTools(t)
	a := newDataDisk(t, 1, "xfs")
	b := newDataDisk(t, 1, "xfs")
	looptest.Command(t, "sgdisk", "-u", "1:"+a.Partition.String(), b.loop)
	looptest.Command(t, "blockdev", "--flushbufs", b.loop)
	s, _ := dataSystem(t, a)
	if err := s.Data(t.Context()); err == nil || !strings.Contains(err.Error(), "are the same disk, or copies of one") {
		t.Errorf("got %v", err)
	}
}
