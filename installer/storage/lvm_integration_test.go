//go:build integration

package storage

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/installer/disk"
	"imgbuild/installer/looptest"
)

// lvmTool runs LVM as this package does, but without the device mapper, which the kernels of test machines need not have.
func lvmTool(t *testing.T, argv []string, more ...string) {
	t.Helper()
	argv = append(append(argv[:2:2], "--driverloaded", "n"), append(argv[2:], more...)...)
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), lvmEnv()...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

func TestAVolumeGroupIsFoundWithWhatItsVolumesHold(t *testing.T) {
	need(t, "losetup", "lvm", "sgdisk", "mkfs.xfs", "blkid")
	d := loop(t, 2<<30, 512)
	looptest.Command(t, "sgdisk", "-n", "1:2048:+100M", "-c", "1:boot", "-n", "2:0:0", "-t", "2:8e00", "-c", "2:system", d.Path)
	list, err := func() ([]layout.Existing, error) {
		f, err := os.Open(d.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readTable(f, d)
	}()
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	nodes, err := addPartitions("/sys", d, []place{{2, list[1].Start, list[1].Size}})
	if err != nil {
		t.Fatal(err)
	}
	l := lvm{lvmConfig([]string{nodes[2]})}
	lvmTool(t, l.createPhysical(nodes[2]))
	lvmTool(t, l.createGroup(layout.SchemeGroup{Group: layout.Group{Name: "dstest"}, Extent: 4 * mib}, []string{nodes[2]}))
	for _, v := range []string{"root", "home"} {
		// Two pieces each, interleaved.
		lvmTool(t, l.command("lvcreate", "-y", "-a", "n", "-W", "n", "-Z", "n", "-n", v, "-l", "10", "dstest"))
	}
	for _, v := range []string{"root", "home"} {
		lvmTool(t, l.command("lvextend", "-l", "+80", "dstest/"+v))
	}
	image := filepath.Join(t.TempDir(), "home")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 90*4*mib); err != nil {
		t.Fatal(err)
	}
	looptest.Command(t, "mkfs.xfs", "-q", "-L", "home", image)
	want := blkid(t, image)
	c := lvmReader{system(t).Run, l}
	pieces, err := c.pieces(t.Context(), "dstest")
	if err != nil || len(pieces["home"]) != 2 {
		t.Fatalf("%+v, %v", pieces, err)
	}
	copyPieces(t, image, pieces["home"])
	if err := deletePartitions("/sys", d); err != nil {
		t.Fatal(err)
	}

	keep := layout.Layout{
		Disks: []layout.Disk{{Name: "main", Partitions: []layout.Partition{{Name: "boot"}, {Name: "system", Content: layout.Content{Group: "dstest"}}}}},
		Groups: []layout.Group{{Name: "dstest", Volumes: []layout.Volume{
			{Name: "root", Content: layout.Content{FS: "xfs", Mount: "/"}}, {Name: "home", Content: layout.Content{FS: "xfs", Mount: "/home", Keep: true}}}}},
	}
	found, err := Existing(t.Context(), system(t), keep, []disk.Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	have := map[layout.Device]layout.Existing{}
	for _, e := range found {
		have[e.Device] = e
	}
	if e := have["part/main/2"]; e.FS != "LVM2_member" || e.Name != "system" || e.Start != list[1].Start || e.GUID == "" {
		t.Errorf("the physical volume is %+v", e)
	}
	if e := have["lv/dstest/home"]; e.FS != "xfs" || e.UUID != want["UUID"] || e.Label != "home" || e.Size != 90*4*mib {
		t.Errorf("home is %+v and %v", e, want)
	}
	if e, ok := have["lv/dstest/root"]; !ok || e.FS != "" {
		t.Errorf("root is %+v", e)
	}
	if parts, err := kernelPartitions("/sys", d.Name); err != nil || len(parts) > 0 {
		t.Errorf("looking left partitions: %v, %v", parts, err)
	}
	rehearsed(t, d, list[1])
}

// rehearsed checks that what is kept is looked for before anything is written, and that a group that is not whole is refused.
func rehearsed(t *testing.T, d disk.Disk, pv layout.Existing) {
	t.Helper()
	pv.Device = "part/main/2"
	s := &layout.Scheme{
		Disks: []layout.SchemeDisk{{Name: "main", Candidate: candidate(d), Table: layout.GPT, Parts: []layout.Part{
			{Number: 2, Name: "system", Type: pv.Type, Start: pv.Start, Size: pv.Size, Kept: &pv, Content: layout.Content{Group: "dstest"}}}}},
		Groups: []layout.SchemeGroup{{Group: layout.Group{Name: "dstest"}, Physical: []layout.Device{"part/main/2"}, Extent: 4 * mib, Kept: true, Volumes: []layout.SchemeVolume{
			{Volume: layout.Volume{Name: "home"}, Size: 90 * 4 * mib, Kept: &layout.Existing{}}}}},
	}
	rehearse := func() error {
		m := &Made{sys: system(t), scheme: s, ids: Identify(s), nodes: map[layout.Device]string{}, commands: map[string]lvm{}}
		if err := m.prepare(map[string]disk.Disk{"main": d}); err != nil {
			return err
		}
		return m.rehearse(t.Context())
	}
	if err := rehearse(); err != nil {
		t.Errorf("a group that is there: %v", err)
	}
	s.Groups[0].Volumes[0].Name = "srv"
	if err := rehearse(); err == nil || !strings.Contains(err.Error(), "no longer has a volume srv") {
		t.Errorf("a volume that is not there: %v", err)
	}
	s.Groups[0].Name = "other"
	if err := rehearse(); err == nil || !strings.Contains(err.Error(), "LVM does not find it") {
		t.Errorf("a group that is not there: %v", err)
	}
}

func copyPieces(t *testing.T, image string, list []piece) {
	t.Helper()
	for _, p := range list {
		src, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, min(p.size, 16*mib)) // the superblock, and a little more
		if _, err := src.ReadAt(b, p.at); err != nil {
			t.Fatal(err)
		}
		src.Close()
		dst, err := os.OpenFile(p.node, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dst.WriteAt(b, p.start); err != nil {
			t.Fatal(err)
		}
		if err := dst.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// superblock is one of md, version 1.2 (linux/raid/md_p.h).
func superblock() []byte {
	b := make([]byte, 512)
	le := binary.LittleEndian
	le.PutUint32(b, mdMagic)
	le.PutUint32(b[4:], 1)
	for i := range 16 {
		b[16+i], b[168+i] = byte(0x10+i), byte(0x80+i)
	}
	copy(b[32:], "any:boot")
	le.PutUint64(b[64:], 1732190000)
	le.PutUint32(b[72:], 1)           // level
	le.PutUint64(b[80:], 60<<20/512)  // size
	le.PutUint32(b[92:], 2)           // disks
	le.PutUint64(b[128:], 2048)       // data offset
	le.PutUint64(b[136:], 60<<20/512) // data size
	le.PutUint64(b[144:], 8)          // super offset
	le.PutUint64(b[192:], 1732190000) // updated
	le.PutUint64(b[200:], 17)         // events
	le.PutUint64(b[208:], 1<<64-1)    // no resync
	le.PutUint32(b[220:], 2)          // roles
	le.PutUint16(b[256+2:], 1)        // the second disk's
	var sum uint64
	for i := 0; i < 256+2*2; i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	return b
}

func TestMdadmsOwnWordsAreUnderstood(t *testing.T) {
	need(t, "mdadm")
	file := filepath.Join(t.TempDir(), "member")
	b := make([]byte, 64*mib)
	copy(b[4096:], superblock())
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := system(t).Run.Read(t.Context(), noUdev(), examineMember(file)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out)
	m, err := parseMember(out)
	if want := (member{"boot", "10111213:14151617:18191a1b:1c1d1e1f", 2}); err != nil || m != want {
		t.Errorf("got %+v, %v", m, err)
	}
}
