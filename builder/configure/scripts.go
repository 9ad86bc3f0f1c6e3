package configure

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"

	"imgbuild/builder/tree"
	"imgbuild/image"
	"imgbuild/profiles"
)

// Scripts stores the profile's scripts for the machine in the image, where the installer and the first boot look for them.
// Their names begin with a number, which is the order in which they run.
func Scripts(t *tree.Tree, p *profiles.Profile) error {
	for _, list := range []struct {
		dir     string
		scripts []profiles.MachineScript
	}{{image.InstallScripts, p.InstallScripts}, {image.FirstBootScripts, p.FirstBootScripts}} {
		for i, s := range list.scripts {
			if err := store(t, path.Join("/", list.dir, fmt.Sprintf("%03d-%s", i+1, strings.ReplaceAll(s.Name, " ", "-"))), s); err != nil {
				return fmt.Errorf("store the profile's script %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

func store(t *tree.Tree, name string, s profiles.MachineScript) (err error) {
	text := []byte(s.Run)
	if s.File != "" {
		if text, err = os.ReadFile(s.File); err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(text, []byte("#!")) {
		text = append([]byte("#!/bin/sh -e\n"), text...)
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	return t.WriteFile(name, text, tree.Meta{Mode: 0o755})
}
