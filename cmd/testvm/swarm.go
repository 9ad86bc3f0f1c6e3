package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/testvm/swarmnet"
)

// machineCommandName is the command that testvm swarm starts for each machine.
const machineCommandName = "swarm-machine"

func swarmCommand() *cobra.Command {
	var o swarmnet.Options
	var transports []string
	var rate, size string
	var verbose bool
	c := &cobra.Command{
		Use:   "swarm",
		Short: "Measure how long machines take that install at the same time, against what their cables can do",
		Long: `swarm starts imgserve and that many machines, each in a network namespace of its own behind a cable of the given rate, and has
them all fetch the same root file system at the same time: each from the origin (http), one from the other (relay), or by
BitTorrent (torrent). It prints when the last one had all bytes, what the cables allow at best, and what it cost. A machine is a
process with the installer's own code, which writes to a file what it gets and checks it.`,
		Example: `  testvm swarm --machines 1,4,8,16,32 --transport http,relay,torrent
  testvm swarm --machines 8 --transport relay --rate 8MB --size 256MiB`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			for _, t := range transports {
				if !plan.Transport(t).Valid() {
					return usageError{fmt.Errorf("--transport %s: it can be http, relay and torrent", t)}
				}
				o.Transports = append(o.Transports, plan.Transport(t))
			}
			for _, n := range o.Machines {
				if n < 1 || n > swarmnet.MostMachines-2 {
					return usageError{fmt.Errorf("--machines %d: it can be 1 to %d", n, swarmnet.MostMachines-2)}
				}
			}
			if o.Faulty != 0 && (o.Faulty < 5 || o.Faulty > swarmnet.MostMachines) {
				return usageError{fmt.Errorf("--faults %d: it can be 5 to %d, and 0", o.Faulty, swarmnet.MostMachines)}
			}
			if rate != "" {
				if o.Rate, err = layout.ParseBytes(rate); err != nil {
					return usageError{fmt.Errorf("--rate: %w", err)}
				}
			}
			if o.Size, err = layout.ParseBytes(size); err != nil {
				return usageError{fmt.Errorf("--size: %w", err)}
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o.Programs.Machine = []string{self, machineCommandName}
			for name, program := range map[string]*string{"imgserve": &o.Programs.Imgserve, "imgctl": &o.Programs.Imgctl} {
				if *program == "" {
					*program = filepath.Join(filepath.Dir(self), name)
				}
			}
			o.Out = c.OutOrStdout()
			if verbose {
				o.Log = func(l string) { fmt.Fprintln(c.ErrOrStderr(), l) } // a closed terminal is no reason to stop
			}
			return swarmnet.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.IntSliceVar(&o.Machines, "machines", []int{1, 4, 8, 16, 32}, "how many machines install: one run for each number")
	f.StringSliceVar(&transports, "transport", []string{"http", "relay", "torrent"}, "how the root file system comes: http, relay, torrent")
	f.IntVar(&o.Faulty, "faults", 0, "how many machines install while something goes wrong, once for each thing that can; 0 leaves that out")
	f.StringVar(&o.Image, "image", "", "a squashfs that one machine fetches, checks and unpacks, beside curl over the same cable")
	f.StringVar(&rate, "rate", "", "what each cable carries in a second, as 8MB (default: as much as the processors leave it to be the cable that is waited for)")
	f.StringVar(&size, "size", "256MiB", "the root file system's size; over http, divided by the number of machines")
	f.StringVar(&o.Programs.Imgserve, "imgserve", "", "the imgserve program (default: the one beside this program)")
	f.StringVar(&o.Programs.Imgctl, "imgctl", "", "the imgctl program (default: the one beside this program)")
	f.StringVar(&o.Dir, "dir", "/var/tmp", "where the files are while it runs")
	f.BoolVarP(&verbose, "verbose", "v", false, "show what imgserve and the machines say")
	return c
}

// swarmMachineCommand is one machine of testvm swarm.
func swarmMachineCommand() *cobra.Command {
	return &cobra.Command{
		Use: machineCommandName, Short: "Be one machine of testvm swarm", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			// What ends testvm swarm ends its machines, in order.
			return swarmnet.Machine(context.WithoutCancel(c.Context()), os.Stdin, os.Stdout)
		},
	}
}
