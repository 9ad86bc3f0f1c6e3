package target

import (
	_ "embed"
	"fmt"
	"strings"

	"imgbuild/installer/bootloader"
)

// updateScript is POSIX sh; what it is told stands above it.
//
//go:embed update.sh
var updateScript string

// Where the installed system runs what has to follow when it adds or removes a kernel: kernel-install(8) on EL8 and later,
// new-kernel-pkg(8) on EL7.
const (
	pluginFile  = "etc/kernel/install.d/95-imgbuild.install"
	addedFile   = "etc/kernel/postinst.d/95-imgbuild"
	removedFile = "etc/kernel/prerm.d/95-imgbuild"
)

// updates makes the installed system rewrite the configurations that nothing of the distribution changes.
func (c Config) updates(w *writer) error {
	el := major(c.Manifest.Distro.Release)
	needed := len(bootloader.Rewritten(c.Manifest, c.Scheme)) > 0
	files := []string{pluginFile}
	if el < 8 {
		files = []string{addedFile, removedFile}
	}
	for _, f := range files {
		var err error
		if needed {
			err = w.write(f, []byte(c.script("", el >= 8)), meta{mode: 0o755})
		} else {
			err = w.remove(f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// script is the program for a system whose root directory is dir, empty for /. With entries, kernels are those of boot loader
// entries, else those in /boot.
func (c Config) script(dir string, entries bool) string {
	from := "kernels"
	if entries {
		from = "entries"
	}
	return fmt.Sprintf("#!/bin/sh\n# Written by imgbuild when this machine was installed.\nroot=%s\nprefix=%s\nfrom=%s\n%s", shellWord(dir), shellWord(c.BootPrefix), from, updateScript)
}

// shellWord quotes a word for sh.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
