package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"imgbuild/server/ctl"
)

// live says which hosts run an image from memory.
func (a *app) live() *cobra.Command {
	var l ctl.Live
	var f filter
	c := &cobra.Command{
		Use:   "live [SN...]",
		Short: "Have hosts run an image from memory, or list those that do",
		Long: `live has hosts run an image from memory each time that they boot from the network and nothing is ordered for them: their disks
stay as they are, but for file systems that --persist names. Without --image it is each host's own image. Hosts are named by their
serial numbers, or chosen by --profile, --rack, --owner and --match; of those that are chosen, new ones are left out.

A host whose system runs goes on with it until it boots again. --off has it boot its disk then. Without anything to
change, live lists the hosts that run from memory, or are to.`,
		Example: `  imgctl live SN1 SN2 --image web
  imgctl live --rack r12 --image web/2026.11 --size 25% --persist /var=NODEVAR
  imgctl live --profile web                  every host whose image is web runs that from memory
  imgctl live SN1 --image web --root nfs:10.0.0.1:/srv/web
  imgctl live SN1 --off
  imgctl live`,
		RunE: a.run(anyNumber, func(c *cobra.Command, t *ctl.Tool, args []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			changed := func(names ...string) bool {
				for _, n := range names {
					if c.Flags().Changed(n) {
						return true
					}
				}
				return false
			}
			chosen := changed("profile", "rack", "owner", "match", "state")
			switch {
			case len(args) > 0 && chosen:
				return usageError{fmt.Errorf("%s: give serial numbers or what chooses hosts, and not both", c.CommandPath())}
			case len(args) == 0 && !chosen && changed("image", "size", "persist", "root", "off"):
				return usageError{fmt.Errorf("%s: give serial numbers, or choose hosts with --profile, --rack, --owner or --match", c.CommandPath())}
			case len(args) == 0 && !changed("profile", "image", "size", "persist", "root", "off"):
				return t.ListLive(c.Context(), q)
			}
			var sns []string
			if len(args) > 0 {
				if sns, err = t.SNs(args); err != nil {
					return err
				}
			}
			return t.SetLive(c.Context(), sns, q, l)
		}),
		ValidArgsFunction: a.completeSNs,
	}
	s := c.Flags()
	s.StringVar(&l.Image, "image", "", "what they run: name/version, or name for its newest version at each boot")
	s.StringVar(&l.Size, "size", "", "what the running system may write: bytes, as 4GiB, or a share of the memory, as 25% (default half of it)")
	s.StringArrayVar(&l.Persist, "persist", nil, "a directory that is kept, as /var=LABEL, on a file system of the machine with that label; several may be given")
	s.StringVar(&l.Root, "root", "", "nfs:SERVER:/PATH: the root file system is mounted from there, and not fetched into memory")
	s.BoolVar(&l.Off, "off", false, "they boot their disks again")
	s.StringVar(&f.q.Image, "profile", "", "hosts with this image of their own, by name or name/version")
	f.choose(c)
	_ = c.RegisterFlagCompletionFunc("image", a.completeImages)
	return c
}
