package boot

import (
	"fmt"
	"strings"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/releases"
)

// fileURL is where a file of a release lies.
func fileURL(base string, r *releases.Release, name string) string {
	return base + releases.Prefix + r.Ref() + "/" + name
}

// arguments are those of the kernel that carries the installer. What runs from memory goes on with this kernel, and so has those
// of the release.
func arguments(q question, a answer) []string {
	mode := "inspect"
	switch a.verdict.Action {
	case plan.Install:
		mode = "install"
	case plan.Preview:
		mode = "preview"
	case plan.Live:
		mode = "live"
	}
	args := []string{"imgbuild.mode=" + mode, "imgbuild.server=" + q.base, "imgbuild.serverkey=" + a.key, "imgbuild.boot=" + a.nonce}
	if q.mac != "" {
		args = append(args, "BOOTIF=01-"+strings.ReplaceAll(q.mac, ":", "-"))
	}
	serial := ""
	if a.host != nil {
		serial = a.host.SerialConsole
	}
	for _, c := range consoles(a.release.KernelArgs, serial) {
		args = append(args, "console="+c)
	}
	if a.verdict.Action != plan.Live {
		return args
	}
	for _, arg := range a.release.KernelArgs {
		if !strings.HasPrefix(arg, "console=") {
			args = append(args, arg)
		}
	}
	return args
}

// consoles are the kernel's: those of the release, and the host's own serial console in place of the release's serial
// ones. The last one becomes /dev/console.
func consoles(kernelArgs []string, serial string) []string {
	var list []string
	add := func(c string) {
		for _, have := range list {
			if have == c {
				return
			}
		}
		list = append(list, c)
	}
	for _, arg := range kernelArgs {
		c, ok := strings.CutPrefix(arg, "console=")
		if !ok || !plainWord(c) || serial != "" && isSerial(c) {
			continue
		}
		add(c)
	}
	if len(list) == 0 {
		add("tty0")
	}
	if serial != "" && plainWord(serial) {
		add(serial)
	}
	return list
}

// isSerial tells a serial line (ttyS0, ttyAMA0, ttyUSB0, hvc0) from a screen (tty0).
func isSerial(console string) bool {
	device, _, _ := strings.Cut(console, ",")
	rest, tty := strings.CutPrefix(device, "tty")
	return !tty || rest != "" && (rest[0] < '0' || rest[0] > '9')
}

// plainWord reports whether s is made of characters that iPXE, GRUB, the kernel and the installer all take as they are.
func plainWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return false
		}
		return !strings.ContainsRune("._~:/?=&%+,@[]-", r)
	})
}

// checkWords is the last look at what goes into a script. A word that is not plain is a fault of ours.
func checkWords(words []string) error {
	for _, w := range words {
		if !plainWord(w) {
			return fmt.Errorf("write a boot script: %q cannot be a kernel argument", w)
		}
	}
	return nil
}

// headline is what the machine shows first.
func headline(q question, a answer) string {
	who := "this machine"
	if q.seen.Serial != "" {
		who = "machine " + q.seen.Serial
	}
	if a.host != nil && a.host.Hostname != "" {
		who += " (" + a.host.Hostname + ")"
	}
	switch a.verdict.Action {
	case plan.Install:
		return fmt.Sprintf("imgserve: %s is installed with %s", who, a.release.Ref())
	case plan.Preview:
		return fmt.Sprintf("imgserve: %s shows what an installation of %s would do, and writes nothing", who, a.release.Ref())
	case plan.Live:
		return fmt.Sprintf("imgserve: %s runs %s from memory", who, a.release.Ref())
	case plan.Inspect:
		return fmt.Sprintf("imgserve: %s is inspected", who)
	}
	return fmt.Sprintf("imgserve: %s boots its own disk", who)
}

// bootFiles are the two URLs of a boot.
func bootFiles(q question, a answer) (kernel, initramfs string) {
	return fileURL(q.base, a.release, image.KernelFile), fileURL(q.base, a.release, image.InitramfsFile)
}
