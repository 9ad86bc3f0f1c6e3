package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"imgbuild/profiles/strict"
	"imgbuild/server/ctl"
	"imgbuild/server/registry"
)

func (a *app) images() *cobra.Command {
	return &cobra.Command{
		Use:   "images",
		Short: "List what machines can be installed with",
		RunE:  a.run(none, func(c *cobra.Command, t *ctl.Tool, _ []string) error { return t.Images(c.Context()) }),
	}
}

func (a *app) queue() *cobra.Command {
	return &cobra.Command{
		Use:   "queue",
		Short: "List who installs now and who waits for it",
		RunE:  a.run(none, func(c *cobra.Command, t *ctl.Tool, _ []string) error { return t.Queue(c.Context()) }),
	}
}

func (a *app) token() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "API tokens of people and programs", Args: cobra.ArbitraryArgs, RunE: group}
	c.AddCommand(a.tokenCreate(), &cobra.Command{
		Use:   "list",
		Short: "List tokens; their secrets nobody can see",
		RunE:  a.run(none, func(c *cobra.Command, t *ctl.Tool, _ []string) error { return t.Tokens(c.Context()) }),
	}, &cobra.Command{
		Use:   "revoke NAME...",
		Short: "End tokens at once",
		RunE: a.run(atLeast("a token's name"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			return t.RevokeTokens(c.Context(), args)
		}),
	})
	return c
}

func (a *app) tokenCreate() *cobra.Command {
	var role, expires string
	roles := []string{string(registry.RoleRead), string(registry.RoleOperate), string(registry.RoleAdmin)}
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token for a person or program",
		Long: `create makes a token and prints its secret on standard output, this once. read may look, operate may write hosts and
make orders, admin may make tokens too. NAME is who appears in the diary.`,
		Example: `  (umask 077; imgctl token create ada --role operate --expires 90d > ada.token)`,
		RunE: a.run(exactly("one name"), func(c *cobra.Command, t *ctl.Tool, args []string) error {
			if !slices.Contains(roles, role) {
				return usageError{fmt.Errorf("--role %s: there are %s%s", role, strict.List(roles, "and"), strict.DidYouMean(role, roles))}
			}
			return t.CreateToken(c.Context(), args[0], role, expires)
		}),
	}
	c.Flags().StringVar(&role, "role", string(registry.RoleRead), "read, operate or admin")
	c.Flags().StringVar(&expires, "expires", "", "when it ends: 12h, 90d or 2026-12-31 (default: never)")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
	return c
}
