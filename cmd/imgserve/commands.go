package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imgbuild/server"
	"imgbuild/server/config"
	"imgbuild/server/registry"
)

func checkCommand(f *flags) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "check", Args: noArgs,
		Short: "Try the configuration and look at the network; exit code 1 if anything is an error",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.load(c)
			if err != nil {
				return err
			}
			findings := server.Check(c.Context(), cfg)
			bad := 0
			for _, one := range findings {
				if one.Level == server.Error {
					bad++
				}
				if !asJSON {
					fmt.Fprintln(c.OutOrStdout(), one)
				}
			}
			if asJSON {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				if err := e.Encode(findings); err != nil {
					return fmt.Errorf("print findings: %w", err)
				}
			}
			if bad > 0 {
				return exitError(exitFailed)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return c
}

func configCommand(f *flags) *cobra.Command {
	var schema, reference bool
	c := &cobra.Command{
		Use: "config", Args: noArgs,
		Short: "Print the configuration that the server would go by, defaults included",
		RunE: func(c *cobra.Command, _ []string) error {
			if schema || reference {
				make := config.Schema
				if reference {
					make = config.Reference
				}
				text, err := make()
				if err != nil {
					return err
				}
				_, err = c.OutOrStdout().Write(text)
				return err
			}
			cfg, err := f.load(c)
			if err != nil {
				return err
			}
			text, err := cfg.YAML()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	c.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the file instead, for editors")
	c.Flags().BoolVar(&reference, "reference", false, "print the reference of all keys as Markdown instead")
	return c
}

// withStore opens the registry for one command, as the user whose it is: files that root makes in it would lock the server
// out.
func (f *flags) withStore(c *cobra.Command, use func(*registry.Store) error) error {
	cfg, err := f.loadFor(c, true)
	if err != nil {
		return err
	}
	if err := server.BecomeOwner(cfg); err != nil {
		return err
	}
	store, err := server.OpenRegistry(c.Context(), cfg)
	if err != nil {
		return err
	}
	return errors.Join(use(store), store.Close())
}

func backupCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the registry into a new file; the server may run meanwhile",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("imgserve: backup takes one argument: the file to write")}
			}
			cfg, err := f.loadFor(c, true)
			if err != nil {
				return err
			}
			if err := server.Backup(c.Context(), cfg, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "wrote %s; to go back to it, stop the server and put it in the database's place\n", args[0])
			return nil
		},
	}
}

func tokenCommand(f *flags) *cobra.Command {
	t := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke API tokens, in the database itself",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("imgserve: token has no command %q; there are create, list and revoke", args[0])}
			}
			return c.Help()
		},
	}
	t.AddCommand(tokenCreate(f), tokenList(f), tokenRevoke(f))
	return t
}

func tokenCreate(f *flags) *cobra.Command {
	var role string
	var life config.Duration
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token for a person or a program, and print its secret, this once",
		Long: `create makes a token for the person or program NAME, which stands in the diary with what is done with it. Roles: read looks,
operate also writes hosts and makes orders, admin also makes tokens. The secret is printed alone on standard output; only its hash is kept.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("imgserve: token create takes one argument: the name of who will use it")}
			}
			expires := time.Time{}
			if life > 0 {
				expires = time.Now().Add(time.Duration(life))
			}
			return f.withStore(c, func(s *registry.Store) error {
				secret, token, err := s.CreateToken(c.Context(), args[0], registry.Role(role), expires)
				var invalid *registry.Invalid
				if errors.As(err, &invalid) {
					return usageError{fmt.Errorf("imgserve: %w", err)}
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "token %s with the role %s; it is shown this once:\n", token.Name, token.Role)
				fmt.Fprintln(c.OutOrStdout(), secret)
				return nil
			})
		},
	}
	c.Flags().StringVar(&role, "role", "operate", "read, operate or admin")
	c.Flags().Var(durationFlag{&life}, "expires", "how long it counts, as 12h or 90d (default for ever)")
	return c
}

// durationFlag is a config.Duration on the command line.
type durationFlag struct{ d *config.Duration }

func (f durationFlag) Type() string { return "time" }

func (f durationFlag) String() string {
	if f.d == nil || *f.d == 0 {
		return ""
	}
	text, err := f.d.MarshalText()
	if err != nil {
		return ""
	}
	return string(text)
}

func (f durationFlag) Set(s string) error { return f.d.UnmarshalText([]byte(s)) }

func tokenList(f *flags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tokens", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return f.withStore(c, func(s *registry.Store) error {
				list, err := s.Tokens(c.Context())
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tROLE\tCREATED\tEXPIRES")
				for _, t := range list {
					expires := "never"
					if !t.Expires.IsZero() {
						expires = t.Expires.Local().Format(time.DateTime)
						if t.Expires.Before(time.Now()) {
							expires += " (expired)"
						}
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Name, t.Role, t.Created.Local().Format(time.DateTime), expires)
				}
				return w.Flush()
			})
		},
	}
}

func tokenRevoke(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a token's life at once",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("imgserve: token revoke takes one argument: the token's name")}
			}
			return f.withStore(c, func(s *registry.Store) error {
				err := s.RevokeToken(c.Context(), args[0])
				if errors.Is(err, registry.ErrNotFound) {
					return usageError{fmt.Errorf("imgserve: there is no token %q; imgserve token list shows them", args[0])}
				}
				if err == nil {
					fmt.Fprintf(c.OutOrStdout(), "token %s counts no more\n", args[0])
				}
				return err
			})
		},
	}
}
