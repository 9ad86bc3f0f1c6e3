package initramfs

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
)

const testRelease = "5.14.0-503.el9.x86_64"

// modulesDir is where the modules of testRelease lie in a test's root.
const modulesDir = "usr/lib/modules/" + testRelease + "/"

// elfWith is an ELF file of one section beside the table of names, or only that table for an empty name.
func elfWith(fileType elf.Type, section string, content []byte) []byte {
	const headerSize, sectionSize = 64, 64
	names := []byte("\x00.shstrtab\x00" + section + "\x00")
	contentAt := uint64(headerSize)
	namesAt := contentAt + uint64(len(content))
	tableAt := namesAt + uint64(len(names))
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names)), Addralign: 1},
	}
	if section != "" {
		sections = append(sections, elf.Section64{Name: 11, Type: uint32(elf.SHT_PROGBITS), Off: contentAt, Size: uint64(len(content)), Addralign: 1})
	}
	header := elf.Header64{
		Type: uint16(fileType), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Shoff: tableAt,
		Ehsize: headerSize, Phentsize: 56, Shentsize: sectionSize, Shnum: uint16(len(sections)), Shstrndx: 1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	var out bytes.Buffer
	for _, part := range []any{header, content, names, sections} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			panic(err) // a bytes.Buffer takes everything
		}
	}
	return out.Bytes()
}

// module is a kernel module that says the given key=value fields of itself.
func module(fields ...string) []byte {
	return elfWith(elf.ET_REL, ".modinfo", []byte(strings.Join(append(fields, "license=GPL"), "\x00")+"\x00"))
}

// staticProgram is an ELF program without a loader.
func staticProgram() []byte { return elfWith(elf.ET_EXEC, "", nil) }

// packed is data compressed as the suffix says.
func packed(t *testing.T, suffix string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	case ".gz":
		w = gzip.NewWriter(&out)
	default:
		return data
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// rootWith makes an image root: path -> content; a path that ends in "@" is a symbolic link to its content. Module
// paths that end in .xz, .zst or .gz are compressed.
func rootWith(t *testing.T, files map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	if _, own := files["lib@"]; !own {
		files["lib@"] = []byte("usr/lib")
	}
	for name, content := range files {
		link := strings.HasSuffix(name, "@")
		path := filepath.Join(root, strings.TrimSuffix(name, "@"))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(string(content), path)
		default:
			err = os.WriteFile(path, packed(t, packedSuffix(name), content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// kernelFiles are a small kernel: some modules of each class, one needing others in every way there is.
func kernelFiles() map[string][]byte {
	at := func(rel string) string { return modulesDir + "kernel/" + rel }
	return map[string][]byte{
		at("fs/ext4/ext4.ko.xz"):                           module("depends=jbd2,mbcache", "alias=fs-ext4", "softdep=pre: special-sums"),
		at("fs/jbd2/jbd2.ko.xz"):                           module("depends="),
		at("fs/mbcache.ko.zst"):                            module("depends="),
		at("crypto/sums.ko"):                               module("alias=special-sums", "alias=crc32c"),
		at("drivers/net/virtio_net.ko.gz"):                 module("depends=net_failover", "alias=virtio:d00000001v*"),
		at("drivers/net/net_failover.ko"):                  module("depends=failover"),
		at("net/core/failover.ko"):                         module(),
		at("drivers/net/ethernet/broadcom/bnx2.ko.xz"):     module("alias=pci:v000014E4d0000163Asv*sd*bc*sc*i*", "firmware=bnx2/bnx2-mips-09-6.2.1b.fw", "firmware=bnx2/gone.fw"),
		at("drivers/net/ethernet/mellanox/mlx4_core.ko"):   module("depends="),
		at("drivers/net/ethernet/mellanox/mlx4_en.ko"):     module("depends=mlx4_core"),
		at("drivers/net/ethernet/mellanox/mlxsw_core.ko"):  module(),
		at("drivers/net/ethernet/8390/ne2k-pci.ko"):        module(),
		at("drivers/net/wireless/iwlwifi.ko"):              module(),
		at("drivers/scsi/megaraid/megaraid_sas.ko"):        module("depends=scsi_mod"),
		at("drivers/scsi/scsi_mod.ko"):                     module(),
		at("drivers/scsi/scsi_debug.ko"):                   module("depends=scsi_mod"),
		at("drivers/block/virtio_blk.ko"):                  module("alias=virtio:d00000002v*"),
		modulesDir + "updates/megaraid_sas.ko":             module("depends=scsi_mod", "version=newer"),
		modulesDir + "modules.builtin":                     []byte("kernel/fs/squashfs/squashfs.ko\nkernel/drivers/base/regmap/regmap-core.ko\n"),
		modulesDir + "modules.order":                       []byte("kernel/net/core/failover.ko\nkernel/fs/jbd2/jbd2.ko\nkernel/fs/ext4/ext4.ko\n"),
		modulesDir + "config":                              []byte("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n"),
		"usr/lib/firmware/bnx2/bnx2-mips-09-6.2.1b.fw.xz":  []byte("firmware of a network card"),
		"usr/lib/firmware/intel/ice/ddp/ice-1.3.pkg":       []byte("package of a network card"),
		"usr/lib/firmware/intel/ice/ddp/ice.pkg@":          []byte("ice-1.3.pkg"),
		"usr/lib/firmware/" + testRelease + "/special.bin": []byte("special"),
		"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": []byte("certificates\n"),
		"etc/pki/tls/certs/ca-bundle.crt@":                 []byte("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
		"usr/share/syslinux/gptmbr.bin":                    []byte("boot code"),
		"usr/sbin/mkswap":                                  staticProgram(),
		"usr/sbin/mkfs.ext4":                               staticProgram(),
		"usr/sbin/dracut":                                  []byte("#!/bin/sh\n"),
		"etc/mke2fs.conf":                                  []byte("[defaults]\n"),
	}
}

// smallOptions are options that succeed with kernelFiles.
func smallOptions(root string) Options {
	return Options{
		Root: root, KernelRelease: testRelease, Installer: staticProgram(), PublicKey: []byte("key\n"), CACerts: []byte("own CA\n"),
		Network: []string{"server"}, Storage: []string{"server"}, Compression: Gzip,
	}
}

// unpackArchive reads a gzip-compressed archive: names in their order, and records by name.
func unpackArchive(t *testing.T, data []byte) ([]string, map[string]cpio.Record) {
	t.Helper()
	plain, err := unpack(".gz", data)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(plain)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	byName := map[string]cpio.Record{}
	for _, record := range records {
		if record.Name == cpio.Trailer {
			continue
		}
		names = append(names, record.Name)
		byName[record.Name] = record
	}
	return names, byName
}

// content is what a record holds.
func content(t *testing.T, records map[string]cpio.Record, name string) string {
	t.Helper()
	record, ok := records[name]
	if !ok {
		t.Fatalf("/%s is not in the archive", name)
	}
	data, err := io.ReadAll(io.NewSectionReader(record.ReaderAt, 0, int64(record.FileSize)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
