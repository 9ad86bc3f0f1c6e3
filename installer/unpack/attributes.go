package unpack

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgbuild/installer/squashfs"
)

// finish gives an open file or directory its owner, mode, extended attributes and times, in that order: changing the owner
// takes away setuid bits and capabilities. What is right already is left alone: on a file system with a journal each
// change costs more than to look.
func (u *unpacker) finish(fd int, in *squashfs.Inode) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	stranger := st.Uid != in.UID || st.Gid != in.GID
	if stranger {
		if err := unix.Fchown(fd, int(in.UID), int(in.GID)); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", in.UID, in.GID, err)
		}
	}
	if stranger || st.Mode&0o7777 != uint32(in.Mode) {
		if err := unix.Fchmod(fd, uint32(in.Mode)); err != nil {
			return fmt.Errorf("set mode %#o: %w", in.Mode, err)
		}
	}
	err := u.setXattrs(in, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil {
		return err
	}
	// utimensat(2) without a path sets the times of the descriptor, which x/sys/unix has no function for.
	ts := times(in)
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("set time: %w", e)
	}
	return nil
}

// firstMode is the mode with which a file is made that gets its data, owner and extended attributes next. It is the final
// one where that gives nobody anything that is not theirs yet: the owner is not a stranger's, and there is nothing to run
// as somebody else.
func (u *unpacker) firstMode(in *squashfs.Inode) uint32 {
	if in.UID != u.uid || in.GID != u.gid || in.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return 0o600
	}
	return uint32(in.Mode)
}

// finishNode is finish for what must not or cannot be opened: symbolic links, devices, FIFOs and sockets.
func (u *unpacker) finishNode(dir int, name string, in *squashfs.Inode) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	stranger := st.Uid != in.UID || st.Gid != in.GID
	if stranger {
		if err := unix.Fchownat(dir, name, int(in.UID), int(in.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", in.UID, in.GID, err)
		}
	}
	if in.Type != squashfs.Symlink && (stranger || st.Mode&0o7777 != uint32(in.Mode)) {
		if err := unix.Fchmodat(dir, name, uint32(in.Mode), 0); err != nil {
			return fmt.Errorf("set mode %#o: %w", in.Mode, err)
		}
	}
	err := u.setXattrs(in, func(attr string, value []byte) error {
		// There is no setxattr call relative to a directory in the kernels that this has to run on.
		return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name), attr, value, 0)
	})
	if err != nil {
		return err
	}
	ts := times(in)
	if err := unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// times are the access and modification time of an inode, for which squashfs has one number of whole seconds.
func times(in *squashfs.Inode) [2]unix.Timespec {
	ts := unix.NsecToTimespec(int64(in.MTime) * 1e9)
	return [2]unix.Timespec{ts, ts}
}

// setXattrs sets all extended attributes of an inode with set.
func (u *unpacker) setXattrs(in *squashfs.Inode, set func(name string, value []byte) error) error {
	id, ok := in.XattrID()
	if !ok {
		return nil
	}
	list, err := u.xattrList(id)
	if err != nil {
		return err
	}
	done, skipped := 0, 0
	for _, x := range list {
		err := set(x.Name, x.Value)
		switch {
		case err == nil:
			done++
		case errors.Is(err, unix.EOPNOTSUPP) && u.opts.SkipUnsupportedXattrs:
			skipped++
		case errors.Is(err, unix.EOPNOTSUPP):
			return fmt.Errorf("set extended attribute %s, which this file system or kernel does not support: %w", x.Name, err)
		default:
			return fmt.Errorf("set extended attribute %s: %w", x.Name, err)
		}
	}
	u.statMu.Lock()
	u.stats.Xattrs += done
	u.stats.XattrsSkipped += skipped
	u.statMu.Unlock()
	return nil
}
