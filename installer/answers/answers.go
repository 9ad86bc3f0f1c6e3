// Package answers is the file in which a person says beforehand what the terminal installer would ask: which disks, what may be
// destroyed, which layout, and what the installed system becomes. Its keys are those of image/plan's Plan, as far as they are a
// person's to say.
//
// A file's bytes come in; Answers go out, or every mistake with its line and column. Answers go out as a file too, and onto what
// the installer is told. It is JSON and not YAML as profiles are: the program that reads it is in every initramfs, which a YAML
// parser would make half a MiB larger. The package reads and writes no file, and takes no password that is not hashed.
package answers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/target"
)

// Answers are what a person says of one installation. What is left out stays as the kernel's arguments and the release have it.
type Answers struct {
	// Schema is plan.Schema, or 0.
	Schema int `json:"schema,omitempty"`
	// Disks, Wipe and Unseal are as imgbuild.disk=, imgbuild.wipe= and imgbuild.unseal=.
	Disks  []string `json:"disks,omitempty"`
	Wipe   []string `json:"wipe,omitempty"`
	Unseal []string `json:"unseal,omitempty"`
	// Layout takes the place of the release's. One that only names a preset leaves what the release says of any preset.
	Layout *layout.Layout `json:"layout,omitempty"`
	// Fresh makes anew what the layout would keep.
	Fresh bool `json:"fresh,omitempty"`
	// Done is what happens after success: reboot, kexec, poweroff or wait; empty for the kernel's arguments.
	Done string `json:"done,omitempty"`
	// Host is what the installed system becomes besides what its image is.
	Host plan.Host `json:"host,omitzero"`
}

// Preset is the layout's name, where it is nothing but that.
func (a Answers) Preset() layout.Preset {
	if a.Layout != nil && reflect.DeepEqual(*a.Layout, layout.Layout{Preset: a.Layout.Preset}) {
		return a.Layout.Preset
	}
	return ""
}

// Marshal returns the answers as a file that Parse reads as the same answers. Where it has a password's hash, others should not
// read it.
func (a Answers) Marshal() ([]byte, error) {
	a.Schema = plan.Schema
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(a); err != nil {
		return nil, fmt.Errorf("write answers: %w", err)
	}
	return b.Bytes(), nil
}

// Apply tells an installation what the answers say. c has its Args and its Machine already; nics are the machine's network cards, as
// the inventory has them. Apply adds to no list of c but takes its place, and leaves alone what the answers leave out.
func (a Answers) Apply(c *installer.Config, nics []plan.NIC) {
	for _, l := range []struct {
		said []string
		to   *[]string
	}{{a.Disks, &c.Args.Disks}, {a.Wipe, &c.Args.Wipe}, {a.Unseal, &c.Args.Unseal}} {
		if len(l.said) > 0 {
			*l.to = slices.Clone(l.said)
		}
	}
	c.Args.Fresh = c.Args.Fresh || a.Fresh
	if a.Done != "" {
		c.Args.Done = cmdline.Done(a.Done)
	}
	switch preset := a.Preset(); {
	case preset != "":
		c.Args.Preset, c.Layout = preset, nil
	case a.Layout != nil:
		c.Args.Preset, c.Layout = "", a.Layout
	}
	if !reflect.ValueOf(a.Host).IsZero() {
		c.Host = &target.Host{Host: a.Host, Serial: c.Machine.Serial, NICs: nics}
	}
}
