// Command imgserve boots and installs machines over the network: DHCP or proxyDHCP, TFTP, HTTP, the registry of machines and
// its API.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imgbuild/profiles/strict"
	"imgbuild/server"
	"imgbuild/server/config"
)

// version is set by the linker; see the Makefile.
var version = "unknown"

// Exit codes, for scripts and for systemd.
const (
	exitFailed = 1 // it could not be done, or check has found errors
	exitUsage  = 2 // the command line or the configuration is wrong
)

// usageError marks an error that the person at the keyboard mends, not the machine.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitError ends the program with a code and without a word: what there was to say has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	var u usageError
	var e exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return int(e)
	case errors.As(err, &u):
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	default:
		fmt.Fprintln(os.Stderr, "imgserve:", err)
		return exitFailed
	}
}

// defaultFile is read when it is there and no other is named.
const defaultFile = "/etc/imgserve.yaml"

// flags are those of the configuration.
type flags struct {
	file, iface, listen, url, images, state, database string
	trust                                             []string
	verbose                                           bool
}

func (f *flags) register(c *cobra.Command) {
	p := c.PersistentFlags()
	p.StringVarP(&f.file, "config", "c", "", "configuration `FILE` (default "+defaultFile+" if it is there)")
	p.StringVar(&f.iface, "interface", "", "network interface that DHCP is served on")
	p.StringVar(&f.listen, "listen", "", "address and port of HTTP, as :8080")
	p.StringVar(&f.url, "url", "", "how machines reach the server, as http://10.1.0.1:8080")
	p.StringVar(&f.images, "images", "", "`directory` of releases that imgbuild writes")
	p.StringVar(&f.state, "state", "", "`directory` of the database and the server's own certificates")
	p.StringVar(&f.database, "database", "", "database: a file, or postgres://…")
	p.StringArrayVar(&f.trust, "trust", nil, "`file` with public keys of releases; can be given more than once")
	p.BoolVarP(&f.verbose, "verbose", "v", false, "log what a person debugging imgserve wants to know")
}

// load reads the configuration; what is wrong with it is the user's to mend.
func (f *flags) load(c *cobra.Command) (*config.Config, error) { return f.loadFor(c, false) }

// loadFor reads what the registry needs alone, or everything.
func (f *flags) loadFor(c *cobra.Command, registry bool) (*config.Config, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	exists := func(path string) bool {
		st, err := os.Stat(path)
		return err == nil && st.Mode().IsRegular()
	}
	file := f.file
	if file == "" && exists(defaultFile) {
		file = defaultFile
	}
	var given []config.Flag
	add := func(key string, values ...string) {
		if c.Flags().Changed(key) {
			given = append(given, config.Flag{Key: key, Values: values})
		}
	}
	add("interface", f.iface)
	add("listen", f.listen)
	add("url", f.url)
	add("images", f.images)
	add("state", f.state)
	add("database", f.database)
	add("trust", f.trust...)
	cfg, err := config.Load(file, given, config.Surroundings{State: os.Getenv("STATE_DIRECTORY"), Dir: dir, Exists: exists, OnlyRegistry: registry})
	var wrong strict.Errors
	if errors.As(err, &wrong) {
		return nil, usageError{err}
	}
	return cfg, err
}

func rootCommand() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:   "imgserve",
		Short: "Boot and install machines over the network",
		Long: `imgserve boots and installs machines over the network. It knows them by their serial numbers, gives them boot loaders
(DHCP or proxyDHCP, TFTP), scripts and images (HTTP), and installs one only when a person has ordered it.

Without a configuration file, --images and --interface make a working server beside the DHCP server that is there.`,
		Example: `  imgserve --images out/ --interface br0    serve
  imgserve check                            try the configuration and look at the network
  imgserve token create alice --role admin  make an API token; prints its secret once
  imgserve backup /backup/imgserve.db       copy the registry while the server runs`,
		Args:          cobra.ArbitraryArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("imgserve: there is no command %q; imgserve --help lists them", args[0])}
			}
			return serve(c.Context(), c, f)
		},
	}
	f.register(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("imgserve: %w; %s --help lists the flags", err, c.CommandPath())}
	})
	root.AddCommand(checkCommand(f), tokenCommand(f), backupCommand(f), configCommand(f), serveCommand(f))
	return root
}

func serveCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Serve, as imgserve does without a command", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), c, f) },
	}
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("imgserve: %s takes no argument, and %q was given", c.Name(), args[0])}
	}
	return nil
}

func serve(ctx context.Context, c *cobra.Command, f *flags) error {
	cfg, err := f.load(c)
	if err != nil {
		return err
	}
	log := logger(os.Stderr, cfg.Log, f.verbose, os.Getenv("JOURNAL_STREAM") != "")
	s, err := server.New(ctx, server.Options{
		Config: cfg, Log: log, Notify: os.Getenv("NOTIFY_SOCKET"), Watchdog: watchdog(os.Getenv("WATCHDOG_USEC")), Program: "imgserve",
	})
	if err != nil {
		return fmt.Errorf("the server cannot start:\n%w", err)
	}
	log.Info("imgserve starts", "version", version, "database", cfg.DatabaseName(), "images", cfg.Images)
	return s.Run(ctx)
}

// logger writes lines for people. The journal has the time already.
func logger(w io.Writer, level string, verbose, journal bool) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil || verbose {
		l = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if journal && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// watchdog is half of systemd's limit (sd_watchdog_enabled(3)).
func watchdog(usec string) time.Duration {
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(n) * time.Microsecond / 2
}
