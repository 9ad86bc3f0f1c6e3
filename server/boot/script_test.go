package boot

import (
	"strings"
	"testing"

	"imgbuild/image/plan"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// command is one command as iPXE runs it, with the word that ends it: "", "||", "&&" or ";".
type command struct {
	argv []string
	end  string
}

// parse takes a script apart as iPXE does (image/script.c and core/exec.c): lines, joined by backslashes; words between
// blanks; commands that end at ||, &&, ; and at a comment. It fails where a setting would be expanded in a word that is not
// among those that this package writes.
func parse(t *testing.T, script string) []command {
	t.Helper()
	if !strings.HasPrefix(script, "#!ipxe\n") {
		t.Fatalf("iPXE takes this for no script: %q", script)
	}
	own := []string{"${platform}", "${serial:uristring}", "${smbios/3.7.0:uristring}", "${smbios/3.5.1:uint8}", "${smbios/2.7.0:uristring}", "${uuid}",
		"${netX/mac:hexhyp}", "${product:uristring}", "${buildarch}"}
	var all []command
	rest := script
	for rest != "" {
		line := ""
		for {
			var part string
			part, rest, _ = strings.Cut(rest, "\n")
			part = strings.TrimSuffix(part, "\r")
			if !strings.HasSuffix(part, `\`) {
				line += part
				break
			}
			line += strings.TrimSuffix(part, `\`)
		}
		if strings.HasPrefix(strings.TrimLeft(line, " \t\r\v\f"), ":") {
			t.Fatalf("a label: %q", line)
		}
		var now command
		for _, w := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\v\f", r) }) {
			if strings.HasPrefix(w, "#") {
				break
			}
			if w == "||" || w == "&&" || w == ";" {
				now.end = w
				all = append(all, now)
				now = command{}
				continue
			}
			left := w
			for _, s := range own {
				left = strings.ReplaceAll(left, s, "")
			}
			if strings.Contains(left, "${") {
				t.Fatalf("iPXE would expand %q", w)
			}
			now.argv = append(now.argv, w)
		}
		if now.argv != nil {
			all = append(all, now)
		}
	}
	return all
}

// allowed are all the commands that may ever be in a script.
func allowed(c string) bool {
	switch c {
	case "echo", "kernel", "initrd", "boot", "sleep", "chain", "exit", "sanboot", "iseq", "imgfree":
		return true
	}
	return false
}

func FuzzNoValueBreaksOutOfAScript(f *testing.F) {
	f.Add("S1", "db1.example.org", "a reason", "aa:bb:cc:dd:ee:ff", "pcbios", "ttyS1,115200n8", "http://10.0.0.1:8080", "X", "x86_64")
	f.Add("${x}", "a\nboot", "a || boot && exit ; # \\", "aa:bb", "efi\nboot", "ttyS0 init=/bin/sh", "http://x/${y}", "a&b=c", "arm64")
	f.Add("#S", "-n", ":label", "", "", "\\", "http://x\nboot", "\n", "")
	f.Fuzz(func(t *testing.T, serial, name, reason, mac, platform, console, base, product, arch string) {
		v := map[string][]string{"serial": {serial}, "mac": {mac}, "platform": {platform}, "product": {product}, "arch": {arch}}
		q := ask("iPXE", base, v)
		if CheckURL(base) != nil {
			q.base = "http://10.0.0.1"
		}
		for _, action := range []plan.Action{plan.Install, plan.Preview, plan.Inspect, plan.LocalBoot} {
			a := answer{verdict: gate.Verdict{Action: action, Reason: reason}, host: &registry.Host{SN: serial, Hostname: name, SerialConsole: console},
				release: &releases.Release{Name: "web", Version: "1", KernelArgs: []string{"console=tty0", "console=" + console}}, nonce: newNonce(), key: "KEY"}
			script := ipxeScript(q, a)
			commands := parse(t, script)
			var loads []command
			for _, c := range commands {
				if len(c.argv) > 0 && !allowed(c.argv[0]) {
					t.Fatalf("a command %q in\n%s", c.argv, script)
				}
				if len(c.argv) > 0 && (c.argv[0] == "kernel" || c.argv[0] == "initrd" || c.argv[0] == "boot") {
					loads = append(loads, c)
				}
			}
			if action == plan.LocalBoot {
				if len(loads) != 0 {
					t.Fatalf("a local boot loads %v", loads)
				}
				continue
			}
			if len(loads) != 3 {
				t.Fatalf("%d commands load and boot in\n%s", len(loads), script)
			}
			want := append([]string{"kernel", q.base + "/images/web/1/vmlinuz", "initrd=initramfs.img"}, arguments(q, a)...)
			if strings.Join(loads[0].argv, "\n") != strings.Join(want, "\n") || loads[0].end != "&&" || loads[1].end != "&&" {
				t.Fatalf("got  %q\nwant %q", loads[0].argv, want)
			}
			for _, w := range loads[0].argv[3:] {
				if !strings.HasPrefix(w, "imgbuild.") && !strings.HasPrefix(w, "BOOTIF=01-") && !strings.HasPrefix(w, "console=") {
					t.Fatalf("an argument %q", w)
				}
			}
			grubCheck(t, grubScript(q, a), action)
		}
	})
}

// grubCheck takes a GRUB script apart: words in single or double quotes or bare, ; and newlines between commands.
func grubCheck(t *testing.T, script string, action plan.Action) {
	t.Helper()
	script, local := strings.CutSuffix(script, grubLocal)
	if !local {
		t.Fatalf("the script does not end with the disk:\n%s", script)
	}
	for _, line := range grubWords(t, script) {
		for len(line) > 0 && (line[0] == "if" || line[0] == "then" || line[0] == "else") {
			line = line[1:]
		}
		if len(line) == 0 {
			continue
		}
		switch line[0] {
		case "echo", "exit", "sleep", "boot", "fi":
		case "linux", "initrd":
			if action == plan.LocalBoot || !strings.HasPrefix(line[1], "($root)/images/") && !strings.HasPrefix(line[1], "(http,") {
				t.Fatalf("%q in\n%s", line, script)
			}
		default:
			t.Fatalf("a command %q in\n%s", line, script)
		}
	}
}

func grubWords(t *testing.T, script string) [][]string {
	t.Helper()
	var all [][]string
	var line []string
	word, in, quote := "", false, byte(0)
	end := func() {
		if in {
			line = append(line, word)
		}
		word, in = "", false
	}
	for i := 0; i < len(script); i++ {
		c := script[i]
		switch {
		case quote == 0 && (c == '\n' || c == ';'):
			end()
			all, line = append(all, line), nil
		case c == '\n':
			t.Fatalf("a line break in quotes in\n%s", script)
		case quote == 0 && c == ' ':
			end()
		case quote == 0 && c == '\\':
			i++
			word, in = word+string(script[i]), true
		case quote == 0 && (c == '\'' || c == '"'):
			quote, in = c, true
		case c == quote:
			quote = 0
		case quote == '"' && (c == '$' && !strings.HasPrefix(script[i:], "$root)") || c == '\\'), quote == 0 && c == '$':
			t.Fatalf("GRUB would expand %q in\n%s", script[i:], script)
		default:
			word, in = word+string(c), true
		}
	}
	if quote != 0 {
		t.Fatalf("a quote does not end in\n%s", script)
	}
	end()
	return append(all, line)
}

func TestWordsThatIPXEWouldTakeApartAreRefused(t *testing.T) {
	for _, w := range []string{"", " ", "a b", "a\tb", "a\n", "${x}", "a${", "||", "&&", ";", "#", "#x", ":x", "a\\", "\x00", "ä", "\x7f"} {
		if ipxeWord(w) == nil {
			t.Errorf("%q is taken", w)
		}
	}
	for _, w := range []string{"a", "a|b", "a;", "x#y", "$", "$5", "http://[::1]/a?b=c&d", "'"} {
		if err := ipxeWord(w); err != nil {
			t.Errorf("%q: %v", w, err)
		}
	}
}

func TestConsolesEndWithTheHostsOwn(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		serial string
		want   string
	}{
		{"the release's", []string{"quiet", "console=tty0", "console=ttyS0,115200n8"}, "", "tty0 ttyS0,115200n8"},
		{"the host's in place of the release's", []string{"console=tty0", "console=ttyS0,115200n8"}, "ttyS1,9600", "tty0 ttyS1,9600"},
		{"the host's is the release's", []string{"console=ttyS0,115200n8", "console=tty0"}, "ttyS0,115200n8", "tty0 ttyS0,115200n8"},
		{"a release without any", nil, "", "tty0"},
		{"a release without any, and the host's", nil, "ttyAMA0", "tty0 ttyAMA0"},
		{"only a serial one", []string{"console=hvc0"}, "", "hvc0"},
		{"twice the same", []string{"console=tty0", "console=tty0"}, "", "tty0"},
		{"what is no word", []string{"console=tty0 init=/bin/sh"}, "tty\n", "tty0"},
	} {
		if got := strings.Join(consoles(tt.args, tt.serial), " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
