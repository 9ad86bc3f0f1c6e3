package installer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"imgbuild/image"
	"imgbuild/installer/report"
	"imgbuild/installer/scripts"
	"imgbuild/installer/target"
)

// configureHost makes the tree the system of this host: what the server says of it, the image's scripts for install time,
// and what is to happen at the first boot. Without a server and without scripts in the image it does nothing.
func (r *run) configureHost(ctx context.Context, root *os.Root) error {
	if r.Host != nil {
		if err := r.Host.Apply(root, r.manifest, time.Now()); err != nil {
			return err
		}
	}
	first := r.FirstBoot
	metadata, err := root.ReadFile(target.MetadataFile)
	switch {
	case err == nil:
		first.Metadata = "/" + target.MetadataFile
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the host's metadata: %w", err)
	}
	first.Serial = r.Machine.Serial
	if err := r.installScripts(ctx, root, metadata, first.Metadata); err != nil {
		return err
	}
	added, err := target.FirstBoot(root, first, r.System.Program)
	if err != nil {
		return err
	}
	if added {
		r.Report.Info("the installed system has something to do when it starts for the first time")
	}
	if added, err = target.DataDisks(root, r.scheme, r.ids, r.System.Program); added {
		r.Report.Info("the installed system formats its data disks when it starts for the first time")
	}
	return err
}

// installScripts runs the image's scripts in the tree. One that fails ends the installation.
func (r *run) installScripts(ctx context.Context, root *os.Root, metadata []byte, file string) error {
	names, err := scripts.List(root.FS(), image.InstallScripts)
	if err != nil || len(names) == 0 {
		return err
	}
	env, err := scripts.Environment(metadata, file, r.Machine.Serial)
	if err != nil {
		return err
	}
	hostname := ""
	if r.Host != nil {
		hostname = r.Host.Hostname
	}
	for _, name := range names {
		start := time.Now()
		script := path.Join(image.InstallScripts, name)
		out, err := scripts.Run(ctx, r.System.Program, r.rootDir(), script, hostname, env)
		if r.System.Tools.Output != nil {
			r.System.Tools.Output([]string{"/" + script}, out)
		}
		if err != nil {
			return err
		}
		r.Report.Info("the image's script %s has run, in %s", name, report.Duration(time.Since(start)))
	}
	return nil
}
