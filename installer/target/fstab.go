package target

import (
	"fmt"
	"slices"
	"strings"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// Fstab is /etc/fstab (fstab(5)): the file systems in their order, which has every mount point before those below it, and swap.
func Fstab(m *image.Manifest, list []layout.Filesystem, ids IDs) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by imgbuild when %s %s was installed. See fstab(5).\n", m.Name, m.Version)
	for _, f := range list {
		if line := fstabLine(f, ids.FS(f.Device)); line != "" {
			b.WriteString(line)
		}
	}
	return b.String()
}

// fstabLine is empty for what is not mounted.
func fstabLine(f layout.Filesystem, uuid string) string {
	if f.FS == "swap" {
		return fmt.Sprintf("UUID=%s none swap %s 0 0\n", uuid, options(f.Options))
	}
	if f.Mount == "" {
		return ""
	}
	opts := options(f.Options)
	if f.Data && !slices.Contains(strings.Split(opts, ","), "nofail") {
		opts += ",nofail" // a data disk that is gone does not keep the machine from starting
	}
	dump, pass := 0, 2
	switch {
	case f.FS == "xfs":
		pass = 0
	case f.Mount == "/":
		dump, pass = 1, 1
	case f.FS == "ext4":
		dump = 1
	}
	return fmt.Sprintf("UUID=%s %s %s %s %d %d\n", uuid, Escape(f.Mount), f.FS, opts, dump, pass)
}

func options(s string) string {
	if s == "" {
		return "defaults"
	}
	return s
}

// Escape writes a path as fstab has it.
func Escape(path string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
}

// mdadmConf is /etc/mdadm.conf (mdadm.conf(5)): arrays are found by their UUIDs, whatever their members are called, and get
// the names that the layout gave them. mdmonitor does not start without an address for mail.
func mdadmConf(m *image.Manifest, arrays []layout.SchemeArray, ids IDs) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by imgbuild when %s %s was installed. See mdadm.conf(5).\nMAILADDR root\nAUTO +imsm +1.x -all\n", m.Name, m.Version)
	for _, a := range arrays {
		fmt.Fprintf(&b, "ARRAY /dev/md/%s UUID=%s\n", a.Name, ids.Array(a.Name))
	}
	return b.String()
}
