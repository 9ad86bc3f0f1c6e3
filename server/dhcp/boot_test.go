package dhcp

import (
	"strings"
	"testing"

	"imgbuild/server/registry"
)

// loads writes what a reply tells firmware: field, option 67, class, next server.
func loads(p *Packet) string {
	if p == nil {
		return "nothing"
	}
	s := "file " + p.File
	if b := p.Options.Get(optBootFile); b != nil {
		s += ", option " + string(b)
	}
	if c := p.text(optClass); c != "" {
		s += ", class " + c
	}
	if p.SIAddr.IsValid() {
		s += ", from " + p.SIAddr.String()
	}
	return s
}

func TestEachFirmwareIsToldItsBootLoader(t *testing.T) {
	pxe := func(arch string) []string {
		return []string{`60="PXEClient:Arch:0` + arch + `:UNDI:003016"`, "93=" + arch}
	}
	http := func(arch string) []string {
		return []string{`60="HTTPClient:Arch:0` + arch + `:UNDI:003001"`, "93=" + arch}
	}
	ipxe := append(pxe("0007"), `77="iPXE"`, "175=b10100")
	const script = "http://10.1.0.1:8080/boot/ipxe"
	for name, c := range map[string]struct {
		opts   []string
		change func(*Boot)
		// full and proxy are what the two kinds of server say.
		full, proxy string
	}{
		"BIOS":                           {opts: pxe("0000"), full: "file undionly.kpxe, class PXEClient, from 10.1.0.1", proxy: "file undionly.kpxe, class PXEClient, from 10.1.0.1"},
		"BIOS that wants options 66, 67": {opts: append(pxe("0000"), "55=014243"), full: "file undionly.kpxe, option undionly.kpxe, class PXEClient, from 10.1.0.1", proxy: "file undionly.kpxe, option undionly.kpxe, class PXEClient, from 10.1.0.1"},
		"BIOS that says so in its class": {opts: []string{`60="PXEClient:Arch:00000:UNDI:002001"`}, full: "file undionly.kpxe, class PXEClient, from 10.1.0.1", proxy: "file undionly.kpxe, class PXEClient, from 10.1.0.1"},
		"BIOS that says nothing":         {opts: []string{`60="PXEClient"`}, full: "file undionly.kpxe, class PXEClient, from 10.1.0.1", proxy: "file undionly.kpxe, class PXEClient, from 10.1.0.1"},
		"UEFI x64 as 7":                  {opts: pxe("0007"), full: "file ipxe.efi, class PXEClient, from 10.1.0.1", proxy: "file ipxe.efi, class PXEClient, from 10.1.0.1"},
		"UEFI x64 as 9":                  {opts: pxe("0009"), full: "file ipxe.efi, class PXEClient, from 10.1.0.1", proxy: "file ipxe.efi, class PXEClient, from 10.1.0.1"},
		"UEFI arm64":                     {opts: pxe("000b"), full: "file ipxe-arm64.efi, class PXEClient, from 10.1.0.1", proxy: "file ipxe-arm64.efi, class PXEClient, from 10.1.0.1"},
		"UEFI with Secure Boot gets shim": {opts: pxe("0007"), change: func(b *Boot) { b.Shims = map[Platform]string{EFI64: "shimx64.efi"} },
			full: "file shimx64.efi, class PXEClient, from 10.1.0.1", proxy: "file shimx64.efi, class PXEClient, from 10.1.0.1"},
		"BIOS gets no shim": {opts: pxe("0000"), change: func(b *Boot) { b.Shims = map[Platform]string{EFI64: "shimx64.efi"} },
			full: "file undionly.kpxe, class PXEClient, from 10.1.0.1", proxy: "file undionly.kpxe, class PXEClient, from 10.1.0.1"},
		"another TFTP server": {opts: pxe("0007"), change: func(b *Boot) { b.TFTP = ip("10.1.0.99") },
			full: "file ipxe.efi, class PXEClient, from 10.1.0.99", proxy: "file ipxe.efi, class PXEClient, from 10.1.0.99"},
		"UEFI HTTP boot x64": {opts: http("0010"), full: "file http://10.1.0.1:8080/boot/loader/ipxe.efi, option http://10.1.0.1:8080/boot/loader/ipxe.efi, class HTTPClient, from 10.1.0.1",
			proxy: "file http://10.1.0.1:8080/boot/loader/ipxe.efi, option http://10.1.0.1:8080/boot/loader/ipxe.efi, class HTTPClient, from 10.1.0.1"},
		"UEFI HTTP boot arm64": {opts: http("0013"), full: "file http://10.1.0.1:8080/boot/loader/ipxe-arm64.efi, option http://10.1.0.1:8080/boot/loader/ipxe-arm64.efi, class HTTPClient, from 10.1.0.1",
			proxy: "file http://10.1.0.1:8080/boot/loader/ipxe-arm64.efi, option http://10.1.0.1:8080/boot/loader/ipxe-arm64.efi, class HTTPClient, from 10.1.0.1"},
		"iPXE": {opts: ipxe, full: "file " + script + ", option " + script + ", from 10.1.0.1", proxy: "file " + script + ", option " + script + ", class PXEClient, from 10.1.0.1"},
		"iPXE whose user class is a list (RFC 3004)": {opts: append(pxe("0000"), "77=0469505845"), full: "file " + script + ", option " + script + ", from 10.1.0.1", proxy: "file " + script + ", option " + script + ", class PXEClient, from 10.1.0.1"},
		"iPXE whose user class is another":           {opts: append(pxe("0000"), `77="rack 7"`, "175=b10100"), full: "file " + script + ", option " + script + ", from 10.1.0.1", proxy: "file " + script + ", option " + script + ", class PXEClient, from 10.1.0.1"},
		"gPXE":                                       {opts: append(pxe("0000"), `77="gPXE"`), full: "file " + script + ", option " + script + ", from 10.1.0.1", proxy: "file " + script + ", option " + script + ", class PXEClient, from 10.1.0.1"},
		"iPXE, with a server by name":                {opts: ipxe, change: func(b *Boot) { b.URL = "https://boot.example.org/" }, full: "file https://boot.example.org/boot/ipxe, option https://boot.example.org/boot/ipxe, from 10.1.0.1", proxy: "file https://boot.example.org/boot/ipxe, option https://boot.example.org/boot/ipxe, class PXEClient, from 10.1.0.1"},
		"firmware of another kind":                   {opts: pxe("0002"), full: "file ", proxy: "nothing"},
		"an operating system":                        {opts: []string{`60="MSFT 5.0"`}, full: "file ", proxy: "nothing"},
		"our installer":                              {opts: []string{`60="imgbuild"`}, full: "file ", proxy: "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			for mode, want := range map[Mode]string{Full: c.full, Proxy: c.proxy} {
				w := newWorld(t, func(cfg *Config) {
					cfg.Mode = mode
					cfg.Boot.URL = "http://:8080"
					if mode == Proxy {
						cfg.Subnets = nil
					}
					if c.change != nil {
						c.change(&cfg.Boot)
					}
				})
				a := w.send(message(discover, macA, c.opts...))
				if got := loads(a.reply); got != want {
					t.Errorf("%s: %s\nwant %s", mode, got, want)
				}
				if a.reply != nil && mode == Proxy && (a.reply.YIAddr.IsValid() || a.reply.Options.Has(optLease) || a.way != broadcast) {
					t.Errorf("a proxyDHCP gives an address, or to one only: %s", show(a))
				}
			}
		})
	}
}

