package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"imgbuild/profiles"
)

// load reads a profile; what is wrong with it is the user's to mend.
func load(ctx context.Context, name string) (*profiles.Profile, error) {
	p, err := profiles.Load(ctx, name)
	var wrong profiles.Errors
	if errors.As(err, &wrong) {
		return nil, usageError{err}
	}
	return p, err
}

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate PROFILE...",
		Short: "Check profiles: every mistake, with line and column",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return oneProfile(c, args)
			}
			var errs []error
			for _, name := range args {
				p, err := load(c.Context(), name)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: good: image %s %s (%s, %d repositories)\n", name, p.Name, p.Version, p.Arch, len(p.Repositories))
			}
			return errors.Join(errs...)
		},
	}
}

func showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show PROFILE",
		Short: "Print a profile as it is after inheritance and with its defaults",
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneProfile(c, args); err != nil {
				return err
			}
			p, err := load(c.Context(), args[0])
			if err != nil {
				return err
			}
			text, err := p.YAML()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
}

func schemaCommand() *cobra.Command {
	var reference bool
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of profiles, for editors",
		Example: `  imgbuild schema > profile.schema.json
  # in a profile, for editors with the YAML language server:
  # yaml-language-server: $schema=profile.schema.json`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("imgbuild: schema takes no argument, and %q was given", args[0])}
			}
			make := profiles.Schema
			if reference {
				make = profiles.Reference
			}
			text, err := make()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	c.Flags().BoolVar(&reference, "reference", false, "print the reference of all keys as Markdown instead")
	return c
}

func profilesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "profiles",
		Short: "List the profiles that come with imgbuild",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("imgbuild: profiles takes no argument, and %q was given", args[0])}
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, name := range profiles.Shipped() {
				p, err := profiles.Load(c.Context(), name)
				var wrong profiles.Errors
				switch {
				case errors.As(err, &wrong):
					// A shipped profile may need something of the host, such as the stand-in's key.
					fmt.Fprintf(w, "%s\t(not usable now: %s)\n", name, wrong[0].Sentence)
				case err != nil:
					return err
				default:
					fmt.Fprintf(w, "%s\t%s\n", name, p.Description)
				}
			}
			return w.Flush()
		},
	}
}
