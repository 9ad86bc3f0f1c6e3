package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgbuild/profiles/strict"
	"imgbuild/server/client"
	"imgbuild/server/ctl"
	"imgbuild/server/ctl/hostfile"
	"imgbuild/server/registry"
)

func (a *app) hosts() *cobra.Command {
	c := &cobra.Command{Use: "hosts", Short: "The machines that the server knows", Args: cobra.ArbitraryArgs, RunE: group}
	c.AddCommand(a.hostsImport(), a.hostsExport(), a.hostsList(), a.hostsShow(), a.hostsSet(), a.hostsDelete())
	return c
}

// fileFormat reads --format; empty leaves it to the file.
func fileFormat(s string) (hostfile.Format, error) {
	if s != "" && !slices.Contains(hostfile.Formats(), s) {
		return "", usageError{fmt.Errorf("--format %s: there are %s%s", s, strict.List(hostfile.Formats(), "and"), strict.DidYouMean(s, hostfile.Formats()))}
	}
	return hostfile.Format(s), nil
}

func (a *app) hostsImport() *cobra.Command {
	var o ctl.ImportOptions
	var format string
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Write hosts down from a CSV, TSV, YAML or JSON file",
		Long: `import makes the server's hosts what a file says of them. The first line of a table names its columns: ` + strings.Join(hostfile.Fields(), ", ") + `
and metadata.KEY. Only sn is required. Fields and hosts that the file does not mention stay as they are; an empty cell, or null in
YAML, clears the field (but for oob.password). Lists are separated by blanks.

Every mistake is told with its line, all at once, and unless there is none nothing is written. What is so already is not written
again, so that a file can be imported as often as one likes.`,
		Example: `  imgctl hosts import servers.csv --dry-run     what would change
  imgctl hosts import servers.yaml
  imgctl hosts export | imgctl hosts import -`,
		RunE: a.run(exactly("one file, or - for standard input"), func(c *cobra.Command, t *ctl.Tool, args []string) (err error) {
			if o.Format, err = fileFormat(format); err != nil {
				return err
			}
			return t.Import(c.Context(), args[0], o)
		}),
	}
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "show what would change and write nothing")
	c.Flags().BoolVar(&o.Duplicates, "allow-duplicates", false, "take hosts with the same name, address or UUID")
	c.Flags().StringVar(&format, "format", "", "csv, tsv, yaml or json (default: by the file's name, then by its content)")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(hostfile.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// filter are the flags that choose hosts.
type filter struct {
	states []string
	q      client.HostQuery
}

func (f *filter) register(c *cobra.Command) {
	c.Flags().StringVar(&f.q.Image, "image", "", "only hosts with this image, by name or name/version")
	f.choose(c)
}

// choose are the flags whose names say the same everywhere.
func (f *filter) choose(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.states, "state", nil, "only hosts in this state: new, known, ordered, installing, installed, failed, lost; several may be given")
	c.Flags().StringVar(&f.q.Rack, "rack", "", "only hosts of this rack")
	c.Flags().StringVar(&f.q.Owner, "owner", "", "only hosts of this owner")
	c.Flags().StringVar(&f.q.Match, "match", "", "only hosts that have this in their serial number, name, address, MAC, model, owner or position")
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp))
}

func stateNames() []string {
	return []string{
		string(registry.New), string(registry.Known), string(registry.Ordered), string(registry.Installing),
		string(registry.Installed), string(registry.Failed), string(registry.Lost),
	}
}

func (f *filter) query() (client.HostQuery, error) {
	for _, s := range f.states {
		if !slices.Contains(stateNames(), s) {
			return f.q, usageError{fmt.Errorf("--state %s: there are %s%s", s, strict.List(stateNames(), "and"), strict.DidYouMean(s, stateNames()))}
		}
		f.q.States = append(f.q.States, registry.State(s))
	}
	return f.q, nil
}

