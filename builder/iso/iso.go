// Package iso writes live.iso, the medium of a release: a signed release's directory, the loaders of its image and a FAT file system's
// worth of signed EFI programs come in; one ISO 9660 image goes out that BIOS and UEFI start from a CD, from a stick that it was
// copied to, and as a medium that a BMC shows. The release lies in its directory /imgbuild, under the names that it has anyway.
//
// xorriso writes it. go-diskfs writes good ISO 9660 with El Torito for both firmwares, but no partition tables into its first
// sectors, so that a second program had to patch the result into something that a stick boots from, and the EFI image would lie there
// as a file that no partition holds. xorriso lays files, boot catalogue, MBR code, GPT and the EFI system partition in one pass over
// the data, and is what Enterprise Linux's own media are made with; the layout here is theirs (EL 10).
//
// GRUB is the loader for BIOS as it is for UEFI: one menu, in one language, serves both, and EL 10 has no syslinux.
//
// It never compresses or changes a file of the release, never decides what the release is, and leaves nothing half-made under the
// medium's name. The same release and the same programs give the same bytes.
package iso

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgbuild/builder/tool"
	"imgbuild/image"
)

// Paths on the medium.
const (
	menuFile = "boot/grub2/grub.cfg"
	coreFile = "boot/grub2/eltorito.img"
)

// Types of partitions: an EFI system partition, and data of any kind, which is what operating systems leave alone.
const (
	typeESP  = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeData = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
)

// Medium is what is written.
type Medium struct {
	Manifest *image.Manifest
	// Dir is the directory with the manifest's files, the manifest and its signature.
	Dir string
	// BIOS is nil for a medium that BIOS machines do not start from, UEFI for one that UEFI machines do not.
	BIOS *BIOS
	UEFI *UEFI
}

// BIOS is GRUB for BIOS.
type BIOS struct {
	// Core is what CoreArgs make.
	Core []byte
	// MBR is boot_hybrid.img, the code of the first sector of a stick.
	MBR []byte
}

// UEFI are the EFI programs, as they are signed.
type UEFI struct {
	// Shim is the first-stage loader; empty if GRUB is started directly.
	Shim []byte
	// Loader is GRUB.
	Loader []byte
	// MokManager is shim's key manager; empty if there is none.
	MokManager []byte
}

// CoreArgs are what follows grub2-mkimage, which writes BIOS.Core to the file out: a pipe it takes for a failure. The core has all that
// the menu uses, so that there are no modules on the medium. moduleDir is the directory i386-pc.
func CoreArgs(moduleDir, out string) []string {
	return []string{"-O", "i386-pc-eltorito", "-d", moduleDir, "-o", out, "-p", "/" + filepath.Dir(menuFile),
		"biosdisk", "iso9660", "part_gpt", "part_msdos", "normal", "configfile", "test", "echo", "sleep", "minicmd", "ls", "cat",
		"terminal", "serial", "search", "search_label", "linux", "chain", "drivemap", "boot", "reboot", "halt"}
}

// Write writes the medium to out, which is there whole or not at all; work is a directory for what is made on the way. step, if
// not nil, is told how many of a hundred parts are written.
func (m Medium) Write(ctx context.Context, run *tool.Runner, work, out string, step func(percent int)) error {
	return whole(work, out, func(work, part string) error {
		if err := m.check(); err != nil {
			return err
		}
		if err := m.prepare(ctx, run, work); err != nil {
			return err
		}
		c := tool.Command{Argv: m.argv(work, part), Env: m.env(), Dir: m.Dir}
		if step != nil {
			c.Line = progress(step)
		}
		return run.Run(ctx, c)
	})
}

// whole has a file written to another name first, so that out is there whole or not at all. write gets that name and a directory of
// its own below work.
func whole(work, out string, write func(work, part string) error) (err error) {
	fail := func(err error) error { return fmt.Errorf("write %s: %w", filepath.Base(out), err) }
	if work, err = os.MkdirTemp(work, "iso-"); err != nil {
		return fail(err)
	}
	part := out + ".part"
	if err = write(work, part); err == nil {
		err = os.Rename(part, out)
	}
	if err != nil {
		err = fail(err)
		if e := os.Remove(part); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, os.RemoveAll(work))
}

// check finds what no medium can be made of.
func (m Medium) check() error {
	if m.BIOS == nil && m.UEFI == nil {
		return errors.New("no machine would start from it: there is a loader neither for BIOS nor for UEFI")
	}
	if m.UEFI != nil && m.Manifest.BootLoader.GRUB == nil {
		return errors.New("the manifest does not say where the EFI GRUB looks for its configuration")
	}
	for _, name := range m.files() {
		st, err := os.Stat(filepath.Join(m.Dir, name))
		if err != nil {
			return fmt.Errorf("put the release onto it: %w", err)
		}
		if f, ok := m.Manifest.Files[name]; ok && f.Size != st.Size() {
			return fmt.Errorf("put the release onto it: %s has %d bytes, and the manifest says %d: build the release again", name, st.Size(), f.Size)
		}
	}
	return nil
}

