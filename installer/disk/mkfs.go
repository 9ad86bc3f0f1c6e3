package disk

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"imgbuild/image"
	"imgbuild/installer/tool"
)

// NewFSID makes the identifier of a new file system as it stands behind UUID= in fstab: a random UUID, or for vfat
// eight hex digits. It is chosen before the file system is made, so that everything that names it can be written.
func NewFSID(fs string) string {
	switch fs {
	case "":
		return ""
	case "vfat":
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails, see crypto/rand
		n := binary.LittleEndian.Uint32(b[:])
		return fmt.Sprintf("%04X-%04X", n>>16, n&0xffff)
	}
	return uuid.NewString()
}

// bootExt4 is mke2fs.conf(5) for a file system that extlinux reads: neither 64bit nor metadata_csum nor what came
// after. It names what is on rather than what is off, as older versions refuse names that they do not know.
const bootExt4 = `[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,dir_nlink,extra_isize
		inode_size = 256
	}
	small = {
		blocksize = 4096
	}
`

// Format makes the partition's file system with the identifier id on node. scratch is a directory for configuration.
// Partitions without a file system are left as they are.
func Format(ctx context.Context, run tool.Runner, p Placed, node, id, scratch string) error {
	argv, env, err := formatCommand(p, node, id, scratch)
	if err != nil || argv == nil {
		return err
	}
	if len(env) > 0 {
		if err := os.WriteFile(filepath.Join(scratch, "mke2fs.conf"), []byte(bootExt4), 0o644); err != nil {
			return fmt.Errorf("make file system: %w", err)
		}
	}
	if err := run.Run(ctx, env, argv...); err != nil {
		return fmt.Errorf("make %s file system for %s on %s: %w", p.FS, p.Mount, node, err)
	}
	return nil
}

func formatCommand(p Placed, node, id, scratch string) (argv, env []string, err error) {
	label := func(flag string) []string {
		if p.Label == "" {
			return nil
		}
		return []string{flag, p.Label}
	}
	switch p.FS {
	case "":
		return nil, nil, nil
	case "xfs":
		argv = append([]string{"mkfs.xfs", "-q", "-f", "-m", "uuid=" + id}, label("-L")...)
	case "ext4":
		argv = append([]string{"mkfs.ext4", "-q", "-F", "-U", id}, label("-L")...)
		if p.Role == image.RoleBoot {
			env = []string{"MKE2FS_CONFIG=" + filepath.Join(scratch, "mke2fs.conf")}
		}
	case "vfat":
		argv = append([]string{"mkfs.vfat", "-F", "32", "-i", strings.ReplaceAll(id, "-", "")}, label("-n")...)
	default:
		return nil, nil, fmt.Errorf("make file system for %s: there is no way to make %q", p.Mount, p.FS)
	}
	return append(argv, node), env, nil
}