func (a *app) hostsExport() *cobra.Command {
	var f filter
	var path, format string
	c := &cobra.Command{
		Use:   "export [SN...]",
		Short: "Write hosts into a file that import takes",
		Long:  "export writes what people write of hosts, as CSV, TSV, YAML or JSON. Passwords of management controllers are not in it: the server does not give them out.",
		RunE: a.run(anyNumber, func(c *cobra.Command, t *ctl.Tool, args []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			ff, err := fileFormat(format)
			if err != nil {
				return err
			}
			var sns []string
			if len(args) > 0 {
				if sns, err = t.SNs(args); err != nil {
					return err
				}
			}
			return t.Export(c.Context(), q, sns, path, ff)
		}),
		ValidArgsFunction: a.completeSNs,
	}
	f.register(c)
	c.Flags().StringVar(&path, "file", "", "the file; without it standard output")
	c.Flags().StringVar(&format, "format", "", "csv, tsv, yaml or json (default: by the file's name, else csv)")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(hostfile.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) hostsList() *cobra.Command {
	var f filter
	c := &cobra.Command{
		Use:   "list",
		Short: "List hosts",
		RunE: a.run(none, func(c *cobra.Command, t *ctl.Tool, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			return t.List(c.Context(), q)
		}),
	}
	f.register(c)
	c.Flags().IntVar(&f.q.Limit, "limit", 0, "this many at most")
	return c
}

func (a *app) hostsShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show SN...",
		Short: "Print all that is known of hosts",
		RunE: a.run(atLeast("a serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			sns, err := t.SNs(args)
			if err != nil {
				return err
			}
			return t.Show(c.Context(), sns)
		}),
		ValidArgsFunction: a.completeSNs,
	}
}

// split parts the serial numbers of a command line from its field=value words.
func split(args []string) (sns, assignments []string) {
	for _, a := range args {
		if strings.Contains(a, "=") {
			assignments = append(assignments, a)
		} else {
			sns = append(sns, a)
		}
	}
	return sns, assignments
}

// completeSet offers serial numbers and fields.
func (a *app) completeSet(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	words, directive := a.completeSNs(c, args, begun)
	if len(args) == 0 {
		return words, directive
	}
	for _, f := range hostfile.Fields() {
		if f != "sn" && strings.HasPrefix(f, begun) {
			words = append(words, f+"=")
		}
	}
	return words, directive | cobra.ShellCompDirectiveNoSpace
}

func (a *app) hostsSet() *cobra.Command {
	var create bool
	c := &cobra.Command{
		Use:   "set SN... FIELD=VALUE...",
		Short: "Change fields of hosts",
		Long: `set changes fields of hosts, and only if nobody else has changed the host meanwhile. FIELD= clears a field.
The fields are those of hosts import. Lists are separated by blanks; network, users, files and metadata are JSON.
layout is a preset (simple, lvm, server, mirror), JSON, or @FILE.`,
		Example: `  imgctl hosts set SN1 hostname=web1.example ip=10.0.0.5 netmask=24 gw=10.0.0.1
  imgctl hosts set SN1 SN2 rack=r12 'dns=10.0.0.2 10.0.0.3'
  imgctl hosts set SN1 metadata.role=web protect=true
  imgctl hosts set SN1 layout=@raid.yaml`,
		RunE: a.run(atLeast("a serial number and field=value"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			names, assignments := split(args)
			if len(assignments) == 0 {
				return usageError{fmt.Errorf("%s: give at least one field=value", c.CommandPath())}
			}
			sns, err := t.SNs(names)
			if err != nil {
				return err
			}
			return t.Set(c.Context(), sns, assignments, create)
		}),
		ValidArgsFunction: a.completeSet,
	}
	c.Flags().BoolVar(&create, "create", false, "write the host down if there is none")
	return c
}

func (a *app) approve() *cobra.Command {
	return &cobra.Command{
		Use:   "approve SN... [FIELD=VALUE...]",
		Short: "Make new machines known, with or without fields",
		Long: `A machine that made itself known is new, and nothing can be ordered for it. approve accepts it, and sets fields
on the way, as hosts set does.`,
		Example: `  imgctl hosts list --state new
  imgctl approve SN1 hostname=web1.example ip=10.0.0.5 netmask=24 gw=10.0.0.1`,
		RunE: a.run(atLeast("a serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			names, assignments := split(args)
			sns, err := t.SNs(names)
			if err != nil {
				return err
			}
			return t.Approve(c.Context(), sns, assignments)
		}),
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			return a.completeSet(c, args, begun)
		},
	}
}

func (a *app) hostsDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete SN...",
		Short: "Forget hosts; their events stay",
		RunE: a.run(atLeast("a serial number"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			sns, err := t.SNs(args)
			if err != nil {
				return err
			}
			return t.Delete(c.Context(), sns)
		}),
		ValidArgsFunction: a.completeSNs,
	}
}
