// Package sandbox keeps a build apart from the host. In goes a process that may do everything; out comes one with mounts
// and process IDs of its own, and image roots with just enough of /proc, /sys and /dev for scriptlets.
//
// It never changes the host's mounts, and whatever happens to the process, its mounts and children end with it.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Isolated reports whether this process is the first of its own PID namespace and its mounts do not propagate to
// anybody else's.
func Isolated() bool {
	if os.Getpid() != 1 {
		return false
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(info)) {
		if strings.Contains(line, " shared:") {
			return false
		}
	}
	return true
}

// Isolate starts this program again, with the same arguments, environment and files, in mount and PID namespaces of its
// own, waits for it, and returns its exit code with again = false. In the program that was started so, and where the
// process is alone already, it only sees to /proc and returns again = true: go on.
//
// Signals that ask the program to end are passed on. If this process dies in any way, the kernel kills the other, and
// with the first process of the namespace every process that it started; the mounts go with the last of them.
func Isolate() (again bool, exitCode int, err error) {
	if Isolated() {
		return true, 0, ownProc()
	}
	if os.Geteuid() != 0 {
		return false, 0, errors.New("a build needs root: it installs packages with their owners and mounts file systems; run it with sudo")
	}
	exe, err := os.Executable()
	if err != nil {
		return false, 0, fmt.Errorf("find this program: %w", err)
	}
	// The kernel's parent-death signal is tied to the thread, so it must not end before the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS, // os/exec makes the mounts private when they are unshared
		Pdeathsig:    syscall.SIGKILL,
	}
	asked := make(chan os.Signal, 8)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(asked)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EPERM) {
			return false, 0, fmt.Errorf("make mount and PID namespaces: %w; a build needs CAP_SYS_ADMIN, so run a container with --privileged", err)
		}
		return false, 0, fmt.Errorf("start %s in its own namespaces: %w", exe, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-asked:
			_ = cmd.Process.Signal(s)
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return false, 0, fmt.Errorf("wait for the build: %w", err)
			}
			state := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if state.Signaled() {
				return false, 128 + int(state.Signal()), nil
			}
			return false, state.ExitStatus(), nil
		}
	}
}

// ownProc makes /proc show this PID namespace, which programs that look at /proc/self rely on.
func ownProc() error {
	if self, err := os.Readlink("/proc/self"); err == nil && self == "1" {
		return nil
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc of the build's own PID namespace: %w; in a container, run it with --privileged", err)
	}
	return nil
}
