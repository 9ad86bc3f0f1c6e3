package boot

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strings"

	"imgbuild/image/plan"
)

// grub is a script of GRUB's. A word in single quotes is taken as it is; it ends at the next single quote.
type grub struct {
	b   strings.Builder
	err error
}

func (s *grub) raw(line string) { s.b.WriteString(line + "\n") }

func (s *grub) line(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		var err error
		if quoted[i], err = grubQuote(w); err != nil && s.err == nil {
			s.err = err
		}
	}
	return strings.Join(quoted, " ")
}

// grubQuote returns a word as GRUB's scripts have it. The command word stays as it is: GRUB knows no keyword in quotes.
func grubQuote(w string) (string, error) {
	if strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fmt.Errorf("write a GRUB script: %q is not printable ASCII", w)
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'", nil
}

// echo shows a text.
func (s *grub) echo(text string) {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r == '\\': // GRUB's echo reads escapes
			return '/'
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, shorten(text))
	s.raw("echo " + s.line(strings.TrimLeft(text, "- ")))
}

// grubLocal starts what a disk has on the removable path (UEFI 2.10, 3.5.1.1), as firmware does that knows no boot entry of
// it. Returning to the firmware with a failure would be better, and is what is left where no disk has it, but the GRUB of
// many a distribution takes no number with exit: it returns with success, and the firmware then shows its menu and waits.
// What is started is told that it comes from the device root, whatever device its path names, and looks there for more.
const grubLocal = `set loader=/EFI/BOOT/BOOTX64.EFI
if [ "$grub_cpu" = arm64 ]; then
  set loader=/EFI/BOOT/BOOTAA64.EFI
fi
if search --no-floppy --file --set=root "$loader"; then
  if chainloader "($root)$loader"; then
    boot
  fi
fi
exit 1
`

func (s *grub) localBoot() { s.b.WriteString(grubLocal) }

func (s *grub) text() string {
	if s.err == nil {
		return s.b.String()
	}
	safe := &grub{}
	safe.echo("imgserve: this machine boots its own disk")
	safe.echo("the server could not write its script: " + s.err.Error())
	safe.localBoot()
	return safe.b.String()
}

// grubHost is a server's address in GRUB's device names, as (http,10.0.0.1:8080) has it. GRUB speaks no HTTPS.
func grubHost(base string) (host string, http bool) {
	u, err := url.Parse(base)
	if err != nil {
		return "", false
	}
	return u.Host, u.Scheme == "http" && u.Path == ""
}

// grubChain is the grub.cfg for a GRUB that has told nothing yet: it asks again with what it knows. A GRUB without the
// module smbios says its MAC only. The file comes from where GRUB itself came from, by HTTP or TFTP.
func grubChain(base string) string {
	s := &grub{}
	if !plainWord(base) {
		s.err = fmt.Errorf("write a GRUB script: %q is not an address", base)
	}
	s.echo("imgserve: asking what this machine may do")
	query := GRUBPath + "?mac=$net_default_mac&arch=$grub_cpu"
	s.raw("if smbios --type 1 --get-string 7 --set serial; then")
	s.raw(`  configfile "($root)` + query + `&serial=$serial"`)
	s.raw("fi")
	s.raw(`configfile "($root)` + query + `"`)
	s.raw("echo 'imgserve: no answer, booting the disk'")
	s.raw("sleep 5")
	s.localBoot()
	return s.text()
}

// grubScript is the grub.cfg for one boot. Kernel and initramfs come by HTTP where this GRUB can, else from where it came
// from itself.
func grubScript(q question, a answer) string {
	s := &grub{}
	s.echo(headline(q, a))
	s.echo(a.verdict.Reason)
	if a.verdict.Action == plan.LocalBoot {
		s.localBoot()
		return s.text()
	}
	args := arguments(q, a)
	kernel, initramfs := bootFiles(q, a)
	if s.err = checkWords(append(args, kernel, initramfs)); s.err != nil {
		return s.text()
	}
	kernel, initramfs = strings.TrimPrefix(kernel, q.base), strings.TrimPrefix(initramfs, q.base)
	efi := "" // EL7's GRUB starts kernels of EFI by commands of their own
	if a.release.LinuxEFI {
		efi = "efi"
	}
	linux := func(device string) string { return "linux" + efi + ` "` + device + kernel + `" ` + s.line(args...) }
	initrd := func(device string) string { return "initrd" + efi + ` "` + device + initramfs + `"` }
	if host, http := grubHost(q.base); http {
		s.raw("if " + linux("(http,"+host+")") + "; then")
		s.raw("  " + initrd("(http,"+host+")"))
		s.raw("else")
		s.raw("  " + linux("($root)"))
		s.raw("  " + initrd("($root)"))
		s.raw("fi")
	} else {
		s.raw(linux("($root)"))
		s.raw(initrd("($root)"))
	}
	s.raw("boot")
	s.raw("echo 'imgserve: that failed, booting the disk'")
	s.raw("sleep 5")
	s.localBoot()
	return s.text()
}

// TFTP answers for the names under which GRUB looks for its configuration by TFTP: grub.cfg in whatever directory, with a
// query as IPXE and GRUB take it, and grub.cfg-01-<mac>. For every other name ok is false. Base is the server's address
// for everything else, where Options.URL is empty.
func (s *Server) TFTP(ctx context.Context, name, base string) (script []byte, ok bool) {
	file, query, _ := strings.Cut(name, "?")
	file = path.Base("/" + file)
	v, err := url.ParseQuery(query)
	if err != nil {
		v = url.Values{}
	}
	if mac, found := strings.CutPrefix(file, "grub.cfg-01-"); found {
		v.Set("mac", mac)
	} else if file != "grub.cfg" {
		return nil, false
	}
	if s.o.URL != "" {
		base = s.o.URL
	}
	if CheckURL(base) != nil {
		return nil, false
	}
	return []byte(s.grub(ctx, ask("GRUB", base, v))), true
}
