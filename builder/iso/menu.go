package iso

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"imgbuild/image"
)

// AnswersEntry is the menu's entry that media with an answer file have.
const AnswersEntry = "Install as the answer file on this medium says"

// timeout is how long the menu waits for a key, in seconds.
const timeout = 10

// menu is the grub.cfg of the medium, for BIOS and UEFI. Under Secure Boot only what is built into the signed GRUB can be used, and
// CoreArgs has the same: no modules are loaded by name, and the terminal is switched only where the serial driver answers.
func menu(m *image.Manifest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by imgbuild for %s %s.\nset default=0\nset timeout=%d\n", m.Name, m.Version, timeout)
	unit, speed := serial(m.KernelArgs)
	fmt.Fprintf(&b, "if serial --unit=%d --speed=%d --word=8 --parity=no --stop=1; then\n", unit, speed)
	b.WriteString("  terminal_input console serial\n  terminal_output console serial\nfi\n")
	linux, initrd := "linux", "initrd"
	if l := m.BootLoader.GRUB; l != nil && l.LinuxEFI {
		linux, initrd = "$linux", "$initrd"
		b.WriteString("set linux=linux\nset initrd=initrd\nif [ \"$grub_platform\" = efi ]; then\n  set linux=linuxefi\n  set initrd=initrdefi\nfi\n")
	}
	medium := "imgbuild.medium=" + Label(m.Name, m.Version)
	for _, e := range []struct {
		title string
		args  []string
		only  string // the file without which it is not offered
	}{
		{fmt.Sprintf("Run %s %s from this medium", m.Name, m.Version), append([]string{"imgbuild.mode=live", medium}, m.KernelArgs...), ""},
		{fmt.Sprintf("Install %s %s on this machine", m.Name, m.Version), append([]string{"imgbuild.mode=install", medium, "imgbuild.interactive"}, consoles(m.KernelArgs)...), ""},
		{AnswersEntry, append([]string{"imgbuild.mode=install", medium, "imgbuild.answers=medium"}, consoles(m.KernelArgs)...), image.AnswersFile},
		{"Check this medium", append([]string{"imgbuild.mode=check", medium}, consoles(m.KernelArgs)...), ""},
	} {
		if e.only != "" {
			fmt.Fprintf(&b, "if [ -f /%s ]; then\n", path.Join(image.MediumDir, e.only))
		}
		fmt.Fprintf(&b, "menuentry \"%s\" {\n  echo \"Loading the kernel and its initramfs ...\"\n  %s /%s", e.title, linux, path.Join(image.MediumDir, image.KernelFile))
		for _, a := range e.args {
			b.WriteString(" " + word(a))
		}
		fmt.Fprintf(&b, "\n  %s /%s\n}\n", initrd, path.Join(image.MediumDir, image.InitramfsFile))
		if e.only != "" {
			b.WriteString("fi\n")
		}
	}
	b.WriteString(localDisk(m.Arch))
	return b.String()
}

// localDisk leaves the medium. For UEFI it starts what lies under the removable name on the first disk that is no medium; where there is
// nothing, the firmware goes on with the next of its boot entries, as far as GRUB tells it that it failed, which not every GRUB does.
// A BIOS calls the disk that it has booted from the first: a stick swaps its place with the next disk then, which finds itself where
// it expects to be.
func localDisk(arch string) string {
	loader, _, _ := removable(arch)
	return `menuentry "Boot the local disk" {
  if [ "$grub_platform" = efi ]; then
    for disk in hd0 hd1 hd2 hd3 hd4 hd5 hd6 hd7; do
      for part in gpt1 gpt2 gpt3 gpt4 msdos1; do
        if [ ! -f ($disk)/` + image.MediumDir + "/" + image.ManifestFile + ` -a -f ($disk,$part)/EFI/BOOT/` + loader + ` ]; then
          set root=$disk,$part
          if chainloader /EFI/BOOT/` + loader + `; then
            boot
          fi
        fi
      done
    done
    exit 1
  fi
  set medium=$root
  if [ "$medium" = hd0 ]; then
    set root=hd1
    drivemap -s (hd0) (hd1)
  else
    set root=hd0
  fi
  if chainloader +1; then
    boot
  fi
  drivemap -r
  set root=$medium
}
`
}

// finder is the grub.cfg beside the EFI GRUB, which knows the EFI system partition only: it looks for the medium.
func finder(label string) string {
	return fmt.Sprintf(`if search --no-floppy --set=root --label %s; then
  configfile /%s
else
  echo "There is no medium with the label %s."
  echo "Was it taken out, or written to a file system of another kind?"
  sleep 60
fi
`, label, menuFile, label)
}

// consoles are those of the image, as it says them.
func consoles(args []string) []string {
	var out []string
	for _, a := range args {
		if strings.HasPrefix(a, "console=") {
			out = append(out, a)
		}
	}
	return out
}

// serial is the port and the speed, in baud, of the image's last serial console; where it has none, what servers have.
func serial(args []string) (unit, speed int) {
	unit, speed = 0, 115200
	for _, a := range args {
		v, ok := strings.CutPrefix(a, "console=ttyS")
		port, options, _ := strings.Cut(v, ",")
		n, err := strconv.Atoi(port)
		if !ok || err != nil || n < 0 || n > 3 {
			continue // GRUB knows the four classic ports
		}
		unit, speed = n, 9600 // the kernel's, where nothing is said
		digits := options
		if i := strings.IndexFunc(options, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
			digits = options[:i] // 115200n8
		}
		if s, err := strconv.Atoi(digits); err == nil && s > 0 {
			speed = s
		}
	}
	return unit, speed
}

// word quotes an argument for GRUB's shell. GRUB itself puts an argument with blanks between double quotes for the kernel, so those
// that are there already, as in dyndbg="file a.c +p", are dropped.
func word(s string) string {
	s = strings.ReplaceAll(s, `"`, "")
	if !strings.ContainsAny(s, " \t$'\\;&|<>{}()*?[]~#") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
