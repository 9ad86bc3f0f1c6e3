// Command testvm runs QEMU machines: the demo, an installation, or a machine on your terminal; and makes the stand-in
// repository. All of it needs root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"imgbuild/testvm/storm"
)

// version is set by the linker; see the Makefile.
var version = "unknown"

// Exit codes, for scripts.
const (
	exitFailed = 1
	exitUsage  = 2 // the command line is wrong
)

// usageError marks an error that the person at the keyboard mends.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	var u usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, storm.ErrSaid):
		return exitFailed
	case errors.As(err, &u):
		fmt.Fprintln(os.Stderr, "testvm:", err)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "testvm: interrupted; machines and networks are gone")
		return exitFailed
	default:
		fmt.Fprintln(os.Stderr, "testvm:", err)
		return exitFailed
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "testvm",
		Short: "Run QEMU machines that install and boot releases",
		Long: `testvm runs machines in QEMU, under KVM where it works, on a bridge in a network namespace of their own with DHCP, TFTP
and HTTP beside it. It needs root, and leaves nothing behind but the files that it was asked for.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; %s --help lists the flags", err, c.CommandPath())}
	})
	root.AddCommand(demoCommand(), installCommand(), runCommand(), standinCommand(), stormCommand(), swarmCommand(), swarmMachineCommand(), liveBenchCommand())
	return root
}
