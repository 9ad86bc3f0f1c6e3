package config

import _ "embed"

// torrentSource is the text of this file, whose comments are descriptions too.
//
//go:embed torrent.go
var torrentSource string

// Torrent is BitTorrent's side of the server.
type Torrent struct {
	// Enabled says whether the server gives root file systems away by BitTorrent itself. Default: true where transport is torrent.
	Enabled *bool `yaml:"enabled,omitempty"`
	// Listen is the address and port where it takes BitTorrent's connections.
	Listen string `yaml:"listen,omitempty" check:"listen" default:":6881"`
}

func (t *Torrent) fillDefaults(transport string) {
	fillBool(&t.Enabled, transport == "torrent")
	fill(&t.Listen, ":6881")
}

func (x *checker) torrent() {
	t := x.c.Torrent
	if !*t.Enabled {
		return
	}
	if samePort(t.Listen, x.c.Listen) {
		x.at([]string{"torrent", "listen"}, "is %s, where HTTP is (listen)", t.Listen)
	}
	if x.c.TLS.On() && samePort(t.Listen, x.c.TLS.Listen) {
		x.at([]string{"torrent", "listen"}, "is %s, where HTTPS is (tls.listen)", t.Listen)
	}
}
