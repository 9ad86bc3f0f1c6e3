package boot

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/image/plan"
)

// tries is how often one boot asks for its script when what the script names cannot be loaded.
const tries = 5

// ipxe is a script of iPXE's. iPXE knows no quotes: it takes a line apart at blanks, stops a command at the words ||, &&
// and ;, and at a word that begins with #, joins lines that end with a backslash, and then replaces ${…} in each word. So a
// value is one word without any of these, or it is not written at all.
type ipxe struct {
	b   strings.Builder
	err error
}

func newIPXE() *ipxe {
	s := &ipxe{}
	s.raw("#!ipxe")
	return s
}

// raw writes a line that this package's authors have written.
func (s *ipxe) raw(line string) { s.b.WriteString(line + "\n") }

// command writes commands in one line, each to be run if the one before it succeeded, and then what is to follow in the
// same line, which is raw.
func (s *ipxe) command(then string, commands ...[]string) {
	var line []string
	for _, words := range commands {
		for _, w := range words {
			if err := ipxeWord(w); err != nil && s.err == nil {
				s.err = err
			}
		}
		line = append(line, strings.Join(words, " "))
	}
	s.raw(strings.TrimSuffix(strings.Join(line, " && ")+" "+then, " "))
}

// ipxeWord says why iPXE would not take a word as it is.
func ipxeWord(w string) error {
	switch {
	case w == "" || strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("write an iPXE script: %q is not one word of printable ASCII", w)
	case strings.Contains(w, `\`) || strings.Contains(w, "${") || strings.HasPrefix(w, "#") || strings.HasPrefix(w, ":"):
		return fmt.Errorf("write an iPXE script: iPXE would take %q for something else than it is", w)
	case w == "||" || w == "&&" || w == ";":
		return fmt.Errorf("write an iPXE script: %q ends a command", w)
	}
	return nil
}

// echo shows a text. What iPXE would not show as it is, is shown as something like it.
func (s *ipxe) echo(text string) { s.command("", append([]string{"echo"}, ipxeText(text)...)) }

// ipxeText returns the words of a text for people.
func ipxeText(text string) []string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\\':
			return '/'
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, shorten(text))
	words := strings.Fields(strings.ReplaceAll(text, "${", "$("))
	for i, w := range words {
		if ipxeWord(w) != nil || i == 0 && strings.HasPrefix(w, "-") {
			words[i] = "'" + w
		}
	}
	return words
}

// shorten cuts a text that nobody would read on a console.
func shorten(text string) string {
	const most = 400
	if len(text) <= most {
		return text
	}
	return text[:most] + " ..."
}

// text returns the script. One with a word that could not be written becomes one that boots the disk.
func (s *ipxe) text(platform string) string {
	if s.err == nil {
		return s.b.String()
	}
	safe := newIPXE()
	safe.echo("imgserve: this machine boots its own disk")
	safe.echo("the server could not write its script: " + s.err.Error())
	safe.localBoot(platform)
	return safe.b.String()
}

// localBoot leaves iPXE for the disk. On BIOS iPXE starts the first disk itself. On EFI it returns to the firmware with a
// failure, which goes on to the next boot option; after a success many firmwares show their menu.
func (s *ipxe) localBoot(platform string) {
	switch platform {
	case "pcbios":
		s.raw("sanboot --no-describe --drive 0x80 || exit 1")
	case "efi":
		s.raw("exit 1")
	default:
		s.raw("iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 || exit 1")
	}
}

// ipxeChain is the script for an iPXE that has told nothing yet: it asks again with what it knows. The numbers are SMBIOS's
// type, offset and length. There is nothing in it that an iPXE of 2019 does not know.
func ipxeChain(base string) string {
	s := newIPXE()
	s.echo("imgserve: asking what this machine may do")
	query := "?serial=${serial:uristring}&chassis=${smbios/3.7.0:uristring}&ctype=${smbios/3.5.1:uint8}&board=${smbios/2.7.0:uristring}" +
		"&uuid=${uuid}&mac=${netX/mac:hexhyp}&product=${product:uristring}&platform=${platform}&arch=${buildarch}"
	if err := ipxeWord(base); err != nil {
		s.err = err
	}
	for range 3 { // what follows a chain is run only if it failed
		s.raw("chain --replace " + base + IPXEPath + query + " ||")
		s.raw("echo imgserve: no answer, asking again in 5 seconds")
		s.raw("sleep 5")
	}
	s.raw("echo imgserve: no answer, booting the disk")
	s.localBoot("")
	return s.text("")
}

// ipxeScript is the script for one boot.
func ipxeScript(q question, a answer) string {
	s := newIPXE()
	s.echo(headline(q, a))
	s.echo(a.verdict.Reason)
	if a.verdict.Action == plan.LocalBoot {
		s.localBoot(q.platform)
		return s.text(q.platform)
	}
	if q.try > 1 {
		s.raw("imgfree") // what the last try has loaded: a BIOS's kernel would get two initramfs
	}
	kernel, initramfs := bootFiles(q, a)
	args := append([]string{"initrd=" + image.InitramfsFile}, arguments(q, a)...)
	s.err = checkWords(append(args, kernel, initramfs))
	s.command("||", append([]string{"kernel", kernel}, args...), []string{"initrd", initramfs}, []string{"boot"})
	s.again(q)
	return s.text(q.platform)
}

// again asks for another script when this one could not be carried out, and boots the disk after some tries. The gate
// decides anew each time.
func (s *ipxe) again(q question) {
	if q.try >= tries {
		s.echo(fmt.Sprintf("imgserve: that failed %d times, booting the disk", tries))
		s.localBoot(q.platform)
		return
	}
	v := url.Values{}
	for _, key := range []string{"serial", "chassis", "ctype", "board", "uuid", "mac", "product", "platform", "arch"} {
		if value := q.query.Get(key); value != "" && len(value) <= 256 {
			v.Set(key, value)
		}
	}
	v.Set("try", strconv.Itoa(q.try+1))
	s.echo("imgserve: that failed, asking again in 10 seconds")
	s.raw("sleep 10")
	s.command("||", []string{"chain", "--replace", q.base + IPXEPath + "?" + v.Encode()})
	s.localBoot(q.platform)
}
