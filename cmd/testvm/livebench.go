package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"imgbuild/testvm/livebench"
)

func liveBenchCommand() *cobra.Command {
	var o livebench.Options
	var verbose bool
	c := &cobra.Command{
		Use:   "live-bench --release DIR",
		Short: "Measure how long a release takes to run from memory, and how much memory, beside dracut's live start",
		Long: `live-bench starts a machine that runs the release from memory, over HTTP, with the release's own initramfs and with ones that dracut
makes for the same kernel: with all drivers, and with the kernel modules of the release's own alone. It prints the seconds from the
kernel's first line on the console to the login prompt, part by part, and how much memory that took:
  kernel      until the kernel, which unpacks the initramfs, starts its first process
  until init  until the root file system is in memory and its first process says welcome
  system      from there to the login prompt
  touched     memory that the machine had ever used for anything by then, as this host has seen it
  in use      what it could not give to new programs when the boot was over: MemTotal less MemAvailable
  in files    what of that lies in file systems in memory: Shmem
Firmware and what comes before the kernel is left out: QEMU puts kernel and initramfs into memory.`,
		Example: `  testvm live-bench --release out/demo/1 --count 3`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Release == "" {
				return usageError{fmt.Errorf("live-bench needs --release; %s --help explains it", c.CommandPath())}
			}
			if o.Count < 1 {
				return usageError{fmt.Errorf("--count %d: it is 1 at least", o.Count)}
			}
			o.Out = c.OutOrStdout()
			if verbose {
				o.Log = func(l string) { fmt.Fprintln(c.ErrOrStderr(), l) } // a closed terminal is no reason to stop
			}
			return livebench.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Release, "release", "", "the release's directory")
	f.IntVar(&o.Count, "count", 1, "how often each is started, by turns")
	f.IntVar(&o.MemoryMiB, "memory", 2048, "MiB of memory")
	f.StringVar(&o.Dir, "dir", "/var/tmp", "where dracut's files are while it runs")
	f.StringVar(&o.Logs, "logs", "", "a directory for the consoles' transcripts")
	f.BoolVarP(&verbose, "verbose", "v", false, "show what dracut says, and where each system's start spent its time")
	return c
}
