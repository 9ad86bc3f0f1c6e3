package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"imgbuild/builder"
	"imgbuild/image/layout"
	"imgbuild/profiles"
	"imgbuild/profiles/strict"
)

type layoutFlags struct {
	disks             []string
	firmware, release string
	layout            string
	json              bool
}

func layoutCommand() *cobra.Command {
	var f layoutFlags
	c := &cobra.Command{
		Use:   "layout PROFILE --disk size=SIZE[,KEY=VALUE...]...",
		Short: "Print what becomes of a machine's disks, without a machine",
		Long: `layout prints what the installer would make of disks that you describe: partitions, arrays and volumes with their
places and sizes. It needs neither root nor network, and no machine.

A disk has a size and may have: model, serial, wwn, transport (sata, sas, nvme, virtio, ...), rotational (true, false),
sector (512, 4096), physical (512, 4096), path, hctl, by-path, by-id; count=12 stands for a dozen of the same.`,
		Example: `  imgbuild layout web.yaml --disk size=480G
  imgbuild layout web.yaml --disk size=960G,transport=nvme,sector=4096 --firmware bios
  imgbuild layout web.yaml --layout mirror --disk size=480G,count=2 --disk size=16T,rotational=true,count=12`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneProfile(c, args); err != nil {
				return err
			}
			return f.print(c.Context(), c.OutOrStdout(), args[0])
		},
	}
	c.Flags().StringArrayVar(&f.disks, "disk", nil, "a disk of the machine, as `size=480G,model=...,sector=4096`; can be given more than once")
	c.Flags().StringVar(&f.firmware, "firmware", "", "the machine's firmware, `bios or uefi` (default uefi)")
	c.Flags().StringVar(&f.release, "release", "", "`directory` of a release of the profile, which knows the image's size")
	c.Flags().StringVar(&f.layout, "layout", "", "a `preset or file` with a layout in place of the profile's, as the registry may hold it for a host")
	c.Flags().BoolVar(&f.json, "json", false, "print it as JSON")
	return c
}

func (f *layoutFlags) print(ctx context.Context, w io.Writer, name string) error {
	o := builder.PreviewOptions{Firmware: layout.Firmware(f.firmware), Release: f.release}
	switch o.Firmware {
	case "", layout.BIOS, layout.UEFI:
	default:
		return usageError{fmt.Errorf("imgbuild: --firmware %s is neither bios nor uefi", f.firmware)}
	}
	if len(f.disks) == 0 {
		return usageError{errors.New("imgbuild: layout needs a disk or more, as --disk size=480G")}
	}
	var err error
	if o.Disks, err = builder.ParseDisks(f.disks); err != nil {
		return usageError{fmt.Errorf("imgbuild: %w", err)}
	}
	if o.Layout, err = f.declared(); err != nil {
		return err
	}
	if o.Profile, err = load(ctx, name); err != nil {
		return err
	}
	p, err := builder.NewPreview(o)
	if err != nil {
		return err
	}
	if !f.json {
		_, err = io.WriteString(w, p.String())
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p)
}

// declared is the layout that stands in place of the profile's, or nil.
func (f *layoutFlags) declared() (*layout.Layout, error) {
	switch preset := layout.Preset(f.layout); preset {
	case "":
		return nil, nil
	case layout.Simple, layout.LVM, layout.Server, layout.Mirror:
		return &layout.Layout{Preset: preset}, nil
	}
	data, err := strict.ReadLimited(f.layout)
	if err != nil {
		return nil, usageError{fmt.Errorf("imgbuild: --layout %s is no preset, and as a file: %w", f.layout, err)}
	}
	l, err := profiles.ReadLayout(f.layout, data)
	if err != nil {
		return nil, usageError{err}
	}
	return &l, nil
}