// files are the names of the release's files, in order.
func (m Medium) files() []string {
	return append(slices.Sorted(maps.Keys(m.Manifest.Files)), image.ManifestFile, image.SignatureFile)
}

// Names of what prepare makes.
const (
	workMenu   = "grub.cfg"
	workFinder = "finder.cfg"
	workCore   = "eltorito.img"
	workMBR    = "boot_hybrid.img"
	workESP    = "efi.img"
)

// prepare makes what xorriso reads beside the release.
func (m Medium) prepare(ctx context.Context, run *tool.Runner, work string) error {
	write := func(name string, data []byte) error { return os.WriteFile(filepath.Join(work, name), data, 0o644) }
	err := write(workMenu, []byte(menu(m.Manifest)))
	if m.BIOS != nil {
		err = errors.Join(err, write(workCore, m.BIOS.Core), write(workMBR, m.BIOS.MBR))
	}
	if err != nil || m.UEFI == nil {
		return err
	}
	if err := write(workFinder, []byte(finder(Label(m.Manifest.Name, m.Manifest.Version)))); err != nil {
		return err
	}
	return m.systemPartition(ctx, run, work)
}

// env pins the time of all that is made.
func (m Medium) env() []string {
	return []string{"TZ=UTC0", "SOURCE_DATE_EPOCH=" + strconv.FormatInt(m.Manifest.Created, 10)}
}

// diskGUID is the same for the same release, and no other release's: a version 8 UUID (RFC 9562), which is made as one likes.
func diskGUID(m *image.Manifest) string {
	h := sha256.Sum256(fmt.Appendf(nil, "imgbuild medium\n%s\n%s\n%d\n", m.Name, m.Version, m.Created))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// argv is xorriso's command line, to be run in the release's directory.
func (m Medium) argv(work, out string) []string {
	date := time.Unix(m.Manifest.Created, 0).UTC().Format("20060102150405")
	argv := []string{"xorriso", "-as", "mkisofs", "-o", out,
		"-V", Label(m.Manifest.Name, m.Manifest.Version), "-sysid", "LINUX", "-appid", "IMGBUILD",
		"-iso-level", "3", "-r", // files above 4 GiB; names as they are, root's
		"--modification-date=" + date + "00", "--set_all_file_dates", date + "00",
		"-c", "boot.catalog", "--boot-catalog-hide",
		// A partition that begins behind the tables and holds the same file system: what looks for partitions finds the label too.
		"-partition_offset", "16",
	}
	if m.BIOS != nil {
		argv = append(argv, "--grub2-mbr", filepath.Join(work, workMBR), "--mbr-force-bootable",
			"-b", coreFile, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info")
	}
	if m.UEFI != nil {
		argv = append(argv, "-append_partition", "2", typeESP, filepath.Join(work, workESP), "-appended_part_as_gpt",
			"-iso_mbr_part_type", typeData, "--gpt_disk_guid", diskGUID(m.Manifest))
		if m.BIOS != nil {
			argv = append(argv, "-eltorito-alt-boot")
		}
		argv = append(argv, "-e", "--interval:appended_partition_2:all::", "-no-emul-boot")
	}
	argv = append(argv, "-graft-points", "/"+menuFile+"="+escaped(filepath.Join(work, workMenu)))
	if m.UEFI != nil {
		for _, dir := range m.configDirs() {
			argv = append(argv, "/"+escaped(dir)+"/grub.cfg="+escaped(filepath.Join(work, workFinder)))
		}
	}
	if m.BIOS != nil {
		argv = append(argv, "/"+coreFile+"="+escaped(filepath.Join(work, workCore)))
	}
	for _, name := range m.files() {
		argv = append(argv, "/"+image.MediumDir+"/"+escaped(name)+"="+escaped("./"+name))
	}
	return argv
}

// escaped makes a path one half of a graft point.
func escaped(path string) string { return strings.NewReplacer(`\`, `\\`, "=", `\=`).Replace(path) }

var written = regexp.MustCompile(`^xorriso : UPDATE :\s+(\d{1,3})(?:\.\d+)?% done`)

// progress reads what xorriso says while it writes.
func progress(step func(int)) func(string) {
	return func(line string) {
		if p := written.FindStringSubmatch(line); p != nil {
			n, _ := strconv.Atoi(p[1]) // the pattern has digits only
			step(min(n, 100))
		}
	}
}
