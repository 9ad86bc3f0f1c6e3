package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgbuild/builder"
	"imgbuild/builder/progress"
	"imgbuild/initramfs/installerbin"
	"imgbuild/profiles"
)

const (
	defaultCache = "/var/cache/imgbuild"
	defaultKey   = "/etc/imgbuild/release.key"
)

// exitError ends the program with a code and without a word: what there was to say has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

type buildFlags struct {
	out, cache, key string
	repos           []string
	json, force     bool
	verbose         bool
}

func (f *buildFlags) register(c *cobra.Command) {
	f.registerPlan(c)
	c.Flags().BoolVar(&f.json, "json", false, "print progress as JSON, one event a line")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print what a person debugging imgbuild wants to know")
}

func (f *buildFlags) registerPlan(c *cobra.Command) {
	c.Flags().StringVarP(&f.out, "out", "o", "out", "directory of releases; this one comes to <out>/<name>/<version>")
	c.Flags().StringVar(&f.cache, "cache", defaultCache, "directory that keeps packages and installed trees between builds")
	c.Flags().StringVar(&f.key, "key", defaultKey, "private key that signs the release; made if there is none")
	c.Flags().StringArrayVar(&f.repos, "repo", nil, "take repository `ID=URL` from another address; can be given more than once")
	c.Flags().BoolVar(&f.force, "force", false, "ask the repositories for newer packages, and build even if nothing has changed")
}

// options turns flags into the builder's options. What is wrong with them is the user's to mend.
func (f *buildFlags) options(ctx context.Context, name string) (builder.Options, error) {
	p, err := profiles.Load(ctx, name)
	var wrong profiles.Errors
	if errors.As(err, &wrong) {
		return builder.Options{}, usageError{err}
	}
	if err != nil {
		return builder.Options{}, err
	}
	repos := map[string]string{}
	for _, r := range f.repos {
		id, url, ok := strings.Cut(r, "=")
		if !ok || id == "" || url == "" {
			return builder.Options{}, usageError{fmt.Errorf("imgbuild: --repo %s is not of the form ID=URL", r)}
		}
		if _, ok := p.Repositories[id]; !ok {
			return builder.Options{}, usageError{fmt.Errorf("imgbuild: --repo %s: the profile has no repository %q; it has %s", r, id, strings.Join(slices.Sorted(maps.Keys(p.Repositories)), ", "))}
		}
		repos[id] = url
	}
	date, err := sourceDate(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return builder.Options{}, usageError{err}
	}
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	return builder.Options{
		Profile: p, Out: f.out, Cache: f.cache, KeyFile: f.key, Installer: installerbin.Get, RepoOverride: repos,
		SourceDate: date, Env: proxies(os.Environ()), Force: f.force, Report: f.reporter(os.Stdout),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}, nil
}

// sourceDate reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/).
func sourceDate(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("imgbuild: SOURCE_DATE_EPOCH is %q and not a number of seconds since 1970", s)
	}
	return time.Unix(n, 0), nil
}

// proxies picks the variables that dnf and scripts with a network are to see.
func proxies(env []string) []string {
	var kept []string
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		switch strings.ToLower(name) {
		case "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy":
			kept = append(kept, v)
		}
	}
	return kept
}

func (f *buildFlags) reporter(w *os.File) progress.Reporter {
	switch {
	case f.json:
		return progress.NewJSON(w)
	case term.IsTerminal(int(w.Fd())):
		return progress.NewTerminal(w)
	default:
		return progress.NewPlain(w)
	}
}

func (f *buildFlags) build(ctx context.Context, name string) error {
	o, err := f.options(ctx, name)
	if err != nil {
		return err
	}
	plan, err := builder.NewPlan(o)
	if err != nil {
		return err
	}
	again, code, err := builder.Isolate()
	if err != nil {
		return err
	}
	if !again {
		return exitError(code)
	}
	_, err = builder.Run(ctx, plan)
	return err
}

func planCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use:   "plan PROFILE",
		Short: "Print the stages of a build; needs neither root nor network",
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneProfile(c, args); err != nil {
				return err
			}
			o, err := f.options(c.Context(), args[0])
			if err != nil {
				return err
			}
			plan, err := builder.NewPlan(o)
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), plan.String())
			return err
		},
	}
	f.registerPlan(c)
	return c
}

func keygenCommand() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make the key that signs releases",
		Long: `keygen makes an Ed25519 key pair: the private key, readable by its owner alone, and beside it the public key (.pub).
A machine believes only releases that are signed with the key whose public half is in the initramfs it booted.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("imgbuild: keygen takes no argument, and %q was given; --key says where the key goes", args[0])}
			}
			public, err := builder.Keygen(key)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "wrote %s and %s.pub, key %s\n", key, key, public.ID())
			return nil
		},
	}
	c.Flags().StringVar(&key, "key", defaultKey, "where the private key goes")
	return c
}
