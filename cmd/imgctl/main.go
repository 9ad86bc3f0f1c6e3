// Command imgctl talks to an imgserve: hosts, orders, installations as they go, tokens.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"imgbuild/profiles/strict"
	"imgbuild/server/client"
	"imgbuild/server/ctl"
)

// version is set by the linker; see the Makefile.
var version = "unknown"

// Exit codes, for scripts.
const (
	exitFailed = 1 // nothing of it was done
	exitUsage  = 2 // the command line, the configuration or a file of hosts is wrong; nothing was done
	exitPartly = 3 // some of it was done
)

// usageError marks an error that the person at the keyboard mends, not the machine.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	a := &app{env: os.Getenv}
	err := a.root().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "imgctl:", sentence(ctx, a, err))
	return code(err)
}

// sentence is what is said of an error: with what to do, where that is not in it.
func sentence(ctx context.Context, a *app, err error) string {
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return "interrupted"
	case client.Denied(err) && a.settings.NoToken != "":
		return fmt.Sprintf("%s; %s", err, a.settings.NoToken)
	}
	return err.Error()
}

func code(err error) int {
	var mine usageError
	var usage *ctl.UsageError
	var config strict.Errors
	var partly *ctl.PartlyError
	switch {
	case errors.As(err, &mine), errors.As(err, &usage), errors.As(err, &config):
		return exitUsage
	case errors.As(err, &partly) && partly.Some():
		return exitPartly
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "imgctl",
		Short: "Hosts, install orders and installations of an imgserve",
		Long: `imgctl asks an imgserve. Which one, and with which token, it takes from flags, from the environment or from
~/.config/imgctl.yaml (keys: server, token or token_file, ca_file), in this order.

Where serial numbers are given, several may be, and - reads them from standard input, one a line.
Exit codes: 0 all done, 1 failed, 2 the command or a file is wrong and nothing was done, 3 some of it was done.`,
		Example: `  imgctl hosts import servers.csv --dry-run
  imgctl plan SN1
  imgctl order install SN1 SN2 --image web/2026.11 --reason 'new rack'
  imgctl watch --rack r12
  imgctl logs SN1 -f`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
	}
	a.register(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; %s --help lists the flags", err, c.CommandPath())}
	})
	root.AddCommand(a.hosts(), a.order(), a.plan(), a.live(), a.watch(), a.logs(), a.approve(), a.images(), a.queue(), a.swarm(), a.rates(), a.token())
	return root
}

// group is a command that only holds others.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, s := range c.Commands() {
		if s.IsAvailableCommand() {
			names = append(names, s.Name())
		}
	}
	return usageError{fmt.Errorf("there is no command %q%s; %s --help lists them", c.CommandPath()+" "+args[0], strict.DidYouMean(args[0], names), c.CommandPath())}
}
