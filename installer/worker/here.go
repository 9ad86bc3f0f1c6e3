package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/dialog"
	"imgbuild/installer/hw"
	"imgbuild/installer/report"
)

// hereLog is where an installation from a live system keeps its log.
const hereLog = "/run/imgbuild/install-here.log"

// files are those of the release that a live system runs, by their names.
type files map[string]string

// Open implements fs.FS.
func (f files) Open(name string) (fs.File, error) {
	path, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return os.Open(path)
}

// InstallHere installs, from a live system and on the machine that it runs on, the image that it runs: a person at the terminal says
// where, as on the console of an installer.
func InstallHere(ctx context.Context, version string) error {
	if os.Geteuid() != 0 {
		return errors.New("install the image that runs here: only root can; become root with sudo -i")
	}
	release := files{
		image.ManifestFile: "/var/lib/imgbuild/" + image.ManifestFile, image.SignatureFile: "/var/lib/imgbuild/" + image.SignatureFile,
		image.RootfsFile: installer.LiveImage,
	}
	if _, err := os.Stat(installer.LiveImage); err != nil {
		return fmt.Errorf("install the image that runs here: %w; this system does not run from an image in memory", err)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("install the image that runs here: there is no terminal to ask on: %w", err)
	}
	defer tty.Close()
	log, err := os.OpenFile(hereLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("install the image that runs here: %w", err)
	}
	defer log.Close()
	w := &worker{log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), version: version}
	w.say = report.New(quiet{w})
	w.console = w.say
	data, err := os.ReadFile(installer.LiveKeys)
	if err == nil {
		w.keys, err = image.ParsePublicKeys(data)
	}
	if err != nil {
		return fmt.Errorf("read the keys that releases are checked against: %w", err)
	}
	if w.machine, err = hw.Inspect(); err != nil {
		return err
	}
	if w.modules, err = hw.OpenModules(); err != nil {
		w.say.Warn("%v: going on with what is loaded", err)
	}
	w.system.Transport = http.NewFileTransportFS(release)
	args := cmdline.Args{Mode: cmdline.ModeInstall, Manifest: "http://here/" + image.ManifestFile, Transport: plan.TransportHTTP, Done: cmdline.DoneWait, OnError: cmdline.OnErrorWait}
	end, err := w.ask(ctx, installer.Config{Args: args}, tty, dialog.Options{Log: hereLog, AfterDone: "leave; a restart of the machine starts it", AfterFailure: "leave"})
	if err != nil {
		return err
	}
	fmt.Fprintln(tty, end.Text)
	return nil
}
