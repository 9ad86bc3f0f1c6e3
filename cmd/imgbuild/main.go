// Command imgbuild turns a profile into a release: kernel, mini initramfs, root file system, signed manifest.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker; see the Makefile.
var version = "unknown"

// Exit codes, for scripts.
const (
	exitFailed = 1 // the build failed
	exitUsage  = 2 // the command line or the profile is wrong
)

// usageError marks an error that the person at the keyboard mends, not the machine.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	var u usageError
	var e exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return int(e)
	case errors.As(err, &u):
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "imgbuild: interrupted; nothing was left behind and no release was written")
		return exitFailed
	default:
		fmt.Fprintln(os.Stderr, "imgbuild:", err)
		return exitFailed
	}
}

func rootCommand() *cobra.Command {
	var f buildFlags
	root := &cobra.Command{
		Use:   "imgbuild PROFILE",
		Short: "Build a CentOS-family image that machines install over the network",
		Long: `imgbuild turns a profile into a release that bare-metal machines boot and install from:
vmlinuz, a mini initramfs with the installer, rootfs.squashfs and a signed manifest.

PROFILE is a YAML file, or the name of a profile that comes with imgbuild (imgbuild profiles).
The release is written to out/<name>/<version>/ when it is complete, and not before.`,
		Example: `  imgbuild centos-stream-9          build a shipped profile
  imgbuild web.yaml                 build your own
  imgbuild plan web.yaml            what would be done; needs neither root nor network
  imgbuild layout web.yaml --disk size=480G
                                    what would become of such a disk
  imgbuild validate web.yaml        every mistake, with line and column`,
		Args:          cobra.ArbitraryArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			if err := oneProfile(c, args); err != nil {
				return err
			}
			return f.build(c.Context(), args[0])
		},
	}
	f.register(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("imgbuild: %w; %s --help lists the flags", err, c.CommandPath())}
	})
	root.AddCommand(planCommand(), layoutCommand(), validateCommand(), showCommand(), schemaCommand(), profilesCommand(), keygenCommand(), writeCommand(), answersCommand(), exportCommand())
	return root
}

// oneProfile demands exactly one argument, and says what it would be.
func oneProfile(c *cobra.Command, args []string) error {
	switch len(args) {
	case 1:
		return nil
	case 0:
		return usageError{fmt.Errorf("imgbuild: %s needs a profile: a YAML file, or a name that imgbuild profiles lists", c.Name())}
	default:
		return usageError{fmt.Errorf("imgbuild: one profile at a time, and %q is one too many; imgbuild --help lists the commands", args[1])}
	}
}
