//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
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

	"imgbuild/image"
	"imgbuild/testvm"
)

// desk is a machine in front of which a person sits, with no network.
type desk struct {
	t   *testing.T
	ctx context.Context
	m   *testvm.Machine
}

// sitAt starts a machine that has no network.
func sitAt(t *testing.T, c testvm.Config) *desk {
	t.Helper()
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	t.Parallel()
	s := scenario(t, c.Name)
	n, err := shared.host.NewNetwork(t.Context(), testvm.NetworkConfig{NoDHCP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 1536
	}
	c.SMBIOS = testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: "TESTVM-" + strings.ToUpper(c.Name)}
	m, err := n.Start(ctx, c, testvm.ConsoleConfig{Transcript: filepath.Join(s.Logs, c.Name+"-boot.log")})
	if err != nil {
		t.Fatal(err)
	}
	return &desk{t, ctx, m}
}

// sees waits for a line, and fails at another that says how it ended.
func (d *desk) sees(pattern string) []string {
	d.t.Helper()
	m, err := d.m.Console().Expect(d.ctx, regexp.MustCompile(pattern), regexp.MustCompile(`imgbuild: failed: .*|Kernel panic - not syncing.*`))
	if err != nil {
		d.t.Fatal(err)
	}
	if m.Index != 0 {
		d.t.Fatalf("it says %q, and %q was to come", m.Groups[0], pattern)
	}
	return m.Groups
}

// failure is the sentence with which it fails.
func (d *desk) failure() string {
	d.t.Helper()
	for _, pattern := range []string{`imgbuild: failed: `, `imgbuild: `} { // the next line has begun: the sentence is whole
		m, err := d.m.Console().Expect(d.ctx, regexp.MustCompile(pattern))
		if err != nil {
			d.t.Fatal(err)
		}
		if pattern == `imgbuild: ` {
			sentence := strings.TrimSpace(m.Before)
			d.t.Logf("it fails: %s", sentence)
			return sentence
		}
	}
	return ""
}

