package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"imgbuild/image/plan"
	"imgbuild/profiles/strict"
	"imgbuild/server/client"
	"imgbuild/server/ctl"
	"imgbuild/server/registry"
)

func (a *app) order() *cobra.Command {
	c := &cobra.Command{Use: "order", Short: "Orders to install machines", Args: cobra.ArbitraryArgs, RunE: group}
	c.AddCommand(a.orderInstall(), a.orderList(), a.orderShow(), a.orderCancel())
	return c
}

func (a *app) orderInstall() *cobra.Command {
	var o ctl.Install
	c := &cobra.Command{
		Use:   "install SN... --reason WHY [--image NAME[/VERSION]]",
		Short: "Order that machines be installed, once, at their next boot from the network",
		Long: `install makes an order for each machine. The machine takes it when it next boots from the network; an order serves
one boot and expires. A protected host has to be named twice: once more with --protected.

A disk that is sealed for another machine, or as protected, is not touched unless --unseal names the serial number on its seal; what
is on a disk otherwise is not, unless --wipe names the disk. imgctl plan shows beforehand what would happen.`,
		Example: `  imgctl order install SN1 SN2 --image web/2026.11 --reason 'new rack'
  imgctl order install - --image web --reason 'rebuild r12' < serials.txt
  imgctl order install DB1 --protected DB1 --unseal DB1 --image db --wipe /dev/sda --reason 'agreed with the DBAs'
  imgctl order install SN3 --layout mirror --disk WD-1234 --disk WD-1235 --done kexec --reason 'new disks'`,
		RunE: a.run(atLeast("a serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			if done := []string{"", "reboot", "kexec", "poweroff", "wait"}; !slices.Contains(done, o.Done) {
				return usageError{fmt.Errorf("--done %s: there are %s%s", o.Done, strict.List(done[1:], "and"), strict.DidYouMean(o.Done, done[1:]))}
			}
			if o.Transport != "" && !plan.Transport(o.Transport).Valid() {
				return usageError{fmt.Errorf("--transport %s: there are %s%s", o.Transport, strict.List(transports(), "and"), strict.DidYouMean(o.Transport, transports()))}
			}
			sns, err := t.SNs(args)
			if err != nil {
				return err
			}
			return t.Install(c.Context(), sns, o)
		}),
		ValidArgsFunction: a.completeSNs,
	}
	f := c.Flags()
	f.StringVar(&o.Image, "image", "", "what to install: name/version, or name for its newest (default: the host's image)")
	f.StringVar(&o.Reason, "reason", "", "why, in a few words; it is in the diary")
	diskFlags(c, &o.Disks, &o.Wipe, &o.Unseal, &o.Fresh, &o.Layout)
	f.StringVar(&o.Done, "done", "", "what the machine does after success: reboot (default), kexec, poweroff or wait")
	f.StringVar(&o.Transport, "transport", "", "how the root file system comes: relay, http or torrent (default: the server's way)")
	f.StringVar(&o.Expires, "expires", "", "when nobody needs to come any more: 2h, 3d or '2026-01-31 18:00' (default: the server's)")
	f.StringSliceVar(&o.Protected, "protected", nil, "name a protected host for the second time; several may be given")
	_ = c.RegisterFlagCompletionFunc("image", a.completeImages)
	_ = c.RegisterFlagCompletionFunc("protected", a.completeSNs)
	_ = c.RegisterFlagCompletionFunc("transport", cobra.FixedCompletions(transports(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("done", cobra.FixedCompletions([]string{"reboot", "kexec", "poweroff", "wait"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func transports() []string {
	return []string{string(plan.TransportRelay), string(plan.TransportHTTP), string(plan.TransportTorrent)}
}

// diskFlags are those that say what becomes of disks.
func diskFlags(c *cobra.Command, disks, wipe, unseal *[]string, fresh *bool, layout *string) {
	f := c.Flags()
	f.StringArrayVar(disks, "disk", nil, "install on this disk: serial number, WWN or path below /dev; several in the layout's order (default: as the layout says)")
	f.StringSliceVar(wipe, "wipe", nil, "this disk may be erased though something is on it; several may be given")
	f.StringSliceVar(unseal, "unseal", nil, "a disk whose seal names this serial number may be erased; several may be given")
	f.BoolVar(fresh, "fresh", false, "make anew what the layout would keep")
	f.StringVar(layout, "layout", "", "simple, lvm, server, mirror, or a YAML or JSON file with a layout (default: the host's, else the release's)")
	_ = c.RegisterFlagCompletionFunc("unseal", cobra.NoFileCompletions)
	_ = c.RegisterFlagCompletionFunc("disk", cobra.NoFileCompletions)
}

func (a *app) plan() *cobra.Command {
	var p ctl.Preview
	c := &cobra.Command{
		Use:   "plan SN [--image NAME[/VERSION]] [--layout PRESET|FILE]",
		Short: "Show what an installation of a machine would erase and write",
		Long: `plan orders a preview and waits for it. When the machine next boots from the network it looks at its disks, says what an installation
with the same flags would erase and write, and boots its disk. Nothing is written, and the host stays in the state that it has.
Ctrl-C ends the waiting and leaves the order: imgctl order show prints the preview later.

Exit code 1 says that there is no preview, or that the installation would be refused.`,
		Example: `  imgctl plan SN1
  imgctl plan SN1 --image db/2026.11 --layout raid.yaml --wipe /dev/sdb
  imgctl plan SN1 -o json`,
		RunE: a.run(exactly("one serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			return t.Preview(c.Context(), args[0], p)
		}),
		ValidArgsFunction: a.completeOneSN,
	}
	f := c.Flags()
	f.StringVar(&p.Image, "image", "", "what would be installed: name/version, or name for its newest (default: the host's image)")
	f.StringVar(&p.Reason, "reason", "", "why, in a few words; it is in the diary")
	diskFlags(c, &p.Disks, &p.Wipe, &p.Unseal, &p.Fresh, &p.Layout)
	f.StringVar(&p.Expires, "expires", "", "when nobody needs to come any more: 2h, 3d or '2026-01-31 18:00' (default: the server's)")
	f.BoolVar(&p.Leave, "no-wait", false, "order the preview and do not wait for it")
	_ = c.RegisterFlagCompletionFunc("image", a.completeImages)
	return c
}

func orderStates() []string {
	return []string{
		string(registry.OrderOpen), string(registry.OrderConsumed), string(registry.OrderDone),
		string(registry.OrderFailed), string(registry.OrderCancelled), string(registry.OrderExpired),
	}
}

func (a *app) orderList() *cobra.Command {
	q := client.OrderQuery{}
	var states []string
	c := &cobra.Command{
		Use:   "list [SN...]",
		Short: "List orders, the youngest first",
		RunE: a.run(anyNumber, func(c *cobra.Command, t *ctl.Tool, args []string) error {
			for _, s := range states {
				if !slices.Contains(orderStates(), s) {
					return usageError{fmt.Errorf("--state %s: there are %s%s", s, strict.List(orderStates(), "and"), strict.DidYouMean(s, orderStates()))}
				}
				q.States = append(q.States, registry.OrderState(s))
			}
			var sns []string
			if len(args) > 0 {
				var err error
				if sns, err = t.SNs(args); err != nil {
					return err
				}
			}
			return t.Orders(c.Context(), sns, q)
		}),
		ValidArgsFunction: a.completeSNs,
	}
	c.Flags().StringSliceVar(&states, "state", nil, "only orders in this state: open, consumed, done, failed, cancelled, expired; several may be given")
	c.Flags().IntVar(&q.Limit, "limit", 100, "this many at most, of each host where hosts are named")
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(orderStates(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) orderShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show ORDER|SN...",
		Short: "Print all of orders, by their IDs or, for a host's last one, by serial number",
		RunE: a.run(atLeast("an order's ID or a serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			names, err := t.SNs(args)
			if err != nil {
				return err
			}
			return t.ShowOrders(c.Context(), names)
		}),
		ValidArgsFunction: a.completeSNs,
	}
}

func (a *app) orderCancel() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "cancel ORDER|SN...",
		Short: "Take orders back, by their IDs or the serial numbers of their hosts",
		RunE: a.run(atLeast("an order's ID or a serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			names, err := t.SNs(args)
			if err != nil {
				return err
			}
			return t.Cancel(c.Context(), names, reason)
		}),
		ValidArgsFunction: a.completeSNs,
	}
	c.Flags().StringVar(&reason, "reason", "", "why, in a few words; it is in the diary")
	return c
}

func (a *app) watch() *cobra.Command {
	var o ctl.WatchOptions
	c := &cobra.Command{
		Use:   "watch [SN...]",
		Short: "Watch installations as they go",
		Long: `watch shows installations: a table that lives on a terminal, lines elsewhere, one JSON event a line with -o json.
Without serial numbers and rack it shows every host that installs. It goes on until Ctrl-C, over restarts of the server.`,
		RunE: a.run(anyNumber, func(c *cobra.Command, t *ctl.Tool, args []string) error {
			var sns []string
			if len(args) > 0 {
				var err error
				if sns, err = t.SNs(args); err != nil {
					return err
				}
			}
			if o.Wait && len(sns) == 0 && o.Rack == "" {
				return usageError{fmt.Errorf("%s: --wait needs serial numbers or a rack", c.CommandPath())}
			}
			return t.Watch(c.Context(), sns, o)
		}),
		ValidArgsFunction: a.completeSNs,
	}
	c.Flags().StringVar(&o.Rack, "rack", "", "the hosts of this rack")
	c.Flags().BoolVar(&o.Wait, "wait", false, "end when all of them have ended; exit code 1 if all failed, 3 if some did")
	return c
}

func (a *app) logs() *cobra.Command {
	var o ctl.LogOptions
	c := &cobra.Command{
		Use:   "logs SN",
		Short: "Read the log of a host's last installation, from order to first boot",
		RunE: a.run(exactly("one serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			if o.All && o.Order != "" {
				return usageError{fmt.Errorf("%s: give --all or --order, and not both", c.CommandPath())}
			}
			return t.Logs(c.Context(), args[0], o)
		}),
		ValidArgsFunction: a.completeOneSN,
	}
	c.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on with what happens, until Ctrl-C")
	c.Flags().StringVar(&o.Order, "order", "", "of this order")
	c.Flags().BoolVar(&o.All, "all", false, "everything that ever happened to the host")
	return c
}
