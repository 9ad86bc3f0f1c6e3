package main

import (
	"errors"

	"github.com/spf13/cobra"

	"imgbuild/server/ctl"
)

// swarm shows transfers.
func (a *app) swarm() *cobra.Command {
	watch := false
	c := &cobra.Command{
		Use:   "swarm [NAME[/VERSION]]",
		Short: "Show which machines read an image from which, and how fast",
		Long: `swarm shows, of an image or of all, how the root file system gets to the machines that install it: from the origin at the top to the
machines that read from it, and so on. A machine below ↓ reads from the one above it. FROM says where its bytes have come from, and,
after an exclamation mark, what is special:

  slow          it reads slowly: nobody reads from it
  serves-slow   others read slowly from it: nobody does any more
  suspected     one of two of which it will show which is slow
  bad           it has served chunks that were not as signed: nobody reads from it
  waits-disk    its disk is what it waits for
  other-source  it reads from another source than it is planned to
  silent        it has not been heard for a while`,
		Example: `  imgctl swarm web/2026.11
  imgctl swarm web --watch
  imgctl swarm -o json`,
		RunE: a.run(atMostOne, func(c *cobra.Command, t *ctl.Tool, args []string) error {
			image := ""
			if len(args) == 1 {
				image = args[0]
			}
			return t.Swarm(c.Context(), image, watch)
		}),
		ValidArgsFunction: a.completeImages,
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "draw it again and again, until Ctrl-C")
	return c
}

func atMostOne(args []string) error {
	if len(args) > 1 {
		return errors.New("give one image, or none for all")
	}
	return nil
}

// rates shows and changes limits.
func (a *app) rates() *cobra.Command {
	var o ctl.RateChange
	texts := make([]string, 3)
	c := &cobra.Command{
		Use:   "rates [--global RATE] [--per-subnet RATE] [--per-machine RATE] | --reset",
		Short: "Show or change how fast machines may read",
		Long: `rates shows the limits of transfers, after it has changed those that are given: bytes a second as 200MB or 190MiB, bits a second as
1Gbit, or none. Machines that read now follow within seconds. The limits hold for all servers of the registry, and over restarts,
until --reset goes back to the servers' configuration.`,
		Example: `  imgctl rates
  imgctl rates --global 5Gbit --per-machine 200MB
  imgctl rates --global none`,
		RunE: a.run(none, func(c *cobra.Command, t *ctl.Tool, _ []string) error {
			for i, f := range []struct {
				name string
				to   **string
			}{{"global", &o.Global}, {"per-subnet", &o.PerSubnet}, {"per-machine", &o.PerMachine}} {
				if c.Flags().Changed(f.name) {
					*f.to = &texts[i]
				}
			}
			return t.Rates(c.Context(), o)
		}),
	}
	f := c.Flags()
	f.StringVar(&texts[0], "global", "", "what leaves the server in all")
	f.StringVar(&texts[1], "per-subnet", "", "what enters a rack, or a subnet where hosts have no rack, from outside")
	f.StringVar(&texts[2], "per-machine", "", "what one machine reads")
	f.BoolVar(&o.Reset, "reset", false, "go back to the server's configuration")
	return c
}
