package export

import (
	"fmt"
	"strings"
)

// Advice says what remains to be done for machines to run from the tree: the line of exports(5), and the kernel's arguments.
func (t Tree) Advice() string {
	// Root of a machine is root of its files; the tree is read-only, and labels go over NFS 4.2 alone, if at all.
	options := "ro,no_root_squash,no_subtree_check"
	if t.Manifest.SELinux != "disabled" {
		options += ",security_label"
	}
	text := fmt.Sprintf(`
For the kernel's NFS server, in /etc/exports, with the network of your machines; then exportfs -ra:
  %s 10.0.0.0/24(%s)
Arguments of the kernel, beside those of this release, with the address of this server:
  imgbuild.mode=live imgbuild.live.root=nfs:SERVER:%s
The release has to be built with initramfs: {modules: [nfs, nfsv3, nfsv4]} in its profile.
`, t.Path, options, t.Path)
	if len(t.Capabilities) > 0 {
		text += "File capabilities do not go over NFS, so that users other than root go without what these have by them:\n  " + strings.Join(t.Capabilities, "\n  ") + "\n"
	}
	return text
}
