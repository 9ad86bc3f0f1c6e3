package storage

import (
	"fmt"
	"strconv"
	"strings"

	"imgbuild/image/layout"
)

// bootReader is who reads a file system before a kernel does.
type bootReader string

const (
	readByNobody   bootReader = ""
	readByExtlinux bootReader = "extlinux"
	readByGRUB     bootReader = "grub"
)

// ext4 for boot loaders, as mke2fs.conf(5). Each names what is on rather than what is off, as older versions refuse names that
// they do not know. extlinux reads neither 64bit nor metadata_csum nor what came after. GRUB reads 64bit, and refuses
// metadata_csum_seed before 2.12, which newer mke2fs has in its defaults.
const (
	ext4Defaults = `[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	small = {
		blocksize = 4096
	}
	ext4 = {
		inode_size = 256
		features = has_journal,extent,huge_file,flex_bg,dir_nlink,extra_isize`
	ext4ForExtlinux = ext4Defaults + "\n\t}\n"
	ext4ForGRUB     = ext4Defaults + ",64bit\n\t}\n"
)

// mke2fsConf is the text of mke2fs.conf for a reader, empty for the system's own.
func mke2fsConf(r bootReader) string {
	switch r {
	case readByExtlinux:
		return ext4ForExtlinux
	case readByGRUB:
		return ext4ForGRUB
	}
	return ""
}

// mkfsTool is the program that makes a file system.
func mkfsTool(fs string) string {
	if fs == "swap" {
		return "mkswap"
	}
	return "mkfs." + fs
}

// mkfsArgs is the command that makes a file system with the identifier id on node, whose logical sectors have sector bytes.
func mkfsArgs(c layout.Content, id, node string, sector int) ([]string, error) {
	argv := []string{mkfsTool(c.FS)}
	label := "-L"
	switch c.FS {
	case "xfs":
		argv = append(argv, "-q", "-f", "-m", "uuid="+id)
	case "ext4":
		argv = append(argv, "-q", "-F", "-U", id)
	case "vfat":
		label = "-n"
		argv = append(argv, "-I", "-F", "32", "-S", strconv.Itoa(sector), "-i", strings.ReplaceAll(id, "-", ""))
	case "swap":
		argv = append(argv, "-f", "-U", id)
	default:
		return nil, fmt.Errorf("make file system on %s: there is no way to make %q", node, c.FS)
	}
	if c.Label != "" {
		argv = append(argv, label, c.Label)
	}
	argv = append(argv, c.Mkfs...)
	return append(argv, node), nil
}
