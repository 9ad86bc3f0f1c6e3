package bootloader

import (
	"errors"
	"fmt"
	"strings"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// Between these lines of /boot/grub2/grub.cfg stand the menu entries of a GRUB that does not read boot loader entries
// (BLS) by itself. Whoever adds or removes a kernel replaces what is between them and nothing else.
const (
	beginEntries = "### BEGIN imgbuild entries ###"
	endEntries   = "### END imgbuild entries ###"
)

// Paths of configurations in the installed system.
const (
	extlinuxFile = "/boot/extlinux/extlinux.conf"
	grubFile     = "/boot/grub2/grub.cfg"
)

// grubDir is GRUB's directory on the file system of /boot, and in the tree, without the leading slash.
const grubDir = "boot/grub2"

// firstBLS is the first release whose tools keep kernels as boot loader entries. EL7's GRUB has a blscfg of an earlier draft,
// and grubby edits its grub.cfg.
const firstBLS = 8

// readsBLS reports whether every GRUB of the scheme reads boot loader entries by itself, so that grub.cfg need not change with
// the kernels. One grub.cfg serves BIOS and UEFI.
func readsBLS(m *image.Manifest, s *layout.Scheme) bool {
	pc, uefi := usesGRUBPC(m, s), usesGRUB(m, s)
	return release(m) >= firstBLS && (pc || uefi) && (!pc || m.BootLoader.GRUBPC.BLS) && (!uefi || m.BootLoader.GRUB.BLS)
}

// Rewritten are the configurations, by their paths in the installed system, that nothing of the distribution changes when a
// kernel is added: extlinux.conf always, and grub.cfg where GRUB does not read boot loader entries and grubby does not edit it.
func Rewritten(m *image.Manifest, s *layout.Scheme) []string {
	var out []string
	if s.Firmware.HasBIOS() && s.BIOSLoader == layout.Extlinux {
		out = append(out, extlinuxFile)
	}
	if release(m) >= firstBLS && (usesGRUBPC(m, s) || usesGRUB(m, s)) && !readsBLS(m, s) {
		out = append(out, grubFile)
	}
	return out
}

func usesGRUBPC(m *image.Manifest, s *layout.Scheme) bool {
	return s.Firmware.HasBIOS() && s.BIOSLoader == layout.GRUB && m.BootLoader.GRUBPC != nil
}

func usesGRUB(m *image.Manifest, s *layout.Scheme) bool {
	return s.Firmware.HasUEFI() && m.BootLoader.GRUB != nil
}

// words are the commands that load a kernel and an initramfs: EL7's GRUB starts kernels through their EFI stub or, on BIOS,
// in 16-bit mode, and grubby knows them by these names.
func words(m *image.Manifest, uefi bool) (linux, initrd string) {
	switch {
	case uefi && m.BootLoader.GRUB.LinuxEFI:
		return "linuxefi", "initrdefi"
	case !uefi && release(m) > 0 && release(m) < firstBLS:
		return "linux16", "initrd16"
	}
	return "linux", "initrd"
}

// bootFS is the file system that holds /boot.
func (t Target) bootFS() (*layout.Filesystem, error) {
	f := t.Scheme.Boot()
	if f == nil {
		return nil, errors.New("the layout mounts nothing at /")
	}
	return f, nil
}

// grubConf is the whole grub.cfg. With separate it is EL7's on the ESP.
//
// Under Secure Boot only what is built into the signed GRUB can be used: no modules are loaded by name, those for BIOS come by
// themselves, and the terminal is switched only where the serial driver answers.
func grubConf(t Target, separate bool) (string, error) {
	m := t.Manifest
	boot, err := t.bootFS()
	if err != nil {
		return "", err
	}
	bls := readsBLS(m, t.Scheme) && !separate
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by imgbuild when %s %s was installed.\n", m.Name, m.Version)
	env := boot // where grubenv lies
	if separate {
		env = espOf(t.Scheme)
	}
	grubHead(&b, env != nil && strings.HasPrefix(string(env.Device), "part/"))
	if unit, speed, ok := serialConsole(t.Args); ok {
		fmt.Fprintf(&b, "if serial --unit=%d --speed=%d --word=8 --parity=no --stop=1; then\n", unit, speed)
		b.WriteString("  terminal_input console serial\n  terminal_output console serial\nfi\n")
	}
	fmt.Fprintf(&b, "search --no-floppy --fs-uuid --set=root %s\n", t.FSUUID(boot.Mount))
	if bls {
		grubBLS(&b, t)
		return b.String(), nil
	}
	b.WriteString(beginEntries + "\n")
	linux, initrd := words(m, separate)
	fmt.Fprintf(&b, "menuentry \"%s\" --class gnu-linux --unrestricted", title(m))
	if release(m) >= firstBLS {
		fmt.Fprintf(&b, " --id %s", m.KernelRelease) // grubby of EL7 would give it to later entries too
	}
	fmt.Fprintf(&b, " {\n  %s %s/%s", linux, t.BootPrefix, kernel(m))
	for _, a := range t.Args {
		b.WriteString(" " + grubWord(a))
	}
	fmt.Fprintf(&b, "\n  %s %s/%s\n}\n", initrd, t.BootPrefix, initramfs(m))
	b.WriteString(endEntries + "\n")
	return b.String(), nil
}

// grubHead does what EL's /etc/grub.d/00_header and 01_users do with grubenv and user.cfg, so that grub2-set-default,
// kernel-install and grub2-setpassword work, and grub2-reboot where GRUB can write: one that cannot take next_entry back, as
// from an array or a volume, would boot it for ever, and from one member of an array would make the members differ.
func grubHead(b *strings.Builder, writable bool) {
	b.WriteString("set timeout=3\nif [ -s $prefix/grubenv ]; then\n  load_env\nfi\n")
	if writable {
		b.WriteString("if [ \"${next_entry}\" ]; then\n  set default=\"${next_entry}\"\n  set next_entry=\n  save_env next_entry\nelse\n  set default=\"${saved_entry}\"\nfi\n")
	} else {
		b.WriteString("set default=\"${saved_entry}\"\n")
	}
	b.WriteString(`if [ -f $prefix/user.cfg ]; then
  source $prefix/user.cfg
  if [ -n "${GRUB2_PASSWORD}" ]; then
    set superusers="root"
    export superusers
    password_pbkdf2 root ${GRUB2_PASSWORD}
  fi
fi
`)
}

// grubBLS lets blscfg make the menu. It looks for entries on $root or, as BIOS GRUB and older ones, on $boot; on UEFI older
// ones look on $boot, the ESP, for more variables (grub-core/commands/blscfg.c of EL's GRUB). Entries call load_video, and
// those of EL8's kernels have $kernelopts for arguments.
func grubBLS(b *strings.Builder, t Target) {
	b.WriteString("set boot=$root\n")
	if esp := espOf(t.Scheme); esp != nil {
		fmt.Fprintf(b, "if [ \"$grub_platform\" = \"efi\" ]; then\n  search --no-floppy --fs-uuid --set=boot %s\nfi\n", t.FSUUID(esp.Mount))
	}
	b.WriteString("function load_video {\n  insmod all_video\n}\n")
	fmt.Fprintf(b, "if [ -z \"${kernelopts}\" ]; then\n  set kernelopts=\"%s\"\nfi\n", grubQuoted(strings.Join(t.Args, " ")))
	if t.BootPrefix != "" {
		fmt.Fprintf(b, "set blsdir=\"%s/loader/entries\"\n", t.BootPrefix)
	}
	b.WriteString("insmod blscfg\nblscfg\n")
}

// grubStub is what GRUB reads on the ESP, as EL9 has it: the configuration itself lies in /boot.
func grubStub(t Target) (string, error) {
	boot, err := t.bootFS()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("search --no-floppy --fs-uuid --set=dev %s\nset prefix=($dev)%s/grub2\nexport prefix\nconfigfile $prefix/grub.cfg\n",
		t.FSUUID(boot.Mount), t.BootPrefix), nil
}

// envSize is the size in bytes of an environment block (GRUB manual, "The GRUB environment block").
const envSize = 1024

// grubEnv is a new grubenv. EL8's kernels get their arguments from its kernelopts; where they are too many for it grub.cfg's
// are used.
func grubEnv(t Target) []byte {
	const head = "# GRUB Environment Block\n"
	env := head
	if release(t.Manifest) == firstBLS {
		if v := "kernelopts=" + strings.NewReplacer(`\`, `\\`, "\n", "\\\n").Replace(strings.Join(t.Args, " ")) + "\n"; len(head)+len(v) <= envSize {
			env += v
		}
	}
	return []byte(env + strings.Repeat("#", envSize-len(env)))
}

// writeGRUB writes what every GRUB of the scheme reads in /boot. GRUB for BIOS and for UEFI both call it.
func writeGRUB(t Target) error {
	conf, err := grubConf(t, false)
	if err != nil {
		return err
	}
	if err := mkdirs(t.Root, grubDir, 0o700); err != nil {
		return err
	}
	if err := writeFile(t.Root, grubDir+"/grubenv", grubEnv(t), 0o600); err != nil {
		return err
	}
	return writeFile(t.Root, rel(grubFile), []byte(conf), 0o600)
}

// grubWord quotes an argument for GRUB's shell. GRUB itself puts an argument with blanks between double quotes for the
// kernel, so those that are there already, as in dyndbg="file a.c +p", are dropped.
func grubWord(s string) string {
	s = strings.ReplaceAll(s, `"`, "")
	if !strings.ContainsAny(s, " \t$'\\;&|<>{}()*?[]~#") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// grubQuoted is the inside of a text between double quotes.
func grubQuoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`).Replace(s)
}
