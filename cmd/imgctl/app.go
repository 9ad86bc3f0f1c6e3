package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgbuild/profiles/strict"
	"imgbuild/server/client"
	"imgbuild/server/ctl"
	"imgbuild/server/ctl/settings"
	"imgbuild/server/ctl/show"
)

// app is what all commands share.
type app struct {
	env      func(string) string
	settings settings.Settings

	server, tokenFile, ca, config, output string
	parallel                              int
}

func (a *app) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", "", "address of the imgserve, as http://10.0.0.1:8080 (environment: IMGCTL_SERVER)")
	f.StringVar(&a.tokenFile, "token-file", "", "file that holds the API token, readable by its owner alone (environment: IMGCTL_TOKEN_FILE, or the token in IMGCTL_TOKEN)")
	f.StringVar(&a.ca, "ca", "", "file with the CA certificates, in PEM, one of which has signed the server's (environment: IMGCTL_CA)")
	f.StringVar(&a.config, "config", "", "configuration file (default ~/.config/imgctl.yaml)")
	f.StringVarP(&a.output, "output", "o", "table", "how to print: table, json or yaml")
	f.IntVar(&a.parallel, "parallel", 16, "requests that are under way at the same time")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// connect finds the server and the token.
func (a *app) connect() (*client.Client, error) {
	path := a.config
	if path == "" {
		dir := cmp.Or(a.env("XDG_CONFIG_HOME"), filepath.Join(a.env("HOME"), ".config"))
		path = filepath.Join(dir, "imgctl.yaml")
	}
	s, err := settings.Find(settings.Given{
		ServerFlag: a.server, TokenFileFlag: a.tokenFile, CAFlag: a.ca,
		ServerEnv: a.env("IMGCTL_SERVER"), TokenEnv: a.env("IMGCTL_TOKEN"), TokenFileEnv: a.env("IMGCTL_TOKEN_FILE"), CAEnv: a.env("IMGCTL_CA"),
		Path: path, Must: a.config != "",
	})
	if err != nil {
		return nil, usageError{err}
	}
	a.settings = s
	c, err := client.New(client.Options{Server: s.Server, Token: s.Token, CA: s.CA, Agent: "imgctl/" + version, Connections: a.parallel, Proxy: http.ProxyFromEnvironment})
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// tool makes what does a command's work.
func (a *app) tool(c *cobra.Command) (*ctl.Tool, error) {
	formats := []string{string(show.Table), string(show.JSON), string(show.YAML)}
	if !slices.Contains(formats, a.output) {
		return nil, usageError{fmt.Errorf("--output %s: there are %s%s", a.output, strict.List(formats, "and"), strict.DidYouMean(a.output, formats))}
	}
	if a.parallel < 1 || a.parallel > 256 {
		return nil, usageError{fmt.Errorf("--parallel %d: it is a number from 1 to 256", a.parallel)}
	}
	cl, err := a.connect()
	if err != nil {
		return nil, err
	}
	size := func() (int, int) {
		w, h, err := term.GetSize(int(os.Stdout.Fd()))
		if err != nil || w <= 0 || h <= 0 { // some pseudo-terminals have no size
			return 80, 24
		}
		return w, h
	}
	dumb := a.env("TERM") == "dumb" || a.env("TERM") == ""
	return &ctl.Tool{
		Client: cl, In: c.InOrStdin(), Out: os.Stdout, Err: os.Stderr, Format: show.Format(a.output), Parallel: a.parallel,
		Live: !dumb && term.IsTerminal(int(os.Stdout.Fd())), LiveErr: !dumb && term.IsTerminal(int(os.Stderr.Fd())), Size: size,
		Now: time.Now, Zone: time.Local,
	}, nil
}

// run makes a command of a function that needs the tool. Wrong arguments are told before a server is looked for.
func (a *app) run(check func(args []string) error, do func(c *cobra.Command, t *ctl.Tool, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := check(args); err != nil {
			return usageError{fmt.Errorf("%s: %w", c.CommandPath(), err)}
		}
		t, err := a.tool(c)
		if err != nil {
			return err
		}
		return do(c, t, args)
	}
}

// none, atLeast and exactly check how many arguments there are.
func none(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("it takes no argument, and %q was given", args[0])
	}
	return nil
}

func atLeast(what string) func([]string) error {
	return func(args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("give %s; several may be given", what)
		}
		return nil
	}
}

func exactly(what string) func([]string) error {
	return func(args []string) error {
		switch {
		case len(args) == 0:
			return fmt.Errorf("give %s", what)
		case len(args) > 1:
			return fmt.Errorf("give %s; %q is one too many", what, args[1])
		}
		return nil
	}
}

func anyNumber([]string) error { return nil }

// The completions ask the server; where it cannot be asked, they offer nothing and say nothing.

const offered = 200 // completions at most

func (a *app) completeSNs(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	cl, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	hosts, err := cl.Hosts(c.Context(), client.HostQuery{After: before(begun), Limit: offered})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	for _, h := range hosts {
		if strings.HasPrefix(h.SN, begun) && !slices.Contains(args, h.SN) {
			words = append(words, h.SN+"\t"+strings.Join(strings.Fields(h.Hostname+" "+h.IP+" "+string(h.State)), " "))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// before is a text that is less than all that begin with s, and not less than what is less than those: serial numbers are
// printable ASCII.
func before(s string) string {
	if s == "" || s[len(s)-1] <= ' ' {
		return ""
	}
	return s[:len(s)-1] + string(s[len(s)-1]-1) + strings.Repeat("~", 64)
}

// completeOneSN is for commands that take one serial number.
func (a *app) completeOneSN(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeSNs(c, args, begun)
}

func (a *app) completeImages(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	cl, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	images, err := cl.Images(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	for _, i := range images {
		if strings.HasPrefix(i.ID(), begun) && i.Problem == "" {
			words = append(words, i.ID())
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
