package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgbuild/builder/stick"
)

type writeFlags struct {
	yes, forceInternal, json bool
}

func writeCommand() *cobra.Command {
	var f writeFlags
	c := &cobra.Command{
		Use:   "write [IMAGE [DEVICE]]",
		Short: "Write a live.iso to a USB stick and verify it; without a device, list those that there are",
		Long: `write puts an image, usually the live.iso of a release, onto a USB stick or a memory card, reads all of it back and compares.
What was on the device is lost: it is shown first, and you type the device's name.

Refused are devices that anything uses, disks of the running system, partitions, devices that are read-only or too small, and,
without --force-internal, disks that are neither on USB nor removable. The first 4 MiB are written last, when all else has been
read back: a stick that is not whole does not start. The last MiB of a larger device is cleared, where an old partition table may
have its copy.

Without DEVICE it writes nothing, and lists the devices that an image can go to, and why the others are not taken.`,
		Example: `  imgbuild write out/web/1/live.iso             what could it be written to?
  sudo imgbuild write out/web/1/live.iso /dev/sdb
  sudo imgbuild write live.iso /dev/disk/by-id/usb-SanDisk_Ultra_4C53-0:0 --yes --json`,
		RunE: func(c *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return f.list(c.OutOrStdout(), nil)
			case 1, 2:
			default:
				return usageError{fmt.Errorf("imgbuild: write takes an image and a device, and %q is one too many", args[2])}
			}
			image, err := stick.OpenImage(args[0])
			if err != nil {
				return usageError{fmt.Errorf("imgbuild: %w", err)}
			}
			defer image.Close()
			if len(args) == 1 {
				return f.list(c.OutOrStdout(), image)
			}
			return f.write(c.Context(), image, args[1])
		},
	}
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask; needed where there is no terminal to ask at")
	c.Flags().BoolVar(&f.forceInternal, "force-internal", false, "take a disk also if it is neither removable nor on USB")
	c.Flags().BoolVar(&f.json, "json", false, "print progress as JSON, one event a line; without a device, the list")
	return c
}

// list prints all devices. Flags that are about writing say that a device was forgotten.
func (f *writeFlags) list(w io.Writer, image *stick.Image) error {
	if f.yes || f.forceInternal {
		return usageError{errors.New("imgbuild: write needs an image and a device with --yes or --force-internal; without them it lists the devices")}
	}
	devices, err := stick.Host().List(image)
	if err != nil {
		return err
	}
	if f.json {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(append([]stick.Device{}, devices...)) // [] for none
	}
	return stick.Print(w, devices)
}

func (f *writeFlags) write(ctx context.Context, image *stick.Image, device string) (err error) {
	if !f.yes && !term.IsTerminal(int(os.Stdin.Fd())) {
		return usageError{fmt.Errorf("imgbuild: nothing was written: there is no terminal to ask at whether %s may be overwritten; --yes says so", device)}
	}
	target, err := stick.Host().Claim(image, device, f.forceInternal)
	if err != nil {
		return err
	}
	defer func() {
		if e := target.Close(); err == nil && e != nil {
			err = fmt.Errorf("let go of %s: %w", device, e)
		}
	}()
	fmt.Fprintf(os.Stderr, "%s\n  holds %s\nAll of it will be overwritten with %s.\n", target.Device.Describe(), target.Device.Content(), image)
	for _, n := range target.Notes {
		fmt.Fprintf(os.Stderr, "Note: %s.\n", n)
	}
	if !f.yes {
		if err := confirm(ctx, os.Stdin, os.Stderr, target.Device); err != nil {
			return said(ctx, err)
		}
	}
	b := buildFlags{json: f.json}
	return said(ctx, target.Write(ctx, b.reporter(os.Stdout)))
}

// said prints what an interrupted command leaves behind: the sentence that builds end with would be wrong.
func said(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\nimgbuild: %v\n", err)
	return exitError(exitFailed)
}

// confirm makes a person type the device's name.
func confirm(ctx context.Context, in io.Reader, out io.Writer, d stick.Device) error {
	fmt.Fprintf(out, "Type %s to go on: ", d.Name)
	typed := make(chan string, 1)
	go func() { // ends with the line, or with the program
		line, _ := bufio.NewReader(in).ReadString('\n')
		typed <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("interrupted; nothing was written to %s", d.Path)
	case line := <-typed:
		if line != d.Name && line != d.Path {
			return fmt.Errorf("nothing was written: %q was typed, and the device is %s", line, d.Name)
		}
		return nil
	}
}
