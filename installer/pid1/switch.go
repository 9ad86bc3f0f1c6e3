package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LiveRoot is where the worker mounts a system that is to take this one's place.
const LiveRoot = "/sysroot"

// inits are where a system has its first process, in the order in which they are looked for.
func inits() []string {
	return []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"}
}

// switchRoot makes dir the root, takes the file systems of the kernel and /run along, frees the memory of the initramfs, and becomes
// the new system's first process (switch_root(8)). It returns only if that fails; the old root is then still there, or the error
// says that it is not.
func (s *supervisor) switchRoot(dir string) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("start the live system: this is process %d and not the first", os.Getpid())
	}
	init, err := findInit(dir)
	if err != nil {
		return err
	}
	old, err := os.OpenRoot("/")
	if err != nil {
		return fmt.Errorf("start the live system: %w", err)
	}
	defer old.Close()
	s.consoles.Flush(5 * time.Second)
	s.watchdog.disarm()
	for _, m := range []string{"/dev", "/proc", "/sys", "/run"} {
		to := filepath.Join(dir, m)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return fmt.Errorf("start the live system: %w", err)
		}
		if err := unix.Mount(m, to, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("start the live system: take %s along: %w", m, err)
		}
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("start the live system: %w", err)
	}
	if err := unix.Mount(dir, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("start the live system: make %s the root: %w", dir, err)
	}
	if err := errors.Join(unix.Chroot("."), os.Chdir("/")); err != nil {
		return fmt.Errorf("start the live system: %w", err)
	}
	empty(old)
	signal.Reset() // what is ignored would stay so
	err = syscall.Exec(init, []string{init}, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux"})
	return fmt.Errorf("start the live system: %s: %w", init, err)
}

// findInit looks for the first process of a system, whose links lead from that system's root.
func findInit(dir string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("start the live system: %w", err)
	}
	defer root.Close()
	for _, init := range inits() {
		name, seen := init[1:], 0
		s, err := root.Lstat(name)
		for ; err == nil && s.Mode()&fs.ModeSymlink != 0 && seen < 8; seen++ {
			var to string
			if to, err = root.Readlink(name); err != nil {
				break
			}
			if !path.IsAbs(to) {
				to = path.Join(path.Dir(name), to)
			}
			name = path.Clean("/" + to)[1:]
			s, err = root.Lstat(name)
		}
		if err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0 {
			return init, nil
		}
	}
	return "", fmt.Errorf("start the live system: it has none of %v; build the image with systemd", inits())
}

// empty removes what is in the initramfs, and nothing of another file system: memory is all that it takes.
func empty(root *os.Root) {
	var top unix.Stat_t
	d, err := root.Open(".")
	if err != nil {
		return
	}
	err = unix.Fstat(int(d.Fd()), &top)
	d.Close()
	if err == nil {
		emptyDir(root, ".", top.Dev)
	}
}

// emptyDir removes what it can; what it cannot remove only takes memory.
func emptyDir(root *os.Root, dir string, device uint64) {
	d, err := root.Open(dir)
	if err != nil {
		return
	}
	entries, _ := d.ReadDir(-1)
	d.Close()
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		info, err := root.Lstat(name)
		if err != nil {
			continue
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Dev != device {
			continue
		}
		if info.IsDir() {
			emptyDir(root, name, device)
		}
		_ = root.Remove(name)
	}
}
