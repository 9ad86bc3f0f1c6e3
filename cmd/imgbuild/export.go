package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"imgbuild/builder/export"
	"imgbuild/image"
	"imgbuild/installer/unpack"
)

type exportFlags struct {
	trust []string
	json  bool
}

func exportCommand() *cobra.Command {
	var f exportFlags
	c := &cobra.Command{
		Use:   "export RELEASE DIR",
		Short: "Write a release's root file system as a tree for an NFS server, from which machines without disks run",
		Long: `export writes the root file system of a release to DIR/NAME-VERSION, with owners, modes, links, capabilities and labels, for an NFS
server on this machine to export. The release's signature is checked first, and each chunk as it is read. The tree gets its name when it is
whole: until then, and whenever something goes wrong, there is none.

A tree that is there is never written to, since machines may run from it. A new version is a new tree, and machines that start
from then on are sent to it; the old one can be removed when no machine runs from it any more.

It prints the line for /etc/exports, and the kernel arguments of the machines.`,
		Example: `  sudo imgbuild export out/node/1 /srv/nodes
  sudo imgbuild export out/node/1 /srv/nodes --trust release.key.pub --json`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("imgbuild: export takes the directory of a release, and the directory of trees, and %d arguments were given", len(args))}
			}
			return f.export(c.Context(), c.OutOrStdout(), args[0], args[1])
		},
	}
	c.Flags().StringArrayVar(&f.trust, "trust", []string{defaultKey + ".pub"}, "public key that releases are trusted by; can be given more than once")
	c.Flags().BoolVar(&f.json, "json", false, "print progress as JSON, one event a line, and nothing else")
	return c
}

func (f *exportFlags) export(ctx context.Context, out io.Writer, release, dir string) error {
	var keys []image.PublicKey
	for _, path := range f.trust {
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; --trust names the public key that imgbuild keygen, or the first build, wrote", err)
		}
		if err == nil {
			var some []image.PublicKey
			some, err = image.ParsePublicKeys(data)
			keys = append(keys, some...)
		}
		if err != nil {
			return usageError{fmt.Errorf("imgbuild: read the keys that releases are trusted by: %w", err)}
		}
	}
	b := buildFlags{json: f.json}
	t, err := export.Run(ctx, export.Options{Release: release, Dir: dir, Keys: keys, Unpack: unpackTree, Report: b.reporter(os.Stdout)})
	if err != nil {
		return said(ctx, err)
	}
	if f.json {
		return nil
	}
	_, err = io.WriteString(out, t.Advice())
	return err
}

// unpackTree is what the installer unpacks with.
func unpackTree(ctx context.Context, src io.ReaderAt, size int64, dest string, step func(done, total int64)) error {
	_, err := unpack.Unpack(ctx, src, size, dest, unpack.Options{Progress: func(p unpack.Progress) { step(p.BytesWritten, p.BytesTotal) }})
	return err
}
