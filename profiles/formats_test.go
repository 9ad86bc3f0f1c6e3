package profiles

import (
	"strings"
	"testing"

	"imgbuild/profiles/strict"
)

func TestValuesAreAcceptedAndRefused(t *testing.T) {
	sha512 := "kXiSdHaspJmDWeF.g0spkFoNsCASHWf9YkuqNLOioGm/zwxcCDCtfCadOexhsl6R6prWzu7BA9.pT.H9lVBtr0"
	tests := map[string]struct{ good, bad []string }{
		"image-name":    {[]string{"a", "web-1.2"}, []string{"", "-a", "a-", "A", "a/b", "..", strings.Repeat("a", 65)}},
		"image-version": {[]string{"1", "2025.11-2", "1.0+x~y"}, []string{"", ".", "..", "-1", "a b", "a/b"}},
		"release":       {[]string{"7", "9.6", "7.9.2009", "10-stream"}, []string{"", "stream", "9.", "100", "9-"}},
		"repository-id": {[]string{"baseos", "a:b", "centos.9_x"}, []string{"", "a b", "-a", "a/b"}},
		"url":           {[]string{"https://h/p", "http://[::1]:8080/", "ftp://h", "file:///srv/x", "https://h/$basearch/?a=b&c=d"}, []string{"", "h", "//h", "https://", "file://srv", "file:/srv", "https://h/#f", "https://h/a b", "HTTPS://h/", "https://h/%zz"}},
		"fingerprint":   {[]string{strings.Repeat("aB", 20), strings.Repeat("a ", 64), " 99DB 70FA E1D7 CE22 7FB6 4882 05B5 55B3 8483 C65D"}, []string{"", "24C6A8A7F4A80EB5", strings.Repeat("g", 40), strings.Repeat("a", 41)}},
		"package":       {[]string{"kernel", "@core", "@^minimal-environment", "@nodejs:20"[:7], "kernel-*", "perl(Foo::Bar)", "/usr/bin/vim", "glibc.i686", "a-1:2.3-4.el9", "@Development Tools", "[ab]c"}, []string{"", "-a", "@", "@-x", "a.rpm", "*", "a;b", "$x", "a\nb"}},
		"package-glob":  {[]string{"a*", "?b", "[ab]c"}, []string{"", "@core", "-a", "a b"}},
		"language":      {[]string{"en", "en_US", "de_DE.UTF-8", "C", "ca_ES@valencia"}, []string{"", "English", "en-US"}},
		"module-stream": {[]string{"nodejs:20", "perl:5.32/minimal"}, []string{"", "nodejs", ":20", "a:b:c"}},
		"user-name":     {[]string{"bob", "_apt", "a-b_c", "svc$"}, []string{"", "Bob", "1a", "a.b", "a b", "-a", strings.Repeat("a", 33)}},
		"crypt": {
			[]string{"$6$salt$" + sha512, "$6$rounds=10000$salt$" + sha512, "$5$salt$" + sha512[:43], "$y$j9T$abcdefghijklmnopqrstu.$" + sha512[:43], "$gy$j9T$abc$" + sha512[:43], "$2b$12$" + sha512[:53], "$7$CU..../....abc$" + sha512[:43]},
			[]string{"", "secret", "!", "*", "!!", "$6$salt$short", "$1$abcdefgh$AbCdEfGhIjKlMnOpQrStU0", "ab01FAX.bQRSU", "$6$salt$" + sha512 + "x", "$6$salt$" + sha512[:43] + "\n", "$6$sa:lt$" + sha512},
		},
		"absolute":          {[]string{"/", "/bin/bash", "/home/a b"}, []string{"", "bin", "/a//b", "/a/", "/a/../b", "/a:b"}},
		"image-path":        {[]string{"/etc/a", "/etc/a:b", "/device"}, []string{"", "/", "etc", "/etc/", "/etc/../a", "/dev", "/dev/x", "/proc/1", "/run/a", "/sys"}},
		"image-glob":        {[]string{"usr/share/doc", "var/*"}, []string{"", "/var", "../a", "a/../b", "a[b"}},
		"unit":              {[]string{"sshd", "sshd.service", "fstrim.timer", "getty@tty1.service", "getty@", "serial-getty@ttyS0", "dbus-org.bluez", `a\x2db.mount`}, []string{"", "sshd.sevice", "a b", "a/b", "x.tmier"}},
		"target":            {[]string{"multi-user.target"}, []string{"", "multi-user", "sshd.service"}},
		"timezone":          {[]string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"}, []string{"", "Local", "Europe/Berln", "../etc/passwd", "CEST5", "/etc/localtime"}},
		"locale":            {[]string{"C", "C.UTF-8", "en_US.UTF-8", "ca_ES.UTF-8@valencia", "POSIX"}, []string{"", "english", "en", "en_US UTF-8"}},
		"hostname":          {[]string{"a", "a-b.example.org", "1a"}, []string{"", "-a", "a-", "a_b", "a..b", ".a", "a.", strings.Repeat("a", 64) + ".b"}},
		"sysctl":            {[]string{"vm.swappiness", "net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/ip_forward", "net.bridge.bridge-nf-call-iptables"}, []string{"", "vm", "vm.", "vm swappiness", "vm.x=1"}},
		"port":              {[]string{"1/tcp", "65535/udp", "10-20/sctp"}, []string{"", "80", "0/tcp", "65536/tcp", "20-10/tcp", "80/icmp", "80/TCP"}},
		"kernel-arg":        {[]string{"quiet", "a=b", `dyndbg="file a +p"`, "crashkernel=1G-4G:192M,4G-:256M"}, []string{"", "a b", "root=x", "ro", "rw", "initrd=x", "imgbuild.disk=a", `a="b`, "a\nb"}},
		"serial":            {[]string{"ttyS0", "ttyS1,115200n8", "ttyAMA0,115200", "hvc0", "ttyS0,9600e7r"}, []string{"", "com1", "ttyS", "/dev/ttyS0", "ttyS0,", "ttyS0 115200"}},
		"module":            {[]string{"br_netfilter", "8021q", "snd-hda-intel"}, []string{"", "a.ko", "a.ko.xz", "kernel/a", "a b"}},
		"model-glob":        {[]string{"Dell Inc. PowerEdge R6?0*", "*", "IBM System x3650 M4 -[0-9]*-"}, []string{"", " ", " Dell", "Dell ", "a\nb", "HPE [a", `HPE \`, strings.Repeat("a", 257)}},
		"mode":              {[]string{"0644", "644", "1777", "04755", "0000"}, []string{"", "64", "0888", "0o644", "u+x", "77777"}},
		"layout-size":       {[]string{"256MiB", "1GiB", "30%", "100%", "rest"}, []string{"", "1GB", "1G", "1024", "1.5GiB", "0GiB", "-1GiB", "0%", "101%", "all"}},
		"layout-fixed-size": {[]string{"1GiB"}, []string{"", "30%", "rest", "512KiB"}},
		"layout-lvm-name":   {[]string{"system", "vg.0+1"}, []string{"", "-a", "a/b", "a b"}},
		"block-size":        {[]string{"4KiB", "1MiB", "1024KiB"}, []string{"", "2KiB", "3KiB", "2MiB", "128K"}},
		"mount-options":     {[]string{"defaults", "noatime,inode64", "x-systemd.device-timeout=5"}, []string{"", "a b", "a,,b", ",a"}},
		"sudoers-name":      {[]string{"ops", "10_ops"}, []string{"", "a.conf", "a~", "a/b"}},
		"template":          {[]string{"", "{{.Profile.Name}}", `{{printf "%q" .Vars.x}}`}, []string{"{{", "{{unknown .Vars.x}}", "{{if}}", "{{end}}"}},
		"link-target":       {[]string{"../a", "/a"}, []string{"", "a\nb"}},
		"gecos":             {[]string{"", "Ä b"}, []string{"a:b", "a\nb"}},
		"script-name":       {[]string{"a", "01 tune it"}, []string{"", "../a", "-a"}},
	}
	c := strict.NewForms(formats())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, ok := c.Formats[name]; !ok {
				t.Fatal("there is no such format")
			}
			for _, s := range test.good {
				if p := c.Text(name, s); p != "" {
					t.Errorf("%q %s", s, p)
				}
			}
			for _, s := range test.bad {
				if p := c.Text(name, s); p == "" {
					t.Errorf("%q is accepted", s)
				}
			}
		})
	}
}

func TestSizesAreRead(t *testing.T) {
	for s, want := range map[string]int64{"1KiB": 1 << 10, "512MiB": 512 << 20, "3GiB": 3 << 30, "2TiB": 2 << 40} {
		if n, err := ParseSize(s); err != nil || n != want {
			t.Errorf("ParseSize(%s) is %d, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "MiB", "1", "1 MiB", "9223372036854775807TiB", "-5MiB", "0x1MiB"} {
		if n, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) is %d", s, n)
		}
	}
}

func TestValuesAreBroughtIntoOneForm(t *testing.T) {
	for got, want := range map[string]string{
		normalUnit("sshd"): "sshd.service", normalUnit("a.timer"): "a.timer", normalUnit("getty@tty1"): "getty@tty1.service", normalUnit("dbus-org.bluez"): "dbus-org.bluez.service",
		normalMode("644"): "0644", normalMode("0644"): "0644", normalMode("04755"): "4755", normalMode("0000"): "0000", normalMode("1777"): "1777",
		flatFingerprint(" ab cd"): "ABCD",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
