// Command installer is /init of the mini initramfs: it makes of a bare machine one that boots from its own disk. On any
// other system it only says what it is, or what it would find.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"imgbuild/installer"
	"imgbuild/installer/firstboot"
	"imgbuild/installer/hw"
	"imgbuild/installer/pid1"
	"imgbuild/installer/report"
	"imgbuild/installer/scripts"
	"imgbuild/installer/worker"
)

// version is set by the linker; see the Makefile.
var version = "unknown"

func main() {
	if scripts.Inside(os.Args) {
		code, err := scripts.GoInside(os.Args)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	}
	if filepath.Base(os.Args[0]) == installer.InstallCommand {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := worker.InstallHere(ctx, version); err != nil {
			fmt.Fprintln(os.Stderr, installer.InstallCommand+":", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() == 1 {
		err := pid1.Run(pid1.Config{
			Worker: []string{"/proc/self/exe", "worker"},
			Env:    []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux", "GOTRACEBACK=all", "IMGBUILD_WORKER=1"},
		})
		fmt.Fprintln(os.Stderr, report.Prefix+err.Error())
		os.Exit(1)
	}
	switch {
	case len(os.Args) == 2 && os.Args[1] == "worker" && os.Getenv("IMGBUILD_WORKER") == "1" && os.Getppid() == 1:
		os.Exit(work())
	case len(os.Args) == 2 && os.Args[1] == "facts":
		m, err := hw.Inspect()
		if err != nil {
			fmt.Fprintln(os.Stderr, "installer:", err)
			os.Exit(1)
		}
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(m); err != nil {
			fmt.Fprintln(os.Stderr, "installer:", err)
			os.Exit(1)
		}
	case len(os.Args) == 2 && os.Args[1] == firstboot.Word:
		os.Exit(first(firstboot.System.Run))
	case len(os.Args) == 2 && os.Args[1] == firstboot.DataWord:
		os.Exit(first(firstboot.System.Data))
	default:
		fmt.Fprintln(os.Stderr, `This is imgbuild's installer, the first process of a mini initramfs. It installs a machine that was booted into it,
and does nothing here. "installer facts" shows what it would find out about this machine.`)
		os.Exit(2)
	}
}

// work is the installer itself, in the process that the first process started.
func work() int {
	pipe := pid1.NewPipe()
	defer pipe.Close()
	say := report.New(pipe)
	log := slog.New(slog.NewTextHandler(pipe, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { // ends with the process
		<-stop
		cancel(errors.New("somebody asked for a stop"))
	}()
	end, err := worker.Run(ctx, say, log, version)
	switch {
	case err != nil:
		say.Failed(err)
		return 1
	case end.Installed:
		say.Done(end.Text)
	default:
		say.Final("%s", end.Text)
	}
	pipe.After(end.Done)
	if end.Stay != nil {
		signal.Ignore(syscall.SIGPIPE) // nobody listens any more
		end.Stay(ctx)
	}
	return 0
}

// first is the first boot of an installed system, whose units start this program.
func first(run func(firstboot.System, context.Context) error) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)) // the journal
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(firstboot.System{Log: log}, ctx); err != nil {
		log.Error("the first boot is not over", "error", err)
		return 1
	}
	return 0
}