func TestNoChainEndsWhereItBegan(t *testing.T) {
	// Whatever the firmware, what it loads asks as iPXE, and iPXE is never told to load iPXE.
	for _, mode := range []Mode{Full, Proxy} {
		for _, arch := range []string{"0000", "0006", "0007", "0009", "000b", "0010", "0013"} {
			for _, class := range []string{"PXEClient", "HTTPClient"} {
				for _, port := range []string{"255.255.255.255", "4011"} {
					w := newWorld(t, func(c *Config) {
						c.Mode = mode
						if mode == Proxy {
							c.Subnets = nil
						}
					})
					a := w.send(message(discover, macA, `60="`+class+`:Arch:0`+arch+`"`, "93="+arch, `77="iPXE"`, "55=42"+"43"), port)
					if a.reply == nil || a.reply.bootFile() != "http://10.1.0.1/boot/ipxe" {
						t.Errorf("%s, %s %s on %s: %s", mode, class, arch, port, loads(a.reply))
					}
				}
			}
		}
	}
}

func TestAProxyAnswersFirmwareOnly(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Mode, c.Subnets = Proxy, nil }, registry.Host{SN: "A", IP: "10.1.0.7", MACs: []string{macA}})
	uefi := []string{`60="PXEClient:Arch:00007:UNDI:003016"`, "93=0007", "97=0044454c4c3500104a8051b4c04f4a3132"}
	a := w.send(message(discover, macA, uefi...))
	if show(a) != "OFFER broadcast to 255.255.255.255:68" {
		t.Errorf("got %s: %s", show(a), a.why)
	}
	if got := colons(a.reply.Options.Get(optVendor)); got != "06:01:08:ff" {
		t.Errorf("option 43 is %s: the firmware may ask for a menu or a boot server", got)
	}
	if got := colons(a.reply.Options.Get(optUUID)); got != "00:44:45:4c:4c:35:00:10:4a:80:51:b4:c0:4f:4a:31:32" {
		t.Errorf("the UUID is not given back: %s", got)
	}
	a = w.send(message(discover, macA, append(uefi, "relay=10.2.0.1")...))
	if show(a) != "OFFER to 10.2.0.1:67" {
		t.Errorf("through a relay: %s", show(a))
	}
	for _, kind := range []byte{request, inform} {
		a = w.send(message(kind, macA, append(uefi, "ciaddr=10.1.0.150")...), "4011")
		if show(a) != "ACK to 10.1.0.150:4011" || a.reply.File != "ipxe.efi" {
			t.Errorf("%s on port 4011: %s, %s", typeName(kind), show(a), loads(a.reply))
		}
	}
	for name, m := range map[string]*Packet{
		"a request for an address":       message(request, macA, append(uefi, "50=10.1.0.150", "54=10.1.0.2")...),
		"an operating system":            message(discover, macA),
		"iPXE that does not say PXE":     message(discover, macA, `77="iPXE"`),
		"a release":                      message(release, macA, append(uefi, "ciaddr=10.1.0.150")...),
		"firmware that it has no NBP of": message(discover, macA, `60="PXEClient:Arch:00010"`, "93=000a"),
	} {
		if a := w.send(m); a.reply != nil || len(a.put) > 0 {
			t.Errorf("%s is answered: %s", name, show(a))
		}
	}
}

