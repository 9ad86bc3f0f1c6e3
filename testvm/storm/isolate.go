package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"imgbuild/testvm"
)

// ErrSaid is returned by Isolate for a program that failed and has said why itself.
var ErrSaid = errors.New("run boot storm in a network namespace of its own")

// Isolate runs a program, with its arguments, in a network namespace of its own, and waits for it. Sockets belong to the
// namespace of the thread that makes them: thousands of machines cannot take turns on one thread, as testvm.Namespace has
// them do. The program is told to end when ctx does, and ends with this process.
func Isolate(ctx context.Context, argv []string, out, errs io.Writer) error {
	if os.Geteuid() != 0 {
		return testvm.ErrRoot
	}
	// Pdeathsig is bound to the thread that starts the program.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return fmt.Errorf("%w: %w", ErrSaid, err)
	}
	if err != nil {
		return fmt.Errorf("run boot storm in a network namespace of its own: %w", err)
	}
	return nil
}
