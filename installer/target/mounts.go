package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// MountPoint is a directory on which a file system is mounted, and what that one's root directory shows.
type MountPoint struct {
	name     string
	mode     fs.FileMode
	uid, gid int
	label    []byte
}

// usualModes are the modes of mount points that are not everybody's to read, or are everybody's to write.
func usualModes() map[string]fs.FileMode {
	return map[string]fs.FileMode{"tmp": 0o777 | fs.ModeSticky, "var/tmp": 0o777 | fs.ModeSticky, "var/log/audit": 0o700}
}

// TakeMountPoint reads what the root directory of the file system that is mounted at mount shows. The image has been unpacked
// and has given it what it has for that directory. Where the image has no such directory, the mode and the label become those
// that a directory of this name usually has. root is the tree, with everything still mounted.
func TakeMountPoint(root *os.Root, mount string) (MountPoint, error) {
	p := MountPoint{name: strings.Trim(path.Clean("/"+mount), "/")}
	w, err := newWriter(root)
	if err == nil {
		err = p.take(w)
	}
	if err != nil {
		return MountPoint{}, fmt.Errorf("prepare the mount point /%s: %w", p.name, err)
	}
	return p, nil
}

func (p *MountPoint) take(w *writer) error {
	d, err := w.root.Open(p.name)
	if err != nil {
		return err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return err
	}
	p.uid, p.gid = int(st.Uid), int(st.Gid)
	if p.mode = fs.FileMode(st.Mode & 0o777); st.Mode&unix.S_ISVTX != 0 {
		p.mode |= fs.ModeSticky
	}
	if st.Mode&unix.S_ISGID != 0 {
		p.mode |= fs.ModeSetgid
	}
	// mkfs makes 0755, and an image never does for one of these.
	if usual, ok := usualModes()[p.name]; ok && p.mode == 0o755 {
		p.mode = usual
		if err := d.Chmod(usual); err != nil {
			return err
		}
	}
	if p.label, err = getLabel(d); err != nil || p.label != nil {
		return err
	}
	if p.label, err = w.labelFor(p.name, fs.ModeDir); err != nil || p.label == nil {
		return err
	}
	if err := unix.Fsetxattr(int(d.Fd()), selinux, p.label, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("label it: %w", err)
	}
	return nil
}

// Give gives the directory below what it showed, when that file system is no longer mounted: SELinux asks the directory for its
// label when the system mounts again. What the directory itself is mounted from must still be there.
func (p MountPoint) Give(root *os.Root) error {
	d, err := root.Open(p.name)
	if err != nil {
		return fmt.Errorf("finish the mount point /%s: %w", p.name, err)
	}
	defer d.Close()
	if err = errors.Join(d.Chown(p.uid, p.gid), d.Chmod(p.mode)); err == nil && p.label != nil {
		err = unix.Fsetxattr(int(d.Fd()), selinux, p.label, 0)
	}
	if err != nil {
		return fmt.Errorf("finish the mount point /%s: %w", p.name, err)
	}
	return nil
}