func TestAFullServerAnswersPort4011Too(t *testing.T) {
	w := newWorld(t, nil)
	a := w.send(message(request, macA, pxe0, "ciaddr=10.1.0.150"), "4011")
	if show(a) != "ACK to 10.1.0.150:4011" || a.reply.File != "undionly.kpxe" || len(a.put) > 0 {
		t.Errorf("%s, %s", show(a), loads(a.reply))
	}
}

func TestIPXEDoesNotWaitForAProxyThatIsNotThere(t *testing.T) {
	full := newWorld(t, nil).send(message(discover, macA, pxe0, `77="iPXE"`))
	if got := colons(full.reply.Options.Get(optIPXE)); got != "b0:01:01" {
		t.Errorf("option 175 is %s", got)
	}
	proxy := newWorld(t, func(c *Config) { c.Mode, c.Subnets = Proxy, nil }).send(message(discover, macA, pxe0, `77="iPXE"`))
	if proxy.reply.Options.Has(optIPXE) {
		t.Error("a proxyDHCP says that there is no proxyDHCP")
	}
}

func TestARelayedClientIsToldAnAddressOfOursAndNotTheRelays(t *testing.T) {
	w := newWorld(t, nil)
	a := w.send(message(discover, macA, pxe0, `77="iPXE"`, "relay=10.2.0.1", "82=0b040a020001"))
	if a.reply.SIAddr != ip("10.1.0.1") || !strings.HasPrefix(a.reply.bootFile(), "http://10.1.0.1/") || a.reply.addr(optServer) != ip("10.2.0.1") {
		t.Errorf("%s, server %s", loads(a.reply), a.reply.addr(optServer))
	}
}
