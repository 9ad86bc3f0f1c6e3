package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"imgbuild/testvm"
	"imgbuild/testvm/storm"
)

func stormCommand() *cobra.Command {
	var o storm.Options
	var alone, verbose bool
	c := &cobra.Command{
		Use:   "storm --release DIR",
		Short: "Measure imgserve while thousands of simulated machines boot and install at the same time",
		Long: `storm starts imgserve with SQLite in a network namespace, writes hosts and orders into it, and plays that many machines from
DHCP to the report of their first boot, each from an address of its own. It prints for each kind of request how many a second
were answered, how long that took, and what processor time and memory it cost; then the same load against dnsmasq and nginx.
One wrong or missing answer ends it with an error. Clients and servers share the processors: compare figures of one run.`,
		Example: `  testvm storm --release out/demo/1 --machines 1000,10000`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Release == "" {
				return usageError{fmt.Errorf("storm needs --release; %s --help explains it", c.CommandPath())}
			}
			for _, n := range o.Machines {
				if n < 1 || n > storm.MostMachines {
					return usageError{fmt.Errorf("--machines %d: it can be 1 to %d", n, storm.MostMachines)}
				}
			}
			if o.Parallel < 1 || o.Slots < 1 {
				return usageError{fmt.Errorf("--parallel and --slots are 1 at least")}
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			if !alone {
				return storm.Isolate(c.Context(), slices.Concat([]string{self}, os.Args[1:], []string{"--alone"}), c.OutOrStdout(), c.ErrOrStderr())
			}
			for name, program := range map[string]*string{"imgserve": &o.Imgserve, "imgctl": &o.Imgctl} {
				if *program == "" {
					*program = filepath.Join(filepath.Dir(self), name)
				}
			}
			tools, err := testvm.FindTools(testvm.HostFinder(), 0)
			if err != nil {
				return err
			}
			if o.Dnsmasq = tools.Dnsmasq; o.Nginx == "" {
				o.Nginx, _ = exec.LookPath("nginx") // without it that part is left out
			}
			o.Out = c.OutOrStdout()
			if verbose {
				o.Log = func(l string) { fmt.Fprintln(c.ErrOrStderr(), l) } // a closed terminal is no reason to stop
			}
			return storm.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Release, "release", "", "the release's directory")
	f.IntSliceVar(&o.Machines, "machines", []int{1000, 10000}, "how many machines start: one storm for each number")
	f.IntVar(&o.Parallel, "parallel", 256, "how many of them ask at the same time")
	f.IntVar(&o.Slots, "slots", 50, "how many may install at the same time, where the queue is measured")
	f.StringSliceVar(&o.Trust, "trust", nil, "files with public keys of releases (default: imgserve's)")
	f.StringVar(&o.Imgserve, "imgserve", "", "the imgserve program (default: the one beside this program)")
	f.StringVar(&o.Imgctl, "imgctl", "", "the imgctl program (default: the one beside this program)")
	f.StringVar(&o.Nginx, "nginx", "", "the nginx program (default: the one of the PATH)")
	f.StringVar(&o.Dir, "dir", "/var/tmp", "where the databases are while it runs")
	f.BoolVarP(&verbose, "verbose", "v", false, "show what imgserve says")
	f.BoolVar(&alone, "alone", false, "this process is in a network namespace of its own")
	if err := f.MarkHidden("alone"); err != nil {
		panic(err) // the flag is there
	}
	return c
}