// does fails the test for an error.
func (d *desk) does(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// chooses goes down so many entries of the medium's menu.
func (d *desk) chooses(down int) {
	d.t.Helper()
	d.sees(`Run .* from this medium`)
	d.does(d.m.Console().Send(strings.Repeat("\x1b[B", down) + "\r"))
}

// Entries of the menu, from the top.
const (
	entryLive  = 0
	entryCheck = 2
	entryLocal = 3
)

func TestTheMediumIsCheckedFromItsMenu(t *testing.T) {
	d := sitAt(t, testvm.Config{Name: "check-good", Disks: []testvm.Disk{{Path: medium(t), Bus: testvm.CD}}})
	d.chooses(entryCheck)
	d.sees(fmt.Sprintf(`imgbuild: the medium is as it was written: all %d files of e2e 1 are right`, len(shared.manifest.Files)))
	d.sees(`imgbuild: staying: press r to reboot, p to power off`)
	d.does(d.m.Console().Send("p"))
	exit, err := d.m.Wait(d.ctx)
	if err != nil || !exit.PoweredOff() {
		t.Errorf("it ended by %q, %v", exit.Reason, err)
	}
}

func TestADamagedMediumIsRefused(t *testing.T) {
	t.Run("by the check", func(t *testing.T) {
		d := sitAt(t, testvm.Config{Name: "check-bad", Disks: []testvm.Disk{{Path: damaged(t), Bus: testvm.CD}}})
		d.chooses(entryCheck)
		got := d.failure()
		for _, want := range []string{"rootfs.squashfs is not as it was written: chunk 40 is wrong", "vmlinuz is not as it was written: its SHA-256 is another one", "write the medium again, or use another one"} {
			if !strings.Contains(got, want) {
				t.Errorf("it does not say %q", want)
			}
		}
	})
	t.Run("by the live start", func(t *testing.T) {
		d := sitAt(t, testvm.Config{Name: "live-bad", Disks: []testvm.Disk{{Path: damaged(t), Bus: testvm.CD}}})
		d.chooses(entryLive)
		if got := d.failure(); !strings.Contains(got, "chunk 40") || !strings.Contains(got, "write the medium again, or use another one") {
			t.Errorf("it says neither where nor what to do")
		}
	})
}

// damaged is a copy of the medium with two bytes flipped: in chunk 40 of the root file system, and the last of the kernel, which is of
// a signature that nobody looks at when a BIOS starts it.
func damaged(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	iso := filepath.Join(t.TempDir(), "damaged.iso")
	in, err := os.Open(medium(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(iso)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int64{image.RootfsFile: 40*image.ChunkSize + 7, image.KernelFile: shared.manifest.Files[image.KernelFile].Size - 1} {
		var b [1]byte
		at += extent(t, iso, name)
		if _, err := out.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := out.WriteAt(b[:], at); err != nil {
			t.Fatal(err)
		}
	}
	return iso
}

// extent is where a file of the release begins on a medium, in bytes.
func extent(t *testing.T, iso, name string) int64 {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), "xorriso", "-indev", iso, "-find", "/"+image.MediumDir+"/"+name, "-exec", "report_lba").Output()
	if err != nil {
		t.Fatal(err)
	}
	lba := regexp.MustCompile(`File data lba: +0 , +(\d+) , +\d+ , +(\d+) , '/imgbuild/` + regexp.QuoteMeta(name)).FindSubmatch(said)
	if lba == nil || string(lba[2]) != strconv.FormatInt(shared.manifest.Files[name].Size, 10) {
		t.Fatalf("xorriso says %s", said)
	}
	n, err := strconv.ParseInt(string(lba[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * 2048
}

// kernelFor starts the release's kernel as the medium's menu does, for what is on the medium with a label.
func kernelFor(label string) testvm.Boot {
	return testvm.Boot{Kind: testvm.BootKernel, Kernel: filepath.Join(shared.release, image.KernelFile), Initrd: filepath.Join(shared.release, image.InitramfsFile),
		Append: "imgbuild.mode=live imgbuild.medium=" + label + " console=ttyS0,115200n8"}
}

func TestAMediumThatIsNowhereIsMissed(t *testing.T) {
	d := sitAt(t, testvm.Config{Name: "no-medium", Disks: []testvm.Disk{{Path: medium(t), Bus: testvm.CD}}, Boot: kernelFor("NOWHERE")})
	d.sees(`imgbuild: the medium NOWHERE is not there yet: it is waited for, up to 90 s`)
	begun := time.Now()
	d.sees(`imgbuild: still waiting for the medium NOWHERE, \d+ of 90 s: there is another one, E2E-1`)
	if got := d.failure(); got != "find the medium NOWHERE: no medium of this machine has it after 90 s, and there is another one, E2E-1: put it in, or connect it, and start once more" {
		t.Error("that is another sentence")
	}
	t.Logf("it gave up after %v", time.Since(begun).Round(time.Second))
}

// A stick comes late, as those of management controllers do, and is pulled out in the midst.
func TestAStickIsPulledOutWhileItIsRead(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.img")
	if err := testvm.CreateDisk(other, 64<<20); err != nil {
		t.Fatal(err)
	}
	d := sitAt(t, testvm.Config{Name: "stick-pulled", Disks: []testvm.Disk{{Path: other, Bus: testvm.USB, ReadOnly: true}}, Boot: kernelFor("E2E-1")})
	d.sees(`imgbuild: the medium E2E-1 is not there yet`)
	stick, err := d.m.Plug(d.ctx, testvm.Disk{Path: medium(t), ReadOnly: true}, 4<<20)
	d.does(err)
	d.sees(`imgbuild: medium: E2E-1 on /dev/sd`)
	d.sees(`step 3/5 download and verify`)
	d.sees(`imgbuild: rootfs \d+%`)
	d.does(d.m.Unplug(d.ctx, stick))
	begun := time.Now()
	d.saysItIsGone("/dev/sd")
	t.Logf("it was noticed after %v", time.Since(begun).Round(time.Second))
}

// saysItIsGone waits for the one sentence with which a start fails whose medium is gone.
func (d *desk) saysItIsGone(device string) {
	d.t.Helper()
	got := d.failure()
	want := regexp.MustCompile(`the medium E2E-1, which was ` + device + `\w+, is gone: it was pulled out or lost its connection while rootfs\.squashfs was read from it; connect it again, or put it back in, and start once more`)
	if !want.MatchString(got) {
		d.t.Errorf("it does not say that the medium is gone")
	}
	if n := strings.Count(got, "is gone"); n > 1 {
		d.t.Errorf("it says so %d times", n)
	}
}

func TestADiscIsTakenOutWhileItIsRead(t *testing.T) {
	d := sitAt(t, testvm.Config{Name: "disc-pulled", Disks: []testvm.Disk{{Path: medium(t), Bus: testvm.CD}}, Boot: kernelFor("E2E-1")})
	d.sees(`imgbuild: medium: E2E-1 on /dev/sr0`)
	d.does(d.m.Slow(d.ctx, 0, 4<<20))
	d.sees(`imgbuild: rootfs \d+%`)
	d.does(d.m.Eject(d.ctx, 0))
	begun := time.Now()
	d.saysItIsGone("/dev/sr")
	t.Logf("it was noticed after %v", time.Since(begun).Round(time.Second))
}

// What runs from memory needs its medium no more.
func TestALiveSystemOutlivesItsMedium(t *testing.T) {
	for _, bus := range []testvm.Bus{testvm.CD, testvm.USB} {
		t.Run(string(bus), func(t *testing.T) {
			d := sitAt(t, testvm.Config{Name: "outlives-" + string(bus), Disks: []testvm.Disk{{Path: medium(t), Bus: bus, ReadOnly: true}}, Boot: kernelFor("E2E-1")})
			d.sees(`starting the system that runs from memory`)
			if bus == testvm.CD {
				d.does(d.m.Eject(d.ctx, 0))
			} else {
				d.does(d.m.Unplug(d.ctx, 0))
			}
			d.does(d.m.Console().Login(d.ctx, "root", testvm.DemoPassword))
			out, err := inLive(d.ctx, d.m.Console(), "findmnt -no FSTYPE /", "cat /proc/mounts", "find / -xdev -type f -size -64k -exec cat {} + | wc -c", "systemctl is-system-running --wait")
			d.does(err)
			t.Logf("%s", out)
			if !strings.Contains(out, "overlay\n") || strings.Contains(out, "iso9660") || !strings.Contains(out, "\nrunning\n") || strings.Contains(out, "Input/output error") {
				t.Error("it does not run as if nothing had happened")
			}
		})
	}
}

// The medium starts what is on the machine's own disk, by BIOS as the first one, where it expects to be, and by UEFI as the next entry.
func TestTheMediumBootsTheLocalDisk(t *testing.T) {
	for _, c := range []struct {
		firmware testvm.Firmware
		bus      testvm.Bus
		says     string
	}{{testvm.BIOS, testvm.CD, "local disk 80"}, {testvm.BIOS, testvm.USB, "local disk 80"}, {testvm.UEFI, testvm.CD, "local disk by EFI"}, {testvm.UEFI, testvm.USB, "local disk by EFI"}} {
		t.Run(fmt.Sprintf("%s, %s", c.firmware, c.bus), func(t *testing.T) {
			local := localDisk(t)
			d := sitAt(t, testvm.Config{Name: fmt.Sprintf("local-%s-%s", c.firmware, c.bus), Firmware: c.firmware,
				Disks: []testvm.Disk{{Path: medium(t), Bus: c.bus, ReadOnly: true}, {Path: local, Bus: testvm.SATA}}})
			d.chooses(entryLocal)
			d.sees(c.says)
		})
	}
}

// localDisk is a disk that says so when it is started: a boot sector that also writes the number that the BIOS calls it by, and a GRUB
// for EFI that does so.
func localDisk(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	dir := t.TempDir()
	disk, esp := filepath.Join(dir, "local.img"), filepath.Join(dir, "esp.img")
	write := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, out)
		}
	}
	// The image's own GRUB, as it is on the medium.
	said, err := exec.CommandContext(t.Context(), "sfdisk", "--json", medium(t)).Output()
	write(err)
	var table struct {
		PartitionTable struct {
			Partitions []struct{ Start int64 }
		}
	}
	write(json.Unmarshal(said, &table))
	run("mcopy", "-s", "-i", fmt.Sprintf("%s@@%d", medium(t), table.PartitionTable.Partitions[1].Start*512), "::/EFI", dir)
	for _, place := range []string{"BOOT", filepath.Base(shared.manifest.BootLoader.GRUB.ConfigDir)} {
		write(os.WriteFile(filepath.Join(dir, "EFI", place, "grub.cfg"), []byte("echo local disk by EFI\nsleep 600\n"), 0o600))
	}
	write(testvm.CreateDisk(esp, 16<<20))
	run("mkfs.vfat", "-F", "16", "-s", "1", esp)
	run("mcopy", "-s", "-i", esp, filepath.Join(dir, "EFI"), "::/")
	write(testvm.CreateDisk(disk, 64<<20))
	run("sgdisk", "-n", "1:2048:+16M", "-t", "1:ef00", disk)
	system, err := os.ReadFile(esp)
	write(err)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	write(err)
	_, err = f.WriteAt(system, 2048*512)
	write(err)
	_, err = f.WriteAt(bootSector("local disk "), 0)
	write(err)
	write(f.Close())
	return disk
}

// bootSector is code for the first 440 bytes of a disk, which a BIOS starts at 7C00 with the drive's number in DL. It writes a text and
// that number, in hexadecimal, to the first serial port, and stops.
func bootSector(text string) []byte {
	return append([]byte{
		0xfa,       // cli
		0x31, 0xc0, // xor %ax,%ax
		0x8e, 0xd8, // mov %ax,%ds
		0x88, 0xd3, // mov %dl,%bl
		0xfc,             // cld
		0xbe, 0x43, 0x7c, // mov $0x7c43,%si
		0xac,       // lods %ds:(%si),%al
		0x84, 0xc0, // test %al,%al
		0x74, 0x05, // je 0x15
		0xe8, 0x21, 0x00, // call 0x34
		0xeb, 0xf6, // jmp 0xb
		0x88, 0xd8, // mov %bl,%al
		0xc0, 0xe8, 0x04, // shr $0x4,%al
		0xe8, 0x0f, 0x00, // call 0x2c
		0x88, 0xd8, // mov %bl,%al
		0x24, 0x0f, // and $0xf,%al
		0xe8, 0x08, 0x00, // call 0x2c
		0xb0, 0x0a, // mov $0xa,%al
		0xe8, 0x0b, 0x00, // call 0x34
		0xf4,       // hlt
		0xeb, 0xfd, // jmp 0x29
		0x3c, 0x0a, // cmp $0xa,%al
		0x72, 0x02, // jb 0x32
		0x04, 0x07, // add $0x7,%al
		0x04, 0x30, // add $0x30,%al
		0x50,             // push %ax
		0xba, 0xfd, 0x03, // mov $0x3fd,%dx
		0xec,       // in (%dx),%al
		0xa8, 0x20, // test $0x20,%al
		0x74, 0xfb, // je 0x38
		0x58,             // pop %ax
		0xba, 0xf8, 0x03, // mov $0x3f8,%dx
		0xee, // out %al,(%dx)
		0xc3, // ret
	}, text+"\x00"...)
}

// Nobody types but to choose the entry: the answers on the medium install, with no network, and the disk boots alone.
func TestTheMediumInstallsAsItsAnswersSay(t *testing.T) {
	if testing.Short() {
		t.Skip("only in make e2e")
	}
	s := scenario(t, "answers", testvm.Disk{Bus: testvm.SATA, Serial: "E2EANSWERS"})
	s.DiskBytes = 8 << 30
	other := filepath.Join(t.TempDir(), "other.img")
	for _, path := range []string{s.Disks[0].Path, other} {
		if err := testvm.CreateDisk(path, s.DiskBytes); err != nil {
			t.Fatal(err)
		}
	}
	before, err := testvm.HashDisk(other)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"disks": []string{"E2EANSWERS"}, "layout": map[string]string{"preset": "simple"}, "done": "poweroff",
		"host": map[string]any{"hostname": "by-answers.example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, iso := filepath.Join(dir, "node1.json"), filepath.Join(dir, "node1.iso")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), "../../build/imgbuild", "answers", file, medium(t), iso).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	t.Logf("imgbuild answers says:\n%s", said)
	d := sitAt(t, testvm.Config{Name: "answers-medium", Disks: []testvm.Disk{{Path: iso, Bus: testvm.CD}, s.Disks[0], {Path: other, Bus: testvm.SATA, Serial: "E2EOTHER"}}})
	d.sees(`Install as the answer file on this medium says`)
	d.does(d.m.Console().Send("\x1b[B\x1b[B\r"))
	d.sees(`imgbuild: answers: answers\.json`)
	d.sees(`imgbuild: done: the image is installed`)
	exit, err := d.m.Wait(d.ctx)
	if err != nil || !exit.PoweredOff() {
		t.Fatalf("it ended by %q, %v", exit.Reason, err)
	}
	if after, err := testvm.HashDisk(other); err != nil || after != before {
		t.Errorf("the disk that the answers do not name was written to, %v", err)
	}
	f, err := shared.host.BootDisk(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	mustBeGood(t, s, f)
	if f.Hostname != "by-answers.example.org" {
		t.Errorf("its host name is %q", f.Hostname)
	}
}
