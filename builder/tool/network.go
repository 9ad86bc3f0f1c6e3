package tool

import (
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// start starts the program; without a network, from a thread that has left the host's for a new one.
func start(cmd *exec.Cmd, noNetwork bool) error {
	if !noNetwork {
		return cmd.Start()
	}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine, and with it its network namespace.
		runtime.LockOSThread()
		if err := leaveNetwork(); err != nil {
			done <- err
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}

// leaveNetwork moves the calling thread to a network namespace of its own and brings up the loopback device there:
// programs that talk to themselves over 127.0.0.1 go on working.
func leaveNetwork() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network without a way out (needs CAP_SYS_ADMIN): %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up the loopback device: %w", err)
	}
	return nil
}
