// Package kexec starts a Linux kernel from the running one, without the firmware: the kernel that was installed, or that of the
// system which a disk already has.
//
// Open files and kernel arguments come in; a loaded kernel is left in the running one's memory, until Exec ends that. It finds
// out what an old system would start by reading its boot loader's configuration from file systems that it mounts read-only and
// without recovery. It never executes anything of such a system, and never writes to a disk.
package kexec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/installer/hw"
)

// Load gives the running kernel the next one. kernel and initrd are regular files or memory files; initrd is nil for none. args
// are the next kernel's arguments. A kernel that was loaded before is replaced.
func Load(kernel, initrd *os.File, args string) error {
	fd, flags := -1, unix.KEXEC_FILE_NO_INITRAMFS
	if initrd != nil {
		fd, flags = int(initrd.Fd()), 0
	}
	err := unix.KexecFileLoad(int(kernel.Fd()), fd, args, flags)
	runtime.KeepAlive(kernel)
	runtime.KeepAlive(initrd)
	if err != nil {
		return fmt.Errorf("load the next kernel: %w%s", err, reason(err))
	}
	return nil
}

// reason says what kexec_file_load(2) means by an error.
func reason(err error) string {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return ": the running kernel has no CONFIG_KEXEC_FILE"
	case errors.Is(err, unix.EPERM):
		return ": the running kernel is locked down (Secure Boot) or kernel.kexec_load_disabled is set"
	case errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.ENOKEY), errors.Is(err, unix.ENODATA), errors.Is(err, unix.EBADMSG):
		return ": the running kernel does not trust the next one's signature"
	case errors.Is(err, unix.ENOEXEC):
		return ": it is no kernel that the running one can start"
	case errors.Is(err, unix.EINVAL):
		return ": its arguments are too long, or it is no kernel that the running one can start"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EADDRNOTAVAIL):
		return ": there is too little memory"
	}
	return ""
}

const (
	loadedFile   = "/sys/kernel/kexec_loaded"
	disabledFile = "/proc/sys/kernel/kexec_load_disabled"
)

// Loaded reports whether a kernel is waiting for Exec.
func Loaded() bool {
	b, err := os.ReadFile(loadedFile)
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// Exec starts the kernel that Load has loaded. Nothing is unmounted and nothing is written out: that is the caller's. It returns
// only when it fails.
func Exec() error {
	if !Loaded() {
		return errors.New("start the next kernel: none is loaded")
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC); err != nil {
		return fmt.Errorf("start the next kernel: %w", err)
	}
	return errors.New("start the next kernel: the running one goes on")
}

// Supported returns why this machine cannot start another kernel, or nil. It loads nothing.
func Supported() error {
	return supported(os.ReadFile, func() error { return unix.KexecFileLoad(-1, -1, "", unix.KEXEC_FILE_NO_INITRAMFS) })
}

func supported(read func(string) ([]byte, error), try func() error) error {
	b, err := read(disabledFile)
	if err == nil && strings.TrimSpace(string(b)) != "0" {
		return errors.New("start another kernel: kernel.kexec_load_disabled is set")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start another kernel: %w", err)
	}
	// There is no such file: that is what the kernel says when it would load one.
	if err := try(); err != nil && !errors.Is(err, unix.EBADF) {
		return fmt.Errorf("start another kernel: %w%s", err, reason(err))
	}
	return nil
}

// Allowed returns why no other kernel is to be started on this machine, or nil. denied are models: globs over vendor and product
// with a blank between them, without regard to case, as "Dell Inc. PowerEdge R6?0*". A glob that is not one denies nothing.
func Allowed(denied []string, m hw.Machine) error {
	// path.Match treats slashes as path separators, and products have them in their names.
	plain := func(s string) string {
		return strings.ReplaceAll(strings.ToLower(strings.Join(strings.Fields(s), " ")), "/", "\x00")
	}
	model := plain(m.Vendor + " " + m.Product)
	for _, glob := range denied {
		if ok, err := path.Match(plain(glob), model); err == nil && ok {
			return fmt.Errorf("start another kernel: the image forbids that on machines like %q (kernel.no_kexec), and this is %s",
				glob, strings.TrimSpace(m.Vendor+" "+m.Product))
		}
	}
	return nil
}

// memory copies what is read from readers, one behind the other, into a file that is only in memory. It is rewound.
func memory(name string, limit int64, readers ...io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	n, err := io.Copy(f, io.LimitReader(io.MultiReader(readers...), limit+1))
	switch {
	case err == nil && n > limit:
		err = fmt.Errorf("it has more than %d MiB", limit>>20)
	case err == nil && n == 0:
		err = errors.New("it is empty")
	case err == nil:
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return f, nil
}
